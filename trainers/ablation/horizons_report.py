"""What turn limits come to: a table and verdicts in Markdown, ``results.json`` and ``curves.png``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reagent_env.agents.summary import nan_as_none
from reagent_env.trainers import metric_names as names
from reagent_env.trainers.ablation.comparisons import Comparison
from reagent_env.trainers.ablation.horizons import STATED
from reagent_env.trainers.ablation.inference import Difference, holm, mean_with_interval, paired
from reagent_env.trainers.ablation.picture import COLOURS, points
from reagent_env.trainers.ablation.plan import Plan
from reagent_env.trainers.ablation.results import (
    RunRecord,
    arm_values,
    by_seed,
    read_records,
)
from reagent_env.trainers.ablation.verdict import explained, verdict
from reagent_env.trainers.atomic_files import write_json
from reagent_env.trajectory_file import settled_trajectories


@dataclass(frozen=True, slots=True)
class Played:
    """How the held-out tasks were played, e.g. ``Played(0.61, 7.4)``."""

    ended_well: float
    """Share with an outcome above 0."""
    turns: float
    """Mean turns an episode."""


@dataclass(frozen=True, slots=True)
class FamilyResult:
    """What is there of a family."""

    plan: Plan
    runs: tuple[RunRecord, ...]
    played: Mapping[tuple[str, int], Played]
    """(arm, seed) → how."""
    before: tuple[float, int] | None
    """The cold start's success and episodes."""
    compared: tuple[tuple[Comparison, Difference], ...]


def read_family(plan: Plan) -> FamilyResult:
    """Read the finished runs and compare them."""
    records = read_records(plan)
    paths = {(run.arm, run.seed): run.path for run in plan.runs()}
    played = {(one.arm, one.seed): _played(paths[one.arm, one.seed]) for one in records.runs}
    arms = {arm.name for arm in plan.arms}
    starts = [start.label for start in plan.starts]
    compared: list[tuple[Comparison, Difference]] = []
    for name in dict.fromkeys(one.family for one in STATED):
        stated = [one for one in STATED if one.family == name and set(one.weights) <= arms]
        found = holm([paired(by_seed(records.runs, one, starts)[0]) for one in stated])
        compared += zip(stated, found, strict=True)
    before = next(iter(records.before.values()), None)
    return FamilyResult(plan, records.runs, played, before, tuple(compared))


def results_json(results: Sequence[FamilyResult], command: str) -> dict[str, Any]:
    """Everything the table rests on, every run's numbers among it."""
    record: dict[str, Any] = {
        "command": command,
        "families": {
            one.plan.task: {
                "plan": one.plan.to_json(),
                "before": None
                if one.before is None
                else {"success": one.before[0], "n": one.before[1]},
                "runs": [_run_json(run, one) for run in one.runs],
                "comparisons": [
                    {
                        "name": comparison.name,
                        "question": comparison.question,
                        "verdict": verdict(difference),
                        "words": explained(difference, 1),
                        **difference.to_json(),
                    }
                    for comparison, difference in one.compared
                ],
            }
            for one in results
        },
    }
    encodable: dict[str, Any] = nan_as_none(record)
    return encodable


def table_text(results: Sequence[FamilyResult]) -> str:
    """For each family a table of its arms and a line for each comparison."""
    return "\n\n".join(_family_text(one) for one in results)


def draw(path: Path, results: Sequence[FamilyResult]) -> bool:
    """Outcome and turns of training by turns played, seeds pale; and held-out success, run by run.

    Raises:
        ImportError: matplotlib or scipy is not installed.
    """
    from matplotlib.figure import Figure

    there = [one for one in results if one.runs]
    if not there:
        return False
    figure = Figure(figsize=(12, 3.6 * len(there)), dpi=110, layout="constrained")
    for row, one in zip(figure.subplots(len(there), 3, squeeze=False), there, strict=True):
        _draw_family(row, one)
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png")
    part.replace(path)
    return True


def write_results(folder: Path, results: Sequence[FamilyResult], command: str) -> None:
    """Write ``results.json``, ``table.md`` and ``curves.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", results_json(results, command))
    draw(folder / "curves.png", results)


def _family_text(result: FamilyResult) -> str:
    plan = result.plan
    head = [
        "arm", "turn limit", "success", "of each seed", "ended well", "turns", "interactions",
        "updates", "minutes",
    ]  # fmt: skip
    rows = [head, ["---"] * len(head)]
    if result.before is not None:
        blank = [""] * (len(head) - 3)
        rows.append(["*before*", "", f"{result.before[0]:.3f} (n = {result.before[1]})", *blank])
    for arm in plan.arms:
        mine = [run for run in result.runs if run.arm == arm.name]
        if not mine:
            continue
        values = arm_values(result.runs, arm.name)
        mean, low, high = mean_with_interval(list(values.values()))
        interval = "" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]"
        played = [result.played[run.arm, run.seed] for run in mine]
        rows.append(
            [
                f"`{arm.name}`",
                arm.meaning,
                f"{mean:.3f}{interval}",
                ", ".join(f"{value:.3f}" for value in values.values()),
                f"{np.mean([one.ended_well for one in played]):.3f}",
                f"{np.mean([one.turns for one in played]):.1f}",
                f"{np.mean([_turns(run) for run in mine]):,.0f}",
                f"{np.mean([run.updates for run in mine]):.0f}",
                f"{np.mean([run.seconds / 60 for run in mine]):.1f}",
            ]
        )
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    lines = [
        f"- *{comparison.question}* {comparison.name}: {explained(difference, 1)}."
        for comparison, difference in result.compared
    ]
    title = f"### {plan.common['env']}, tasks `{plan.common['env_kwargs']['tasks']}`"
    return f"{title}\n\n{table}\n\n" + "\n".join(lines)


def _draw_family(row: Any, result: FamilyResult) -> None:
    plan = result.plan
    arms = [arm for arm in plan.arms if any(run.arm == arm.name for run in result.runs)]
    labels = {arm.name: f"{arm.name}: {arm.meaning}" for arm in arms}
    for axis, of, label in (
        (row[0], "success", "outcome in training"),
        (row[1], "turns", "turns an episode in training"),
    ):
        for place, arm in enumerate(arms):
            mine = [run for run in result.runs if run.arm == arm.name]
            for run in mine:  # with so few seeds each says more than an interval
                each = points([run], names.TURNS_MADE, of)
                axis.plot(each["x"], each["mean"], color=COLOURS[place], lw=0.8, alpha=0.35)
            drawn = points(mine, names.TURNS_MADE, of)
            axis.plot(drawn["x"], drawn["mean"], color=COLOURS[place], lw=2, label=labels[arm.name])
        axis.set_ylim(bottom=0)
        axis.set_xlabel("turns played (interactions)", fontsize=8)
        axis.set_title(f"{plan.task}: {label}", fontsize=9, loc="left")
    row[0].legend(fontsize=7, frameon=False)
    for place, arm in enumerate(arms):
        values = list(arm_values(result.runs, arm.name).values())
        row[2].plot(values, [place] * len(values), "o", color=COLOURS[place], ms=5, alpha=0.7)
        row[2].plot([np.mean(values)], [place], "|", color=COLOURS[place], ms=22, mew=2)
    if result.before is not None:
        row[2].axvline(result.before[0], color="#999999", lw=1, ls=":")
        row[2].text(result.before[0], -0.45, " before", fontsize=7, color="#666666")
    row[2].set_yticks(range(len(arms)), [arm.name for arm in arms], fontsize=8)
    row[2].set_ylim(len(arms) - 0.4, -0.6)
    row[2].set_xlim(left=0)
    row[2].set_title("held-out success, each seed and their mean", fontsize=9, loc="left")
    for axis in row:
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)


def _run_json(run: RunRecord, result: FamilyResult) -> dict[str, Any]:
    played = result.played[run.arm, run.seed]
    return {
        **run.to_json(),
        "interactions": _turns(run),
        "held_out_ended_well": played.ended_well,
        "held_out_turns": played.turns,
    }


def _turns(run: RunRecord) -> int:
    return round(run.curve[names.TURNS_MADE][-1])


def _played(path: Path) -> Played:
    """Of the newest evaluation in a run's folder."""
    newest = max((path / "trajectories").glob("held-out-*.jsonl"))
    kept = [one for one in settled_trajectories(newest) if one.infrastructure_error is None]
    outcomes = [one.attempts[-1].outcome or 0.0 for one in kept]
    return Played(
        float(np.mean([outcome > 0 for outcome in outcomes])),
        float(np.mean([len(one.turns) for one in kept])),
    )
