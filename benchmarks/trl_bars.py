"""Draws what ``trl_iteration.py --json FILE`` measured: generation, tools and update, both sides.

    python benchmarks/trl_bars.py benchmarks/trl_iteration.json docs/evidence/benchmarks/trl_iteration.png

``make bench`` draws it, too. Medians, as shares of TRL's iteration, since the two policies differ by
a hundred times. Tools whose time overlaps with generation are part of it. Not here: measuring.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rows import Report, report_from

COLOURS = {"generation": "#4393c3", "tools": "#f4a582", "update": "#2166ac"}
SIDES = {"ours": "reagent_env", "trl": "TRL"}


def draw_parts(report: Report, out: Path) -> None:
    """Write the picture of a report: a stacked bar for each policy and side."""
    from matplotlib.figure import Figure

    lines = [(policy, side) for policy in report.details for side in SIDES]
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for place, (policy, side) in enumerate(lines):
        medians = report.details[policy]["medians"]
        values, whole = medians[side], medians["trl"]["iteration"]
        rest = max(0.0, values["iteration"] - values["generation"] - values["update"])
        parts = {
            "generation": values["generation"],
            "tools": min(values["tools"], rest),
            "update": values["update"],
        }
        left = 0.0
        for part, seconds in parts.items():
            axes.barh(-place, seconds / whole, left=left, color=COLOURS[part], height=0.7)
            left += seconds / whole
        times = whole / values["iteration"]
        axes.text(left, -place, f" {values['iteration']:.2f} s, {times:.2f} ×", va="center")
    axes.set_yticks(
        [-place for place in range(len(lines))],
        [f"{policy}: {SIDES[side]}" for policy, side in lines],
    )
    axes.set_xlim(0, 1.3)
    axes.set_xlabel("share of TRL's iteration")
    for part, colour in COLOURS.items():
        axes.barh(0, 0, color=colour, label=part)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.25), ncols=3, frameon=False)
    busy = f"{report.machine.others:.0%} of the machine busy with other programs"
    axes.set_title(f"{report.when} UTC; {busy}", fontsize=8, loc="left", color="#666666")
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    read = report_from(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    draw_parts(read, Path(sys.argv[2]))
