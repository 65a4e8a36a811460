"""``reagent doctor``: what works on this machine, and the command that mends what does not."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class Finding:
    """One line of the report, e.g. ``Finding("Docker", True, "answers")``."""

    what: str
    """What was looked at."""
    works: bool
    """Whether it works."""
    detail: str
    """What was found, or the remedy."""
    needed: bool = False
    """True if nothing runs without it."""


def doctor(
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what works on this machine, and the command that mends what does not."""
    import json
    from dataclasses import asdict

    findings = examine()
    if json_output:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            mark = "ok" if finding.works else ("MISSING" if finding.needed else "--")
            typer.echo(f"{mark:<8}{finding.what:<{width}}  {finding.detail}")
    if any(finding.needed and not finding.works for finding in findings):
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Look at everything once; takes a second or so."""
    docker = _sandbox("docker")
    embedded = _sandbox("embedded")
    any_sandbox = docker.works or embedded.works
    chosen = "docker" if docker.works else "embedded" if embedded.works else None
    return [
        Finding("python", sys.version_info >= (3, 11), platform.python_version(), needed=True),
        Finding("platform", True, f"{platform.system()} {platform.machine()}"),
        _version("gymnasium"),
        docker,
        embedded,
        Finding(
            "sandbox=auto",
            any_sandbox,
            f"would use {chosen}" if chosen else "no sandbox: mend one of the two above",
            needed=True,
        ),
        _image(docker.works),
        _environments(),
    ]


def _sandbox(kind: str) -> Finding:
    problem = _problem_of(kind)()
    return Finding(f"sandbox={kind}", problem is None, problem or "works")


def _problem_of(kind: str) -> Callable[[], str | None]:
    if kind == "docker":
        from reagent_env.sandboxes.engine import docker_problem

        return docker_problem
    from reagent_env.sandboxes.embedded import embedded_problem

    return embedded_problem


def _image(docker_works: bool) -> Finding:
    if not docker_works:
        return Finding("sandbox image", False, "needs Docker")
    from reagent_env.sandboxes.image import has_image

    built = has_image()
    detail = "built" if built else "built at first use; or now: reagent sandbox build"
    return Finding("sandbox image", built, detail)


def _version(package: str) -> Finding:
    try:
        return Finding(package, True, importlib.metadata.version(package), needed=True)
    except importlib.metadata.PackageNotFoundError:
        return Finding(package, False, f"pip install {package}", needed=True)


def _environments() -> Finding:
    import gymnasium

    found = [env_id for env_id in gymnasium.registry if env_id.startswith("reagent/")]
    if found:
        return Finding("environments", True, f"{len(found)} ids; list them: reagent envs", True)
    return Finding(
        "environments", False, "no id is registered; reinstall: pip install reagent-env", True
    )
