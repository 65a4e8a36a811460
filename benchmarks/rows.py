"""What a benchmark says: rows, each a figure beside its bar, in one JSON file for each benchmark.

Every script here prints for people and, with ``--json FILE``, writes the same as rows; ``suite.py``
gathers those files into the table and the picture. Standard library alone: some scripts run in
virtual environments that have little else. Not here: measuring the machine (``machine.py``).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import Machine


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure, what it compares and its bar.

    Example::

        Row(name="no tools, tiny", compares="the collector / the engine alone, 64 at once",
            measured=0.94, quartiles=(0.92, 0.96), bar=0.9, ours=4950, other=5270, unit="tokens/s")

    Raises:
        ValueError: a number that is none, or quartiles the wrong way round.
    """

    name: str
    """What is measured, short: its line in the table and the picture."""
    compares: str
    """The two sides, or what the figure is of."""
    measured: float
    """What is held against the bar; a median where it was measured more than once."""
    of: str = "×"
    """What ``measured`` and ``bar`` count: ``×`` for a ratio, else a unit such as ``ms``."""
    quartiles: tuple[float, float] | None = None
    """Of ``measured``, over rounds."""
    bar: float | None = None
    """What is to be reached; None for a figure that is only told."""
    most: bool = False
    """Whether ``bar`` is not to be exceeded, in place of reached."""
    ours: float | None = None
    """Our side, where there are two."""
    other: float | None = None
    """The other side."""
    unit: str = ""
    """What ``ours`` and ``other`` count."""
    note: str = ""
    """What a reader has to know to read the figure."""

    def __post_init__(self) -> None:
        numbers = [self.measured, *(self.quartiles or ())]
        numbers += [one for one in (self.bar, self.ours, self.other) if one is not None]
        if not all(isinstance(one, int | float) and math.isfinite(one) for one in numbers):
            raise ValueError(f"{self.name}: every number of a row is finite, got {numbers!r}.")
        if self.quartiles is not None and self.quartiles[0] > self.quartiles[1]:
            raise ValueError(f"{self.name}: the quartiles {self.quartiles!r} are the wrong way.")

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        if self.bar is None:
            return None
        return self.measured <= self.bar if self.most else self.measured >= self.bar

    @property
    def verdict(self) -> str:
        """``met``, ``MISSED`` or nothing."""
        return {True: "met", False: "MISSED", None: ""}[self.met]

    def margin(self, measured: float) -> float:
        """How many times as good as the bar a figure is: 1 just meets it. Infinite at 0 of a most.

        Raises:
            ValueError: this row has no bar.
        """
        if self.bar is None:
            raise ValueError(f"{self.name} has no bar.")
        if not self.most:
            return measured / self.bar
        return self.bar / measured if measured > 0 else math.inf

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict, ``met`` included; :func:`row_from` reads it."""
        record = dataclasses.asdict(self)
        record["quartiles"] = None if self.quartiles is None else list(self.quartiles)
        return {**record, "met": self.met}


def row_from(record: dict[str, Any]) -> Row:
    """The row that :meth:`Row.to_json` wrote; whether its bar is met is reckoned anew.

    Raises:
        ValueError: a field that no row has, or as :class:`Row`.
    """
    given = {name: value for name, value in record.items() if name != "met"}
    if given.get("quartiles") is not None:
        given["quartiles"] = tuple(given["quartiles"])
    try:
        return Row(**given)
    except TypeError as error:
        raise ValueError(f"This is no row: {error}.") from None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one run of one benchmark measured."""

    benchmark: str
    """Its name: the script's."""
    rows: tuple[Row, ...]
    """At least one."""
    machine: Machine
    """On what, and how busy that was."""
    command: str = ""
    """How it was run."""
    when: str = ""
    """Date and time in UTC at the end."""
    details: dict[str, Any] = field(default_factory=dict)
    """Whatever else is worth keeping: samples, settings, versions."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict; :func:`report_from` reads it."""
        return {
            "benchmark": self.benchmark,
            "when": self.when,
            "command": self.command,
            "machine": dataclasses.asdict(self.machine),
            "rows": [row.to_json() for row in self.rows],
            "details": self.details,
        }


def report_from(record: dict[str, Any]) -> Report:
    """The report that :meth:`Report.to_json` wrote.

    Raises:
        ValueError: it is none.
    """
    try:
        return Report(
            benchmark=record["benchmark"],
            rows=tuple(row_from(row) for row in record["rows"]),
            machine=Machine(**record["machine"]),
            command=record["command"],
            when=record["when"],
            details=record["details"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"This is no benchmark's report: {error!r}.") from None


def deliver(
    path: Path | None,
    benchmark: str,
    rows: Iterable[Row],
    machine: Machine,
    details: dict[str, Any] | None = None,
) -> None:
    """Print rows and the machine; write them where ``--json`` says.

    Args:
        path: From ``--json``, or None.
        benchmark: The script's name.
        rows: What was measured.
        machine: From ``machine.Watch``.
        details: What else to keep.
    """
    rows = tuple(rows)
    print()
    for row in rows:
        print(line_of(row))
    print(machine)
    if path is None:
        return
    report = Report(
        benchmark=benchmark,
        rows=rows,
        machine=machine,
        command=shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_without_json()]),
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        details=details or {},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")


def line_of(row: Row) -> str:
    """A row in one line, e.g. ``no tools, tiny: 0.94 × (0.92 – 0.96), bar ≥ 0.9: met``."""
    shown = f"{row.name}: {number(row.measured)} {row.of}"
    if row.quartiles is not None:
        shown += f" ({number(row.quartiles[0])} – {number(row.quartiles[1])})"
    if row.bar is not None:
        shown += f", bar {'≤' if row.most else '≥'} {row.bar:g}: {row.verdict}"
    return shown


def number(value: float) -> str:
    """Three digits that count: ``0.0042``, ``0.94``, ``12.3``, ``4,950``."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size >= 3:
        return f"{value:,.0f}"
    return f"{value:.{min(6, max(0, 2 - size))}f}"


def spread(samples: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """The median, and the quartiles where there are four samples or more."""
    if len(samples) < 4:
        return statistics.median(samples), None
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return middle, (low, high)


def arguments(doc: str | None, *, quick: str) -> argparse.ArgumentParser:
    """What every benchmark takes, to which a script adds its own: ``--quick`` and ``--json FILE``.

    Args:
        doc: The script's docstring, shown as it stands.
        quick: What ``--quick`` runs, e.g. ``"two rounds"``.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{quick}: to see that it runs")
    parser.add_argument("--json", type=Path, help="a file for the rows")
    return parser


def _without_json() -> list[str]:
    """The command line's words, without where the JSON went."""
    words: list[str] = []
    given = iter(sys.argv[1:])
    for word in given:
        if word == "--json":
            next(given, None)
        elif not word.startswith("--json="):
            words.append(word)
    return words
