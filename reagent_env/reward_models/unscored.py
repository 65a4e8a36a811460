"""Counts judgements without a score, and says when there are too many to go on training.

Counted by kind, by the attempt's length and by its outcome, since a judge that fails on long or on
wrong attempts biases what is learned from the rest. Not here: what an unscored rollout's advantage
is (``docs/judge.md``).
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reagent_env.judgement import Judgement
from reagent_env.reward_models.base import JudgeUnavailable, judged_attempt, kind_of
from reagent_env.trajectory import Attempt, Trajectory

LENGTHS = (1, 2, 4, 8, 16)
"""Upper ends of the length classes, in turns; longer ones are the last class."""


@dataclass(frozen=True, slots=True)
class UnscoredCounts:
    """What a monitor has seen, e.g. ``UnscoredCounts(judged=64, unscored=3, ...)``."""

    judged: int
    """Judgements in all."""
    unscored: int
    """Those without a score."""
    by_kind: dict[str, int]
    """Unscored by :class:`~reagent_env.reward_models.base.Unscored`."""
    rate_by_length: dict[str, float]
    """Share unscored by turns of the attempt: ``"1"``, ``"2"``, ``"3-4"`` … ``">16"``."""
    rate_by_outcome: dict[str, float]
    """Share unscored by outcome: ``"right"`` (≥ 0.5), ``"wrong"``, ``"none"``."""

    @property
    def rate(self) -> float:
        """Share unscored, 0 before anything was judged."""
        return self.unscored / self.judged if self.judged else 0.0


class UnscoredMonitor:
    """Watches judgements; :meth:`check` raises when too many of the recent ones are unscored.

    Example::

        monitor = UnscoredMonitor(threshold=0.2)
        monitor.observe(trajectories, judgements)
        monitor.check()  # JudgeUnavailable: training stops
    """

    def __init__(self, threshold: float = 0.2, *, window: int = 512, at_least: int = 32) -> None:
        """Begin with nothing seen.

        Args:
            threshold: Largest tolerated share of unscored judgements among the recent ones.
            window: How many judgements are recent.
            at_least: Say nothing before so many were judged.
        """
        if not 0.0 <= threshold < 1.0:
            raise ValueError(f"threshold must lie in [0, 1), got {threshold!r}.")
        if not 0 < at_least <= window:
            raise ValueError(f"at_least must lie in 1…window={window}, got {at_least!r}.")
        self.threshold = threshold
        self.at_least = at_least
        self._recent: deque[str | None] = deque(maxlen=window)
        self._seen: Counter[tuple[str, str]] = Counter()
        self._missed: Counter[tuple[str, str]] = Counter()
        self._kinds: Counter[str] = Counter()
        self._judged = 0
        self._lock = threading.Lock()

    def observe(
        self,
        trajectories: Sequence[Trajectory],
        judgements: Iterable[Judgement],
        *,
        attempt: int = -1,
    ) -> None:
        """Count these judgements of these trajectories.

        Raises:
            ValueError: the two differ in length.
        """
        with self._lock:
            for trajectory, judgement in zip(trajectories, judgements, strict=True):
                missing = kind_of(judgement)
                kind = None if missing is None else missing.value
                classes = _classes(judged_attempt(trajectory, attempt))
                self._judged += 1
                self._recent.append(kind)
                self._seen.update(classes)
                if kind is not None:
                    self._kinds[kind] += 1
                    self._missed.update(classes)

    @property
    def recent_rate(self) -> float:
        """Share unscored among the recent judgements."""
        with self._lock:
            missed = sum(kind is not None for kind in self._recent)
            return missed / len(self._recent) if self._recent else 0.0

    @property
    def exceeded(self) -> bool:
        """Whether training should stop."""
        return len(self._recent) >= self.at_least and self.recent_rate > self.threshold

    def check(self) -> None:
        """Stop training where the threshold is exceeded.

        Raises:
            JudgeUnavailable: with the recent rate, the kinds, and what to look at.
        """
        if not self.exceeded:
            return
        with self._lock:
            kinds = Counter(kind for kind in self._recent if kind is not None)
        worst = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        raise JudgeUnavailable(
            f"{self.recent_rate:.0%} of the last {len(self._recent)} judgements have no score "
            f"({worst}); more than {self.threshold:.0%} would bias training. transport and refused: "
            "see to the judge's server; unparsed: to its model or max_tokens; context_overflow: "
            "lower max_chars."
        )

    def counts(self) -> UnscoredCounts:
        """Everything seen so far."""
        with self._lock:
            return UnscoredCounts(
                judged=self._judged,
                unscored=sum(self._kinds.values()),
                by_kind=dict(self._kinds),
                rate_by_length=self._rates("length"),
                rate_by_outcome=self._rates("outcome"),
            )

    def _rates(self, what: str) -> dict[str, float]:
        return {
            name: self._missed[what, name] / count
            for (kind, name), count in sorted(self._seen.items())
            if kind == what
        }


def _classes(attempt: Attempt | None) -> list[tuple[str, str]]:
    turns = 0 if attempt is None else len(attempt.turns)
    outcome = None if attempt is None else attempt.outcome
    grade = "none" if outcome is None else "right" if outcome >= 0.5 else "wrong"
    return [("length", _length_class(turns)), ("outcome", grade)]


def _length_class(turns: int) -> str:
    below = 0
    for upper in LENGTHS:
        if turns <= upper:
            return str(upper) if upper - below <= 1 else f"{below + 1}-{upper}"
        below = upper
    return f">{below}"
