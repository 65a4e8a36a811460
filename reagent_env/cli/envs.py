"""``reagent envs``: the registered environments."""

from __future__ import annotations

import typer


def envs() -> None:
    """List the environments that `gymnasium.make` knows from this package."""
    import gymnasium

    from reagent_env.registration import ENVIRONMENTS

    width = max(len(env_id) for env_id in ENVIRONMENTS)
    for env_id, entry in ENVIRONMENTS.items():
        tools = ", ".join(entry["kwargs"]["tools"])
        installed = "" if env_id in gymnasium.registry else "  (not registered!)"
        typer.echo(f"{env_id:<{width}}  {entry['summary']}  Tools: {tools}.{installed}")
    typer.echo("\nTry one:  reagent play ID   or   reagent eval ID --agent expert")
