"""Estimators that pay each turn for its own share of the judged process.

The outcome's part is GRPO's, by the floored std of the group's outcomes; the process part has no std.
With φ causal (each φ_t judged on the prefix alone: ``when="step"``) ``turn`` has the expected gradient
of trajectory credit, and less variance. Not here: a learned baseline (``advantages_gae.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reagent_env.trainers.advantages_base import (
    Advantages,
    AdvantageSettings,
    Batch,
    Place,
    RunningStd,
    at,
    stage_pools,
)
from reagent_env.trainers.advantages_group import outcome_advantages

_FRESH = RunningStd()
Shares = Callable[[list[float], Sequence[list[float]]], list[float]]
"""φ_0 … φ_T of an attempt, those of the others that have a score → its process part turn by turn."""


def turn(
    batch: Batch,
    settings: AdvantageSettings,
    *,
    running: RunningStd = _FRESH,
    values: Advantages | None = None,
) -> Advantages:
    """A_{i,t} = Â^O_i + λ·(g_{i,t} − b_{−i,t}), where g_{i,t} = φ_{i,T} − φ_{i,t−1} is what is to come.

    b is the mean g of the other rollouts that reached turn t; with fewer than two of them, the mean
    of the others' φ_T, minus φ_{i,t−1}.
    """
    return _by_turn(batch, settings, _to_come)


def turn_myopic(
    batch: Batch,
    settings: AdvantageSettings,
    *,
    running: RunningStd = _FRESH,
    values: Advantages | None = None,
) -> Advantages:
    """As :func:`turn`, with the turn's own difference φ_t − φ_{t−1} in place of all that is to come.

    b is the others' mean difference at turn t; with fewer than two of them there, their mean
    difference per turn. Its expected gradient is another one: a turn that only prepares earns nothing.
    """
    return _by_turn(batch, settings, _at_once)


def _by_turn(batch: Batch, settings: AdvantageSettings, shares: Shares) -> Advantages:
    """Outcome and process parts of every turn."""
    found: Advantages = [
        [[[0.0] * attempt.turns for attempt in rollout] for rollout in group] for group in batch
    ]
    for pool in stage_pools(batch):
        outcome = outcome_advantages(batch, pool, settings)
        levels: dict[Place, list[float]] = {
            place: at(batch, place).levels() for place in pool if at(batch, place).score is not None
        }
        for place in pool:
            g, i, k = place
            turns = found[g][i][k]
            process = [0.0] * len(turns)
            if place in levels and len(levels) >= 2:
                others = [levels[other] for other in levels if other != place]
                process = shares(levels[place], others)
            for t, share in enumerate(process):
                turns[t] = outcome[place] + settings.weight * share
    return found


def _to_come(own: list[float], others: Sequence[list[float]]) -> list[float]:
    """g_t − b_t for t = 1 … T."""
    shares = []
    for t in range(1, len(own)):
        there = [other[-1] - other[t - 1] for other in others if t < len(other)]
        if len(there) >= 2:
            baseline = sum(there) / len(there)
        else:
            baseline = sum(other[-1] for other in others) / len(others) - own[t - 1]
        shares.append(own[-1] - own[t - 1] - baseline)
    return shares


def _at_once(own: list[float], others: Sequence[list[float]]) -> list[float]:
    """φ_t − φ_{t−1} − b_t for t = 1 … T."""
    shares = []
    for t in range(1, len(own)):
        there = [other[t] - other[t - 1] for other in others if t < len(other)]
        if len(there) >= 2:
            baseline = sum(there) / len(there)
        else:
            baseline = sum(other[-1] for other in others) / sum(len(o) - 1 for o in others)
        shares.append(own[t] - own[t - 1] - baseline)
    return shares
