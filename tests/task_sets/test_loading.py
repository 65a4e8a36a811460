"""Task sets by name and path: what can be loaded, and what is said when it cannot."""

import json
import pickle
import subprocess
import sys

import pytest

from reagent_env import ToolUseEnv
from reagent_env.corpus import Corpus
from reagent_env.graders import grade
from reagent_env.task import Task
from reagent_env.task_sets import load_task_set, register_task_set, task_set_names
from reagent_env.task_sets.lazy import LazyTaskSet
from reagent_env.task_sets.phrasing import choose_phrasing, content_split, stable_random


def write(path, *lines):
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


def test_gsm8k_lines_are_graded_as_numbers(tmp_path):
    path = write(tmp_path / "a.jsonl", {"question": "How many?", "answer": "5 * 240\n#### 1,200"})
    (task,) = load_task_set(str(path))
    assert (task.question, task.answer, task.grader) == ("How many?", "1200", "number")
    assert grade(task, "1200 eggs") == grade(task, "$1,200.00") == 1
    assert grade(task, "1200 or 1300") == grade(task, "1201") == 0


def test_math_lines_are_graded_by_their_last_box(tmp_path):
    line = {"problem": "P?", "level": "Level 5", "type": "Algebra"}
    solution = r"First \boxed{1}, so $x = \boxed{\frac{1}{2}}$."
    (task,) = load_task_set(write(tmp_path / "a.jsonl", line | {"solution": solution}))
    assert (task.answer, task.grader) == (r"\frac{1}{2}", "math")
    assert dict(task.metadata) == {"kind": "Algebra", "level": 5}


def test_our_own_lines_keep_files_and_metadata_and_the_same_line_counts_once(tmp_path):
    own = Task("q?", "a", "exact", {"x.txt": b"\x00\xff"}, {"level": 2})
    path = write(tmp_path / "a.jsonl", own.to_json(), "", own.to_json())
    assert load_task_set(path) == [own]
    assert load_task_set(path, grader="qa")[0].grader == "qa"


def test_the_splits_of_a_file_are_disjoint_and_complete(tmp_path):
    lines = [{"question": f"q{n}", "answer": str(n)} for n in range(200)]
    path = write(tmp_path / "a.jsonl", *lines)
    parts = [load_task_set(path, split=s) for s in ("train", "validation", "test")]
    assert sorted(len(part) for part in parts)[-1] > 130
    assert sum(map(len, parts)) == len({task.id for part in parts for task in part}) == 200


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2"),
        ("[1]", "must be a JSON object, got list"),
        ({"question": "q"}, r"got the keys \['question'\]"),
        ({"question": "q", "answer": "#### many"}, "#### <number>"),
        ({"question": "", "answer": "#### 1"}, "non-empty text"),
        ({"problem": "p", "solution": r"no box"}, "must hold its answer"),
        ({"problem": "p", "solution": r"\boxed{1"}, "balanced braces"),
        ({"question": "q", "answer": "a", "grader": "qa", "colour": 1}, "colour"),
        ({"question": "q", "answer": "a", "grader": "qa", "id": "0" * 16}, "hashes to"),
        ({"question": "q", "answer": "a", "gradr": "qa"}, "did you mean 'grader'"),
        ({"question": 3, "answer": "a"}, "non-empty text"),
        ({"question": "q", "answer": "a", "grader": "numbre"}, "Did you mean 'number'"),
        ({"question": "q", "answer": "many", "grader": "number"}, "number"),
        ({"question": "q", "answer": "a", "grader": "set"}, "list"),
        ({"question": "q", "answer": "a", "files": {"../x": ""}}, r"'\.\./x'"),
        ({"question": "q", "answer": "a", "files": {"/etc/x": ""}}, "'/etc/x'"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_bad_line_is_named_with_its_file_number_and_fault(tmp_path, line, message):
    path = write(tmp_path / "bad.jsonl", {"question": "q", "answer": "a"}, line)
    with pytest.raises(ValueError, match=message) as raised:
        load_task_set(path)
    assert str(raised.value).startswith(f"{path}, line 2: ")


def test_a_file_runs_no_code_of_its_choice(tmp_path):
    """A grader such as ``timeit:timeit`` would run the answer as a program when it grades."""
    mark = tmp_path / "ran"
    (tmp_path / "on_import.py").write_text(f"open({str(mark)!r}, 'w')\ngrade = max\n")
    line = {"question": "2 + 3?", "answer": f"open({str(mark)!r}, 'w')"}
    sys.path.insert(0, str(tmp_path))
    try:
        for grader in ("timeit:timeit", "builtins:exec", "on_import:grade", "os:system"):
            path = write(tmp_path / "a.jsonl", line | {"grader": grader})
            with pytest.raises(ValueError, match="allow_grader_import") as raised:
                load_task_set(path)
            assert str(raised.value).startswith(f"{path}, line 1: ")
            with pytest.raises(ValueError, match="allow_grader_import"):
                ToolUseEnv(tasks=path)
    finally:
        sys.path.remove(str(tmp_path))
    assert not mark.exists()
    assert "on_import" not in sys.modules


def test_a_trusted_file_may_name_a_function_as_its_grader(tmp_path):
    line = {"question": "q", "answer": "a", "grader": "reagent_env.graders:exact"}
    (task,) = load_task_set(write(tmp_path / "a.jsonl", line), allow_grader_import=True)
    assert grade(task, "a") == 1.0


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"question": f"q{n}\u2028", "answer": str(n)}, ensure_ascii=False)
             for n in range(3)]  # fmt: skip
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, ""]).encode())
    assert [task.answer for task in load_task_set(path)] == ["0", "1", "2"]


def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"question": "q", "answer": "a"}\n{"question": "caf\xe9"}\n')
    with pytest.raises(ValueError, match="line 2: not UTF-8"):
        load_task_set(path)


def test_what_a_data_set_says_besides_goes_into_metadata(tmp_path):
    plain = {"question": "q", "answer": "a", "id": "train_17", "type": "bridge"}
    gsm8k = {"question": "How many?", "answer": "#### 2", "_id": 3, "grader_options": {}}
    math = {"problem": "P?", "solution": r"\boxed{1}", "answer": "1", "unique_id": "x.json"}
    own = {"question": "q", "answer": "b", "grader": "qa", "id": 5, "metadata": {"level": 2}}
    tasks = load_task_set(write(tmp_path / "a.jsonl", plain, gsm8k, math, own))
    assert [dict(task.metadata) for task in tasks] == [
        {"type": "bridge", "source_id": "train_17"},
        {"source_id": 3, "kind": "gsm8k", "grader_options": {"any_unit": True}},
        {"unique_id": "x.json", "kind": "math"},
        {"source_id": 5, "level": 2},
    ]


def test_a_json_array_of_tasks_is_read_and_its_records_are_numbered(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"question": "q", "answer": "a"}, {"question": "r"}], indent=1))
    with pytest.raises(ValueError, match=r"record 2: needs \"question\" and \"answer\""):
        load_task_set(path)
    path.write_text(json.dumps([{"question": "q", "answer": "a"}], indent=1))
    assert [task.answer for task in load_task_set(path)] == ["a"]
    path.write_text('[{"question": "q"')
    with pytest.raises(ValueError, match="not a JSON array"):
        load_task_set(path)


HOTPOT = {
    "_id": "5a8b", "question": "Which river crosses Tarn?", "answer": "Oska", "type": "bridge",
    "level": "easy", "supporting_facts": [["Oska", 0]],
    "context": [["Oska", ["The Oska crosses the plain of Tarn."]], ["Tarn", ["A plain."]]],
}  # fmt: skip


@pytest.mark.parametrize("name", ["hotpot.json", "hotpot.jsonl"])
def test_a_hotpot_file_brings_its_contexts_as_the_corpus(tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps([HOTPOT] if path.suffix == ".json" else HOTPOT))
    env = ToolUseEnv(tasks=str(path), tools=("search", "browse"))
    (task,) = env.tasks
    assert (task.answer, task.grader, task.metadata["source_id"]) == ("Oska", "qa", "5a8b")
    env.reset(seed=0)
    call = {"name": "search", "arguments": {"queries": ["river that crosses Tarn"]}}
    observation, *_ = env.step(f"<tool_call>{json.dumps(call)}</tool_call>")
    assert "The Oska crosses the plain of Tarn." in observation
    assert load_task_set(path, grader="exact")[0].grader == "exact"


def test_questions_alone_can_be_given_a_corpus(tmp_path):
    path = write(tmp_path / "nq.jsonl", {"question": "Which river?", "answer": ["Oska"]})
    corpus = Corpus.from_contexts([HOTPOT])
    assert load_task_set(path, corpus=corpus).corpus is corpus


def test_a_missing_or_empty_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        load_task_set(str(tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match="no tasks in it"):
        load_task_set(write(tmp_path / "empty.jsonl"))


def test_an_unknown_name_or_split_is_named_with_what_there_is():
    with pytest.raises(ValueError, match="Did you mean 'python_math'"):
        load_task_set("pythonmath")
    with pytest.raises(ValueError, match="known: train, validation, test"):
        load_task_set("python_math", split="dev")
    assert {"file_qa", "python_math"} <= set(task_set_names())


def test_a_task_set_can_be_registered_once():
    register_task_set("two_sums")(
        lambda split, n=1: [Task(f"{i} + 1?", str(i + 1)) for i in range(n)]
    )
    assert len(load_task_set("two_sums", n=3)) == 3
    with pytest.raises(ValueError, match="exists already"):
        register_task_set("python_math")(lambda split: [])


def test_loading_a_name_imports_no_generator():
    code = (
        "import sys; from reagent_env.task_sets import load_task_set; "
        "load_task_set('python_math'); load_task_set('file_qa'); "
        "sys.exit('reasoning_gym' in sys.modules or 'openpyxl' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def make(split, index):
    return Task(f"{split} {index}?", str(index), metadata={"split": split})


def test_a_lazy_set_behaves_like_a_sequence():
    tasks = LazyTaskSet("toy", {"train": 300, "test": 2}, make)
    assert len(tasks) == len(list(tasks)) == 302
    assert tasks[300].split == tasks[-1].split == "test"
    assert [task.answer for task in tasks[1:3]] == ["1", "2"]
    assert tasks[0] is tasks[0]
    assert len(LazyTaskSet("toy", {"train": 300, "test": 2}, make, "test")) == 2
    assert pickle.loads(pickle.dumps(tasks))[5] == tasks[5]
    for index in (302, -303):
        with pytest.raises(IndexError, match="of 302"):
            tasks[index]


def test_contents_split_in_eight_to_one_to_one():
    splits = [content_split(str(n)) for n in range(3000)]
    assert 0.77 < splits.count("train") / 3000 < 0.83
    assert 0.08 < splits.count("test") / 3000 < 0.12
    assert content_split("gcd 12 18") == content_split(b"gcd 12 18")


def test_the_last_phrasing_is_drawn_for_the_test_split_only():
    for split, expected in (("train", {0, 1, 2}), ("test", {0, 1, 2, 3})):
        random_ = stable_random("phrasings", split)
        assert {choose_phrasing(random_, list("abcd"), split)[0] for _ in range(200)} == expected
    with pytest.raises(ValueError, match="at least four"):
        choose_phrasing(stable_random(1), ["a"], "train")
