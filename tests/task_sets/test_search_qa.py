"""SearchQA: solvable by searching, not by guessing; other people's data sets; speed."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from collections import Counter

import pytest

from reagent_env.corpus import Corpus, Document
from reagent_env.errors import ToolError
from reagent_env.graders import grade
from reagent_env.task import SPLITS
from reagent_env.task_sets import load_task_set
from reagent_env.task_sets.search_qa import load_hotpot, search_qa, solve
from reagent_env.task_sets.worlds_solver import drive
from reagent_env.tools.browse import make_browse_tool
from reagent_env.tools.search import make_search_tool


def caller(corpus):
    """Calls the real tools; an error reaches the solver as text, as it would a model."""
    tools = {"search": make_search_tool(corpus), "browse": make_browse_tool(corpus)}

    def call(name, arguments):
        try:
            return tools[name](**tools[name].validate(arguments))
        except ToolError as error:
            return f"Error: {error}"

    return call


def test_the_default_set_is_large_and_its_splits_are_apart():
    tasks = {split: search_qa(split) for split in SPLITS}
    assert {split: len(part) for split, part in tasks.items()} == {
        "train": 3000,
        "validation": 400,
        "test": 400,
    }
    assert len({task.id for task in search_qa()}) == 3800
    assert all(task.split == split for split in SPLITS for task in tasks[split])
    assert {task.metadata["level"] for task in tasks["test"]} == {1, 2, 3, 4}
    assert len({part.corpus.fingerprint for part in tasks.values()}) == 1


def test_it_is_found_by_name():
    assert (
        load_task_set("search_qa", split="test", levels=(1,), sizes={"test": 20})[0].split == "test"
    )


@pytest.mark.parametrize("split", SPLITS)
def test_the_solver_answers_from_observations_alone(split):
    tasks = search_qa(split)[:320]
    call = caller(search_qa(split).corpus)
    scores, turns = [], []
    for task in tasks:
        found, calls = drive(solve(task.question), call)
        scores.append(grade(task, found))
        turns.append(len(calls))
        assert all(len(batch) <= 8 for batch in calls)
    print(f"{split}: {sum(scores) / len(scores):.4f}, turns {sorted(Counter(turns).items())}")
    assert sum(scores) / len(scores) >= 0.97
    assert sum(n <= 10 for n in turns) / len(turns) >= 0.97


def test_the_solver_works_in_a_world_it_never_saw():
    tasks = search_qa("test", seed=99, size=500, sizes={"test": 120})
    call = caller(tasks.corpus)
    score = sum(grade(task, drive(solve(task.question), call)[0]) for task in tasks) / len(tasks)
    assert score >= 0.97


def test_a_question_that_it_cannot_read_gets_no_answer():
    assert drive(solve("Why is the sky blue?"), lambda name, arguments: "") == ("", [])


def test_tools_that_fail_leave_it_without_an_answer_but_standing():
    question = search_qa("test", levels=(3,), sizes={"test": 20})[0].question
    answer, turns = drive(solve(question), lambda name, arguments: "Error: broken")
    assert answer == ""
    assert len(turns) < 30


def asked(question):
    """What a question asks for, without its names."""
    return re.sub(r'"[^"]+"|\b[A-Z]\w+\b', "_", question)


def test_the_grader_takes_the_answer_in_its_usual_forms_and_nothing_near_it():
    for task in search_qa("test"):
        if isinstance(task.answer, list):
            assert [grade(task, form) for form in task.answer] == [1, 1, 1]
        elif task.grader == "number":
            units = task.metadata.get("grader_options", {}).get("unit", [])
            forms = [f"{task.answer}", *(f"{task.answer:,} {unit}" for unit in units[:1])]
            assert {grade(task, form) for form in forms} == {1}, (task.question, forms)
            assert grade(task, str(task.answer + 1)) == 0
        else:
            assert grade(task, f"{task.answer}.") == 1


def test_guessing_does_not_pay():
    train, test = search_qa("train"), search_qa("test")

    def gold(task):
        return str(task.answer[0] if isinstance(task.answer, list) else task.answer)

    majority = Counter(map(gold, train)).most_common(1)[0][0]
    by_wording: dict[str, Counter[str]] = {}
    by_kind: dict[str, Counter[str]] = {}
    for task in train:
        by_wording.setdefault(asked(task.question), Counter())[gold(task)] += 1
        by_kind.setdefault(task.metadata["kind"], Counter())[gold(task)] += 1
    always = sum(grade(task, majority) for task in test) / len(test)
    kinds = sum(
        grade(task, by_kind[task.metadata["kind"]].most_common(1)[0][0]) for task in test
    ) / len(test)
    wording = sum(
        grade(task, by_wording.get(asked(task.question), Counter([majority])).most_common(1)[0][0])
        for task in test
    ) / len(test)
    named = sum(
        grade(
            task,
            random.Random(task.id).choice(re.findall(r"[A-Z]\w+(?: [A-Z]\w+)*", task.question)),
        )
        for task in test
    ) / len(test)
    print(f"majority {always:.4f}, kind {kinds:.4f}, wording {wording:.4f}, a name {named:.4f}")
    assert max(always, named) <= 0.02
    assert max(kinds, wording) <= 0.05


def test_random_tool_use_does_not_pay():
    tasks = search_qa("test")
    call = caller(tasks.corpus)
    score = 0.0
    for task in tasks:
        rng = random.Random(task.id)
        words = rng.sample(task.question.split(), 2)
        seen = call("search", {"queries": [" ".join(words)], "top_k": 5})
        titles = re.findall(r"^\[\d+\] (.*)$", seen, re.MULTILINE) or ["nothing"]
        page = call("browse", {"url": rng.choice(titles)})
        score += grade(task, rng.choice(re.findall(r"[A-Z0-9][\w,]*(?: [A-Z]\w+)*", page)))
    print(f"random tool agent {score / len(tasks):.4f}")
    assert score / len(tasks) <= 0.03


def test_levels_kinds_and_sources_can_be_chosen():
    tasks = search_qa("train", levels=(2,), kinds=("chain", "count"), sizes={"train": 60})
    assert {(t.metadata["kind"], t.metadata["level"]) for t in tasks} == {
        ("chain", 2),
        ("count", 2),
    }
    with pytest.raises(ValueError, match="kinds: attribute"):
        search_qa("train", kinds=("nonsense",))
    with pytest.raises(ValueError, match="Unknown source 'web'"):
        search_qa("train", source="web")


COLD = """
import time
started = time.perf_counter()
from reagent_env.task_sets.search_qa import search_qa
tasks = search_qa("train")
tasks.corpus.search("River")
print(time.perf_counter() - started)
"""


def test_it_is_ready_within_a_second_and_searches_in_milliseconds(tmp_path, monkeypatch):
    monkeypatch.setenv("REAGENT_CACHE_DIR", str(tmp_path))
    cold, warm = (
        float(subprocess.run([sys.executable, "-c", COLD], capture_output=True, check=True).stdout)
        for _ in range(2)
    )
    corpus = search_qa("train").corpus
    tool = make_search_tool(corpus)
    titles = [document.title for document in corpus][:300]
    started = time.perf_counter()
    for title in titles:
        tool([f"{title} length population"])
    call_ms = (time.perf_counter() - started) / len(titles) * 1e3
    print(f"cold {cold:.2f} s, with a kept index {warm:.2f} s, search {call_ms:.2f} ms")
    assert cold < 2.5  # about 0.8 s on a free core; the machine may be shared
    assert warm < 2.0
    assert call_ms < 6  # about 0.5 ms on a free core


# Data sets of others ------------------------------------------------------------------------------

HOTPOT = {
    "_id": "5a8b",
    "question": "Which river crosses the home town of Ann?",
    "answer": "Oska",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Ann", 0], ["Velmora", 0]],
    "context": [
        ["Ann", ["Ann was born in Velmora."]],
        ["Velmora", ["The Oska crosses it.", " Yes."]],
    ],
}


@pytest.mark.parametrize("lines", [True, False])
def test_hotpotqa_in_json_and_in_jsonl(tmp_path, lines):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(HOTPOT) + "\n" if lines else json.dumps([HOTPOT]))
    tasks = load_hotpot(path)
    (task,) = tasks
    assert (task.answer, task.grader) == ("Oska", "qa")
    assert task.metadata["supporting_titles"] == ["Ann", "Velmora"]
    assert (task.metadata["kind"], task.metadata["level"]) == ("bridge", "hard")
    assert task.metadata["source_id"] == "5a8b"
    assert tasks.corpus.search("born Velmora")[0].document.title == "Ann"


def test_musique_and_2wiki_shapes(tmp_path):
    path = tmp_path / "x.jsonl"
    musique = {
        "id": "2hop__1",
        "question": "Who?",
        "answer": "A B",
        "answer_aliases": ["A. B."],
        "paragraphs": [{"title": "T", "paragraph_text": "Text.", "is_supporting": True}],
    }
    wiki = {
        **HOTPOT,
        "question": "Where?",
        "supporting_facts": {"title": ["Ann"], "sent_id": [0]},
        "context": {"title": ["Ann"], "content": [["Ann was here."]]},
    }
    path.write_text(json.dumps(musique) + "\n" + json.dumps(wiki))
    first, second = load_hotpot(path)
    assert first.answer == ["A B", "A. B."]
    assert first.metadata["supporting_titles"] == ["T"]
    assert second.metadata["supporting_titles"] == ["Ann"]


def test_nq_and_triviaqa_need_a_corpus_and_take_yours(tmp_path):
    path = tmp_path / "nq.jsonl"
    records = [
        {"question": "Capital?", "answer": ["Velmora", "Velmora City"]},
        {"question": "River?", "answer": {"value": "Oska", "aliases": ["Oska", "River Oska"]}},
        {"question": "Hill?", "golden_answers": ["Arvel"]},
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    with pytest.raises(ValueError, match="no contexts"):
        load_hotpot(path)
    own = Corpus([Document("Velmora", "u:1", "A capital.")], cache=False)
    tasks = load_hotpot(path, corpus=own)
    assert tasks.corpus is own
    assert [task.answer for task in tasks] == [
        ["Velmora", "Velmora City"],
        ["Oska", "River Oska"],
        "Arvel",
    ]
    assert grade(tasks[0], "velmora city") == 1


def test_splits_of_a_file_are_apart_and_complete(tmp_path):
    path = tmp_path / "many.jsonl"
    path.write_text("\n".join(json.dumps({**HOTPOT, "question": f"Q {i}?"}) for i in range(200)))
    parts = [{task.id for task in load_hotpot(path, split)} for split in SPLITS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 200


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"answer": "x"}, 'record 2: no "question"'),
        ({"question": "Q?"}, 'record 2: no "answer"'),
        ([1], "record 2: expected an object"),
        ({"question": "Q?", "answer": "x", "context": [["only a title"]]}, "context entry"),
    ],
)
def test_a_bad_record_is_named(tmp_path, record, told):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(HOTPOT) + "\n" + json.dumps(record))
    with pytest.raises(ValueError, match=told):
        load_hotpot(path)
