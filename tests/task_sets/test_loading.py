"""Task sets by name and path: what can be loaded, and what is said when it cannot."""

import json
import pickle
import subprocess
import sys

import pytest

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
        ({"question": "q", "answer": "a", "colour": 1}, "colour"),
        ({"question": "q", "answer": "a", "id": "0"}, "hashes to"),
        ({"question": 3, "answer": "a"}, "non-empty string"),
    ],
)
def test_a_bad_line_is_named_with_its_file_number_and_fault(tmp_path, line, message):
    path = write(tmp_path / "bad.jsonl", {"question": "q", "answer": "a"}, line)
    with pytest.raises(ValueError, match=message) as raised:
        load_task_set(path)
    assert str(raised.value).startswith(f"{path}, line 2: ")


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
