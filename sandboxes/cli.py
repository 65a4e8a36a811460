"""``reagent sandbox``: build the image, measure the sandboxes, remove what dead owners left."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

sandbox = typer.Typer(
    help="Build the sandbox image, measure the sandboxes, sweep up after crashes.",
    no_args_is_help=True,
)


@sandbox.command()
def build() -> None:
    """Build the Docker image: from the Dockerfile where a registry answers, else by debootstrap."""
    from reagent_env.sandboxes.engine import docker_problem
    from reagent_env.sandboxes.image import ensure_image

    problem = docker_problem()
    if problem is not None:
        typer.echo(f"Docker does not answer: {problem}", err=True)
        raise typer.Exit(1)
    tag = ensure_image(progress=lambda line: typer.echo(line, err=True))
    typer.echo(tag)


@sandbox.command()
def bench(
    samples: Annotated[int, typer.Option(min=3, help="Samples of each operation.")] = 40,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure step, reset and start against plain Docker in one interleaved run."""
    from reagent_env.sandboxes.bench import render_bench, run_bench

    measured = run_bench(
        samples,
        progress=lambda line: typer.echo(line, err=True) if sys.stderr.isatty() else None,
    )
    typer.echo(json.dumps(measured, indent=2) if json_output else render_bench(measured))


@sandbox.command()
def sweep() -> None:
    """Remove containers whose owner has died; those of living owners are never touched."""
    from reagent_env.sandboxes.sweep import sweep as remove_orphans

    removed = remove_orphans()
    typer.echo(f"removed {len(removed)} orphaned containers")
