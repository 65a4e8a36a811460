"""What a batch's advantages look like, and which groups have none to give.

Not here: computing them (``advantages.py``), writing them to a log.
"""

from __future__ import annotations

from collections.abc import Sequence

from reagent_env.trainers.advantages import Estimator, estimate_advantages, get_estimator
from reagent_env.trainers.advantages_base import (
    Advantages,
    AdvantageSettings,
    Batch,
    GroupReturns,
)

_NONE = 1e-9
"""Advantages smaller than this are rounding."""


def is_degenerate(
    group: GroupReturns, settings: AdvantageSettings, estimator: str | Estimator = "grpo"
) -> bool:
    """True where no comparison within the group tells its rollouts apart: every advantage is 0.

    A group that is all right (or all wrong) is kept when its scores rank it and λ > 0. The filter of
    DAPO (arXiv 2503.14476, dynamic sampling), which looks at outcomes alone, would drop both. Never
    true of an estimator that compares beyond the group (``reinforce++``, ``gae``).
    """
    chosen = get_estimator(estimator) if isinstance(estimator, str) else estimator
    if not chosen.within_group:
        return False
    [found] = estimate_advantages(chosen, [group], settings).advantages
    return all(abs(value) <= _NONE for rollout in found for attempt in rollout for value in attempt)


def advantage_summary(batch: Batch, advantages: Advantages) -> dict[str, float]:
    """Means for the log, by attempt; what a batch does not have is left out.

    Example: ``{"advantage/attempt_1": -0.4, "advantage/attempt_2": 0.4, "advantage/size": 0.9,
    "advantage/zero": 0.0, "unscored": 0.25, "unscored/right": 0.0, "unscored/wrong": 0.5,
    "unscored/short": 0.0, "unscored/long": 0.5}``. ``zero`` is the share of attempts without any
    advantage; short and long are halves by the median number of turns.
    """
    by_attempt: dict[int, list[float]] = {}
    sizes, zero, unscored, right, turns = [], [], [], [], []
    for group, found in zip(batch, advantages, strict=True):
        for rollout, mine in zip(group, found, strict=True):
            for k, (attempt, values) in enumerate(zip(rollout, mine, strict=True)):
                by_attempt.setdefault(k, []).append(sum(values) / len(values))
                sizes.append(sum(abs(value) for value in values) / len(values))
                zero.append(all(abs(value) <= _NONE for value in values))
                unscored.append(attempt.score is None)
                right.append(attempt.outcome >= 0.5)
                turns.append(attempt.turns)
    summary = {f"advantage/attempt_{k + 1}": _mean(found) for k, found in by_attempt.items()}
    if not sizes:
        return summary
    median = sorted(turns)[(len(turns) - 1) // 2]
    parts = {
        "unscored": [True] * len(turns),
        "unscored/right": right,
        "unscored/wrong": [not one for one in right],
        "unscored/short": [length <= median for length in turns],
        "unscored/long": [length > median for length in turns],
    }
    summary |= {"advantage/size": _mean(sizes), "advantage/zero": _mean(zero)}
    for name, chosen in parts.items():
        some = [one for one, here in zip(unscored, chosen, strict=True) if here]
        if some:
            summary[name] = _mean(some)
    return summary


def _mean(numbers: Sequence[float] | Sequence[bool]) -> float:
    return sum(numbers) / len(numbers)
