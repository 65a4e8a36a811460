"""``reagent judge-eval``: a thin layer over ``evaluation.py``."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reagent_env.agents.judge_data.records import PlantedRecord


def judge_eval(
    judge: Annotated[str, typer.Option(help="rubric | noise | URL#model | module:object | …")],
    env: Annotated[str, typer.Option(help="An environment id, or all.")] = "all",
    episodes: Annotated[int, typer.Option(min=1, help="Tasks of each environment.")] = 40,
    data: Annotated[
        Path | None,
        typer.Option(help="Judge this file instead: `judge-data` records, or trajectories."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the report.")] = None,
    split: Annotated[str, typer.Option(help="train | validation | test")] = "test",
    seed: Annotated[int, typer.Option(help="Draws tasks, kinds and places.")] = 0,
    kinds: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    injections: Annotated[int, typer.Option(min=0, help="Tries of each injected text.")] = 3,
    batch: Annotated[int, typer.Option(min=1, help="Trajectories a call of the judge.")] = 32,
    sandbox: Annotated[str, typer.Option(help="auto | docker | embedded | process")] = "auto",
) -> None:
    """Measure a judge: ranking by flaw kind, calibration, localisation, bias, injections, cost."""
    from rich.console import Console

    from reagent_env.agents.judge_eval.evaluation import evaluate_judge
    from reagent_env.agents.judge_eval.judging import load_judge
    from reagent_env.agents.judge_eval.report import print_report, write_report
    from reagent_env.cli.progress import progress_bar

    _require_extra()
    console = Console(stderr=True)
    model = load_judge(judge)
    settings: dict[str, Any]
    if data is not None:
        records: Sequence[PlantedRecord] = list(records_or_trajectories(data))
        if kinds:
            records = [r for r in records if r.kind in kinds.split(",") or r.kind == "clean"]
        settings = {"data": data.name}
    else:
        from reagent_env.agents.judge_data.cli import planted

        wanted = kinds.split(",") if kinds else None
        records = planted(env, episodes, split, seed, wanted, 4, sandbox, console)
        settings = {"env": env, "episodes": episodes, "split": split, "seed": seed}
    with progress_bar(console, f"judging by {judge}", len(records)) as advance:

        def judged(count: int) -> None:
            for _ in range(count):
                advance(None)

        report, _ = evaluate_judge(
            model, records, batch=batch, injections_each=injections, on_batch=judged
        )
    command = " ".join(["reagent", *map(shlex.quote, sys.argv[1:])])
    report = {"judge": judge, "command": command, "settings": settings, **report}
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "150"))
    print_report(report, Console(width=width))
    if out is not None:
        write_report(report, out)
        console.print(f"report.md, report.json and reliability.png in {out}/")


def records_or_trajectories(path: Path) -> Iterator[PlantedRecord]:
    """A file's records; of a file of plain trajectories, unlabelled ones.

    Raises:
        ValueError: a line that is neither, with its number.
    """
    from reagent_env.agents.judge_data.records import PlantedRecord, read_records
    from reagent_env.agents.judge_eval.evaluation import UNLABELLED
    from reagent_env.trajectory_file import settled_trajectories

    with open(path, encoding="utf-8") as lines:
        first = lines.readline()
    try:
        planted = "trajectory" in json.loads(first or "{}")
    except (TypeError, ValueError):
        planted = True  # the reader says what is wrong with the line
    if planted:
        yield from read_records(path)
        return
    for number, trajectory in enumerate(settled_trajectories(path)):
        if trajectory.attempts:
            turns = len(trajectory.attempts[-1].turns)
            yield PlantedRecord(
                trajectory, UNLABELLED, None, 0.5, "", (0.5,) * turns, f"line-{number}"
            )


def _require_extra() -> None:
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise typer.BadParameter(
            f"judge-eval needs {error.name}: python -m pip install 'reagent-env[judge-eval]'"
        ) from None
