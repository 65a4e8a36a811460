"""MiniMix: what is asked, that it is solvable from observations, and that guessing earns nothing."""

from __future__ import annotations

import functools
import random
import re
from collections import Counter

import gymnasium as gym
import pytest

from reagent_env.agents.expert import ExpertAgent, solver_of
from reagent_env.errors import ToolError
from reagent_env.graders import grade
from reagent_env.task import SPLITS
from reagent_env.task_sets import load_task_set
from reagent_env.task_sets.baselines import measure_baselines
from reagent_env.task_sets.mini_mix import QUESTION_KINDS, mini_mix, solve
from reagent_env.task_sets.mini_mix_questions import Plan, Term, read_plan, worded
from reagent_env.task_sets.mini_mix_world import KINDS, mini_world
from reagent_env.task_sets.worlds_solver import drive
from reagent_env.testing import EnvContract
from reagent_env.tools.browse import make_browse_tool
from reagent_env.tools.search import make_search_tool

ENV_ID = "reagent/MiniMix-v0"


def caller(corpus):
    """Calls the real search and browse; arithmetic stands in for the sandbox."""
    tools = {"search": make_search_tool(corpus), "browse": make_browse_tool(corpus)}

    def call(name, arguments):
        if name == "python":
            assert re.fullmatch(r"\d+ [-+*] \d+", arguments["code"])
            return str(eval(arguments["code"]))
        try:
            return tools[name](**tools[name].validate(arguments))
        except ToolError as error:
            return f"Error: {error}"

    return call


@functools.cache
def names_of_aliases():
    return {thing.alias: thing.name for thing in mini_world().things.values()}


def chains(task):
    """The chains of a question, each from a thing's own name."""
    aliases = names_of_aliases()
    terms = read_plan(task.question).terms
    return {(aliases.get(term.start, term.start), term.path) for term in terms}


# The world ----------------------------------------------------------------------------------------


def test_a_world_of_a_seed_is_one_world_and_another_seed_is_another():
    world = mini_world(100, 3)
    mini_world.cache_clear()
    assert mini_world(100, 3).corpus.fingerprint == world.corpus.fingerprint
    assert mini_world(100, 4).corpus.fingerprint != world.corpus.fingerprint


def test_no_name_stands_inside_another_name_or_label():
    things = mini_world(300, 0).things.values()
    names = [thing.name.lower() for thing in things] + [thing.alias.lower() for thing in things]
    labels = [label for kind in KINDS.values() for label in (*kind.links, *kind.numbers)]
    text = "|".join([*names, *labels])
    assert len(names) == 600
    assert {text.count(name) for name in names} == {1}


def test_every_label_belongs_to_one_kind():
    labels = Counter(label for kind in KINDS.values() for label in (*kind.links, *kind.numbers))
    assert set(labels.values()) == {1}


def test_an_article_is_six_lines_and_its_links_lead_to_articles():
    world = mini_world(100, 0)
    for thing in world.things.values():
        lines = thing.article.split("\n")
        assert len(lines) == 6
        assert lines[-1] == f"known as: {thing.alias}"
        assert all(world.things[name].kind for name in thing.links.values())
        assert len({thing.name, *thing.links.values()}) == 4


@pytest.mark.parametrize("size", [49, 5001])
def test_a_world_too_small_or_too_large_is_refused(size):
    with pytest.raises(ValueError, match=f"from 50 to 5000 things, got {size}"):
        mini_world(size)


# The questions ------------------------------------------------------------------------------------


def test_the_default_set_is_large_and_every_kind_has_its_share():
    tasks = {split: mini_mix(split) for split in SPLITS}
    assert {split: len(part) for split, part in tasks.items()} == {
        "train": 16000,
        "validation": 500,
        "test": 1000,
    }
    assert Counter(task.metadata["kind"] for task in tasks["test"]) == dict.fromkeys(
        QUESTION_KINDS, 125
    )
    assert {task.metadata["level"] for task in tasks["test"]} == {1, 2, 3, 4}
    assert {task.metadata["hops"] for task in tasks["test"]} == {1, 2, 3}
    assert len({part.corpus.fingerprint for part in tasks.values()}) == 1
    assert all(task.split == split for split in SPLITS for task in tasks[split])


def test_no_split_asks_about_a_chain_of_another_even_inside_a_sum():
    found = {split: set().union(*map(chains, mini_mix(split))) for split in SPLITS}
    assert len(found["train"]) > 6000
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    assert not found["validation"] & found["test"]


def test_questions_are_short_differ_and_do_not_hold_their_answer():
    tasks = mini_mix()
    assert len({task.question for task in tasks}) == 17500
    assert max(len(task.question.split()) for task in tasks) == 15
    for task in tasks:
        assert str(task.answer) not in re.findall(r"\w+", task.question)


def test_a_chain_comes_by_no_thing_twice_so_that_a_skipped_hop_ends_elsewhere():
    world = mini_world()
    for task in mini_mix("test", kinds=("chain_3",)):
        term = read_plan(task.question).first
        passed = [term.start, *world.follow(term.start, term.path)]
        assert len(set(passed)) == 4


@pytest.mark.parametrize(
    ("plan", "question"),
    [
        (Plan(Term("Ostrin", ("home", "mayor"))), "What is the mayor of the home of Ostrin?"),
        (Plan(Term("Zorvin", ("height",), "town")), "What is the height of the town known as Zorvin?"),
        (Plan(Term("Danu", ("depth",)), "times", 37), "What is the depth of Danu times 37?"),
        (
            Plan(Term("Danu", ("delta", "height")), "minus", Term("Ostrin", ("debt",))),
            "What is the height of the delta of Danu minus the debt of Ostrin?",
        ),
    ],
)  # fmt: skip
def test_a_plan_reads_back_from_its_words(plan, question):
    assert worded(plan, 0) == question
    assert [read_plan(worded(plan, phrasing)) for phrasing in range(3)] == [plan] * 3


def test_levels_and_kinds_can_be_chosen_and_wrong_ones_are_named():
    tasks = mini_mix(
        "train", levels=(2, 3), kinds=("scale", "chain_3", "fact"), sizes={"train": 40}
    )
    assert Counter(task.metadata["kind"] for task in tasks) == {"scale": 20, "chain_3": 20}
    with pytest.raises(ValueError, match=r"Unknown kind 'chain_9'; kinds: fact, alias"):
        mini_mix(kinds=("chain_9",))
    with pytest.raises(ValueError, match=r"Unknown level 5; levels: \[1, 2, 3, 4\]"):
        mini_mix(levels=(5,))
    with pytest.raises(ValueError, match="No kind of"):
        mini_mix(levels=(1,), kinds=("scale",))


def test_a_small_world_gives_what_it_has_and_says_where_that_is_too_little():
    assert 15 <= len(mini_mix("test", size=50, kinds=("fact",))) <= 40
    with pytest.raises(ValueError, match=r"only \d\d questions of fact in 'test', not 400"):
        mini_mix("test", size=50, sizes={"test": 400}, kinds=("fact",))


# Solving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_solver_answers_every_question_from_observations(split):
    tasks = mini_mix(split)
    call = caller(tasks.corpus)
    for task in tasks:
        answer, turns = drive(solve(task.question), call)
        assert grade(task, answer) == 1, task.question
        assert len(turns) == task.metadata["level"]
        assert all(len(calls) == 1 for calls in turns)


def test_the_solver_reads_another_world_too():
    tasks = mini_mix("test", size=200, seed=9, sizes={"test": 80})
    call = caller(tasks.corpus)
    assert sum(grade(task, drive(solve(task.question), call)[0]) for task in tasks) == 80


def test_tools_that_fail_or_a_question_of_another_sort_leave_it_without_an_answer():
    question = mini_mix("test", kinds=("alias_chain",))[0].question
    answer, turns = drive(solve(question), lambda name, arguments: "Error: broken")
    assert (answer, len(turns)) == ("", 1)
    assert drive(solve("Why is the sky blue?"), lambda name, arguments: "") == ("", [])


def test_an_alias_is_found_by_search_alone_and_by_one_hit():
    tasks = mini_mix("test", kinds=("alias",))
    call = caller(tasks.corpus)
    for task in tasks[:40]:
        alias = read_plan(task.question).first.start
        assert call("browse", {"url": alias}).startswith("Error: No document")
        assert call("search", {"queries": [alias]}).count("url:") == 1


def test_what_a_hop_shows_is_short():
    tasks = mini_mix("test")
    call = caller(tasks.corpus)
    assert max(len(call("browse", {"url": one.title})) for one in tasks.corpus) <= 160


def test_the_expert_solves_it_in_the_environment_and_the_prompt_is_compact():
    env = gym.make(ENV_ID, split="test", sandbox="embedded", disable_env_checker=True)
    expert = ExpertAgent(solver_of(ENV_ID), env.unwrapped.tool_format)
    scores = []
    for number in range(8):
        observation, info = env.reset(options={"task": number})
        assert len(observation) < 400
        expert.begin(info)
        over = False
        while not over:
            observation, reward, terminated, truncated, info = env.step(
                expert.act(observation, info)
            )
            over = terminated or truncated
        scores.append(reward)
    env.close()
    assert scores == [1.0] * 8


# Guessing -----------------------------------------------------------------------------------------


def test_no_blind_guess_earns_more_than_one_in_fifty():
    train, test = mini_mix("train")[:2400], mini_mix("test")[:160]
    for baseline in measure_baselines("mini_mix", list(train), test):
        assert baseline.mean_score <= 0.02, baseline


def test_browsing_the_named_thing_and_answering_from_it_by_chance_does_not_pay():
    tasks = mini_mix("test")
    call = caller(tasks.corpus)
    score = 0.0
    for task in tasks:
        rng = random.Random(task.id)
        page = call("browse", {"url": read_plan(task.question).first.start})
        score += grade(task, rng.choice(re.findall(r": (\w+)", page)))
    assert score / len(tasks) < 0.05


def test_it_is_found_by_name():
    assert load_task_set("mini_mix", split="test", levels=(1,))[0].metadata["kind"] == "fact"


class TestContract(EnvContract):
    def make_env(self, **kwargs):
        return gym.make(ENV_ID, **{"sandbox": "embedded", "tool_format": "hermes", **kwargs})
