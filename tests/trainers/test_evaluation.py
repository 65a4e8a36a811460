"""Held-out evaluation: different tasks, the same ones each time, one pass, no judge."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

from reagent_env.env import ToolUseEnv
from reagent_env.errors import ToolBackendError
from reagent_env.testing import addition_tasks
from reagent_env.trainers.engines.base import Sampling
from reagent_env.trainers.engines.hf import HFEngine
from reagent_env.trainers.evaluation import HeldOut, evaluate_policy
from reagent_env.trainers.held_out import held_out_fields

TASKS = addition_tasks(8)


class Unsteady(ToolUseEnv):
    """Spoils the first ``failures`` answers of all its kind."""

    lock = threading.Lock()
    failures = 0

    def _answer(self, episode: Any, action: str, text: str) -> Any:
        with Unsteady.lock:
            Unsteady.failures -= 1
            if Unsteady.failures >= 0:
                return self._fail(episode, action, (), ToolBackendError("down"))
        return super()._answer(episode, action, text)


@pytest.fixture
def evaluated(renderer: Any, scripted: Any) -> Callable[..., HeldOut]:
    def run(said: str = r"\boxed{5}", failures: int = 0, **options: Any) -> HeldOut:
        Unsteady.failures = failures
        settings: dict[str, Any] = {"episodes": 8, "seed": 3, "concurrency": 3}
        return evaluate_policy(
            lambda: Unsteady(TASKS, tool_format="compact"),
            options.pop("engine", scripted(lambda number, turn: said)),
            renderer,
            Sampling(max_tokens=32),
            **(settings | options),
        )

    return run


def test_every_task_is_played_once_and_the_same_ones_for_a_seed(evaluated: Any) -> None:
    done = evaluated()
    assert sorted(one.task.id for one in done.trajectories) == sorted(task.id for task in TASKS)
    assert (done.success.mean, done.success.n) == (1 / 8, 8)  # 2 + 3 is one of the eight
    few = evaluated(episodes=3)
    assert [one.task.id for one in few.trajectories] == [
        one.task.id for one in done.trajectories[:3]
    ]
    assert [one.task.id for one in evaluated(episodes=3, seed=4).trajectories] != [
        one.task.id for one in few.trajectories
    ]
    assert len(evaluated(episodes=100).trajectories) == 8


def test_what_infrastructure_spoils_is_tried_again_then_left_out(evaluated: Any) -> None:
    assert evaluated(failures=2, retries=2).success.n == 8
    done = evaluated(failures=2, retries=0)
    assert (done.success.n, done.summary.masked) == (6, 2)


def test_talk_of_a_critique_that_nobody_gave_is_counted(evaluated: Any) -> None:
    said = r"As the reviewer advised, my previous attempt was wrong: \boxed{5}"
    assert evaluated(said).critique_talk == 1.0
    assert evaluated().critique_talk == 0.0


def test_each_end_is_told_and_a_bug_comes_out(evaluated: Any, scripted: Any) -> None:
    ends: list[int] = []
    evaluated(on_episode=lambda: ends.append(1))
    assert len(ends) == 8
    with pytest.raises(ZeroDivisionError):
        evaluated(engine=scripted([ZeroDivisionError()]))


def test_in_lock_step_it_samples_the_same_bits_whatever_the_threads_do(
    evaluated: Any, renderer: Any, random_policy: Any, one_thread: None
) -> None:
    def sampled() -> list[Any]:
        engine = HFEngine(
            random_policy().model,
            stop_ids=renderer.stop_ids,
            context_length=1024,
            max_live=3,
            deterministic=True,
        )
        with engine:
            done = evaluated(engine=engine, episodes=5)
        return [turn.completion_ids for one in done.trajectories for turn in one.turns]

    assert sampled() == sampled()


def test_a_summary_takes_what_was_measured() -> None:
    assert held_out_fields([0.4, 0.3, 0.5, 9.0], [0.6, 0.5, 0.7, 8.0]) == {
        "before": 0.4, "after": 0.6, "n": 8, "ci": (0.5, 0.7),
    }  # fmt: skip
    assert held_out_fields(None, None) == {"before": None, "after": None, "n": 0, "ci": None}
