"""The tasks that rewards are compared on: the default one, and one whose outcome is rarely right at first.

Importing this module registers ``reagent/MiniMixThreeHops-v0``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import gymnasium

from reagent_env.env import ToolUseEnv
from reagent_env.task_sets.mini_mix import mini_mix

THREE_HOPS = ("chain_3", "alias_chain")
"""Kinds of MiniMix's questions that take three look-ups, each from the last one's result."""


@dataclass(frozen=True, slots=True)
class AblationTask:
    """What is trained and tested on, e.g. ``AblationTask("reagent/MiniMix-v0")``."""

    env: str
    """As ``--env`` takes it."""
    most_at_first: float = 1.0
    """Success of a cold start above which the task is not what it is for."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the runs, beside :data:`~reagent_env.trainers.ablation.plan.COMMON`."""


TASKS: Mapping[str, AblationTask] = MappingProxyType(
    {
        "default": AblationTask("reagent/MiniMix-v0"),
        "sparse": AblationTask(f"{__name__}:reagent/MiniMixThreeHops-v0", most_at_first=0.15),
    }
)
"""Name → task, as ``--task`` takes it."""


def three_hops(split: str = "train", **kwargs: Any) -> ToolUseEnv:
    """MiniMix's questions of three look-ups alone.

    Args:
        split: ``train``, ``validation`` or ``test``.
        kwargs: Of ``ToolUseEnv``.
    """
    wanted = None if split == "all" else split
    given = {"tools": ("search", "browse", "python"), "max_turns": 8, "tool_format": "compact"}
    return ToolUseEnv(tasks=mini_mix(wanted, kinds=THREE_HOPS), **{**given, **kwargs})


if "reagent/MiniMixThreeHops-v0" not in gymnasium.registry:
    gymnasium.register("reagent/MiniMixThreeHops-v0", entry_point=three_hops)
