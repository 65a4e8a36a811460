"""WebArena and other sites through ``browsergym-core``, for a machine that has them. A thin adapter.

BrowserGym's environments take actions such as ``click("12")`` and show an accessibility tree; here
such an environment is the simulator behind one tool, so that formats, records, wrappers and training
stay the same. ``browsergym-core`` pins an old Playwright: give it a virtual environment of its own,
and never install the package ``browsergym``, which brings every benchmark's libraries along.

Not here: the sites themselves, nor the tasks; not run against WebArena, whose images could not be had.
Tested against an environment of the documented shape.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium

from reagent_env.errors import TaskError, ToolBackendError, ToolError
from reagent_env.simulator import Simulator
from reagent_env.task import Task
from reagent_env.tool_definition import tool

MAX_ACTION_CHARS = 1000


def browsergym_task(env_id: str, seed: int = 0, **metadata: Any) -> Task:
    """A task of BrowserGym's, e.g. ``browsergym_task("browsergym/webarena.310", split="test")``.

    Args:
        env_id: As ``gymnasium.make`` takes it, once its benchmark's package is imported.
        seed: Of the reset.
        **metadata: ``kind``, ``level``, ``split`` and what else is to be known of it.
    """
    kind = env_id.rpartition("/")[2].partition(".")[0]
    return Task(
        f"Reach the goal below in the browser ({env_id}).",
        None,
        "simulator",
        metadata={"kind": kind, "level": 1, "env_id": env_id, "seed": seed, **metadata},
    )


class BrowserGym(Simulator):
    """One episode of a BrowserGym environment.

    Example, in a virtual environment with ``browsergym-core`` and ``browsergym-webarena``::

        import browsergym.webarena  # registers browsergym/webarena.0 to .811
        tasks = [browsergym_task(f"browsergym/webarena.{n}") for n in range(812)]
        env = ToolUseEnv(tasks, [act], simulator=BrowserGym, max_turns=15, max_calls_per_turn=1)

    Its reward counts once: the outcome is the highest that a step gave, cut to [0, 1].
    """

    def __init__(
        self,
        task: Task,
        make: Callable[..., gymnasium.Env[Any, Any]] = gymnasium.make,
        tree_text: Callable[[Mapping[str, Any]], str] | None = None,
    ) -> None:
        """Open the browser and reset it.

        Args:
            task: Of :func:`browsergym_task`.
            make: Makes the environment of an id.
            tree_text: From an observation to the text of its accessibility tree; BrowserGym's own
                ``flatten_axtree_to_str`` by default.

        Raises:
            TaskError: the task names no environment.
            ToolBackendError: it cannot be made or reset.
        """
        env_id = task.metadata.get("env_id")
        if not isinstance(env_id, str):
            raise TaskError(f"A BrowserGym task has metadata 'env_id', got {env_id!r}.")
        self._tree_text = tree_text or _own_tree_text()
        self._over, self._score = False, 0.0
        self._env: gymnasium.Env[Any, Any] | None = None
        try:
            self._env = make(env_id)
            observation, _ = self._env.reset(seed=int(task.metadata.get("seed", 0)))
        except Exception as error:
            self.close()
            raise ToolBackendError(f"{env_id} does not start: {error}") from error
        self.opening = f"Goal: {_goal(observation)}\n\n{self._view(observation)}"

    @property
    def over(self) -> bool:
        """Whether BrowserGym ended the episode."""
        return self._over

    @property
    def score(self) -> float:
        """The highest reward of a step, in [0, 1]."""
        return self._score

    def act(self, action: str) -> str:
        """Take one action in BrowserGym's language."""
        if self._env is None:
            raise ToolBackendError("The browser of this episode is closed.")
        try:
            observation, reward, terminated, truncated, _ = self._env.step(action)
        except Exception as error:  # it tells wrong actions in the observation: this is its own
            raise ToolBackendError(f"BrowserGym failed: {type(error).__name__}: {error}") from error
        self._score = max(self._score, min(1.0, float(reward)))
        self._over = terminated or truncated
        wrong = observation.get("last_action_error")
        return f"Error: {wrong}\n\n{self._view(observation)}" if wrong else self._view(observation)

    def close(self) -> None:
        """Close the browser."""
        env, self._env = self._env, None
        if env is not None:
            env.close()

    def _view(self, observation: Mapping[str, Any]) -> str:
        return f"Page {observation.get('url', '')}:\n{self._tree_text(observation)}"


@tool(timeout_s=None)
def act(action: str, *, web: BrowserGym) -> str:
    """Take one action in the browser.

    Actions: click("12"), fill("12", "text"), select_option("12", "label"), scroll(0, 300),
    press("12", "Enter"), hover("12"), goto("http://…"), go_back(), noop(1000),
    send_msg_to_user("the answer"). Ids stand in brackets in the page's tree.

    Args:
        action: One action.
    """
    if not 1 <= len(action.strip()) <= MAX_ACTION_CHARS:
        raise ToolError(f"an action has 1 to {MAX_ACTION_CHARS} characters, got {len(action)}.")
    return web.act(action.strip())


def _goal(observation: Mapping[str, Any]) -> str:
    """Newer versions give a list of messages' parts, older ones a string."""
    parts = observation.get("goal_object") or ()
    texts = [str(part["text"]) for part in parts if part.get("type") == "text"]
    return "\n".join(texts) or str(observation.get("goal", ""))


def _own_tree_text() -> Callable[[Mapping[str, Any]], str]:
    try:
        flatten = importlib.import_module("browsergym.utils.obs").flatten_axtree_to_str
    except ImportError as error:
        raise ToolBackendError(
            "browsergym-core is not installed; in a virtual environment of its own: "
            "python -m pip install browsergym-core"
        ) from error
    return lambda observation: str(flatten(observation["axtree_object"]))
