"""Reagent-C as an evaluation: two attempts side by side, and the controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from reagent_env import Judgement, Task, Trajectory
from reagent_env.agents.agent import Agent
from reagent_env.agents.evaluate import evaluate
from reagent_env.agents.refine import (
    MODES,
    ShuffledCritiques,
    compare_attempts,
    refiner,
    speaks_of_critique,
)
from reagent_env.testing import addition_env
from reagent_env.trajectory import Attempt, Turn
from reagent_env.wrappers.critique_refine import NEUTRAL


class TaskCritic:
    """A judge whose critique names the task it is about."""

    def judge(self, trajectories: Sequence[Trajectory], /) -> list[Judgement]:
        return [
            Judgement(critique=f"About {one.task.id}: add again.", score=0.5)
            for one in trajectories
        ]


class Obedient(Agent):
    """Answers wrong at first, and right once a critique of its own task tells it to add again."""

    name = "obedient"

    def begin(self, info: Mapping[str, Any]) -> None:
        self.task_id = info["task_id"]
        a, b = (int(word) for word in info["messages"][-1]["content"][8:-1].split(" + "))
        self.right = a + b

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        told = f"About {self.task_id}" in observation
        return rf"\boxed{{{self.right if told else self.right + 1}}}"


def run(mode: str, out: Path, episodes: int = 12) -> list[Trajectory]:
    wrap = refiner(mode, TaskCritic())
    return evaluate(
        lambda: wrap(addition_env()), Obedient, episodes, out=out, concurrency=2, seed=1
    )


def test_a_critique_of_ones_own_attempt_mends_it_and_the_controls_do_not(tmp_path: Path) -> None:
    gains = {mode: compare_attempts(run(mode, tmp_path / mode)) for mode in MODES if mode != "self"}
    assert gains["critique"].wrong_to_right == 12
    assert gains["critique"].second.mean == 1.0
    for control in ("retry", "shuffled", "independent"):
        assert gains[control].first.mean == 0.0
        assert gains[control].wrong_to_right == 0, control


def test_the_record_holds_both_attempts_and_what_stood_between(tmp_path: Path) -> None:
    for mode in ("critique", "retry", "shuffled", "independent"):
        for trajectory in run(mode, tmp_path / mode, episodes=4):
            first, second = trajectory.attempts
            assert first.outcome == 0.0
            assert first.feedback is None
            if mode == "independent":
                assert second.feedback is None
                assert first.judgement is None
                continue
            assert first.judgement is not None
            assert second.feedback is not None
            own = f"About {trajectory.task.id}" in second.feedback
            assert own is (mode == "critique")
            if mode == "retry":
                assert NEUTRAL in second.feedback


def test_shuffled_critiques_are_never_ones_own_and_each_is_used_once() -> None:
    shuffle = ShuffledCritiques()

    def ask(name: str) -> str:
        task = Task(question=name, answer="1")
        critique = Judgement(critique=f"of {name}", score=0.5)
        return shuffle(Trajectory(task, "p"), critique)

    assert [ask("a"), ask("a"), ask("b"), ask("c")] == ["", "", "of a", "of a"]
    assert ask("d") == "of b"


def episode(first: float | None, second: float | None, *, text: str = "x") -> Trajectory:
    attempts = [Attempt((Turn(text),), outcome=first, stop_reason="answered")]
    if second is not None:
        attempts.append(Attempt((Turn("yy"),), outcome=second, stop_reason="answered"))
    return Trajectory(Task(question="q", answer="1"), "p", attempts=tuple(attempts))


def test_the_numbers_are_what_one_counts_by_hand() -> None:
    compared = compare_attempts(
        [episode(0, 1), episode(0, 1), episode(1, 0), episode(1, 1), episode(0, None)]
    )
    assert (compared.first.mean, compared.second.mean) == (0.5, 0.75)
    assert (compared.wrong_to_right, compared.right_to_wrong) == (2, 1)
    assert compared.masked == 1
    assert compared.gain == 0.25
    # differences 1, 1, -1, 0: standard deviation sqrt(2.75 / 3)
    half = 1.959964 * math.sqrt(2.75 / 3 / 4)
    assert compared.gain_interval == pytest.approx((0.25 - half, 0.25 + half))
    assert compared.policy_chars == (1.0, 2.0)


def test_talk_of_a_critique_nobody_gave_is_counted() -> None:
    assert speaks_of_critique(episode(0, None, text="As the reviewer said, I add.").attempts[0])
    assert speaks_of_critique(episode(0, None, text="My previous attempt was off.").attempts[0])
    assert not speaks_of_critique(episode(0, None, text="I review the data first.").attempts[0])
    assert (
        compare_attempts([episode(0, 1, text="as suggested"), episode(0, 1)]).critique_talk == 0.5
    )


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown refinement 'critic'"):
        refiner("critic", TaskCritic())
