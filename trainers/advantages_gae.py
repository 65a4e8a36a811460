"""Generalised advantage estimation with a value head (PPO), turn by turn or token by token.

The registered ``gae`` works on turns: the value head is read at the position that predicts a turn's
first token, and every token of the turn has the turn's advantage. ``discounted_advantages`` is the
recursion itself, and ``token_rewards`` what it takes to run it on tokens. Rewards sit on tokens that
the policy wrote, never on an observation, and no discount carries anything from one attempt to the
one before. Not here: the value head and its loss (``losses.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from reagent_env.trainers.advantages_base import (
    Advantages,
    AdvantageSettings,
    Batch,
    RunningStd,
)
from reagent_env.trainers.sample import AttemptReturn

_FRESH = RunningStd()


def gae(
    batch: Batch,
    settings: AdvantageSettings,
    *,
    running: RunningStd = _FRESH,
    values: Advantages | None = None,
) -> Advantages:
    """A_t = Σ_l (γλ)^l δ_{t+l}, δ_t = r_t + γ·V_{t+1} − V_t over an attempt's turns (arXiv 1506.02438).

    Args:
        batch: Returns.
        settings: γ, λ, weight and credit.
        running: Unused: nothing is normalised by a group.
        values: [groups][G][attempts][turns] V at the start of each turn.

    Raises:
        ValueError: no values, or not one a turn.
    """
    if values is None:
        raise ValueError(
            "gae needs values=: the value head's estimate at the start of every turn. Train with a "
            "value head, or choose an estimator without one, such as grpo."
        )
    return [
        [
            [
                discounted_advantages(
                    turn_rewards(attempt, settings),
                    values[g][i][k],
                    gamma=settings.gamma,
                    gae_lambda=settings.gae_lambda,
                )
                for k, attempt in enumerate(rollout)
            ]
            for i, rollout in enumerate(group)
        ]
        for g, group in enumerate(batch)
    ]


def turn_rewards(attempt: AttemptReturn, settings: AdvantageSettings) -> list[float]:
    """[turns] λ·(φ_t − φ_{t−1}) each and R at the last; all of R + λ·score there by trajectory.

    Example: outcome 1, φ = (0.5, 1.0), λ = 0.3: ``[0.15, 1.15]``; unscored: ``[0.0, 1.0]``.
    """
    rewards = [0.0] * attempt.turns
    if attempt.score is not None:
        if settings.credit == "trajectory":
            rewards[-1] = settings.weight * attempt.score
        else:
            rewards = [settings.weight * (b - a) for a, b in pairwise(attempt.levels())]
    rewards[-1] += attempt.outcome
    return rewards


def token_rewards(
    attempts: Sequence[AttemptReturn], turn_of: Sequence[int], settings: AdvantageSettings
) -> tuple[list[float], list[bool]]:
    """Each turn's reward on the last token that the policy wrote in it, and where attempts end.

    Args:
        attempts: Of one rollout.
        turn_of: [T] the turn of each token, −1 where the policy did not write it.
        settings: Weight and credit.

    Returns:
        [T] rewards, and [T] True on the last token of each attempt.
    """
    rewards, ends = [0.0] * len(turn_of), [False] * len(turn_of)
    last = {turn: position for position, turn in enumerate(turn_of) if turn >= 0}
    first = 0
    for attempt in attempts:
        written = [t for t in range(first, first + attempt.turns) if t in last]
        for t, reward in enumerate(turn_rewards(attempt, settings), start=first):
            # A turn without a token of its own (cut off at once) leaves its reward to the last before.
            before = [other for other in written if other <= t] or written[:1]
            if before:
                rewards[last[before[-1]]] += reward
        if written:
            ends[last[written[-1]]] = True
        first += attempt.turns
    return rewards, ends


def discounted_advantages(
    rewards: Sequence[float],
    values: Sequence[float],
    ends: Sequence[bool] | None = None,
    *,
    gamma: float,
    gae_lambda: float,
) -> list[float]:
    """A_t = δ_t + γλ·A_{t+1}, where nothing follows an end; V's target is A_t + V_t.

    Args:
        rewards: [T] a step each, turns or the policy's own tokens.
        values: [T] V before each step.
        ends: [T] True on the last step of each attempt; without it, the last of all.
        gamma: Discount.
        gae_lambda: λ.

    Returns:
        [T] advantages. Example: rewards (0, 1), values (0.5, 0.5), γ = 1, λ = 0.5: ``[0.25, 0.5]``.

    Raises:
        ValueError: lengths differ.
    """
    if len(values) != len(rewards) or (ends is not None and len(ends) != len(rewards)):
        raise ValueError(
            f"Every step needs one value: got {len(rewards)} rewards, {len(values)} values and "
            f"{'no' if ends is None else len(ends)} ends."
        )
    found = [0.0] * len(rewards)
    following = next_value = 0.0
    for t in reversed(range(len(rewards))):
        if ends is not None and ends[t]:
            following = next_value = 0.0
        following = rewards[t] + gamma * next_value - values[t] + gamma * gae_lambda * following
        next_value = values[t]
        found[t] = following
    return found
