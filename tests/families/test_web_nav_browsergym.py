"""The adapter to BrowserGym, on an environment of the shape that its core documents."""

from __future__ import annotations

from typing import Any

import gymnasium
import pytest

from reagent_env.env import ToolUseEnv
from reagent_env.errors import TaskError, ToolBackendError
from reagent_env.families.web_nav_browsergym import BrowserGym, act, browsergym_task
from reagent_env.task import Task


class Shop(gymnasium.Env[dict[str, Any], str]):
    """Two pages; buying is the goal. Observations as ``browsergym.core.env.BrowserEnv`` has them."""

    def __init__(self) -> None:
        self.closed = 0
        self.url = ""

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[dict[str, Any], Any]:
        self.url = "http://shop/"
        return self.seen(""), {}

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        if action == "crash()":
            raise RuntimeError("Target closed")
        if action == 'click("7")':
            return self.seen(""), 1.0, True, False, {}
        return self.seen("ValueError: no such action"), 0.0, False, False, {}

    def seen(self, error: str) -> dict[str, Any]:
        return {
            "goal": "Buy the lamp.",
            "goal_object": ({"type": "text", "text": "Buy the lamp."},),
            "url": self.url,
            "axtree_object": {"nodes": []},
            "last_action_error": error,
        }

    def close(self) -> None:
        self.closed += 1


def env_with(shop: Shop) -> ToolUseEnv:
    def simulator(task: Task) -> BrowserGym:
        return BrowserGym(task, make=lambda env_id: shop, tree_text=lambda seen: '[7] button "Buy"')

    return ToolUseEnv([browsergym_task("browsergym/webarena.310")], [act], simulator=simulator)


def call(action: str) -> str:
    quoted = action.replace('"', '\\"')
    return f'<tool_call>{{"name": "act", "arguments": {{"action": "{quoted}"}}}}</tool_call>'


def test_goal_and_tree_open_the_episode_and_the_reward_ends_it() -> None:
    shop = Shop()
    env = env_with(shop)
    prompt, _ = env.reset(seed=0)
    assert 'Goal: Buy the lamp.\n\nPage http://shop/:\n[7] button "Buy"' in prompt
    assert "Error: ValueError: no such action" in env.step(call("dance()"))[0]
    assert env.step(call('click("7")'))[1:4] == (1.0, True, False)
    assert shop.closed == 1


def test_a_browser_that_fails_masks_the_episode() -> None:
    env = env_with(Shop())
    env.reset(seed=0)
    _, reward, _, truncated, info = env.step(call("crash()"))
    assert (reward != reward, truncated) == (True, True)
    assert "BrowserGym failed: RuntimeError: Target closed" in info["infrastructure_error"]


def test_without_the_library_the_error_says_how_to_get_it() -> None:
    with pytest.raises(ToolBackendError, match="python -m pip install browsergym-core"):
        BrowserGym(browsergym_task("browsergym/webarena.310"))
    with pytest.raises(TaskError, match="metadata 'env_id'"):
        BrowserGym(Task("x", None, "simulator"))
