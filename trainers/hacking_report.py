"""``reagent hacking RUN`` and ``reagent leakage RUN``: what a run's saved trajectories say, for people."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reagent_env.trainers.hacking import ScoredAttempt, Stretch


def hacking(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run of reagent-r or reagent-u.")],
    out: Annotated[Path | None, typer.Option(help="By default the run's folder.")] = None,
    bins: Annotated[int, typer.Option(min=1, help="Stretches of training.")] = 8,
) -> None:
    """Score and outcome over training, the judge's accuracy on the policy's own episodes, length."""
    from reagent_env.trainers.atomic_files import write_json, write_text
    from reagent_env.trainers.hacking import by_length, read_attempts, stretches
    from reagent_env.trainers.hacking_alarm import logged_alarm
    from reagent_env.trainers.run_folder import read_metrics

    folder = out or run
    folder.mkdir(parents=True, exist_ok=True)
    attempts = read_attempts(run)
    found = stretches(attempts, bins)
    alarm = logged_alarm(read_metrics(run))
    draw(folder / "hacking.png", found, attempts, f"{run.name}")
    text = table_text(run, found, None if alarm is None else str(alarm))
    write_text(folder / "hacking.md", text)
    write_json(
        folder / "hacking.json",
        {
            "stretches": [one.to_json() for one in found],
            "by_length": [
                {"turns": turns, "score": score, "outcome": outcome, "attempts": count}
                for turns, score, outcome, count in by_length(attempts)
            ],
            "alarm": None if alarm is None else alarm.to_metrics() | {"update": alarm.update},
        },
    )
    typer.echo(text)
    typer.echo(f"{folder}/hacking.md, hacking.json, hacking.png", err=True)


def leakage(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run with held-out episodes.")],
    before: Annotated[
        Path | None, typer.Option(help="A run whose evaluation before training counts.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="By default leakage.json in the run.")] = None,
) -> None:
    """How often single-pass answers talk of a critique that is not there, before and after."""
    from reagent_env.trainers.leakage import leakage_of, lines_of

    found = leakage_of(run, before)
    path = out or run / "leakage.json"
    path.write_text(json.dumps(found.to_json(), indent=2) + "\n", "utf-8")
    typer.echo("\n".join(lines_of(found)))


def table_text(run: Path, found: Sequence[Stretch], alarm: str | None) -> str:
    """The measures in Markdown."""
    head = [
        "updates", "attempts", "score", "outcome", "turns", "AUROC", "within a task", "ρ turns",
        "ρ characters", "chosen", "unscored",
    ]  # fmt: skip
    rows = [head, ["---"] * len(head)]
    rows += [
        [
            f"{one.first} – {one.last}",
            str(one.attempts),
            _number(one.score),
            _number(one.outcome),
            _number(one.turns),
            str(one.auroc),
            str(one.within),
            _number(one.score_by_turns),
            _number(one.score_by_chars),
            _number(one.chosen, "{:+.2f}"),
            f"{one.unscored:.1%}",
        ]
        for one in found
    ]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return (
        f"# Score against outcome: {run.name}\n\n"
        f"Alarm: {alarm or 'none was raised.'}\n\n{table}\n\n"
        "AUROC: how well the score tells right attempts from wrong ones over all tasks, and within "
        "one task of one update; 0.5 knows nothing; intervals by task. ρ: Spearman's, of score and "
        "length. Chosen: outcome of the attempts with their task's highest score, less the mean.\n"
    )


def draw(
    path: Path, found: Sequence[Stretch], attempts: Sequence[ScoredAttempt], title: str
) -> None:
    """Four plots: score and outcome, the judge's accuracy, score against length, its correlation."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from reagent_env.trainers.hacking import by_length

    figure = Figure(figsize=(10.4, 6.6), dpi=120, layout="constrained")
    figure.suptitle(f"Score against outcome: {title}", fontsize=11)
    middle = [(one.first + one.last) / 2 for one in found]
    [trend, accuracy], [length, correlation] = figure.subplots(2, 2)
    _plot(trend, middle, {"score": [s.score for s in found], "outcome": [s.outcome for s in found]})
    for rate in (trend, length):
        rate.set_ylim(0, 1)
    trend.set_title("Score and outcome", fontsize=9, loc="left")
    for place, (name, estimates) in enumerate(
        {"all tasks": [s.auroc for s in found], "within a task": [s.within for s in found]}.items()
    ):
        known = [
            (x, one) for x, one in zip(middle, estimates, strict=True) if not math.isnan(one.value)
        ]
        accuracy.errorbar(
            [x for x, _ in known],
            [one.value for _, one in known],
            [
                [max(0.0, one.value - one.low) for _, one in known],
                [max(0.0, one.high - one.value) for _, one in known],
            ],
            fmt="o-",
            ms=4,
            capsize=2,
            color=_COLOURS[place],
            label=name,
        )
    accuracy.axhline(0.5, color="#666666", lw=0.8)
    accuracy.set_title("Judge: right above wrong (AUROC)", fontsize=9, loc="left")
    lengths = by_length(attempts)
    turns = [float(one[0]) for one in lengths]
    _plot(
        length,
        turns,
        {"score": [one[1] for one in lengths], "outcome": [one[2] for one in lengths]},
    )
    length.set_title("By turns of the attempt, whole run", fontsize=9, loc="left")
    _plot(
        correlation,
        middle,
        {
            "turns": [s.score_by_turns for s in found],
            "characters": [s.score_by_chars for s in found],
        },
    )
    correlation.axhline(0, color="#666666", lw=0.8)
    correlation.set_title("Score and length (Spearman's ρ)", fontsize=9, loc="left")
    for axis, label in (
        (trend, "update"),
        (accuracy, "update"),
        (length, "turns"),
        (correlation, "update"),
    ):
        axis.set_xlabel(label, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.25, lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False)
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png")
    part.replace(path)


_COLOURS = ("#2166ac", "#d95f02")


def _plot(axis: Any, x: Sequence[float], curves: dict[str, list[float]]) -> None:
    for colour, (label, values) in zip(_COLOURS, curves.items(), strict=False):
        axis.plot(x, values, "o-", ms=4, lw=1.6, color=colour, label=label)


def _number(value: float, form: str = "{:.2f}") -> str:
    return "–" if math.isnan(value) else form.format(value)
