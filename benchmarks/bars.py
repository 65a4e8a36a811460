"""The picture of the table: each figure with a bar, as a share of it, on one logarithmic axis.

To the right of the line at 1 the bar is met, whichever way it is counted; a whisker joins the
quartiles. Not here: figures without a bar.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outcomes import Outcome
from rows import Row, number

LEAST, MOST = 0.1, 100.0
"""What lies beyond is drawn at the edge."""
HEADING: dict[str, Any] = {
    "weight": "bold",
    "fontsize": 9,
    "va": "center",
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1},
}
MET, MISSED, GREY = "#2166ac", "#d6604d", "#666666"


def draw_bars(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write the picture.

    Args:
        outcomes: Of the suite; those without a report are named below the axis.
        path: A ``.png``.
    """
    from matplotlib.figure import Figure

    parts = [
        (_titled(one), [row for row in one.report.rows if row.bar is not None])
        for one in outcomes
        if one.report is not None
    ]
    parts = [(title, rows) for title, rows in parts if rows]
    lines = sum(1 + len(rows) for _, rows in parts)
    figure = Figure(figsize=(10.5, 1.6 + 0.27 * max(lines, 4)), layout="constrained")
    axes = figure.subplots()
    place, labels, places = 0.0, [], []
    for title, rows in parts:
        axes.text(0, -place, f" {title}", transform=axes.get_yaxis_transform(), **HEADING)
        place += 1
        for row in rows:
            _draw(axes, row, -place)
            labels.append(row.name)
            places.append(-place)
            place += 1
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(LEAST, MOST)
    axes.set_ylim(-place + 0.3, 0.7)
    axes.set_yticks(places, labels, fontsize=8)
    ticks = [0.1, 0.25, 0.5, 1, 2, 4, 10, 30, 100]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    without = [one.name for one in outcomes if one.report is None]
    below = textwrap.fill(f"not run, or failed: {', '.join(without)}", 110) if without else ""
    axes.set_xlabel(
        f"times as good as the bar (1 just meets it; right is better; whiskers: quartiles)\n{below}",
        fontsize=9,
    )
    figure.savefig(path, dpi=110)


def _titled(one: Outcome) -> str:
    """The title, and what other programs took of the machine where that was much."""
    if one.report is None or not one.disturbed:
        return one.title
    return f"{one.title} (other programs had {one.report.machine.others:.0%} of the machine)"


def _draw(axes: object, row: Row, place: float) -> None:
    """A point at the margin, its whisker, and the figure beside it."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    colour = MET if row.met else MISSED
    margin = _within(row.margin(row.measured))
    axes.plot(
        [1.0, margin], [place, place], color=colour, alpha=0.35, linewidth=5, solid_capstyle="butt"
    )
    ends = [margin]
    if row.quartiles is not None:
        ends = sorted(_within(row.margin(one)) for one in row.quartiles)
        axes.plot(ends, [place, place], color=colour, linewidth=1.6, clip_on=False)
    axes.plot(
        [margin], [place], marker="o" if row.met else "X", color=colour, markersize=5, clip_on=False
    )
    sign = "≤" if row.most else "≥"
    text = f"{number(row.measured)} {row.of} ({sign} {row.bar:g})"
    beyond = max([1.0, margin, *ends])
    left = beyond > MOST / 8
    axes.annotate(
        text,
        (min([1.0, margin, *ends]) if left else beyond, place),
        xytext=(-6 if left else 7, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        fontsize=7.5,
        color=colour if row.met is False else GREY,
    )


def _within(margin: float) -> float:
    return max(LEAST, min(MOST, margin))
