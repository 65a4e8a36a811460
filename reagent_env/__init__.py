"""Multi-turn tool-use tasks as true Gymnasium environments.

``gym.make("reagent/PythonMath-v0", sandbox="auto")`` needs no import of this package; what is
exported here is for those who extend it. Names load on first use, so that
``import reagent_env`` loads neither torch nor docker.
"""

from __future__ import annotations

# Where no start-up line ran, importing this package registers its ids.
import reagent_env.gymnasium_hook  # noqa: F401

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without importing typing at every start of Python
if TYPE_CHECKING:
    from typing import Any

    from reagent_env.env import ToolUseEnv
    from reagent_env.judgement import Judgement
    from reagent_env.task import Task
    from reagent_env.tool_definition import Tool, tool
    from reagent_env.trajectory import Trajectory
    from reagent_env.vector import ToolUseVectorEnv

__all__ = [
    "Judgement",
    "Task",
    "Tool",
    "ToolUseEnv",
    "ToolUseVectorEnv",
    "Trajectory",
    "tool",
]

_HOME = {
    "Judgement": "judgement",
    "Task": "task",
    "Tool": "tool_definition",
    "ToolUseEnv": "env",
    "ToolUseVectorEnv": "vector",
    "Trajectory": "trajectory",
    "tool": "tool_definition",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
