"""Shows a report: a table on the terminal, Markdown, JSON, and the reliability diagram."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from reagent_env.agents.judge_eval.evaluation import Report

HEADINGS = ("flaw", "pairs", "pairwise accuracy", "mean drop", "ties", "turn found", "probes L/O/W")

DRAWN_FROM = 0.01
"""Bins of less weight are in the numbers, but not in the figure: they rest on a few examples."""


def kind_rows(report: Report) -> list[list[str]]:
    """One row a flaw kind: numbers with intervals, probes beside, ``!`` where a probe tells it."""
    rows = []
    for kind, found in report["kinds"].items():
        turn = report["localisation"]["by_kind"].get(kind)
        probes = "/".join(_number(found["probes"][name]["pairwise"]) for name in found["probes"])
        rows.append(
            [
                kind + (" !" if found["flagged"] else ""),
                str(found["pairs"]),
                _interval(found["pairwise"]),
                _interval(found["mean_drop"]),
                _number(found["ties"]),
                _number(turn["accuracy"]["value"]) if turn else "–",
                probes + (f" ({', '.join(found['flagged'])})" if found["flagged"] else ""),
            ]
        )
    return rows


def summary_rows(report: Report) -> list[tuple[str, str]]:
    """The numbers over all kinds, as (what, value)."""
    pairwise, separation = report["pairwise"], report["separation"]
    rows = [
        ("pairwise accuracy, all kinds", _interval(pairwise["all"])),
        ("pairwise accuracy, partners of the same length", _interval(pairwise["same_length"])),
        ("AUROC, no planted flaw", _interval(separation["no_flaw"])),
        ("… within lengths", _interval(separation["no_flaw_by_length"])),
        ("… among right answers only", _interval(separation["no_flaw_right_only"])),
        ("… among wrong answers only", _interval(separation["no_flaw_wrong_only"])),
        ("AUROC, outcome (tasks' own answers)", _interval(separation["outcome"])),
        ("… within lengths", _interval(separation["outcome_by_length"])),
    ]
    calibration = report["calibration"]
    if calibration is not None:
        for name in ("raw", "isotonic"):
            one = calibration[name]
            rows.append((f"calibration, {name}", f"Brier {one['brier']:.3f}, ECE {one['ece']:.3f}"))
    place = report["localisation"]["all"]
    rows.append(
        (
            "turn of the flaw found",
            f"{_interval(place['accuracy'])}; by chance {_number(place['chance'])}",
        )
    )
    naming = report["naming"]
    if naming is not None:
        rows += [
            ("F1 of (turn, kind) named", _interval(naming["f1"])),
            ("… among flawed ones", _interval(naming["f1_flawed"])),
            ("… of the turn, whatever the kind", _interval(naming["f1_of_turns"])),
        ]
    bias = report["bias"]
    rows += [
        (
            "rank correlation of score and turns (clean, flawed)",
            f"{_number(bias['turns_in_clean'])}, {_number(bias['turns_in_flawed'])}",
        ),
        (
            "rank correlation of score and characters (clean, flawed)",
            f"{_number(bias['characters_in_clean'])}, {_number(bias['characters_in_flawed'])}",
        ),
        ("rank correlation of place and drop", _number(bias["place_and_drop"])),
        (
            "pairwise accuracy by the flaw's place",
            ", ".join(
                f"{name} {_number(one['value'])} (n={one['n']})"
                for name, one in bias["pairwise_by_place"].items()
            ),
        ),
    ]
    for kind, found in report["benign"].items():
        rows.append(
            (
                f"benign twin {kind}: mean drop",
                f"{_interval(found['drop'])}; judged worse {_number(found['judged_worse'])}",
            )
        )
    injection = report["injection"]
    if injection["tried"]:
        moved = ", ".join(injection["by_template"]) or "none"
        rows.append(
            (
                f"injections that raised the score ({injection['templates']} templates, "
                f"{injection['tried']} tries)",
                f"{_number(injection['succeeded'])}: {moved}",
            )
        )
    unscored, cost = report["unscored"], report["cost"]
    reasons = ", ".join(f"{k} {n}" for k, n in unscored["by_kind"].items()) or "none"
    rows += [
        ("unscored", f"{unscored['rate']:.3f} ({reasons})"),
        ("… by turns", _rates(unscored["rate_by_length"])),
        ("… by outcome", _rates(unscored["rate_by_outcome"])),
        (
            "cost",
            f"{cost['judged']} judged in {cost['seconds']:.1f} s, "
            f"{cost['milliseconds_each']:.1f} ms each, {cost['tokens']} tokens",
        ),
        (
            "latency of a judgement",
            f"median {cost['latency_p50_s']:.3f} s, 95 % within {cost['latency_p95_s']:.3f} s",
        ),
    ]
    return rows


NATURAL_HEADINGS = ("real rollouts", "φ of the finished attempt", "score of each prefix")
_NATURAL = {
    "spearman": "rank correlation of φ and the prefix's value",
    "spearman_under_way": "… before the last turn",
    "spearman_of_changes": "… of their changes from turn to turn",
    "auroc_likely": "AUROC of φ, value at least ½",
    "auroc_falls": "AUROC of a fall of φ, turns where the value falls",
    "turn_found": "turn of the value's largest fall found",
    "chance": "… by chance",
}


def natural_rows(report: Report) -> list[list[str]]:
    """The natural test: one row a measure, both ways of giving turns a score."""
    natural = report["natural"]
    rows = []
    for key, title in _NATURAL.items():
        row = [title]
        for way in ("turn_scores", "prefixes"):
            found = natural[way]
            row.append(
                "–"
                if found is None
                else _number(found[key])
                if key == "chance"
                else _interval(found[key])
            )
        rows.append(row)
    return [*rows, ["AUROC of the score, outcome", _interval(natural["outcome"]), ""]]


def natural_line(report: Report) -> str:
    """What the natural test rests on."""
    natural = report["natural"]
    return (
        f"{natural['rollouts']} rollouts of {natural['policy']} on {natural['env']}, "
        f"{natural['continuations']} continuations of each prefix; mean outcome "
        f"{natural['mean_outcome']:.2f}, mean value at the start {natural['mean_start_value']:.2f}; "
        f"the value falls clearly in {natural['with_a_fall']}."
    )


def print_report(report: Report, console: Console) -> None:
    """The tables a person reads."""
    table = Table(title=f"judge {report['judge']}", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "flaw" else "right")
    for row in kind_rows(report):
        table.add_row(*row)
    if report["kinds"]:
        console.print(table)
        console.print("! a probe on length, outcome or words alone tells this kind above 0.6")
    summary = Table(show_header=False)
    for what, value in summary_rows(report):
        summary.add_row(what, value)
    console.print(summary)
    if report.get("natural"):
        natural = Table(title=natural_line(report), title_justify="left")
        for heading in NATURAL_HEADINGS:
            natural.add_column(heading)
        for row in natural_rows(report):
            natural.add_row(*row)
        console.print(natural)


def markdown(report: Report) -> str:
    """The report as Markdown."""
    settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items())
    lines = [
        f"# Judge `{report['judge']}`",
        "",
        f"{report['records']} records of {report['tasks']} tasks ({settings}). Intervals are 95 %, "
        "by bootstrap over tasks. `docs/judge-eval.md` says what each number means.",
        "",
        "```bash",
        report["command"],
        "```",
        "",
    ]
    if report["kinds"]:
        lines += [_row(HEADINGS), _row(["---"] + ["---:"] * (len(HEADINGS) - 1))]
        lines += [_row(row) for row in kind_rows(report)]
        lines += [
            "",
            "`!`: a probe that sees only length (L), outcome (O) or words (W) tells this kind above "
            "0.6, in pairwise accuracy or AUROC: a judge's figure for it proves less. "
            "Probe columns are pairwise accuracies.",
            "",
        ]
    lines += [_row(("measure", "value")), _row(("---", "---"))]
    lines += [_row(row) for row in summary_rows(report)]
    if report.get("natural"):
        lines += ["", "## The natural test", "", natural_line(report), ""]
        lines += [_row(NATURAL_HEADINGS), _row(["---"] * len(NATURAL_HEADINGS))]
        lines += [_row(row) for row in natural_rows(report)]
    if report["calibration"] is not None:
        lines += ["", "![Reliability diagram](reliability.png)"]
    return "\n".join(lines) + "\n"


def write_report(report: Report, folder: Path) -> None:
    """Write ``report.json``, ``report.md`` and, where it can be drawn, ``reliability.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    (folder / "report.md").write_text(markdown(report))
    if report["calibration"] is not None:
        draw_reliability(report, folder / "reliability.png")


def draw_reliability(report: Report, path: Path) -> None:
    """The reliability diagram: share without a flaw against the score, raw and recalibrated."""
    from matplotlib.figure import Figure

    calibration = report["calibration"]
    figure = Figure(figsize=(5.6, 6.2), layout="constrained")
    axes, below = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [4, 1]}, squeeze=True
    )
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfect")
    for name, colour, marker in (("raw", "#1f4e79", "o"), ("isotonic", "#c0504d", "s")):
        bins = [one for one in calibration[name]["bins"] if one["mass"] >= DRAWN_FROM]
        label = (
            f"{name}: Brier {calibration[name]['brier']:.3f}, ECE {calibration[name]['ece']:.3f}"
        )
        axes.plot(
            [one["score"] for one in bins],
            [one["frequency"] for one in bins],
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.5,
            label=label,
        )
    axes.set_ylabel("share without a planted flaw (balanced)")
    axes.text(
        0.99,
        0.02,
        f"bins with at least {DRAWN_FROM:.0%} of the weight",
        transform=axes.transAxes,
        ha="right",
        fontsize=8,
        color="0.4",
    )
    axes.set_title(f"Judge {report['judge']}: reliability, n = {calibration['n']}", fontsize=11)
    axes.set_ylim(-0.03, 1.03)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    for shift, (name, colour) in zip(
        (-0.012, 0.012), (("raw", "#1f4e79"), ("isotonic", "#c0504d")), strict=True
    ):
        bins = calibration[name]["bins"]
        below.bar(
            [one["score"] + shift for one in bins],
            [one["mass"] for one in bins],
            width=0.022,
            color=colour,
        )
    below.set_ylabel("weight")
    below.set_xlabel("score")
    below.set_xlim(-0.03, 1.03)
    for one in (axes, below):
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _row(cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _interval(estimate: dict[str, Any]) -> str:
    if not estimate["n"] or estimate["value"] is None:
        return "–"
    value = f"{estimate['value']:.2f}"
    if estimate["low"] is None:
        return value
    return f"{value} [{estimate['low']:.2f}, {estimate['high']:.2f}]"


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"


def _rates(rates: dict[str, float]) -> str:
    return ", ".join(f"{name}: {rate:.2f}" for name, rate in rates.items()) or "–"
