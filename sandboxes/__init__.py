"""Sandboxes: places where untrusted code runs, their state kept until they are reset.

Example::

    from reagent_env.sandboxes import Limits, make_sandbox

    with make_sandbox("auto", Limits(memory_mb=512)) as sandbox:
        sandbox.python("6 * 7").value       # "42"

Importing this loads neither Docker's SDK nor any backend; the names below are loaded when used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reagent_env.sandboxes.contract import Capabilities, Execution, Limits, Sandbox, Status
from reagent_env.sandboxes.errors import (
    CapabilityMissing,
    SandboxError,
    SandboxLost,
    SandboxUnavailable,
)

if TYPE_CHECKING:
    from reagent_env.sandboxes.docker import DockerSandbox
    from reagent_env.sandboxes.engine import docker_problem
    from reagent_env.sandboxes.image import ensure_image
    from reagent_env.sandboxes.pool import Lease, PoolCounters, SandboxPool
    from reagent_env.sandboxes.select import get_pool, make_sandbox

__all__ = [
    "Capabilities",
    "CapabilityMissing",
    "DockerSandbox",
    "Execution",
    "Lease",
    "Limits",
    "PoolCounters",
    "Sandbox",
    "SandboxError",
    "SandboxLost",
    "SandboxPool",
    "SandboxUnavailable",
    "Status",
    "docker_problem",
    "ensure_image",
    "get_pool",
    "make_sandbox",
]

_LATER = {
    "DockerSandbox": "docker",
    "Lease": "pool",
    "PoolCounters": "pool",
    "SandboxPool": "pool",
    "docker_problem": "engine",
    "ensure_image": "image",
    "get_pool": "select",
    "make_sandbox": "select",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"reagent_env.sandboxes.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
