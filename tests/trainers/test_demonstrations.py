"""Scripted demonstrations: clean ones succeed, flawed ones fail in the way they are named for."""

from __future__ import annotations

import random
import re
from collections import defaultdict

import gymnasium as gym
import pytest

from reagent_env.agents.expert import solver_of
from reagent_env.judgement import Judgement
from reagent_env.task_sets.mini_mix import mini_mix
from reagent_env.trainers.demonstrations import (
    CLEAN,
    MIXED,
    ScriptedPolicy,
    demonstrate,
    knowledge_of,
    names_the_flaw,
)
from reagent_env.trainers.demonstrations_mini_mix import fitting, without_a_hop
from reagent_env.trainers.demonstrations_strategies import RIGHT
from reagent_env.wrappers.critique_refine import NEUTRAL, CritiqueRefine

ENV_ID = "reagent/MiniMix-v0"


@pytest.fixture(scope="module")
def env():
    made = gym.make(ENV_ID, sandbox="embedded", disable_env_checker=True)
    yield made
    made.close()


def policy(quality, seed=0, **kwargs):
    return ScriptedPolicy(
        solver_of(ENV_ID), quality=quality, knowledge=knowledge_of(ENV_ID), seed=seed, **kwargs
    )


def tasks_of(kind, count):
    return mini_mix("train", kinds=(kind,), sizes={"train": count})


def turns_of(trajectory, attempt=0):
    return [turn.completion for turn in trajectory.attempts[attempt].turns]


class Critic:
    """Says the same of every attempt."""

    def __init__(self, critique):
        self.critique = critique

    def judge(self, trajectories):
        return [Judgement(critique=self.critique, score=0.5) for _ in trajectories]


# Clean --------------------------------------------------------------------------------------------


def test_clean_play_is_right_and_short(env):
    (task,) = tasks_of("scale", 1)
    turns = turns_of(trajectory := demonstrate(env, policy(CLEAN), task))
    assert trajectory.attempts[0].outcome == 1
    name = re.search(r"of (\w+) times", task.question)[1]
    assert turns[0] == (
        f'<tool_call>{{"name": "browse", "arguments": {{"url": "{name}"}}}}</tool_call>'
    )
    assert '"name": "python"' in turns[1]
    assert turns[2] == f"\\boxed{{{task.answer}}}"
    assert len(turns) == 3


# Flaws, one by one --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        ("guess", "chain_2"),
        ("premature", "chain_3"),
        ("premature", "pair"),
        ("wrong_turn", "chain_2"),
        ("wrong_turn", "scale"),
        ("skipped_hop", "chain_3"),
        ("skipped_hop", "chain_pair"),
        ("in_head", "pair"),
        ("misread", "fact"),
        ("misread", "scale"),
    ],
)
def test_a_wrong_strategy_never_succeeds(env, strategy, kind):
    tasks = tasks_of(kind, 8)
    played = [demonstrate(env, policy({strategy: 1.0}), task) for task in tasks]
    assert [one.attempts[0].outcome for one in played] == [0.0] * 8
    assert {str(one.attempts[0].stop_reason) for one in played} == {"answered"}


@pytest.mark.parametrize(
    ("strategy", "kind"), [("repeated", "fact"), ("repeated", "pair"), ("malformed", "pair")]
)
def test_a_clumsy_strategy_succeeds_with_one_turn_more(env, strategy, kind):
    for task in tasks_of(kind, 6):
        trajectory = demonstrate(env, policy({strategy: 1.0}), task)
        turns = turns_of(trajectory)
        assert trajectory.attempts[0].outcome == 1
        assert len(turns) == task.metadata["level"] + 2
        if strategy == "repeated":
            assert len(set(turns)) == len(turns) - 1


def test_a_malformed_call_is_told_and_made_again(env):
    (task,) = tasks_of("pair", 1)
    places = set()
    for seed in range(10):
        turns = demonstrate(env, policy({"malformed": 1.0}, seed), task).attempts[0].turns
        (place,) = (i for i, turn in enumerate(turns) if "malformed tool call" in turn.observation)
        broken, mended = turns[place].completion, turns[place + 1].completion
        assert broken.count("}") == mended.count("}") - 1
        places.add(place)
    assert places == {0, 1}


def test_a_premature_answer_is_the_thing_that_comes_next(env):
    for task in tasks_of("alias", 10):
        trajectory = demonstrate(env, policy({"premature": 1.0}, seed=3), task)
        turns = turns_of(trajectory)
        if len(turns) == 2:
            seen = trajectory.attempts[0].turns[0].observation
            assert re.fullmatch(r"\\boxed\{(\w+)\}", turns[1])[1] in re.findall(r"url: (\w+)", seen)
            return
    pytest.fail("no attempt of ten was premature")


def test_computing_in_the_head_never_calls_python(env):
    for task in tasks_of("chain_pair", 6):
        turns = turns_of(demonstrate(env, policy({"in_head": 1.0}), task))
        assert len(turns) == 4
        assert "python" not in "".join(turns)


def test_a_wrong_turn_calls_with_another_value_of_the_last_result(env):
    strayed = 0
    for task in tasks_of("chain_2", 12):
        trajectory = demonstrate(env, policy({"wrong_turn": 1.0}, seed=1), task)
        first, second = trajectory.attempts[0].turns[:2]
        clean = turns_of(demonstrate(env, policy(CLEAN), task))
        called = re.search(r'"url": "(\w+)"', second.completion)[1]
        assert called in first.observation
        strayed += second.completion != clean[1]
    assert strayed >= 6


def test_a_hop_is_left_out_of_the_longest_chain_but_never_its_last_label():
    rng = random.Random(0)
    assert (
        without_a_hop("Find the mayor of the home of Ostrin.", rng) == "Find the mayor of Ostrin."
    )
    assert without_a_hop("Find the mayor of Velmora.", rng) is None
    assert without_a_hop("Why?", rng) is None
    chained = "What is the fund of the owner of Danu plus the debt of Ostrin?"
    assert without_a_hop(chained, rng) == "What is the fund of Danu plus the debt of Ostrin?"


def test_flaws_fit_the_question():
    assert fitting("Find the mayor of Velmora.") == {"guess", "misread"}
    assert "in_head" not in fitting("Find the mayor of the home of Ostrin.")
    assert fitting("Compute the height of Velmora times 37.") >= {"in_head", "premature"}


# Mixtures -----------------------------------------------------------------------------------------


def test_a_quarter_of_the_episodes_of_the_mixture_succeed_in_every_kind(env):
    right = {name: share for name, share in MIXED.items() if name in RIGHT}
    assert sum(MIXED.values()) == pytest.approx(1)
    assert sum(right.values()) == pytest.approx(0.28)
    assert max(MIXED, key=lambda name: MIXED[name]) not in RIGHT
    outcomes = defaultdict(list)
    for number, task in enumerate(mini_mix("train")[:640]):
        player = policy(MIXED, seed=number)
        player.begin({"messages": [{"content": task.question}], "task_id": task.id, "attempt": 1})
        player._start(None)
        outcomes[task.metadata["kind"]].append(player.strategies[0] in RIGHT)
    assert {len(found) for found in outcomes.values()} == {80}
    assert all(0.15 <= sum(found) / 80 <= 0.42 for found in outcomes.values())


def test_a_mixture_succeeds_exactly_where_its_strategy_is_a_right_one(env):
    player = policy(MIXED, seed=5)
    seen = set()
    for task in mini_mix("train")[:80]:
        trajectory = demonstrate(env, player, task)
        (strategy,) = player.strategies
        assert trajectory.attempts[0].outcome == (strategy in RIGHT), (strategy, task.question)
        seen.add(strategy)
    assert seen == set(MIXED)


def test_a_seed_settles_every_choice(env):
    tasks = mini_mix("train")[:24]
    first, again, other = (
        [turns_of(demonstrate(env, policy(MIXED, seed), task)) for task in tasks]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_another_solver_is_flawed_without_knowledge_of_its_questions():
    searching = "reagent/SearchQA-v0"
    with gym.make(searching, disable_env_checker=True) as env:
        task = env.unwrapped.tasks[1]
        outcomes = {}
        for name in ("clean", "repeated", "guess", "premature"):
            player = ScriptedPolicy(solver_of(searching), "hermes", quality={name: 1.0})
            outcomes[name] = demonstrate(env, player, task).attempts[0].outcome
    assert outcomes == {"clean": 1.0, "repeated": 1.0, "guess": 0.0, "premature": 0.0}


@pytest.mark.parametrize(
    ("quality", "told"),
    [
        ({"clena": 1.0}, "Unknown strategy 'clena'"),
        ({"clean": 0.5}, "add up to 1, got 0.5"),
        ({"clean": 1.5, "guess": -0.5}, "'guess' must be 0 or more"),
    ],
)
def test_a_wrong_mixture_is_refused(quality, told):
    with pytest.raises(ValueError, match=told):
        policy(quality)


# Second attempts ----------------------------------------------------------------------------------


def test_a_critique_that_names_the_flaw_makes_the_second_attempt_clean():
    helpful = Critic("Turn 1: Use the tools to establish the facts before you answer.")
    with gym.make(ENV_ID, sandbox="embedded", disable_env_checker=True) as inner:
        env = CritiqueRefine(inner, helpful)
        player = policy({"guess": 1.0}, heeds=1.0)
        trajectory = demonstrate(env, player, tasks_of("chain_2", 1)[0])
    assert player.strategies == ["guess", "clean"]
    assert [attempt.outcome for attempt in trajectory.attempts] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("critique", "heeds"),
    [
        ("No flaw stands out. Keep each step grounded.", 1.0),
        (NEUTRAL, 1.0),
        ("Use the tools.", 0.0),
    ],
)
def test_without_a_critique_that_it_heeds_the_second_attempt_is_like_the_first(critique, heeds):
    with gym.make(ENV_ID, sandbox="embedded", disable_env_checker=True) as inner:
        env = CritiqueRefine(inner, Critic(critique))
        player = policy({"guess": 1.0}, heeds=heeds)
        demonstrate(env, player, tasks_of("chain_2", 1)[0])
    assert player.strategies == ["guess", "guess"]


@pytest.mark.parametrize(
    ("critique", "strategy", "named"),
    [
        ("Turn 3: Run code for the calculation.", "in_head", True),
        ("Turn 3: Run code for the calculation.", "malformed", False),
        ("Turn 2: Use the result you already have.", "repeated", True),
        ("Write each call exactly in the format of the instructions.", "malformed", True),
        ("Grounded.", "premature", False),
        ("", "clean", True),
    ],
)
def test_what_names_a_flaw(critique, strategy, named):
    assert names_the_flaw(critique, strategy) is named
