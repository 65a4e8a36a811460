"""PythonMath: the same tasks everywhere, none in two splits, all solvable from their text."""

import collections
import json
import os
import subprocess
import sys
import time

import pytest

from reagent_env.graders import grade
from reagent_env.task_sets import load_task_set
from reagent_env.task_sets.python_math import LEVELS, expert_program, kind_names

IDS_PROGRAM = """
from reagent_env.task_sets import load_task_set
for split in ("train", "test"):
    tasks = load_task_set("python_math", split=split, sizes={"train": 162, "test": 81})
    print(*[task.id for task in tasks], sep="\\n")
"""


@pytest.fixture(scope="module")
def tasks():
    return list(load_task_set("python_math"))


def test_there_are_3000_different_tasks_of_27_kinds_at_three_levels(tasks):
    assert len({task.id for task in tasks}) == len({task.question for task in tasks}) == 3000
    assert len(kind_names()) == 27
    seen = {(task.metadata["kind"], task.metadata["level"]) for task in tasks}
    assert seen == {(kind, level) for kind in kind_names() for level in LEVELS}


def test_two_processes_with_other_hash_seeds_make_the_same_tasks():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", IDS_PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "4242")
    ]
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].split())) == 243


def test_a_task_does_not_depend_on_which_were_made_before():
    forwards = [task.id for task in load_task_set("python_math", split="train")[:60]]
    backwards = load_task_set("python_math", split="train")
    assert [backwards[i].id for i in reversed(range(60))] == forwards[::-1]


def test_opening_the_set_makes_no_task():
    started = time.process_time()
    assert len(load_task_set("python_math", split="train")) == 2400
    assert time.process_time() - started < 0.5


def test_the_same_numbers_never_stand_in_two_splits(tasks):
    splits = collections.defaultdict(set)
    for task in tasks:
        # The program with the facts in it, whatever the wording that they came in.
        splits[expert_program(task.question)].add(task.split)
    assert {len(found) for found in splits.values()} == {1}


def test_the_held_out_phrasing_is_asked_in_the_test_split_only(tasks):
    phrasings = collections.defaultdict(set)
    for task in tasks:
        phrasings[task.split].add(task.metadata["phrasing"])
    assert phrasings["train"] == phrasings["validation"] == {0, 1, 2, 3}
    assert phrasings["test"] == {0, 1, 2, 3, 4}


def test_the_generators_own_answer_scores_one(tasks):
    for task in tasks:
        own = task.answer if isinstance(task.answer, str) else ", ".join(task.answer)
        assert grade(task, own) == 1, (task.question, own)


def test_echoing_the_question_or_its_numbers_scores_nothing(tasks):
    for task in tasks:
        assert grade(task, task.question) == 0, task.question
        for line in expert_program(task.question).splitlines()[:2]:
            echo = line.partition(" = ")[2].strip("'\"")
            assert not echo or grade(task, echo) == 0, (task.question, echo)


def test_the_commonest_answer_of_each_kind_is_right_less_than_once_in_ten(tasks):
    answers = collections.defaultdict(collections.Counter)
    for task in tasks:
        answers[task.metadata["kind"]][str(task.answer)] += 1
    for kind, counter in answers.items():
        assert counter.most_common(1)[0][1] / counter.total() < 0.1, kind


def test_the_experts_programs_solve_every_kind_in_a_process_without_the_package(tasks):
    test_tasks = [task for task in tasks if task.split == "test"]
    programs = [expert_program(task.question) for task in test_tasks]
    separate = "import contextlib, io, json, sys\nfor source in json.load(sys.stdin):\n"
    separate += "    text = io.StringIO()\n    with contextlib.redirect_stdout(text):\n"
    separate += "        exec(source, {})\n    print(json.dumps(text.getvalue()))\n"
    printed = subprocess.run(
        [sys.executable, "-I", "-S", "-c", separate],
        input=json.dumps(programs),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()
    scores = [grade(task, json.loads(line)) for task, line in zip(test_tasks, printed, strict=True)]
    assert sum(scores) / len(scores) == 1.0


def test_an_unknown_question_has_no_program():
    assert expert_program("Who was older, Ada or Grace?") is None


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="known kinds: gcd"):
        load_task_set("python_math", kinds=["sudoku"])
