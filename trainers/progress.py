"""What a person sees while a run trains: a live line on a terminal, a plain one an update elsewhere.

Not here: which numbers there are (``metric_names.py``), the report at the end (``report.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reagent_env.trainers import metric_names as names
from reagent_env.trainers.config import TrainConfig

RECENT = 10
"""Updates whose pace the time left is reckoned from."""


class TrainProgress:
    """Shows a run on standard error; a context manager.

    Example::

        with TrainProgress(config, done=resumed_at) as progress:
            progress.rollout()                    # as each one ends
            progress.update(12, metrics)          # after each update
            progress.say("held out: 0.62 [0.58, 0.66] n=500")
    """

    def __init__(self, config: TrainConfig, console: Console | None = None, done: int = 0) -> None:
        """Show nothing yet.

        Args:
            config: The run's.
            console: Where; standard error by default.
            done: Updates made by an earlier part of the run.
        """
        self.console = console or Console(stderr=True, highlight=False)
        self._config = config
        self._total = config.updates
        self._paces: deque[float] = deque(maxlen=RECENT)
        self._last: tuple[int, float] | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._updates = self._bar.add_task(
            "updates", total=config.updates, completed=done, numbers=""
        )
        self._rollouts = self._bar.add_task(
            "rollouts", total=config.rollouts_per_update, numbers=""
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._bar.console.print(text, markup=False, soft_wrap=True)

    def total(self, updates: int) -> None:
        """Say how many updates there will be, where the settings do not."""
        self._total = updates
        self._bar.update(self._updates, total=updates)

    def rollout(self) -> None:
        """Count an episode that ended."""
        self._bar.advance(self._rollouts)

    def update(self, update: int, metrics: Mapping[str, Any]) -> None:
        """Show an update's numbers."""
        line = self.line(update, metrics)
        self._bar.update(self._updates, completed=update, numbers=line)
        self._bar.reset(self._rollouts)
        if not self.console.is_terminal:
            self.say(f"update {update:>4}/{self._total}  {line}")

    def line(self, update: int, metrics: Mapping[str, Any]) -> str:
        """The numbers of an update in one line, e.g. ``success 0.44  score 0.71  2,310 tok/s``."""
        shown = [
            f"{label} {form.format(metrics[name])}"
            for name, label, form in _SHOWN
            if isinstance(metrics.get(name), int | float)
        ]
        seconds = metrics.get(names.SECONDS)
        if isinstance(seconds, int | float):
            shown.append(self._time_left(update, seconds, metrics))
        return "  ".join(part for part in shown if part)

    def _time_left(self, update: int, seconds: float, metrics: Mapping[str, Any]) -> str:
        if self._last is not None and update > self._last[0]:
            self._paces.append((seconds - self._last[1]) / (update - self._last[0]))
        self._last = (update, seconds)
        if not self._paces:
            return ""
        left = (self._total - update) * sum(self._paces) / len(self._paces)
        if self._config.max_seconds:
            left = min(left, max(0.0, self._config.max_seconds - seconds))
        for budget, name in (
            (self._config.max_policy_tokens, names.TOKENS_TOTAL),
            (self._config.max_interactions, names.TURNS_TOTAL),
        ):
            if budget and metrics.get(name):
                left = min(left, max(0.0, seconds * (budget / metrics[name] - 1)))
        return f"{duration(left)} left"


def duration(seconds: float) -> str:
    """``"45 s"``, ``"3 min 20 s"`` or ``"2 h 05 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


_SHOWN = (
    (names.SUCCESS, "success", "{:.2f}"),
    (names.SECOND, "second", "{:.2f}"),
    (names.SCORE, "score", "{:.2f}"),
    (names.PROCESS, "process", "{:.2f}"),
    (names.IMITATION, "loss", "{:.3f}"),
    (names.UNSCORED, "unscored", "{:.1%}"),
    (names.MASKED, "masked", "{:.0f}"),
    (names.HELD_OUT, "held out", "{:.2f}"),
    (names.SPEED, "tok/s", "{:,.0f}"),
)
"""Name, label and form of the numbers in the line, in order."""
