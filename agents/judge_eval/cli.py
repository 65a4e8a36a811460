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

from reagent_env.agents.judge_data.cli import ENV_HELP

if TYPE_CHECKING:
    from rich.console import Console

    from reagent_env.agents.judge_data.records import PlantedRecord
    from reagent_env.agents.judge_eval.natural import ValuedRollout


_EXAMPLES = """
Examples:

  reagent judge-eval --judge rubric --env reagent/SearchQA-v0 --out report/

  reagent judge-eval --judge runs/20261104-120000-judge-sft/judge --episodes 60

  reagent judge-eval --judge http://127.0.0.1:8000/v1#my-judge --data mine.jsonl

  reagent judge-eval --judge tiny-rrm --env reagent/MiniMix-v0 --agent tiny --out report/

  reagent judge-eval --judge rubric --env reagent/MiniMix-v0 --values report/prefix_values.jsonl

--data takes what `reagent judge-data` writes, or plain trajectories (a run's trajectories.jsonl):
then all is measured that needs no label. With --agent also the natural test: that policy plays, and
plays on from every prefix; a turn after which it succeeds less often lost something. --values takes
those values again, for another judge. docs/judge-eval.md says what each number means.
"""


def judge_eval(
    judge: Annotated[
        str,
        typer.Option(help="rubric | tiny-rrm | noise | URL#model | a folder | module:object"),
    ],
    env: Annotated[str, typer.Option(help=ENV_HELP)] = "all",
    episodes: Annotated[int, typer.Option(min=1, help="Tasks of each environment.")] = 40,
    data: Annotated[
        Path | None,
        typer.Option(help="Judge this file instead: `judge-data` records, or trajectories."),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(help="The natural test too, by: tiny | URL#model | a model's or run's folder"),
    ] = None,
    rollouts: Annotated[int, typer.Option(min=1, help="Of that agent.")] = 40,
    continuations: Annotated[int, typer.Option(min=2, help="Of each prefix of a rollout.")] = 16,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of that agent.")] = 1.0,
    concurrency: Annotated[int, typer.Option(min=1, help="Its episodes at once.")] = 16,
    values: Annotated[
        Path | None,
        typer.Option(help="The natural test with a file of an earlier one, prefix_values.jsonl."),
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
    from reagent_env.agents.judge_eval.natural import natural_report, write_valued
    from reagent_env.agents.judge_eval.report import print_report, write_report
    from reagent_env.agents.making import UnknownAgent
    from reagent_env.cli.progress import progress_bar

    _require_extra()
    if agent is not None and values is not None:
        raise typer.BadParameter("--agent makes new values, --values takes old ones; give one.")
    if agent is not None and env == "all":
        raise typer.BadParameter("--agent plays in one environment: give --env ID.")
    console = Console(stderr=True)
    try:
        model = load_judge(judge)
        records, settings = _records(
            data, env, episodes, split, seed, kinds, sandbox=sandbox, console=console
        )
        valued = _valued(
            values,
            agent,
            env,
            rollouts,
            continuations,
            console,
            split=split,
            seed=seed,
            sandbox=sandbox,
            temperature=temperature,
            concurrency=concurrency,
        )
    except (
        FileNotFoundError,
        ModuleNotFoundError,
        NotImplementedError,
        UnknownAgent,
        ValueError,
    ) as error:
        raise typer.BadParameter(str(error)) from error
    with progress_bar(console, f"judging by {judge}", len(records)) as advance:

        def judged(count: int) -> None:
            for _ in range(count):
                advance(None)

        report, _ = evaluate_judge(
            model, records, batch=batch, injections_each=injections, on_batch=judged
        )
    if valued is not None:
        played = {"policy": agent, "env": env} if values is None else {"policy": str(values.name)}
        played.setdefault("env", valued[0].trajectory.env_id or "–" if valued else "–")
        report["natural"] = {**played, **natural_report(model, valued, batch)}
    command = " ".join(["reagent", *map(shlex.quote, sys.argv[1:])])
    report = {"judge": judge, "command": command, "settings": settings, **report}
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "150"))
    print_report(report, Console(width=width))
    if out is not None:
        write_report(report, out)
        if valued is not None and values is None:
            write_valued(out / "prefix_values.jsonl", valued)
        console.print(f"report.md, report.json and reliability.png in {out}/")


judge_eval.__doc__ = f"{judge_eval.__doc__}\n{_EXAMPLES}"


def _records(
    data: Path | None,
    env: str,
    episodes: int,
    split: str,
    seed: int,
    kinds: str | None,
    *,
    sandbox: str,
    console: Console,
) -> tuple[Sequence[PlantedRecord], dict[str, Any]]:
    """What to judge, and the settings that the report states."""
    if data is not None:
        records: Sequence[PlantedRecord] = list(records_or_trajectories(data))
        if kinds:
            records = [r for r in records if r.kind in kinds.split(",") or r.kind == "clean"]
        if not records:
            raise ValueError(f"{data} holds nothing to judge.")
        return records, {"data": data.name}
    from reagent_env.agents.judge_data.cli import planted

    wanted = kinds.split(",") if kinds else None
    records = planted(env, episodes, split, seed, wanted, 4, sandbox, console)
    return records, {"env": env, "episodes": episodes, "split": split, "seed": seed}


def _valued(
    values: Path | None,
    agent: str | None,
    env: str,
    rollouts: int,
    continuations: int,
    console: Console,
    **options: Any,
) -> list[ValuedRollout] | None:
    """Rollouts with the values of their prefixes, from a file or made now; None without the test."""
    if values is not None:
        from reagent_env.agents.judge_eval.natural import read_valued

        return list(read_valued(values))
    if agent is None:
        return None
    from reagent_env.agents.judge_eval.natural_run import valued_rollouts

    return valued_rollouts(
        agent, env, rollouts, continuations=continuations, console=console, **options
    )


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
