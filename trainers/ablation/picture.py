"""``curves.png`` of an ablation: each arm's success while training, by what it cost in four coins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reagent_env.trainers import metric_names as names
from reagent_env.trainers.ablation.inference import mean_with_interval
from reagent_env.trainers.ablation.results import AXES, RunRecord
from reagent_env.trainers.curves import smoothed

POINTS = 60
COLOURS = (
    "#d95f02", "#1b9e77", "#666666", "#7570b3", "#e6ab02", "#2166ac", "#a6761d",
    "#e7298a", "#66a61e", "#999999", "#b2182b", "#4393c3", "#35978f", "#8073ac",
)  # fmt: skip


def draw_curves(path: Path, runs: Sequence[RunRecord], arms: Sequence[str], title: str) -> bool:
    """Draw the mean over runs, and its 95 % t interval over seeds; False where there is no run.

    The curves are of training: first attempts, training tasks, tokens drawn. What the verdicts rest
    on is the held-out success at the end.

    Raises:
        ImportError: matplotlib or scipy is not installed.
    """
    from matplotlib.figure import Figure

    there = [arm for arm in arms if any(run.arm == arm and run.curve["success"] for run in runs)]
    if not there:
        return False
    figure = Figure(figsize=(11, 7.4), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=11)
    for place, (axis, (name, label)) in enumerate(
        zip(figure.subplots(2, 2).flat, _shown(runs).items(), strict=True)
    ):
        for arm in there:
            mine = [run for run in runs if run.arm == arm and run.curve["success"]]
            colour = COLOURS[arms.index(arm) % len(COLOURS)]
            _draw(axis, mine, name, arm, colour)
            if place == 0 and all("second" in run.curve for run in mine):
                second = points(mine, name, "second")
                axis.plot(second["x"], second["mean"], color=colour, lw=1.0, ls=(0, (2, 2)))
        axis.set_xlabel(label, fontsize=9)
        dashed = (
            " (dashed: second)" if place == 0 and any("second" in r.curve for r in runs) else ""
        )
        axis.set_ylabel(f"success of first attempts{dashed}", fontsize=9)
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.25, lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        if place == 0 and axis.lines:
            axis.legend(fontsize=7, frameon=False, loc="best")
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png")
    part.replace(path)
    return True


def _shown(runs: Sequence[RunRecord]) -> dict[str, str]:
    """Four of the axes: what the judge costs by its tokens, or by attempts where it writes by rules."""
    writes = any(run.curve[names.JUDGE_TOKENS][-1] for run in runs if run.curve["success"])
    left_out = names.JUDGED if writes else names.JUDGE_TOKENS
    return {name: label for name, label in AXES.items() if name != left_out}


def _draw(axis: Any, runs: Sequence[RunRecord], name: str, arm: str, colour: str) -> None:
    drawn = points(runs, name)
    if drawn["x"][-1] <= drawn["x"][0]:
        return  # an arm that no judge is asked in has no judged attempts to go by
    axis.plot(drawn["x"], drawn["mean"], color=colour, lw=1.6, label=f"{arm} ({len(runs)} runs)")
    axis.fill_between(drawn["x"], drawn["low"], drawn["high"], color=colour, alpha=0.13, lw=0)


def points(runs: Sequence[RunRecord], name: str, of: str = "success") -> Mapping[str, list[float]]:
    """An arm's curve over a common grid: ``x``, ``mean``, ``low``, ``high``.

    Up to where the shortest run ends; runs of a seed from several cold starts are averaged first.

    Args:
        runs: Of the arm.
        name: What the curve goes by, one of the axes.
        of: What is drawn: ``success``, ``second`` or ``turns``.
    """
    end = min(run.curve[name][-1] for run in runs)
    start = max(run.curve[name][0] for run in runs)
    grid = np.linspace(min(start, end), end, POINTS)
    seeds: dict[int, list[np.ndarray[Any, Any]]] = {}
    for run in runs:
        values = np.interp(grid, run.curve[name], smoothed(run.curve[of]))
        seeds.setdefault(run.seed, []).append(values)
    table = np.array([np.mean(each, axis=0) for each in seeds.values()])
    bounds = [mean_with_interval(column.tolist()) for column in table.T]
    return {
        "x": grid.tolist(),
        "mean": [mean for mean, _, _ in bounds],
        "low": [low for _, low, _ in bounds],
        "high": [high for _, _, high in bounds],
    }
