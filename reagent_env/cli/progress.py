"""Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress_bar(
    console: Console, label: str, total: int
) -> Iterator[Callable[[float | None], None]]:
    """Yield a function to call with each episode's outcome (None for a masked one)."""
    outcomes: list[float] = []
    done = 0
    printed = time.monotonic()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[success]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task(label, total=total, success="")

        def advance(outcome: float | None) -> None:
            nonlocal done, printed
            done += 1
            if outcome is not None:
                outcomes.append(outcome)
            mean = f"{sum(outcomes) / len(outcomes):.2f}" if outcomes else "–"
            progress.update(bar, advance=1, success=f"outcome {mean}")
            now = time.monotonic()
            if not console.is_terminal and now - printed >= SECONDS_BETWEEN_LINES:
                printed = now
                console.print(f"{label}: {done}/{total}, outcome {mean}")

        yield advance
