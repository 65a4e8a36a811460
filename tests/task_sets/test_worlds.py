"""Fictional worlds: the same everywhere, readable back, and asked about without ambiguity."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys

import pytest

from reagent_env.task import SPLITS
from reagent_env.task_sets.phrasing import content_split
from reagent_env.task_sets.worlds import generate_world
from reagent_env.task_sets.worlds_articles import read_article
from reagent_env.task_sets.worlds_predicates import WORLD_SCHEMA
from reagent_env.task_sets.worlds_questions import (
    ATTRIBUTE_FRAMES,
    BOTH_PHRASES,
    COMPARISON_FRAMES,
    COUNT_FRAMES,
    ENTITY_FRAMES,
    EXTREME_PHRASES,
    OCCURRED_PHRASES,
    Node,
    Query,
    Unanswerable,
    answer,
    language_of,
)
from reagent_env.task_sets.worlds_sampling import SHAPES, draw_tasks, quotas, repr_query

WORLD = generate_world(size=600, seed=3)
TASKS = {split: draw_tasks(WORLD, split, 250) for split in SPLITS}
ALL_TASKS = [task for tasks in TASKS.values() for task in tasks]

FINGERPRINT = """
import hashlib
from reagent_env.task_sets.worlds import generate_world
from reagent_env.task_sets.worlds_sampling import draw_tasks
world = generate_world(size=300, seed=5)
ids = [t.id for s in ("test", "train") for t in draw_tasks(world, s, 120)]
print(world.corpus.fingerprint, hashlib.sha256("".join(ids).encode()).hexdigest())
"""


def test_a_world_and_its_tasks_are_the_same_in_every_process_and_under_every_hash_seed():
    seen = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "4711")
    }
    here = generate_world(size=300, seed=5)
    ids = [t.id for s in ("test", "train") for t in draw_tasks(here, s, 120)]
    seen.add(f"{here.corpus.fingerprint} {hashlib.sha256(''.join(ids).encode()).hexdigest()}\n")
    assert len(seen) == 1


def test_another_seed_is_another_world():
    assert not set(generate_world(300, 1).kinds) & set(generate_world(300, 2).titles_of["person"])


@pytest.mark.parametrize("size", [120, 300, 2000])
def test_a_world_has_about_the_size_asked_for(size):
    assert len(generate_world(size, 0).kinds) == pytest.approx(size, rel=0.1)


def test_too_small_a_world_is_refused():
    with pytest.raises(ValueError, match="size >= 120"):
        generate_world(10)


def test_every_article_reads_back_into_the_world_s_facts():
    for document in WORLD.corpus:
        title, reading = document.title, read_article(WORLD_SCHEMA, document.title, document.text)
        assert reading.kind == WORLD.kinds[title]
        assert reading.facts.items() <= WORLD.facts[title].items()
        for predicate in WORLD_SCHEMA.by_subject[reading.kind]:
            if not predicate.lists:
                assert reading.facts.get(predicate.name) == WORLD.facts[title].get(predicate.name)
        for predicate in WORLD_SCHEMA.listings(reading.kind):
            assert reading.lists.get(predicate.name, []) == WORLD.members(predicate, title)


def test_some_relations_stand_in_the_other_article_alone():
    silent = sum(
        predicate.name in WORLD.facts[document.title]
        and predicate.name not in read_article(WORLD_SCHEMA, document.title, document.text).facts
        for document in WORLD.corpus
        for predicate in WORLD_SCHEMA.by_subject[WORLD.kinds[document.title]]
        if predicate.lists
    )
    assert silent > 100


def test_there_are_names_one_letter_apart():
    shapes: dict[str, str] = {}
    twins = 0
    for title in WORLD.kinds:
        for place in range(len(title)):
            other = shapes.setdefault(f"{title[:place]}*{title[place + 1 :]}", title)
            twins += other != title
    assert twins >= 20


@pytest.mark.parametrize("split", SPLITS)
def test_the_shapes_and_depths_come_in_their_shares(split):
    for (shape, hops), wanted in quotas(SHAPES, 250).items():
        made = sum(
            (task.metadata["kind"], task.metadata["hops"]) == (shape, hops) for task in TASKS[split]
        )
        assert made >= wanted, (shape, hops)


def test_splits_share_no_question_and_start_from_other_things():
    queries = [{task.metadata["query"] for task in TASKS[split]} for split in SPLITS]
    assert sum(map(len, queries)) == len(set.union(*queries)) == 750
    assert all(task.split == split for split in SPLITS for task in TASKS[split])
    for task in ALL_TASKS:
        (query, *_) = language_of(WORLD_SCHEMA).parse(task.question)
        assert content_split(min(query.anchors)) == task.split
        assert content_split(query.anchors[0]) == task.split


def test_each_question_has_one_answer_whatever_its_reading():
    language = language_of(WORLD_SCHEMA)
    for task in ALL_TASKS:
        answers = set()
        for query in language.parse(task.question):
            try:
                answers.add(answer(WORLD, query)[0])
            except Unanswerable:
                continue
        (only,) = answers
        gold = task.answer[-1] if isinstance(task.answer, list) else task.answer
        assert only == gold, task.question


def test_the_logical_form_survives_wording_and_reading():
    language = language_of(WORLD_SCHEMA)
    for task in ALL_TASKS:
        readings = {repr_query(query) for query in language.parse(task.question)}
        assert task.metadata["query"] in readings, task.question


def test_no_answer_stands_in_its_question():
    for task in ALL_TASKS:
        if task.metadata["kind"] == "count":
            continue
        for gold in task.answer if isinstance(task.answer, list) else [task.answer]:
            assert not re.search(rf"\b{re.escape(str(gold))}\b", task.question), task.question


def test_evidence_is_true_and_says_the_answer():
    for task in ALL_TASKS:
        evidence = task.metadata["evidence"]
        for title, predicate, value in evidence:
            assert WORLD.facts[title][predicate] == value
        assert {title for title, _, _ in evidence} == set(task.metadata["supporting_titles"])
        if task.metadata["kind"] in ("relation", "chain"):
            assert len(evidence) == task.metadata["hops"]
            assert evidence[-1][2] == task.answer


def test_held_out_wordings_stand_in_the_test_split_alone():
    last = 4
    assert {t.metadata["phrasing"] for t in TASKS["train"]} == {0, 1, 2, 3}
    assert {t.metadata["phrasing"] for t in TASKS["validation"]} == {0, 1, 2, 3}
    share = sum(t.metadata["phrasing"] == last for t in TASKS["test"]) / len(TASKS["test"])
    assert 0.35 < share < 0.65
    held_out = [
        p.phrases[-1].split("{")[0].strip() for p in WORLD_SCHEMA.predicates.values() if p.phrases
    ]
    training = " ".join(t.question for s in ("train", "validation") for t in TASKS[s])
    assert not [words for words in held_out if len(words) > 12 and words in training]


def test_every_wording_has_enough_siblings():
    for frames in (ENTITY_FRAMES, ATTRIBUTE_FRAMES, COUNT_FRAMES, COMPARISON_FRAMES):
        assert len(frames) >= 4
    for phrases in (EXTREME_PHRASES, OCCURRED_PHRASES, BOTH_PHRASES):
        assert len(phrases) >= 3
    for predicate in WORLD_SCHEMA.predicates.values():
        assert len(predicate.statements) >= 3
        assert len(predicate.phrases) in (0, 3)
        assert len(predicate.members) in (0, 3)


def test_a_tie_has_no_answer():
    cities = WORLD.titles_of["city"]
    same = Query("comparison", Node("name", cities[0]), "city.population", Node("name", cities[0]))
    with pytest.raises(Unanswerable):
        answer(WORLD, same)
