"""``curves.png``: how a run went, in up to six small plots; those it has no numbers for are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reagent_env.trainers import metric_names as names

Line = Mapping[str, Any]
"""A line of ``metrics.jsonl``."""

SMOOTH = 5
"""Updates that a smoothed point averages; what was measured stays visible, paler, behind it."""

_BLUE, _ORANGE, _GREEN, _GREY = "#2166ac", "#d95f02", "#1b7837", "#666666"


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve, e.g. ``Curve(names.SUCCESS, "first attempts", "#2166ac")``."""

    name: str
    label: str
    colour: str
    points: bool = False
    """Measured now and then: points joined, not smoothed."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot, e.g. ``Panel("Success", (Curve(…),), low=0, high=1)``."""

    title: str
    curves: tuple[Curve, ...]
    low: float | None = None
    high: float | None = None
    zero: bool = False
    """Draw the line of 0."""


PANELS = (
    Panel(
        "Success",
        (
            Curve(names.SUCCESS, "training, first attempts", _BLUE),
            Curve(names.SECOND, "training, second attempts", _ORANGE),
            Curve(names.HELD_OUT, "held out, one pass", _GREEN, points=True),
        ),
        low=0,
        high=1,
    ),
    Panel(
        "The judge's part",
        (
            Curve(names.SCORE, "score", _BLUE),
            Curve(names.PROCESS, "what it paid (λ·score)", _ORANGE),
            Curve(names.UNSCORED, "unscored, share", _GREY),
        ),
        low=0,
        high=1,
    ),
    Panel(
        "Second attempts against first ones",
        (
            Curve(names.GAIN, "mean gain (R² − R¹)", _ORANGE),
            Curve(names.MENDED, "wrong → right", _GREEN),
            Curve(names.SPOILED, "right → wrong", _GREY),
        ),
        zero=True,
    ),
    Panel("Entropy of the policy (nats a token)", (Curve(names.ENTROPY, "entropy", _BLUE),), low=0),
    Panel(
        "KL (nats a token)",
        (
            Curve(names.KL, "of an update", _BLUE),
            Curve(names.MISMATCH, "sampler to learner", _GREY),
        ),
        low=0,
    ),
    Panel("Turns an episode", (Curve(names.TURNS, "mean", _BLUE),)),
    Panel("Loss on demonstrations (nats a token)", (Curve(names.IMITATION, "loss", _BLUE),), low=0),
)


def draw_curves(path: Path, lines: Sequence[Line], title: str) -> bool:
    """Draw ``lines`` into ``path``; False where there is nothing to draw.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = [panel for panel in PANELS if any(points(lines, one.name)[0] for one in panel.curves)]
    if not panels:
        return False
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.2 * columns, 2.9 * rows + 0.5), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(panels):
            axis.set_axis_off()
            continue
        _draw(axis, panels[place], lines)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png")
    part.replace(path)
    return True


def points(lines: Sequence[Line], name: str) -> tuple[list[int], list[float]]:
    """Updates and values of a number, where it was measured."""
    found = [
        (line["update"], float(line[name]))
        for line in lines
        if isinstance(line.get(name), int | float)
    ]
    return [update for update, _ in found], [value for _, value in found]


def smoothed(values: Sequence[float], window: int = SMOOTH) -> list[float]:
    """Mean of each value and those before it within the window: ``[0, 1, 1]`` → ``[0, 0.5, 0.67]``."""
    means = []
    for place in range(len(values)):
        recent = values[max(0, place - window + 1) : place + 1]
        means.append(sum(recent) / len(recent))
    return means


def _draw(axis: Any, panel: Panel, lines: Sequence[Line]) -> None:
    drawn = 0
    for curve in panel.curves:
        updates, values = points(lines, curve.name)
        if not values:
            continue
        drawn += 1
        if curve.points:
            axis.plot(updates, values, "o-", color=curve.colour, ms=4, lw=1.6, label=curve.label)
        else:
            axis.plot(updates, values, color=curve.colour, lw=0.8, alpha=0.3)
            axis.plot(updates, smoothed(values), color=curve.colour, lw=1.8, label=curve.label)
    if panel.zero:
        axis.axhline(0, color=_GREY, lw=0.8)
    if panel.low is not None:
        axis.set_ylim(bottom=panel.low)
    if panel.high is not None:
        axis.set_ylim(top=panel.high)
    axis.set_title(panel.title, fontsize=9, loc="left")
    axis.set_xlabel("update", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25, lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    if drawn > 1:
        axis.legend(fontsize=7, frameon=False)
