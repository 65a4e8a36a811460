"""``reagent eval --suite``: a thin layer over ``suite.py``; the options are ``cli.py``'s."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from reagent_env.agents.suite import SuiteRow
    from reagent_env.trajectory import Trajectory


@dataclass(frozen=True)
class SuiteRequest:
    """What was asked for, e.g. ``SuiteRequest("reagent-12", "http://127.0.0.1:8000/v1#m")``."""

    suite: str
    """A name of :data:`~reagent_env.agents.suite_paper.SUITES`."""
    agent: str
    """As ``--agent``."""
    only: str | None = None
    """Benchmarks of the suite to run, by comma; None for all."""
    data: str | None = None
    """A folder of data sets."""
    subset: str | None = None
    """``text`` or ``full``, where a benchmark has them."""
    judge: str | None = None
    """The judge of correctness, ``URL#model``."""
    corpus: str | None = None
    """Where to search, for benchmarks without paragraphs of their own."""
    web: bool = False
    """Whether ``browse`` may open web pages."""
    episodes: int | None = None
    """Tasks of each benchmark; None for all."""
    samples: int = 1
    """Samples a task."""
    sandbox: str = "auto"
    tool_format: str | None = None
    max_turns: int | None = None
    temperature: float = 0.6
    max_tokens: int = 1024
    concurrency: int = 4
    seed: int = 0


def evaluate_suite(request: SuiteRequest, folder: Path) -> None:
    """Run it, print the table, write ``summary.json`` and ``report.md`` to ``folder``.

    Raises:
        typer.BadParameter: an unknown suite, benchmark or agent.
        typer.Exit: with 1 where no benchmark could run.
    """
    from rich.console import Console

    from reagent_env.agents.suite import markdown, run_suite
    from reagent_env.cli.progress import progress_bar

    env_ids = chosen(request.suite, request.only)
    if request.agent == "expert":
        raise typer.BadParameter("Benchmarks have no expert; give --agent random or URL#model.")
    _keep_settings(folder, request)
    console = Console(stderr=True)
    console.print(f"Evaluating {request.agent} on {request.suite}; it goes to {folder}/")
    advance: Callable[[float | None], None] = lambda outcome: None  # noqa: E731
    with contextlib.ExitStack() as shared, contextlib.ExitStack() as bar:

        def begin(env_id: str, count: int) -> None:
            nonlocal advance
            bar.close()  # a terminal has room for one
            advance = bar.enter_context(progress_bar(console, env_id, count))

        def count(trajectory: Trajectory) -> None:
            advance(trajectory.outcome)

        rows = run_suite(
            env_ids,
            lambda env_id: _make_env(env_id, request),
            lambda env_id, tool_format, number: _agents(
                request, env_id, tool_format, number, shared
            ),
            out=folder,
            episodes=request.episodes,
            samples=request.samples,
            concurrency=request.concurrency,
            seed=request.seed,
            subset=request.subset,
            on_begin=begin,
            on_episode=count,
        )
    summary = {**asdict(request), "benchmarks": [row.to_json() for row in rows]}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
    (folder / "report.md").write_text(markdown(rows, request.agent), "utf-8")
    print_suite(rows, request.agent)
    typer.echo(f"Table in {folder}/report.md, figures in {folder}/summary.json")
    if all(row.pass_1.n == 0 for row in rows):
        typer.echo("No benchmark has a figure.", err=True)
        raise typer.Exit(1)


def chosen(suite: str, only: str | None) -> Sequence[str]:
    """The suite's environments, or those of it that ``only`` names with or without ``reagent/…-v0``."""
    from reagent_env.agents.suite_paper import SUITES

    if suite not in SUITES:
        raise typer.BadParameter(f"Unknown suite {suite!r}; known: {', '.join(SUITES)}.")
    if only is None:
        return SUITES[suite]
    names = {env_id[len("reagent/") : -len("-v0")].lower(): env_id for env_id in SUITES[suite]}
    wanted = []
    for given in only.split(","):
        name = given.strip().removeprefix("reagent/").removesuffix("-v0").lower()
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise typer.BadParameter(
                f"{given.strip()!r} is not in {suite}.{hint} It has {', '.join(names)}."
            )
        wanted.append(names[name])
    return wanted


def _make_env(env_id: str, request: SuiteRequest) -> Any:
    import gymnasium

    from reagent_env.task_sets.published_table import BENCHMARKS

    row = BENCHMARKS[env_id]
    kwargs: dict[str, Any] = {"data": request.data, "sandbox": request.sandbox, "web": request.web}
    if request.judge is not None and row.judge != "never":
        kwargs["judge"] = request.judge
    if request.subset is not None and row.subsets:
        kwargs["subset"] = request.subset
    if request.corpus is not None and not row.contexts:
        kwargs["corpus"] = request.corpus
    if request.tool_format is not None:
        kwargs["tool_format"] = request.tool_format
    if request.max_turns is not None:
        kwargs["max_turns"] = request.max_turns
    return gymnasium.make(env_id, disable_env_checker=True, **kwargs)


def _agents(
    request: SuiteRequest, env_id: str, tool_format: str, number: int, shared: contextlib.ExitStack
) -> Any:
    from reagent_env.agents.making import AgentRequest, UnknownAgent, agent_maker

    asked = AgentRequest(
        request.agent,
        env_id,
        tool_format,
        request.temperature,
        request.max_tokens,
        request.concurrency,
        request.seed + number - 1,
    )
    try:
        return agent_maker(asked, shared)
    except UnknownAgent as error:
        raise typer.BadParameter(str(error)) from error


def _keep_settings(folder: Path, request: SuiteRequest) -> None:
    """A folder holds one run of a suite: going on with other settings is refused."""
    path = folder / "config.json"
    free = ("only", "concurrency", "sandbox", "web")
    settings = {name: value for name, value in asdict(request).items() if name not in free}
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        changed = sorted(name for name in settings if before.get(name) != settings[name])
        if changed:
            raise typer.BadParameter(
                f"{folder} holds a run with other settings ({', '.join(changed)}); give another --out."
            )
    path.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def print_suite(rows: Sequence[SuiteRow], agent: str) -> None:
    """The table a person reads, on standard output; reasons of what did not run below it."""
    from rich.console import Console
    from rich.table import Table

    from reagent_env.agents.suite import paper_cells, percent

    k = max((row.k for row in rows), default=1)
    table = Table(title=f"{agent}: percent, 95 % intervals over tasks", title_justify="left")
    table.add_column("benchmark")
    for column in ("n", "pass@1", *([f"pass@{k}"] if k > 1 else []), "masked"):
        table.add_column(column, justify="right")
    for column in ("base", "no RRM", "C", "R", "U"):
        table.add_column(column, justify="right", style="dim")
    for row in rows:
        figures = [str(row.pass_1.n or "–"), percent(row.pass_1)]
        figures += [percent(row.pass_k)] if k > 1 else []
        title = row.paper.title if row.paper else row.env_id
        table.add_row(title, *figures, str(row.masked), *paper_cells(row.paper))
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "120"))
    Console(width=width).print(table)
    typer.echo("Dim columns: the paper's Qwen3-8B, one run each (arXiv 2601.22154).")
    for row in rows:
        if row.left_out is not None:
            typer.echo(f"{row.env_id} did not run: {row.left_out}")
