"""BabyAI as text: minigrid's levels, seen and acted in by AgentGym's words (arXiv 1810.08272).

Not here: the words themselves (``baby_ai_view.py``), the tasks (``baby_ai_tasks.py``).
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

from reagent_env.errors import TaskError, ToolError
from reagent_env.families.baby_ai_view import CHECK, FORWARD, View, view_of
from reagent_env.simulator import Simulator
from reagent_env.task import Task
from reagent_env.tool_definition import tool

_LOADING = threading.Lock()


def make_level(level_id: str, seed: int, *, blind: bool = False) -> Any:
    """A level of minigrid as ``reset(seed)`` leaves it, e.g. ``make_level("BabyAI-GoToObjS6-v1", 3)``.

    Args:
        level_id: minigrid's.
        seed: Of its world.
        blind: Its own ``reset`` and ``step`` see nothing, which is most of what they take: a verb
            looks once, at its end.

    Raises:
        gymnasium.error.Error: minigrid has no such level.
    """
    _load()
    level = _constructor(level_id)()
    if blind:
        level.gen_obs = _nothing
    level.reset(seed=seed)
    return level


class BabyAI(Simulator):
    """One level from its start to its end; pays minigrid's 1 − 0.9 · steps / limit for the mission."""

    def __init__(self, task: Task) -> None:
        """Build the level.

        Raises:
            TaskError: the task names no level or no seed.
        """
        level_id, seed = task.metadata.get("level_id"), task.metadata.get("seed")
        if not isinstance(level_id, str) or not isinstance(seed, int):
            raise TaskError(
                f"A BabyAI task names a level_id and a seed, got {level_id!r}, {seed!r}."
            )
        self._level = make_level(level_id, seed, blind=True)
        self._over = False
        self._score = 0.0
        self._view = self._look()
        self.opening = self._view.text

    @property
    def over(self) -> bool:
        """Whether the mission was done, failed, or the level's own limit of steps reached."""
        return self._over

    @property
    def score(self) -> float:
        """What the mission paid; 0 until it is done."""
        return self._score

    def act(self, command: str) -> str:
        """Do one verb.

        Raises:
            ToolError: it is none that can be done now; nothing has changed.
        """
        verb = " ".join(command.lower().split())
        if verb == CHECK:
            return f"You can take the following actions: {self._view.listing}"
        if verb not in self._view.verbs:
            why = self._view.refused.get(verb, "The action is not recognized.")
            raise ToolError(f"{why} Available actions: {self._view.listing}")
        actions = self._view.verbs[verb]
        for action in actions:
            before = self._level.agent_pos
            _, reward, terminated, truncated, _ = self._level.step(action)
            self._over = bool(terminated or truncated)
            if self._over:
                self._score = min(1.0, max(0.0, float(reward)))
                break
            if action == FORWARD and tuple(before) == tuple(self._level.agent_pos):
                break  # something is in the way
        self._view = self._look()
        if not self._over:
            return self._view.text
        ending = "The task is completed." if self._score > 0 else "The task has failed."
        return f"{self._view.description}\n{ending}"

    def render(self) -> Any:
        """The whole level from above, what the agent sees lit."""
        return self._level.get_frame()

    def close(self) -> None:
        """Let the level go."""
        self._level.close()

    def _look(self) -> View:
        carried = self._level.carrying
        carrying = None if carried is None else f"{carried.color} {carried.type}"
        seen = type(self._level).gen_obs(self._level)
        return view_of(seen["image"].tolist(), carrying)


@tool(timeout_s=None)
def act(command: str, *, game: BabyAI) -> str:
    """Do one of the available actions, as it is written in their list.

    Args:
        command: e.g. "turn left", "move forward", "go to red ball 1", "pickup red ball 1",
            "toggle and go through blue closed door 1", "drop", "toggle" or
            "check available actions".
    """
    return game.act(command[:200])


@functools.cache
def _constructor(level_id: str) -> Callable[[], Any]:
    """The level's class with its arguments, without what ``gymnasium.make`` would put around it."""
    from gymnasium.envs.registration import load_env_creator, spec

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # older versions of a level are meant
        found = spec(level_id)
    return functools.partial(load_env_creator(str(found.entry_point)), **found.kwargs)


def _nothing() -> None:
    """What a step sees that nobody looks at."""


@functools.cache
def _loaded() -> None:
    import minigrid  # registers its levels
    from minigrid.envs.babyai.core import roomgrid_level

    del minigrid
    vars(roomgrid_level)["print"] = lambda *_: None  # it prints each layout that it rejects


def _load() -> None:
    with _LOADING:
        _loaded()
