"""Environments whose outcome is a simulator's state: what ends them, what they pay, what is masked."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from reagent_env import Judgement, Task, ToolUseEnv, tool
from reagent_env.cli import app
from reagent_env.errors import ToolBackendError, ToolError
from reagent_env.needs import Need, NeedMissing, require
from reagent_env.registration import ENVIRONMENTS
from reagent_env.simulator import Simulator
from reagent_env.wrappers import CritiqueRefine, ProcessReward


class Counter(Simulator):
    """Counts up to its goal; a count above it is out of reach."""

    open_now = 0

    def __init__(self, task: Task) -> None:
        if task.metadata.get("broken"):
            raise ToolBackendError("the counting house is closed")
        self.goal = task.metadata["goal"]
        self.count = 0
        self.opening = f"The counter shows {self.count}."
        Counter.open_now += 1

    @property
    def over(self) -> bool:
        return bool(self.count >= self.goal)

    @property
    def score(self) -> float:
        return self.count / self.goal if self.count <= self.goal else 0.0

    def render(self) -> Any:
        return np.full((2, 2, 3), self.count, np.uint8)

    def close(self) -> None:
        Counter.open_now -= 1


@tool(timeout_s=None)
def add(number: int, *, counter: Counter) -> str:
    """Add to the counter.

    Args:
        number: How much.
    """
    if number < 0:
        raise ToolError("the counter only goes up")
    if number == 99:
        raise ToolBackendError("the counter is stuck")
    counter.count += number
    return f"The counter shows {counter.count}."


TASK = Task("Bring the counter to 4.", None, "simulator", metadata={"goal": 4})


def counting(tasks: Any = (TASK,), **kwargs: Any) -> ToolUseEnv:
    return ToolUseEnv(**{"tasks": list(tasks), "tools": [add], "simulator": Counter, **kwargs})


def call(number: int) -> str:
    return f"<tool_call>{json.dumps({'name': 'add', 'arguments': {'number': number}})}</tool_call>"


def test_the_prompt_shows_the_world_as_it_begins() -> None:
    observation, info = counting().reset(seed=0)
    assert observation.endswith("Bring the counter to 4.\n\nThe counter shows 0.")
    assert info["messages"][-1]["content"].endswith("The counter shows 0.")
    assert "counter" not in info["tools"][0]["function"]["parameters"]["properties"]


def test_reaching_the_goal_ends_the_episode_and_pays_once() -> None:
    env = counting()
    env.reset(seed=0)
    assert env.step(call(3))[1:4] == (0.0, False, False)
    observation, reward, terminated, truncated, info = env.step(call(1))
    assert "The counter shows 4." in observation
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["stop_reason"] == "finished"
    assert info["reward/outcome"] == 1.0
    assert [turn.reward for turn in env.trajectory.turns] == [0.0, 1.0]


def test_missing_the_goal_for_good_ends_the_episode_with_nothing() -> None:
    env = counting()
    env.reset(seed=0)
    assert env.step(call(5))[1:4] == (0.0, True, False)


def test_what_the_policy_says_earns_nothing_beyond_the_state() -> None:
    env = counting()
    env.reset(seed=0)
    assert env.step(r"The counter shows 4. \boxed{4}")[1:4] == (0.0, True, False)
    env.reset(seed=0)
    env.step(call(2))
    _, reward, terminated, _, info = env.step(r"\boxed{4}")
    assert (reward, terminated, info["stop_reason"]) == (0.5, True, "answered")


@pytest.mark.parametrize(
    ("limit", "reason"), [("max_turns", "max_turns"), ("max_seconds", "wall_time")]
)
def test_a_limit_leaves_what_the_state_is_worth(limit: str, reason: str) -> None:
    env = counting(**{limit: 1 if limit == "max_turns" else 1e-9})
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(call(1))
    assert (terminated, truncated, info["stop_reason"]) == (False, True, reason)
    assert reward == (0.25 if limit == "max_turns" else 0.0)  # no call starts once time is up


def test_calls_of_one_turn_run_in_order_and_none_runs_after_the_end() -> None:
    env = counting()
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step("".join(map(call, (1, 3, 1))))
    shown = [one["content"] for one in info["tool_results"]]
    assert shown == [
        "The counter shows 1.",
        "The counter shows 4.",
        "Error: not run; the task is over.",
    ]
    assert (reward, terminated) == (1.0, True)


def test_every_episode_has_a_world_of_its_own_which_is_closed() -> None:
    before = Counter.open_now
    first, second = counting(), counting()
    first.reset(seed=0)
    second.reset(seed=0)
    first.step(call(3))
    assert "shows 1" in second.step(call(1))[0]
    assert "shows 0" in first.reset(seed=0)[0]
    assert Counter.open_now == before + 2
    first.step("done")
    assert Counter.open_now == before + 1
    second.close()
    assert Counter.open_now == before


def test_a_world_that_does_not_start_masks_the_episode_at_its_first_step() -> None:
    broken = Task("Count.", None, "simulator", metadata={"goal": 4, "broken": True})
    env = counting([broken])
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(call(1))
    assert math.isnan(reward)
    assert (terminated, truncated) == (False, True)
    assert "the counting house is closed" in info["infrastructure_error"]


def test_a_world_that_fails_masks_the_episode() -> None:
    env = counting()
    env.reset(seed=0)
    _, reward, _, truncated, info = env.step(call(99))
    assert math.isnan(reward)
    assert truncated
    assert info["stop_reason"] == "infrastructure_failure"


def test_a_score_out_of_range_masks_the_episode_rather_than_pay_it() -> None:
    class Generous(Counter):
        @property
        def score(self) -> float:
            return 2.0

    env = counting(simulator=Generous)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(call(4))
    assert math.isnan(reward)
    assert "Generous.score is 2.0" in info["infrastructure_error"]


class Silent:
    def judge(self, trajectories: Any, /) -> list[Judgement]:
        return [Judgement(critique="Count to none in steps.", score=0.5) for _ in trajectories]


@pytest.mark.parametrize("feedback", ["critique", "independent"])
def test_a_second_attempt_starts_in_a_fresh_world(feedback: str) -> None:
    judge = Silent()
    env = CritiqueRefine(ProcessReward(counting(), judge), judge, feedback=feedback)
    env.reset(seed=0)
    _, first, terminated, _, info = env.step(call(4))
    assert not terminated
    assert first == pytest.approx(1.0 + 0.3 * 0.5)
    assert not info.get("critique_replaced")
    observation, _, terminated, _, _ = env.step(call(1))
    assert "shows 1" in observation
    assert not terminated
    _, second, terminated, _, info = env.step("I stop here.")
    assert terminated
    assert [one["reward/outcome"] for one in info["attempts"]] == [1.0, 0.25]
    assert second == pytest.approx(0.25 + 0.3 * 0.5)


def test_its_picture_outlives_it() -> None:
    env = counting(render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().max() == 0
    env.step(call(4))
    assert env.render().tolist() == np.full((2, 2, 3), 4).tolist()


def test_what_is_missing_is_said_when_it_is_made() -> None:
    with pytest.raises(ValueError, match=r"The tools add act on a simulator; pass simulator="):
        ToolUseEnv([TASK], [add])
    with pytest.raises(ValueError, match="'module:name' of one; got 'nowhere'"):
        counting(simulator="nowhere")
    with pytest.raises(ValueError, match="Only a simulator has a picture"):
        ToolUseEnv([TASK], render_mode="rgb_array")


def test_needs_are_named_with_their_commands() -> None:
    nothing = Need("program", ("no_such_program", "nor_this"), "apt-get install it")
    assert not nothing.met
    assert Need("program", ("no_such_program", "sh"), "").met
    assert Need("module", ("json",), "").met
    require("It", Need("module", ("json",), ""))
    with pytest.raises(NeedMissing) as raised:
        require("It", nothing, Need("module", ("no_such_module",), "pip install it"))
    assert str(raised.value) == (
        "It needs the program no_such_program or nor_this: apt-get install it; "
        "and the module no_such_module: pip install it"
    )


def test_envs_lists_what_each_still_needs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {
        "summary": "A moon.",
        "needs": (Need("program", ("no_such_program",), "apt-get install it"),),
        "kwargs": {"tools": ("mine.moon:land",)},
    }
    monkeypatch.setitem(ENVIRONMENTS, "mine/Moon-v0", entry)
    shown = CliRunner().invoke(app, ["envs"]).output
    assert "A moon.  Tools: land.  (not registered!)" in shown
    assert "needs the program no_such_program: apt-get install it" in shown


@pytest.mark.parametrize("tool_format", ["hermes", "openai", "react"])
def test_a_world_says_that_there_is_no_answer_to_give(tool_format: str) -> None:
    env = counting(tool_format=tool_format, max_calls_per_turn=1)
    assert "One call a turn is run here" in env.system_prompt
    assert "a turn without a call gives up" in env.system_prompt
    several = counting(tool_format=tool_format)
    assert "One call a turn" not in several.system_prompt
    question = ToolUseEnv(tasks=[Task("2 + 2?", "4")], tools=[], tool_format=tool_format)
    assert "gives up" not in question.system_prompt
    assert len(counting(tool_format="compact").system_prompt) < 200
