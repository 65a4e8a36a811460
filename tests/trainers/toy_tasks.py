"""Environments registered from outside the package, for tests: ``--env toy_tasks:toy/Sums-v0``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import gymnasium

from reagent_env import Task, ToolUseEnv
from reagent_env.errors import ToolBackendError
from reagent_env.testing import add, addition_tasks
from reagent_env.trajectory import ToolCall


class Sums(ToolUseEnv):
    """Sums with a tool that adds; takes neither ``split`` nor ``sandbox``."""

    def __init__(self, max_turns: int = 3) -> None:
        super().__init__(
            tasks=addition_tasks(12),
            tools=[add],
            max_turns=max_turns,
            system_prompt="Add.",
            tool_format="compact",
        )


class Letters(ToolUseEnv):
    """One turn: whatever is said, the share of letters ``a`` in it is what it is worth."""

    def __init__(self, **kwargs: Any) -> None:
        tasks = [Task(f"Say a, {n}.", "a", grader="exact") for n in range(40)]
        super().__init__(tasks=tasks, system_prompt="", **kwargs)

    def _answer(self, episode: Any, action: str, text: str) -> Any:
        observation, _, terminated, truncated, info = super()._answer(episode, action, text)
        worth = action.count("a") / max(1, len(action))
        episode.attempt.outcome = info["reward/outcome"] = worth
        return observation, worth, terminated, truncated, info


class Down(ToolUseEnv):
    """Its service is down: whatever is said spoils the episode."""

    def __init__(self) -> None:
        super().__init__(tasks=addition_tasks(4), system_prompt="")

    def _answer(self, episode: Any, action: str, text: str) -> Any:
        return self._fail(episode, action, (), ToolBackendError("the service is down"))


class Few(ToolUseEnv):
    """Three tasks, all of them in one split."""

    def __init__(self, split: str = "train") -> None:
        tasks = [task for task in addition_tasks(30) if task.split == "train"][:3]
        super().__init__(tasks=tasks, split=split)


class Waiting(ToolUseEnv):
    """Says in a file that it waits, and waits for the file ``go``."""

    def __init__(self, folder: str) -> None:
        super().__init__(tasks=addition_tasks(8), system_prompt="")
        self.folder = Path(folder)

    def _answer(self, episode: Any, action: str, text: str) -> Any:
        (self.folder / f"waits-{os.getpid()}-{id(self)}").touch()
        deadline = time.monotonic() + 300
        while not (self.folder / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return super()._answer(episode, action, text)


class Endless(ToolUseEnv):
    """Whatever is said adds 1 and 1: the limit of turns alone ends an attempt."""

    def __init__(self, max_turns: int = 5) -> None:
        super().__init__(
            tasks=addition_tasks(8), tools=[add], max_turns=max_turns, system_prompt=""
        )

    def _answer(self, episode: Any, action: str, text: str) -> Any:
        return self._act(episode, action, (ToolCall("add", {"a": 1, "b": 1}),))


gymnasium.register("toy/Endless-v0", entry_point=Endless)
gymnasium.register("toy/Waiting-v0", entry_point=Waiting)
gymnasium.register("toy/Few-v0", entry_point=Few)
gymnasium.register("toy/Sums-v0", entry_point=Sums)
gymnasium.register("toy/Letters-v0", entry_point=Letters)
gymnasium.register("toy/Down-v0", entry_point=Down)


def reagent(*words: str) -> None:
    """The command ``reagent …``, in a process of its own."""
    import sys

    from reagent_env.cli import main

    sys.argv = ["reagent", *words]
    main()
