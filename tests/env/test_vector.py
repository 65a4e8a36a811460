"""The vector environment: members overlap, autoreset keeps what ended."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from reagent_env import ToolUseVectorEnv, tool
from reagent_env.testing import addition_env, addition_tasks

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 1}}</tool_call>'


def make(**kwargs: Any) -> ToolUseVectorEnv:
    return ToolUseVectorEnv(3, make_env=addition_env, **kwargs)


def test_members_step_at_the_same_time() -> None:
    meeting = threading.Barrier(8)

    @tool
    def meet() -> str:
        """Wait for all the others."""
        meeting.wait(20)
        return "met"

    envs = ToolUseVectorEnv(8, tasks=addition_tasks(), tools=[meet])
    envs.reset(seed=0)
    observations, *_ = envs.step(['<tool_call>{"name": "meet", "arguments": {}}</tool_call>'] * 8)
    assert all("met" in observation for observation in observations)
    envs.close()


def test_seeds_are_spread_over_the_members_and_give_the_same_tasks_again() -> None:
    envs = make()
    first, _ = envs.reset(seed=5)
    again, _ = envs.reset(seed=5)
    assert first == again
    assert first[1] == addition_env().reset(seed=6)[0]
    envs.close()


def test_next_step_autoreset_ends_then_begins_anew() -> None:
    envs = make()
    envs.reset(seed=0)
    observations, _, terminated, _, infos = envs.step([r"\boxed{0}", CALL, CALL])
    assert terminated.tolist() == [True, False, False]
    assert observations[0] == ""
    assert infos["stop_reason"][0] == "answered"
    observations, rewards, terminated, _, infos = envs.step(["ignored", CALL, CALL])
    assert observations[0].endswith("?")
    assert rewards[0] == 0.0
    assert not terminated[0]
    assert infos["turn"].tolist() == [0, 2, 2]
    envs.close()


def test_same_step_autoreset_keeps_the_final_observation_and_info() -> None:
    envs = make(autoreset_mode="SameStep")
    envs.reset(seed=0)
    for expected_turn in (1, 1):
        observations, _, terminated, _, infos = envs.step([r"\boxed{0}", CALL, CALL])
        assert terminated.tolist() == [True, False, False]
        assert observations[0].endswith("?")
        assert infos["final_obs"][0] == ""
        assert infos["final_info"]["stop_reason"][0] == "answered"
        assert infos["final_info"]["turn"][0] == expected_turn
    envs.close()


def test_disabled_autoreset_wants_a_masked_reset() -> None:
    envs = make(autoreset_mode="Disabled")
    envs.reset(seed=0)
    envs.step([r"\boxed{0}", CALL, CALL])
    with pytest.raises(ResetNeeded, match=r"\[0\]"):
        envs.step([CALL] * 3)
    observations, infos = envs.reset(options={"reset_mask": np.array([True, False, False])})
    assert observations[0].endswith("?")
    assert infos["_turn"].tolist() == [True, False, False]
    assert envs.step([CALL] * 3)[4]["turn"].tolist() == [1, 2, 2]
    envs.close()


def test_gymnasiums_own_vector_environments_take_ours() -> None:
    for vector in (
        SyncVectorEnv([addition_env] * 2),
        AsyncVectorEnv([addition_env] * 2, shared_memory=False),
    ):
        observations, _ = vector.reset(seed=0)
        assert observations[0] == addition_env().reset(seed=0)[0]
        observations, *_ = vector.step((CALL, "\ud800\x00" * 5_000 + CALL))
        assert "2.0" in observations[0]
        vector.close()


def test_a_wrong_number_of_actions_is_refused() -> None:
    envs = make()
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="Expected 3 actions"):
        envs.step([CALL])
    envs.close()


def test_one_wrong_action_is_refused_before_any_member_steps() -> None:
    envs = make()
    envs.reset(seed=0)
    with pytest.raises(TypeError, match="Action 1"):
        envs.step([r"\boxed{0}", None, CALL])  # type: ignore[list-item]
    assert envs.step([CALL] * 3)[4]["turn"].tolist() == [1, 1, 1]
    envs.close()


def test_a_member_that_raises_leaves_the_others_usable() -> None:
    class Fatal(BaseException):
        pass

    @tool(name="explode", timeout_s=None)
    def explode_for_good(code: int) -> str:
        """Raise past every handler.

        Args:
            code: Ignored.
        """
        raise Fatal

    envs = ToolUseVectorEnv(2, tasks=addition_tasks(), tools=[explode_for_good])
    envs.reset(seed=0)
    call = '<tool_call>{"name": "explode", "arguments": {"code": 1}}</tool_call>'
    with pytest.raises(Fatal):
        envs.step([call, r"\boxed{0}"])
    observations, *_, infos = envs.step(["ignored", "ignored"])
    assert all(text.endswith("?") for text in observations)
    assert infos["turn"].tolist() == [0, 0]
    envs.close()


def test_a_closed_vector_says_so() -> None:
    envs = make()
    envs.reset(seed=0)
    envs.close()
    for act in (lambda: envs.step([CALL] * 3), lambda: envs.reset()):
        with pytest.raises(ClosedEnvironmentError):
            act()
