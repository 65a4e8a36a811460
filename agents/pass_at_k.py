"""Pass@k with its interval: would one of k samples have been right?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from reagent_env.agents.summary import Rate, wilson


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The unbiased estimate from ``samples`` of one task, ``correct`` of them right.

    1 − C(n − c, k) / C(n, k): the share of the k-subsets that hold a right sample (Chen et al.,
    "Evaluating Large Language Models Trained on Code", 2021, equation 1).

    Example: ``pass_at_k(4, 1, 2)`` is ``0.5``.

    Raises:
        ValueError: fewer samples than ``k``, or counts that cannot be.
    """
    if not 0 <= correct <= samples or not 1 <= k <= samples:
        raise ValueError(f"Need 1 <= k <= n and 0 <= c <= n, got n={samples}, c={correct}, k={k}.")
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def pass_rate(outcomes: Mapping[str, Sequence[bool]], k: int) -> Rate:
    """The mean of :func:`pass_at_k` over tasks, with Wilson's interval for as many trials as tasks.

    Samples of one task are not independent, so the interval counts tasks, not samples: it is never
    too narrow for that. A task with fewer than ``k`` samples (others were masked) is left out of
    ``n``.

    Args:
        outcomes: Task id → whether each sample was right.
        k: Samples one may take.
    """
    estimates = [
        pass_at_k(len(right), sum(right), k) for right in outcomes.values() if len(right) >= k
    ]
    if not estimates:
        return Rate(math.nan, (math.nan, math.nan), 0)
    mean = sum(estimates) / len(estimates)
    return Rate(mean, wilson(mean, len(estimates)), len(estimates))
