"""Our environment ids, and their registration with Gymnasium (``gymnasium_hook.py`` calls it)."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import register, registry

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "reagent/PythonMath-v0": {
        "summary": "Mathematics with a Python sandbox.",
        "kwargs": {
            "tasks": "python_math",
            "tools": ("python",),
            "sandbox": "auto",
        },
    },
}
"""Id → one line for people, and the keyword arguments of ``ToolUseEnv``."""


def register_environments() -> None:
    """Register every id; imports nothing heavy, since it runs whenever gymnasium is imported."""
    for env_id, entry in ENVIRONMENTS.items():
        if env_id not in registry:
            register(
                id=env_id,
                entry_point="reagent_env.env:ToolUseEnv",
                vector_entry_point="reagent_env.vector:ToolUseVectorEnv",
                kwargs=entry["kwargs"],
            )
