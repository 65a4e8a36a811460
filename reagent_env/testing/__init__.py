"""Contract suites to inherit and small public stand-ins, for tests of environments and sandboxes."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "ChatReply",
    "ChatRequest",
    "EnvContract",
    "RewardModelContract",
    "SandboxConformance",
    "ScriptedChatServer",
    "SimulatorContract",
    "add",
    "addition_env",
    "addition_tasks",
    "example_trajectory",
]

_HOME = {
    "ChatReply": "reagent_env.testing.scripted_server",
    "ChatRequest": "reagent_env.testing.scripted_server",
    "EnvContract": "reagent_env.testing.env_contract",
    "RewardModelContract": "reagent_env.testing.reward_model_contract",
    "SandboxConformance": "reagent_env.sandboxes.conformance",
    "ScriptedChatServer": "reagent_env.testing.scripted_server",
    "SimulatorContract": "reagent_env.testing.simulator_contract",
    "add": "reagent_env.testing.fakes",
    "addition_env": "reagent_env.testing.fakes",
    "addition_tasks": "reagent_env.testing.fakes",
    "example_trajectory": "reagent_env.testing.fakes",
}


def __getattr__(name: str) -> Any:
    """Load on first use: ``example_trajectory`` should not need pytest."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
