"""The contract every tool-use environment keeps, as a pytest class to inherit.

Example::

    class TestMyEnv(EnvContract):
        def make_env(self, **kwargs):
            return gym.make("my/Env-v0", **kwargs)
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import gymnasium
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from reagent_env.env import ToolUseEnv
from reagent_env.tool_formats import TOOL_FORMATS
from reagent_env.trajectory import Trajectory

AWKWARD_TEXTS = (
    "",
    "\x00",
    "\ud800 lone surrogate \udfff",
    "<tool_call>",
    "</tool_call>",
    "<tool_call>{</tool_call>",
    '<tool_call>{"name": 3, "arguments": []}</tool_call>',
    "<tool_call>" + "[" * 5_000 + "</tool_call>",
    '<tool_call>{"name": "\x00\ud800", "arguments": {}}</tool_call>',
    "<think>" * 1_000,
    "\\boxed{" * 1_000,
    "\\boxed{\x00\ud800}",
    "Action: nothing\nAction Input: {",
    '{"tool_calls": [{"function": 1}]}',
    "😀" * 10_000,
)
"""Texts that have broken parsers."""

UNKNOWN_CALL = '<tool_call>{"name": "no_such_tool_here", "arguments": {}}</tool_call>'
MALFORMED_CALL = '<tool_call>{"name": </tool_call>'


class EnvContract:
    """Inherit, give :meth:`make_env`, and pytest runs the contract on your environment."""

    def make_env(self, **kwargs: Any) -> gymnasium.Env[str, str]:
        """Make the environment under test; ``kwargs`` go to ``ToolUseEnv``."""
        raise NotImplementedError("Give make_env(**kwargs) in your subclass.")

    @pytest.fixture
    def env(self) -> Any:
        """An environment, closed afterwards."""
        env = self.make_env()
        yield env
        env.close()

    def test_gymnasiums_own_checker_passes(self, env: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*not within the observation space.*")
            warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
            check_env(env.unwrapped, skip_render_check=True)

    def test_one_seed_gives_one_episode(self, env: Any) -> None:
        first = env.reset(seed=11)
        first_step = env.step(UNKNOWN_CALL)
        assert env.reset(seed=11) == first
        assert env.step(UNKNOWN_CALL) == first_step

    def test_seeds_reach_different_tasks(self, env: Any) -> None:
        seen = {env.reset(seed=seed)[1]["task_id"] for seed in range(12)}
        assert len(seen) > 1 or len(env.unwrapped.tasks) == 1

    def test_a_task_can_be_chosen(self, env: Any) -> None:
        task = env.unwrapped.tasks[len(env.unwrapped.tasks) // 2]
        for choice in (task, task.id, len(env.unwrapped.tasks) // 2):
            assert env.reset(options={"task": choice})[1]["task_id"] == task.id

    def test_step_needs_a_reset_first_and_after_the_end(self, env: Any) -> None:
        with pytest.raises(ResetNeeded):
            env.unwrapped.step("x")
        env.reset(seed=0)
        env.step("I give up.")
        with pytest.raises(ResetNeeded):
            env.step("x")

    def test_a_turn_without_a_call_is_final_and_terminates(self, env: Any) -> None:
        env.reset(seed=0)
        observation, reward, terminated, truncated, info = env.step("I give up.")
        assert (observation, reward, terminated, truncated) == ("", 0.0, True, False)
        assert info["stop_reason"] == "answered"
        assert info["final_answer"] is None

    def test_the_turn_limit_truncates_with_nothing_earned(self) -> None:
        env = self.make_env(max_turns=2)
        env.reset(seed=0)
        assert env.step(UNKNOWN_CALL)[1:4] == (0.0, False, False)
        _, reward, terminated, truncated, info = env.step(UNKNOWN_CALL)
        assert (reward, terminated, truncated) == (0.0, False, True)
        assert info["stop_reason"] == "max_turns"
        env.close()

    @pytest.mark.parametrize("call", [UNKNOWN_CALL, MALFORMED_CALL])
    def test_a_wrong_call_is_explained_and_the_episode_goes_on(self, env: Any, call: str) -> None:
        env.reset(seed=0)
        observation, reward, terminated, truncated, info = env.step(call)
        assert "Error" in observation
        assert (reward, terminated, truncated) == (0.0, False, False)
        assert info["tool_results"][0]["error"] in ("unknown_tool", "malformed")

    @pytest.mark.parametrize("tool_format", sorted(TOOL_FORMATS))
    def test_no_text_crashes_the_episode(self, tool_format: str) -> None:
        env = self.make_env(tool_format=tool_format)
        for text in AWKWARD_TEXTS:
            env.reset(seed=0)
            observation, reward, terminated, truncated, info = env.step(text)
            assert isinstance(observation, str)
            assert reward == 0.0
            assert not (terminated and truncated)
            json.dumps([observation, info])
        env.close()

    def test_spamming_wrong_calls_earns_nothing(self, env: Any) -> None:
        env.reset(seed=0)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(MALFORMED_CALL + UNKNOWN_CALL)
            total += float(reward)
            over = terminated or truncated
        assert total == 0.0

    def test_the_right_answer_earns_one_and_says_so_once(self, env: Any) -> None:
        unwrapped: ToolUseEnv = env.unwrapped
        env.reset(seed=0)
        answer = unwrapped.trajectory.task.answer
        written = {str(answer)}
        if isinstance(answer, list):  # aliases, or the parts of one answer
            written |= {str(answer[0]), ", ".join(str(part) for part in answer)}
        rewards = set()
        for text in written:
            env.reset(seed=0)
            _, reward, terminated, _, info = env.step(unwrapped.tool_format.render_answer(text))
            assert terminated
            assert info["reward/outcome"] == reward
            rewards.add(reward)
        assert max(rewards) == 1.0

    def test_the_record_survives_json(self, env: Any) -> None:
        env.reset(seed=0)
        env.step("\ud800\x00" + UNKNOWN_CALL)
        env.step("done")
        record = env.unwrapped.trajectory
        again = Trajectory.from_json(json.loads(json.dumps(record.to_json())))
        assert again.to_json() == record.to_json()
        assert again.turns[0].completion.startswith("\ud800\x00")

    def test_closing_twice_is_fine(self, env: Any) -> None:
        env.reset(seed=0)
        env.close()
        env.close()
