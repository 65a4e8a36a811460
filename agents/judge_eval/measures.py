"""The numbers themselves, over plain arrays: no judge, no trajectory, no file.

Intervals are percentile bootstraps over tasks, since the examples of one task are not independent.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
BOOTSTRAPS = 1_000
BINS = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval, e.g. ``Estimate(0.8, 0.7, 0.9, 40)``."""

    value: float
    """NaN where there is nothing to measure."""
    low: float
    high: float
    n: int
    """Examples (or pairs) it rests on."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict, None for NaN."""
        return {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(self).items()
        }

    def __str__(self) -> str:
        if self.n == 0 or math.isnan(self.value):
            return "–"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def mean_by_task(values: Sequence[float], tasks: Sequence[str], seed: int = 0) -> Estimate:
    """The mean of ``values`` with an interval that resamples whole tasks.

    Example: ``mean_by_task([1.0, 0.0], ["a", "b"]).value`` is 0.5.
    """
    if not values:
        return Estimate(math.nan, math.nan, math.nan, 0)
    places = {task: i for i, task in enumerate(dict.fromkeys(tasks))}
    index = np.array([places[task] for task in tasks])
    sums = np.bincount(index, weights=np.array(values, float), minlength=len(places))
    counts = np.bincount(index, minlength=len(places)).astype(float)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(places), size=(BOOTSTRAPS, len(places)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(np.mean(values)), float(low), float(high), len(values))


def by_task(
    measure: Callable[[npt.NDArray[np.intp]], float],
    tasks: Sequence[str],
    seed: int = 0,
    bootstraps: int = 300,
) -> Estimate:
    """Any ``measure`` of a choice of examples, with an interval that resamples whole tasks."""
    n = len(tasks)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    members: dict[str, list[int]] = {}
    for position, task in enumerate(tasks):
        members.setdefault(task, []).append(position)
    groups = [np.array(one) for one in members.values()]
    value = measure(np.arange(n))
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(bootstraps):
        chosen = rng.integers(len(groups), size=len(groups))
        drawn.append(measure(np.concatenate([groups[i] for i in chosen])))
    kept = [one for one in drawn if not math.isnan(one)]
    if not kept:
        return Estimate(value, math.nan, math.nan, n)
    low, high = np.quantile(kept, [0.025, 0.975])
    return Estimate(value, float(low), float(high), n)


def preference(better: float, worse: float) -> float:
    """1 where the better one scores higher, 0.5 for a tie, else 0."""
    return 1.0 if better > worse else 0.5 if better == worse else 0.0


def ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    shared: Floats = (ends - (counts - 1) / 2)[inverse]
    return shared


def auroc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """The chance that a positive scores above a negative, ties counting half; NaN for one class."""
    count = int(positive.sum())
    others = len(positive) - count
    if count == 0 or others == 0:
        return math.nan
    above = ranks(scores)[positive].sum() - count * (count + 1) / 2
    return float(above / (count * others))


def stratified_auroc(
    scores: Floats, positive: npt.NDArray[np.bool_], strata: Sequence[Any]
) -> float:
    """The mean AUROC within strata, weighted by the pairs that each compares."""
    labels = np.array([str(one) for one in strata])
    total = weight = 0.0
    for label in np.unique(labels):
        inside = labels == label
        one = auroc(scores[inside], positive[inside])
        if not math.isnan(one):
            pairs = float(positive[inside].sum() * (~positive[inside]).sum())
            total, weight = total + pairs * one, weight + pairs
    return total / weight if weight else math.nan


def spearman(first: Floats, second: Floats) -> float:
    """Rank correlation; NaN where one of the two does not vary."""
    a, b = ranks(first), ranks(second)
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


# Calibration --------------------------------------------------------------------------------------


def balanced_weights(event: npt.NDArray[np.bool_]) -> Floats:
    """Weights under which the event and its opposite have half of the mass each; they sum to 1."""
    weights = np.where(event, 0.5 / max(1, event.sum()), 0.5 / max(1, (~event).sum()))
    normed: Floats = weights / weights.sum()
    return normed


def brier(scores: Floats, event: npt.NDArray[np.bool_], weights: Floats) -> float:
    """Weighted mean squared distance between the score and what was."""
    return float(np.average((scores - event) ** 2, weights=weights))


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability diagram."""

    score: float
    """Mean score in it."""
    frequency: float
    """Share of the event in it."""
    mass: float
    """Its share of the weight."""


def reliability(scores: Floats, event: npt.NDArray[np.bool_], weights: Floats) -> list[Bin]:
    """Ten bins of equal width; empty ones are left out."""
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    bins = []
    for place in range(BINS):
        inside = places == place
        mass = float(weights[inside].sum())
        if mass > 0:
            part = weights[inside]
            bins.append(
                Bin(
                    float(np.average(scores[inside], weights=part)),
                    float(np.average(event[inside], weights=part)),
                    mass,
                )
            )
    return bins


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Σ mass · |frequency − score| over the bins."""
    return float(sum(one.mass * abs(one.frequency - one.score) for one in bins))


def isotonic_out_of_fold(
    scores: Floats, event: npt.NDArray[np.bool_], weights: Floats, tasks: Sequence[str]
) -> Floats:
    """Scores recalibrated by isotonic regression fitted on the other tasks (five folds)."""
    from sklearn.isotonic import IsotonicRegression

    fitted = np.full(len(scores), 0.5)
    for train, test in folds(tasks):
        model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        model.fit(scores[train], event[train].astype(float), sample_weight=weights[train])
        fitted[test] = model.predict(scores[test])
    return fitted


def folds(
    tasks: Sequence[str], count: int = 5
) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Train and test indices; all examples of a task are in one fold. Fewer tasks, fewer folds."""
    order = {task: i for i, task in enumerate(sorted(dict.fromkeys(tasks)))}
    shuffled = np.random.default_rng(0).permutation(len(order))
    fold = np.array([shuffled[order[task]] % count for task in tasks])
    pairs = []
    for number in range(count):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if len(test) and len(train):
            pairs.append((train, test))
    return pairs


# Turns --------------------------------------------------------------------------------------------


_TIE = 1e-9


def located(turn_scores: Sequence[float | None], turn: int) -> float | None:
    """Credit for the largest fall of φ being at ``turn``: 1, a share of a tie, or 0 (also: no fall).

    None for a flaw in the first turn or a single turn, where there is no fall to see.

    Example: ``located([0.9, 0.9, 0.3], 2)`` is 1.0.
    """
    if turn < 1 or len(turn_scores) < 2:
        return None
    filled: list[float] = []
    for score in turn_scores:  # an unscored turn keeps the last score
        filled.append(score if score is not None else filled[-1] if filled else math.nan)
    falls = [a - b for a, b in itertools.pairwise(filled)]
    largest = max((fall for fall in falls if not math.isnan(fall)), default=0.0)
    if largest <= _TIE:
        return 0.0
    best = [i + 1 for i, fall in enumerate(falls) if fall >= largest - _TIE]
    return 1.0 / len(best) if turn in best else 0.0
