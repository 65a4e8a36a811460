"""ToolMix: two tools needed, solvable with them, not by guessing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import pytest

from reagent_env.errors import ToolError
from reagent_env.graders import grade
from reagent_env.task import SPLITS
from reagent_env.task_sets import load_task_set
from reagent_env.task_sets.tool_mix import LEVELS, WEIGHTS, solve, tool_mix
from reagent_env.task_sets.tool_mix_sums import SUMS
from reagent_env.task_sets.worlds_sampling import quotas
from reagent_env.task_sets.worlds_solver import drive
from reagent_env.tools.browse import make_browse_tool
from reagent_env.tools.file_reader import file_reader
from reagent_env.tools.search import make_search_tool

# One interpreter for all programs: code in, what it printed out, one JSON text a line.
LOOP = """
import contextlib, io, json, sys
for line in sys.stdin:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(json.loads(line), {})
    print(json.dumps(out.getvalue()), flush=True)
"""


@pytest.fixture(scope="module")
def python():
    import json

    process = subprocess.Popen(
        [sys.executable, "-c", LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def run(code):
        process.stdin.write(json.dumps(code) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield run
    process.stdin.close()
    process.stdout.close()
    assert process.wait(timeout=20) == 0


def caller(corpus, python):
    tools = {"search": make_search_tool(corpus), "browse": make_browse_tool(corpus)}

    def call_for(task):
        def call(name, arguments):
            if name == "python":
                return python(arguments["code"])
            try:
                if name == "file_reader":
                    return file_reader(**arguments, task=task)
                return tools[name](**tools[name].validate(arguments))
            except ToolError as error:
                return f"Error: {error}"

        return call

    return call_for


def test_the_default_set_is_large_and_its_splits_are_apart():
    tasks = {split: tool_mix(split) for split in SPLITS}
    assert [len(tasks[split]) for split in SPLITS] == [1600, 320, 320]
    assert len({task.id for task in tool_mix()}) == 2240
    assert all(task.split == split for split in SPLITS for task in tasks[split])
    assert {task.metadata["level"] for task in tasks["test"]} == set(LEVELS)


def test_it_is_found_by_name_with_its_corpus():
    tasks = load_task_set("tool_mix", split="test", kinds=("growth",), sizes={"test": 12})
    assert len(tasks) == 12
    assert tasks.corpus.search("River")


@pytest.mark.parametrize("split", SPLITS)
def test_kinds_and_levels_come_in_their_shares(split):
    tasks = tool_mix(split)
    made = Counter((task.metadata["kind"], task.metadata["level"]) for task in tasks)
    assert made == quotas(WEIGHTS, len(tasks))


@pytest.mark.parametrize("split", SPLITS)
def test_the_solver_answers_from_observations_alone_with_two_tools(split, python):
    tasks = tool_mix(split)[:320]
    call_for = caller(tool_mix(split).corpus, python)
    scores, turns = [], []
    for task in tasks:
        found, calls = drive(solve(task.question), call_for(task))
        scores.append(grade(task, found))
        turns.append(len(calls))
        used = {name for batch in calls for name, _ in batch}
        assert {"search", "python"} <= used, task.question
        assert ("file_reader" in used) == bool(task.files)
    print(f"{split}: {sum(scores) / len(scores):.4f}, turns {sorted(Counter(turns).items())}")
    assert sum(scores) / len(scores) >= 0.97
    assert sum(n <= 12 for n in turns) / len(turns) >= 0.97


def test_no_number_needed_stands_in_the_question_or_the_file():
    for task in tool_mix("test"):
        seen = task.question + "".join(blob.decode() for blob in task.files.values())
        attributes = [v for _, _, v in task.metadata["evidence"] if isinstance(v, int) and v > 99]
        assert not [v for v in attributes if re.search(rf"\b{v}\b", seen)], task.question


def test_the_answer_stands_in_no_article_so_that_looking_up_is_not_enough():
    tasks = tool_mix("test")
    articles = {document.title: document.text.replace(",", "") for document in tasks.corpus}
    read = [
        any(
            re.search(rf"\b{re.escape(str(task.answer))}\b", articles[title])
            for title in task.metadata["supporting_titles"]
        )
        for task in tasks
    ]
    assert sum(read) / len(tasks) <= 0.01


def test_guessing_does_not_pay():
    train, test = tool_mix("train"), tool_mix("test")
    majority = Counter(str(task.answer) for task in train).most_common(1)[0][0]
    by_kind: dict[str, Counter[str]] = {}
    for task in train:
        by_kind.setdefault(task.metadata["kind"], Counter())[str(task.answer)] += 1
    always = sum(grade(task, majority) for task in test) / len(test)
    kinds = sum(
        grade(task, by_kind[task.metadata["kind"]].most_common(1)[0][0]) for task in test
    ) / len(test)
    written = sum(
        grade(task, (re.findall(r"\d+(?:\.\d+)?", task.question) or ["0"])[0]) for task in test
    ) / len(test)
    print(f"majority {always:.4f}, by kind {kinds:.4f}, a number of the question {written:.4f}")
    assert max(always, kinds, written) <= 0.02


def test_the_grader_takes_the_answer_and_nothing_near_it():
    for task in tool_mix("test"):
        assert grade(task, str(task.answer)) == 1
        assert grade(task, str(task.answer + (1 if isinstance(task.answer, int) else 0.05))) == 0


def test_held_out_wordings_stand_in_the_test_split_alone():
    assert all(len(s.frames) >= 4 for s in SUMS)
    assert {t.metadata["phrasing"] for t in tool_mix("train")} == {0, 1, 2, 3}
    share = sum(t.metadata["phrasing"] == 4 for t in tool_mix("test")) / len(tool_mix("test"))
    assert 0.35 < share < 0.65


def test_an_unknown_kind_or_level_is_refused():
    with pytest.raises(ValueError, match="days_between"):
        tool_mix("train", kinds=("nonsense",))
    with pytest.raises(ValueError, match="levels: 1, 2, 3"):
        tool_mix("train", levels=(9,))
