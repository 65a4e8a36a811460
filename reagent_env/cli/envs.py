"""``reagent envs``: the registered environments, and what each still needs on this machine."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import typer


def envs() -> None:
    """List the environments that `gymnasium.make` knows from this package."""
    import gymnasium

    from reagent_env.registration import ENVIRONMENTS

    width = max(len(env_id) for env_id in ENVIRONMENTS)
    for env_id, entry in ENVIRONMENTS.items():
        tools = ", ".join(tools_of(entry))
        installed = "" if env_id in gymnasium.registry else "  (not registered!)"
        typer.echo(f"{env_id:<{width}}  {entry['summary']}  Tools: {tools}.{installed}")
        for line in missing(env_id):
            typer.echo(f"{'':<{width}}  needs {line}")
    typer.echo(
        "\nTry one:  reagent play ID   or   reagent eval ID --agent expert   (random, of a benchmark)"
    )


def tools_of(entry: Mapping[str, Any]) -> Sequence[str]:
    """What a model calls an environment's tools; a benchmark's stand beside its arguments."""
    return [_called(name) for name in entry.get("tools") or entry["kwargs"]["tools"]]


def _called(tool: str) -> str:
    """A tool's own name; that of its function where its module cannot be had on this machine."""
    from reagent_env.tools import get_tool

    if ":" not in tool:
        return tool
    try:
        return get_tool(tool, ()).name
    except Exception:
        return tool.rpartition(":")[2]


def missing(env_id: str) -> list[str]:
    """What an environment lacks here, each with the command that mends it."""
    from reagent_env.registration import ENVIRONMENTS

    entry = ENVIRONMENTS[env_id]
    lacking = [str(need) for need in entry.get("needs", ()) if not need.met]
    if entry["kwargs"].get("sandbox") is not None and not _has_sandbox():
        lacking.append("a sandbox: reagent doctor")
    return lacking


@functools.cache
def _has_sandbox() -> bool:
    from reagent_env.sandboxes.embedded import embedded_problem
    from reagent_env.sandboxes.engine import docker_problem

    return docker_problem() is None or embedded_problem() is None
