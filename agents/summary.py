"""What a set of trajectories comes to: success with confidence intervals, by level, stop reason, tool."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from reagent_env.trajectory import Trajectory

_Z = 1.959964


@dataclass(frozen=True)
class Rate:
    """A mean outcome with its 95 % interval, e.g. ``Rate(0.5, (0.25, 0.75), 20)``."""

    mean: float
    """Mean outcome in [0, 1]; NaN for none."""
    interval: tuple[float, float]
    """95 %: Wilson's for outcomes of 0 and 1, else the normal one of the mean, within [0, 1]."""
    n: int
    """Episodes counted; masked ones are not."""

    def __str__(self) -> str:
        if self.n == 0:
            return "–"
        low, high = self.interval
        return f"{self.mean:.3f} [{low:.3f}, {high:.3f}] n={self.n}"


@dataclass(frozen=True)
class Summary:
    """The numbers of an evaluation."""

    outcome: Rate
    """All episodes that were not masked."""
    masked: int
    """Episodes that infrastructure spoiled; in no mean."""
    mean_turns: float
    """Turns an episode."""
    by_level: dict[str, Rate] = field(default_factory=dict)
    """By the task's ``level``."""
    by_kind: dict[str, Rate] = field(default_factory=dict)
    """By the task's ``kind``."""
    stop_reasons: dict[str, int] = field(default_factory=dict)
    """How often each stop reason."""
    tools: dict[str, dict[str, float]] = field(default_factory=dict)
    """By tool: ``calls``, ``errors``, ``mean_seconds``."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict; a mean of nothing is None."""
        encodable: dict[str, Any] = nan_as_none(asdict(self))
        return encodable


def nan_as_none(record: Any) -> Any:
    """A record of dicts, lists and numbers with None in place of NaN, which JSON does not have."""
    if isinstance(record, dict):
        return {key: nan_as_none(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [nan_as_none(value) for value in record]
    return None if isinstance(record, float) and math.isnan(record) else record


def mean_interval(numbers: Sequence[float]) -> tuple[float, float, float]:
    """Lower bound, mean and upper bound of the mean's 95 % normal interval; NaN where unknown."""
    n = len(numbers)
    if n == 0:
        return math.nan, math.nan, math.nan
    mean = sum(numbers) / n
    if n == 1:
        return math.nan, mean, math.nan
    variance = sum((number - mean) ** 2 for number in numbers) / (n - 1)
    half = _Z * math.sqrt(variance / n)
    return mean - half, mean, mean + half


def mcnemar(gained: int, lost: int) -> float:
    """p of no change between two answers to the same tasks: McNemar's exact test.

    Args:
        gained: Tasks that changed one way.
        lost: Tasks that changed the other way.
    """
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share seen in ``n`` trials, within [0, 1]."""
    centre = (share + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
    half = _Z / (1 + _Z * _Z / n) * math.sqrt(share * (1 - share) / n + _Z * _Z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def rate(outcomes: Sequence[float]) -> Rate:
    """The mean of ``outcomes`` with its 95 % interval."""
    n = len(outcomes)
    if n == 0:
        return Rate(math.nan, (math.nan, math.nan), 0)
    mean = sum(outcomes) / n
    if all(outcome in (0.0, 1.0) for outcome in outcomes):
        low, high = wilson(mean, n)
    else:
        low, _, high = mean_interval(outcomes) if n > 1 else (0.0, mean, 1.0)
    return Rate(mean, (max(0.0, low), min(1.0, high)), n)


def summarise(trajectories: Iterable[Trajectory]) -> Summary:
    """Count and average; masked episodes (no outcome) stand apart."""
    levels: defaultdict[str, list[float]] = defaultdict(list)
    kinds: defaultdict[str, list[float]] = defaultdict(list)
    outcomes: list[float] = []
    stops: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    turns: list[int] = []
    masked = 0
    for trajectory in trajectories:
        stops[str(trajectory.stop_reason)] += 1
        turns.append(len(trajectory.turns))
        for turn in trajectory.turns:
            for result in turn.results:
                name = result.name if result.error not in ("malformed", "unknown_tool") else "?"
                calls[name] += 1
                errors[name] += result.error is not None
                seconds[name] += result.seconds
        if trajectory.outcome is None:
            masked += 1
            continue
        outcomes.append(trajectory.outcome)
        levels[str(trajectory.task.metadata.get("level", "–"))].append(trajectory.outcome)
        kinds[str(trajectory.task.metadata.get("kind", "–"))].append(trajectory.outcome)
    return Summary(
        outcome=rate(outcomes),
        masked=masked,
        mean_turns=sum(turns) / len(turns) if turns else math.nan,
        by_level={level: rate(levels[level]) for level in sorted(levels)},
        by_kind={kind: rate(kinds[kind]) for kind in sorted(kinds)},
        stop_reasons=dict(stops.most_common()),
        tools={
            name: {
                "calls": count,
                "errors": errors[name],
                "mean_seconds": seconds[name] / count,
            }
            for name, count in calls.most_common()
        },
    )
