"""What came of each benchmark, as one table: its rows, its failure, or that it was not run.

Not here: running them (``suite.py``), the picture (``bars.py``), one row (``rows.py``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rows import Report, Row, number, report_from

INTRODUCTION = """# Benchmarks: measured against the bars

Written by `make bench` (`benchmarks/suite.py`), not by hand; [what each one does](../../benchmarks.md).
"×" is a ratio of two sides of one run. Quartiles are over rounds that took turns. Each part says
how busy the machine was while it ran, and how much of that was other programs: where that is much,
ratios may still be read, times may not.
"""


DISTURBED = 0.2
"""Share of the machine that other programs may have before a benchmark counts as disturbed."""


@dataclass(frozen=True)
class Outcome:
    """Of one benchmark: a report, or why there is none."""

    name: str
    title: str
    report: Report | None = None
    failure: str = ""
    """What went wrong, where it failed."""
    missing: str = ""
    """The command that makes what it needs, where that is not there."""

    @property
    def disturbed(self) -> bool:
        """Whether other programs had much of the machine while it ran."""
        return self.report is not None and (self.report.machine.others or 0.0) > DISTURBED

    def __str__(self) -> str:
        """In one line."""
        if self.report is not None:
            missed = [row.name for row in self.report.rows if row.met is False]
            count = sum(row.met is True for row in self.report.rows)
            shown = f"{count} met" if count else "no bars met" if missed else "no bars"
            return shown + (f", MISSED: {'; '.join(missed)}" if missed else "")
        if self.failure:
            return f"FAILED: {self.failure}"
        return f"not run: {self.missing}" if self.missing else "not run"


def render_table(outcomes: Sequence[Outcome]) -> str:
    """Everything in Markdown: a summary, then a part for each benchmark."""
    rows = [row for one in outcomes if one.report for row in one.report.rows]
    met = sum(row.met is True for row in rows)
    missed = [row.name for row in rows if row.met is False]
    summary = [
        f"**Bars: {met} met, {len(missed)} missed**"
        + (f": {'; '.join(missed)}." if missed else ".")
    ]
    disturbed = [one.name for one in outcomes if one.disturbed]
    if disturbed:
        summary.append(
            f"**Other programs had more than {DISTURBED:.0%} of the machine** during "
            f"{', '.join(disturbed)}: times, and ratios of sides that wait, say little there. On an "
            "idle machine: `make bench BENCH=--again`."
        )
    failed = [one.name for one in outcomes if one.failure]
    if failed:
        summary.append(f"**Failed: {', '.join(failed)}.**")
    absent = [one.name for one in outcomes if one.report is None and not one.failure]
    if absent:
        summary.append(f"Not run: {', '.join(absent)}.")
    parts = [INTRODUCTION, " ".join(summary) + "\n", "![measured over bar](bars.png)\n"]
    parts += [_part(one) for one in outcomes]
    return "\n".join(parts)


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """What :func:`write_json` wrote, by name; empty where there is no such file.

    Raises:
        ValueError: it is something else.
    """
    if not path.exists():
        return {}
    found = {}
    for record in json.loads(path.read_text(encoding="utf-8"))["benchmarks"]:
        report = None if record["report"] is None else report_from(record["report"])
        found[record["name"]] = Outcome(
            record["name"], record["title"], report, record["failure"], record["missing"]
        )
    return found


def write_json(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Everything as JSON."""
    told = [
        {
            "name": one.name,
            "title": one.title,
            "failure": one.failure,
            "missing": one.missing,
            "report": None if one.report is None else one.report.to_json(),
        }
        for one in outcomes
    ]
    path.write_text(json.dumps({"benchmarks": told}, indent=1) + "\n", encoding="utf-8")


def _part(one: Outcome) -> str:
    head = f"## {one.title}\n"
    if one.report is None:
        return f"{head}\n`{one.name}`: {'**' + str(one) + '**' if one.failure else one}.\n"
    lines = [
        f"`{one.report.command}`, {one.report.when} UTC; {one.report.machine}.",
        "",
        "| | compares | measured (quartiles) | bar | | ours | other |",
        "|---|---|---|---|---|---|---|",
        *map(_line, one.report.rows),
    ]
    return f"{head}\n" + "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    measured = f"{number(row.measured)} {row.of}"
    if row.quartiles is not None:
        measured += f" ({number(row.quartiles[0])} – {number(row.quartiles[1])})"
    bar = "" if row.bar is None else f"{'≤' if row.most else '≥'} {row.bar:g}"
    verdict = f"**{row.verdict}**" if row.met is False else row.verdict
    sides = [
        "" if side is None else f"{number(side)} {row.unit}".strip()
        for side in (row.ours, row.other)
    ]
    name = f"{row.name}; {row.note}" if row.note else row.name
    cells = [name, row.compares, measured, bar, verdict, *sides]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
