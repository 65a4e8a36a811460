"""What a batch of groups comes to, under the names of ``metric_names.py``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from reagent_env.agents.refine import RIGHT
from reagent_env.reward_models.base import kind_of
from reagent_env.trainers import metric_names as names
from reagent_env.trainers.sample import Group, Rollout


def sampled_tokens(groups: Sequence[Group]) -> int:
    """Tokens that the policy wrote in these groups."""
    return sum(
        turn >= 0
        for group in groups
        for rollout in group.rollouts
        for sample in rollout.samples
        for turn in sample.turn_of
    )


def batch_measures(groups: Sequence[Group], *, weight: float, judged: bool) -> dict[str, float]:
    """Success, scores, unscored and masked rates of an update's rollouts.

    Args:
        groups: Complete, masked rollouts included.
        weight: λ.
        judged: Whether a judge was asked at all.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    kept = [rollout for rollout in rollouts if not rollout.masked]
    measured: dict[str, float] = {names.MASKED: float(len(rollouts) - len(kept))}
    for reason, count in Counter(
        _failure(rollout) for rollout in rollouts if rollout.masked
    ).items():
        measured[f"{names.BY_KIND[names.MASKED]}{reason}"] = float(count)
    if not kept:
        return measured
    firsts = [rollout.attempts[0].outcome for rollout in kept]
    pairs = [
        (rollout.attempts[0].outcome, rollout.attempts[1].outcome)
        for rollout in kept
        if len(rollout.attempts) > 1
    ]
    measured[names.SUCCESS] = float(np.mean(firsts))
    if pairs:
        measured[names.SECOND] = float(np.mean([second for _, second in pairs]))
        measured[names.GAIN] = float(np.mean([second - first for first, second in pairs]))
        right = [(first >= RIGHT, second >= RIGHT) for first, second in pairs]
        measured[names.MENDED] = float(np.mean([now and not was for was, now in right]))
        measured[names.SPOILED] = float(np.mean([was and not now for was, now in right]))
    measured[names.TURNS] = float(np.mean([len(rollout.trajectory.turns) for rollout in kept]))
    measured[names.TURNS_MADE] = float(sum(len(rollout.trajectory.turns) for rollout in rollouts))
    if judged:
        judgements = [
            attempt.judgement
            for rollout in rollouts
            for attempt in rollout.trajectory.attempts
            if attempt.judgement is not None
        ]
        measured[names.JUDGED] = float(len(judgements))
        measured[names.JUDGE_TOKENS] = float(sum(one.tokens for one in judgements))
        attempts = [attempt for rollout in kept for attempt in rollout.attempts]
        scores = [attempt.score for attempt in attempts if attempt.score is not None]
        measured[names.UNSCORED] = 1 - len(scores) / len(attempts)
        if scores:
            measured[names.SCORE] = float(np.mean(scores))
            measured[names.PROCESS] = weight * float(np.mean(scores))
        for kind, count in Counter(_unscored_kinds(kept)).items():
            measured[f"{names.BY_KIND[names.UNSCORED]}{kind}"] = float(count)
    return measured


def _failure(rollout: Rollout) -> str:
    """The type of what failed, or why there is nothing to train on."""
    error = rollout.trajectory.infrastructure_error
    return error.partition(":")[0] if error else str(rollout.trajectory.stop_reason)


def _unscored_kinds(rollouts: Sequence[Rollout]) -> list[str]:
    kinds = []
    for rollout in rollouts:
        for attempt in rollout.trajectory.attempts:
            kind = None if attempt.judgement is None else kind_of(attempt.judgement)
            if kind is not None:
                kinds.append(str(kind))
    return kinds
