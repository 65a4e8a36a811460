"""The ``reagent`` command. Each layer of the package adds its own commands by an entry point.

So this layer imports none above it, and other packages can add commands too: an entry point in the
group ``reagent_env.commands`` that names a function (a command) or a ``typer.Typer`` (a group).
"""

from __future__ import annotations

import importlib.metadata
import sys

import typer

app = typer.Typer(
    help="Multi-turn tool-use tasks as Gymnasium environments: make, evaluate, train.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def reagent() -> None:
    """Multi-turn tool-use tasks as Gymnasium environments."""


def _add_commands() -> None:
    entries = importlib.metadata.entry_points(group="reagent_env.commands")
    for entry in sorted(entries, key=lambda one: one.name):
        command = entry.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)


_add_commands()


def main() -> None:
    """The ``reagent`` script: what a user can mend is one line, not a traceback."""
    import gymnasium

    from reagent_env.errors import InfrastructureError
    from reagent_env.needs import NeedMissing
    from reagent_env.sandboxes.errors import SandboxError

    mendable = (
        gymnasium.error.Error,
        InfrastructureError,
        NeedMissing,
        SandboxError,
        OSError,
        ValueError,
    )

    try:
        app()
    except mendable as error:
        sys.exit(f"reagent: {type(error).__name__}: {error}")
