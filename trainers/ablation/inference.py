"""From differences of seeds to what may be said of them: intervals, tests, and what could be seen.

The unit is a seed: the runs of a comparison share its tasks, their order and the first weights, so
their difference is one number a seed. All quantiles are scipy's. Not here: which differences
(``comparisons.py``), words for people (``verdict.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from reagent_env.agents.summary import nan_as_none

MARGIN = 0.03
"""Differences of success smaller than this count as none."""
ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Difference:
    """What the seeds say of one comparison, e.g. ``paired([0.02, 0.05, 0.03])``."""

    seeds: int
    """Differences it rests on."""
    mean: float
    low: float
    """Of the 95 % interval (paired t)."""
    high: float
    p: float
    """Of no difference, two-sided (paired t); NaN for fewer than two seeds."""
    p_holm: float
    """The same, corrected for its family by Holm's method."""
    p_equivalent: float
    """Of a difference of :data:`MARGIN` or more (two one-sided tests; Schuirmann 1987)."""
    detectable: float
    """The smallest true difference that so many seeds find in 80 % of experiments, after correction."""
    seeds_for_margin: float
    """Seeds that would find a difference of :data:`MARGIN` in 80 % of experiments, likewise."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict, None for NaN."""
        record: dict[str, Any] = nan_as_none(asdict(self))
        return record


def paired(differences: Sequence[float], margin: float = MARGIN, *, tests: int = 1) -> Difference:
    """Interval, tests and power from one difference a seed; ``p_holm`` is ``p`` until :func:`holm`.

    Args:
        differences: One a seed.
        margin: What is no difference.
        tests: Comparisons in its family: power is at :data:`ALPHA` / ``tests``, Holm's first step,
            which the smallest p has to pass before any other counts.

    Differences that are all the same have no spread to infer from: p, interval and power are NaN,
    but where there are hundreds of episodes behind each that does not happen by chance.

    Raises:
        ImportError: scipy is not installed.
    """
    from scipy import stats

    n = len(differences)
    mean = math.fsum(differences) / n if n else math.nan
    nothing = Difference(n, mean, *(math.nan,) * 7)
    if n < 2:
        return nothing
    spread = math.sqrt(math.fsum((one - mean) ** 2 for one in differences) / (n - 1))
    if spread <= 1e-12:
        return nothing
    test = stats.ttest_1samp(differences, 0.0)
    interval = test.confidence_interval(1 - ALPHA)
    above = stats.ttest_1samp(differences, -margin, alternative="greater")
    below = stats.ttest_1samp(differences, margin, alternative="less")
    return Difference(
        seeds=n,
        mean=mean,
        low=float(interval.low),
        high=float(interval.high),
        p=float(test.pvalue),
        p_holm=float(test.pvalue),
        p_equivalent=float(max(above.pvalue, below.pvalue)),
        detectable=detectable(n, spread, tests=tests),
        seeds_for_margin=seeds_for(margin, spread, tests=tests),
    )


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """The same with ``p_holm`` for all of them as one family (Holm 1979); NaN stays out of it.

    Example: p-values of 0.01, 0.04 and 0.03 become 0.03, 0.06 and 0.06.
    """
    order = sorted(
        (place for place, one in enumerate(differences) if not math.isnan(one.p)),
        key=lambda place: differences[place].p,
    )
    corrected = list(differences)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * differences[place].p))
        corrected[place] = replace(differences[place], p_holm=largest)
    return corrected


def power(effect: float, n: int, *, tests: int = 1) -> float:
    """Chance that a two-sided paired t-test of n seeds finds a true difference of so many spreads.

    At :data:`ALPHA` / ``tests``.
    """
    from scipy import stats

    critical = stats.t.ppf(1 - ALPHA / tests / 2, n - 1)
    shift = abs(effect) * math.sqrt(n)
    found = float(stats.nct.sf(critical, n - 1, shift))
    wrong_way = float(stats.nct.cdf(-critical, n - 1, shift))
    return found if math.isnan(wrong_way) else found + wrong_way  # NaN where it is next to nothing


def detectable(n: int, spread: float, *, tests: int = 1) -> float:
    """The difference that n seeds of such a spread find with a chance of :data:`POWER`."""
    from scipy.optimize import brentq

    if n < 2 or not spread > 0:
        return math.nan
    high = 1.0
    while power(high, n, tests=tests) < POWER:
        high *= 2
    found = brentq(lambda effect: power(effect, n, tests=tests) - POWER, 1e-6, high)
    return float(found) * spread


def seeds_for(difference: float, spread: float, most: int = 10_000, *, tests: int = 1) -> float:
    """Seeds that find a difference with a chance of :data:`POWER`; infinity above ``most``."""
    if not spread > 0:
        return math.nan
    low, high = 1, 2  # doubled first: scipy's noncentral t is not exact far out
    while power(difference / spread, high, tests=tests) < POWER:
        if high >= most:
            return math.inf
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if power(difference / spread, middle, tests=tests) >= POWER:
            high = middle
        else:
            low = middle
    return float(high)


def mean_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over seeds, and its 95 % t interval; NaN bounds for fewer than two."""
    from scipy import stats

    n = len(values)
    if n == 0:
        return math.nan, math.nan, math.nan
    mean = math.fsum(values) / n
    if n < 2 or max(values) - min(values) <= 1e-12:
        return mean, math.nan, math.nan
    interval = stats.ttest_1samp(values, 0.0).confidence_interval(1 - ALPHA)
    return mean, float(interval.low), float(interval.high)
