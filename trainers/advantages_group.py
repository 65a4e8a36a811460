"""Estimators that compare whole attempts with others of their group: one number an attempt.

Side by side they differ in who is compared with whom, and in what the difference is divided by::

                 mean over                       divided by
    grpo         group, each attempt number      std of the same
    dr_grpo      group, each attempt number      nothing
    rloo         the others of the same          nothing
    reinforce++  batch, each attempt number      std of the same
    pooled       group, both attempts            std of the same
    per_stage    group, each attempt number      std of both attempts about their own means

An attempt without a score keeps its outcome's part; its process part is 0, and the process parts of
the others are centred over those that have a score (two at least, else the outcome stands alone).
Not here: credit turn by turn (``advantages_turn.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reagent_env.trainers.advantages_base import (
    SMALLEST_STD,
    Advantages,
    AdvantageSettings,
    Batch,
    Place,
    RunningStd,
    at,
    over_turns,
    stage_pools,
)

_FRESH = RunningStd()


@dataclass(frozen=True, slots=True)
class Centred:
    """Attempts compared with each other; both parts sum to 0."""

    places: tuple[Place, ...]
    """[N] where they are."""
    outcome: tuple[float, ...]
    """[N] R − mean R."""
    process: tuple[float, ...]
    """[N] λ·(score − mean score), 0 for the unscored."""
    scored: int
    """How many have a score."""


def grpo(
    batch: Batch,
    settings: AdvantageSettings,
    *,
    running: RunningStd = _FRESH,
    values: Advantages | None = None,
) -> Advantages:
    """A = (r − mean r) / max(std r, floor) in the group (GRPO, arXiv 2402.03300), r = R + λ·score.

    Second attempts are a group of their own: their context differs, and so does their mean.
    """
    return over_turns(
        batch,
        {
            place: advantage
            for pool in stage_pools(batch)
            for place, advantage in _scaled([_centred(batch, pool, settings)], settings, running)
        },
    )


def dr_grpo(
    batch: Batch,
    settings: AdvantageSettings,
    *,
    running: RunningStd = _FRESH,
    values: Advantages | None = None,
) -> Advantages:
    """A = r − mean r (Dr. GRPO, arXiv 2503.20783): no std, hence no weight on the easiest and hardest.

    Its other half is the loss: aggregation ``fixed_length``.
    """
    found: dict[Place, float] = {}
    for pool in stage_pools(batch):
        terms = _centred(batch, pool, settings)
        for place, outcome, process in zip(terms.places, terms.outcome, terms.process, strict=True):
            found[place] = outcome + process
    return over_turns(batch, found)


def rloo(
    batch: Batch,
    settings: AdvantageSettings,
    *,
    running: RunningStd = _FRESH,
    values: Advantages | None = None,
) -> Advantages:
    """A_i = r_i − mean of the others' r (RLOO, arXiv 2402.14740), an unbiased baseline.

    The difference from the mean of all times n / (n − 1), with n counted over the scored for the
    process. An attempt with nobody to compare with has advantage 0.
    """
    found: dict[Place, float] = {}
    for pool in stage_pools(batch):
        terms = _centred(batch, pool, settings)
        for place, outcome, process in zip(terms.places, terms.outcome, terms.process, strict=True):
            found[place] = _left_out(outcome, len(pool)) + _left_out(process, terms.scored)
    return over_turns(batch, found)


def reinforce_plus_plus(
    batch: Batch,
    settings: AdvantageSettings,
    *,
    running: RunningStd = _FRESH,
    values: Advantages | None = None,
) -> Advantages:
    """A = (r − mean r) / max(std r, floor) over the whole batch (REINFORCE++, arXiv 2501.03262).

    Needs no groups; first and second attempts are normalised apart. Its penalty on the distance from
    the reference is the loss's ``kl_weight`` here, not part of r.
    """
    longest = max((len(rollout) for group in batch for rollout in group), default=0)
    found: dict[Place, float] = {}
    for k in range(longest):
        pool = [
            (g, i, k)
            for g, group in enumerate(batch)
            for i, rollout in enumerate(group)
            if k < len(rollout)
        ]
        found.update(_scaled([_centred(batch, pool, settings)], settings, running))
    return over_turns(batch, found)


def pooled(
    batch: Batch,
    settings: AdvantageSettings,
    *,
    running: RunningStd = _FRESH,
    values: Advantages | None = None,
) -> Advantages:
    """A = (r − mean r) / max(std r, floor) over both attempts of the group (Reagent-U as published).

    Where second attempts are better by δ, first ones are shifted by −δ/2σ (arXiv 2601.22154, Eq. of
    Reagent-U; the shift is ours to point out: ``docs/training-algorithms.md``).
    """
    found: dict[Place, float] = {}
    for g, group in enumerate(batch):
        pool = [(g, i, k) for i, rollout in enumerate(group) for k in range(len(rollout))]
        found.update(_scaled([_centred(batch, pool, settings)], settings, running))
    return over_turns(batch, found)


def per_stage(
    batch: Batch,
    settings: AdvantageSettings,
    *,
    running: RunningStd = _FRESH,
    values: Advantages | None = None,
) -> Advantages:
    """A^k = (r^k − mean r^k) / max(std, floor): a mean for each attempt, one std of what is left.

    With ``improvement_bonus`` β, second attempts are compared by R² + β·(R² − R¹) + λ·score²: R¹ is
    known before the second attempt begins, and first attempts never see the bonus.
    """
    found: dict[Place, float] = {}
    for g, group in enumerate(batch):
        stages = [
            _centred([group], pool, settings, settings.improvement_bonus)
            for pool in stage_pools([group])
        ]
        for (_, i, k), advantage in _scaled(stages, settings, running):
            found[g, i, k] = advantage
    return over_turns(batch, found)


def outcome_advantages(
    batch: Batch, pool: Sequence[Place], settings: AdvantageSettings
) -> dict[Place, float]:
    """Â^O = (R − mean R) / max(std R, floor) of the attempts in ``pool``, the process left aside."""
    outcomes = [at(batch, place).outcome for place in pool]
    deviations = _from_mean(outcomes)
    std = _floored(deviations, settings)
    return {place: d / std for place, d in zip(pool, deviations, strict=True)}


def _centred(
    batch: Batch, pool: Sequence[Place], settings: AdvantageSettings, bonus: float = 0.0
) -> Centred:
    """The attempts of ``pool`` about their means."""
    outcomes = []
    for g, i, k in pool:
        outcome = batch[g][i][k].outcome
        if bonus and k > 0:
            outcome += bonus * (outcome - batch[g][i][k - 1].outcome)
        outcomes.append(outcome)
    scores = [at(batch, place).score for place in pool]
    known = [score for score in scores if score is not None]
    middle = sum(known) / len(known) if known else 0.0  # of one alone: it lies 0 from it
    process = [settings.weight * (score - middle) if score is not None else 0.0 for score in scores]
    return Centred(tuple(pool), tuple(_from_mean(outcomes)), tuple(process), len(known))


def _scaled(
    stages: Sequence[Centred], settings: AdvantageSettings, running: RunningStd
) -> Iterable[tuple[Place, float]]:
    """Each attempt's advantage: its deviation over one std of all ``stages`` together."""
    outcome = [d for terms in stages for d in terms.outcome]
    process = [d for terms in stages for d in terms.process]
    if settings.apart:
        # Never the group's std: in an all-wrong group that would blow noise of the judge up to 1.
        by = max(running.std, settings.std_floor, SMALLEST_STD)
        std = _floored(outcome, settings)
        advantages = [o / std + p / by for o, p in zip(outcome, process, strict=True)]
    else:
        total = [o + p for o, p in zip(outcome, process, strict=True)]
        std = _floored(total, settings)
        advantages = [d / std for d in total]
    places = [place for terms in stages for place in terms.places]
    return zip(places, advantages, strict=True)


def _from_mean(numbers: Sequence[float]) -> list[float]:
    middle = sum(numbers) / len(numbers) if numbers else 0.0
    return [number - middle for number in numbers]


def _floored(deviations: Sequence[float], settings: AdvantageSettings) -> float:
    """Population std of deviations that sum to 0, no less than the floor."""
    square = sum(d * d for d in deviations) / max(len(deviations), 1)
    return max(math.sqrt(square), settings.std_floor, SMALLEST_STD)


def _left_out(deviation: float, count: int) -> float:
    """From a difference to the mean of all, the difference to the mean of the others."""
    return deviation * count / (count - 1) if count >= 2 else 0.0
