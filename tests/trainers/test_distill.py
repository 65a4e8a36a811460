"""What second attempts found out, under the plain prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

from reagent_env import Judgement, Task
from reagent_env.testing import addition_env
from reagent_env.trainers.distill import distilled
from reagent_env.trainers.engines.base import Sampling
from reagent_env.trainers.rollout import rollout
from reagent_env.trainers.sample import Rollout
from reagent_env.wrappers import CritiqueRefine

TASK = Task(question="What is 2 + 3?", answer="5", grader="number")
CALL = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'
RIGHT, WRONG = r"\boxed{5}", r"\boxed{6}"
TALK = r"The reviewer is right: \boxed{5}"


class Judge:
    def judge(self, trajectories: Any, /) -> list[Judgement]:
        return [Judgement(critique="Add with care.", score=0.5) for _ in trajectories]


@pytest.fixture
def play(renderer: Any, scripted: Any) -> Callable[..., tuple[Rollout, Any]]:
    def play(script: Any, feedback: str = "critique") -> tuple[Rollout, Any]:
        env = CritiqueRefine(addition_env(tool_format="compact"), Judge(), feedback=feedback)
        engine = scripted(script)
        return rollout(env, engine, renderer, TASK, Sampling(), seed=1), engine

    return play


def test_a_better_second_attempt_is_learned_as_if_it_were_the_first(
    play: Any, renderer: Any
) -> None:
    done, engine = play([CALL, WRONG, CALL, RIGHT])
    [sample] = distilled([done], renderer)
    said, read = engine.said, engine.read
    assert sample.ids == [*read[0], *said[2], *read[3], *said[3]]
    assert sample.turn_of.count(0) == len(said[2])
    assert sample.turn_of.count(1) == len(said[3])
    assert sample.turn_of[: len(read[0])] == [-1] * len(read[0])
    plain, _ = play([CALL, RIGHT, RIGHT])
    assert sample.ids == plain.samples[0].ids[: len(sample.ids)]  # as a first attempt would be


def test_an_independent_second_attempt_stands_under_the_plain_prompt_already(
    play: Any, renderer: Any
) -> None:
    done, _ = play(lambda number, turn: (WRONG, RIGHT)[number], "independent")
    [sample] = distilled([done], renderer)
    assert sample.ids == done.samples[1].ids
    assert set(sample.turn_of) == {-1, 0}


@pytest.mark.parametrize("script", [[WRONG, WRONG], [RIGHT, WRONG], [RIGHT, RIGHT], [WRONG, TALK]])
def test_one_that_is_wrong_or_no_better_or_speaks_of_the_critique_is_not_learned(
    play: Any, renderer: Any, script: list[str]
) -> None:
    assert distilled([play(script)[0]], renderer) == []


def test_one_whose_sandbox_the_first_attempt_had_used_is_not_learned(
    play: Any, renderer: Any
) -> None:
    done, _ = play([CALL, WRONG, CALL, RIGHT])

    def sandboxed(attempt: Any) -> Any:
        turns = tuple(
            replace(turn, results=tuple(replace(one, status="ok") for one in turn.results))
            for turn in attempt.turns
        )
        return replace(attempt, turns=turns)

    first, second = done.trajectory.attempts
    both = replace(done.trajectory, attempts=(sandboxed(first), sandboxed(second)))
    assert distilled([replace(done, trajectory=both)], renderer) == []
    alone = replace(done.trajectory, attempts=(first, sandboxed(second)))
    assert len(distilled([replace(done, trajectory=alone)], renderer)) == 1
