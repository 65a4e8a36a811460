"""Rewards of turns and attempts on their way to verl's loss, in the one tensor that gets there.

verl hands an advantage estimator ``token_level_rewards`` and ``response_mask``, nothing else of a
rollout. So the rewards stand at the tokens that end the turns, and what is no reward is written as
negative zeros, which no sum, mean or GAE notices:

* a turn that does not end its attempt pays λ·(φ_t − φ_{t−1}) at its last token;
* the last turn of an attempt pays λ·(φ_T − φ_{T−1}) at its last token but one, the outcome at its last;
* −0.0 in place of that share: the attempt is unscored;
* −0.0 at the token before a turn: another attempt begins there;
* a row whose mask is all zero: infrastructure failed.

:func:`estimator` reads them back and asks the estimators of our own trainer. A turn of one token has
no place for a share of its own: there outcome and share are one number, counted as outcome.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from reagent_env.trainers.advantages import (
    AdvantageSettings,
    check_settings,
    estimate_advantages,
    get_estimator,
)
from reagent_env.trainers.sample import AttemptReturn

ESTIMATORS = ("turn", "turn_myopic", "per_stage", "pooled", "grpo", "dr_grpo", "rloo")
"""Those that are registered with verl, as ``reagent_<name>``."""
FLAG = -0.0


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens of a turn: from ``begin`` to ``end``, that one not included."""

    begin: int
    end: int


def token_rewards(
    turn_of: Sequence[int],
    attempts: Sequence[AttemptReturn],
    weight: float,
    credit: str = "turn",
) -> list[float]:
    """[T] what each token of a response pays, and the flags.

    Example, one attempt of two turns, λ = 0.3, φ = 0.5, 0.9, right::

        token_rewards([0, 0, -1, 1, 1], [AttemptReturn(1.0, (0.5, 0.9))], 0.3)
        # [0, 0.15, 0, 0.12, 1]

    Args:
        turn_of: [T] turn of the rollout that sampled each token; −1 for tokens it read.
        attempts: What its attempts came to.
        weight: λ.
        credit: ``turn``, or ``trajectory``: all of λ·φ_T is the last turn's.
    """
    rewards = [0.0] * len(turn_of)
    spans = spans_of([turn >= 0 for turn in turn_of])
    turn = 0
    for number, attempt in enumerate(attempts):
        levels = [0.0] * (attempt.turns + 1)
        if attempt.score is not None:
            levels = attempt.levels() if credit == "turn" else [*levels[:-1], attempt.score]
        for place, (before, after) in enumerate(pairwise(levels)):
            if turn >= len(spans):
                return rewards
            span, share = spans[turn], weight * (after - before)
            last = place == attempt.turns - 1
            if place == 0 and number > 0:
                rewards[span.begin - 1] = FLAG
            if not last:
                rewards[span.end - 1] = share
            elif span.end - span.begin > 1:
                rewards[span.end - 2] = FLAG if attempt.score is None else share + 0.0
                rewards[span.end - 1] = attempt.outcome
            else:
                rewards[span.end - 1] = attempt.outcome + share
            turn += 1
    return rewards


def read_rewards(rewards: Sequence[float], mask: Sequence[float]) -> list[AttemptReturn]:
    """The attempts that :func:`token_rewards` wrote, their φ in units of reward (λ = 1).

    Returns:
        None of them where the mask is all zero: the rollout is masked.
    """
    attempts: list[AttemptReturn] = []
    levels: list[float | None] = []
    pending: list[Span] = []

    def close() -> None:
        if not pending:
            return
        level = 0.0
        levels.clear()
        for span in pending[:-1]:
            level += rewards[span.end - 1]
            levels.append(level)
        final = pending[-1]
        scored = True
        if final.end - final.begin > 1:
            told = rewards[final.end - 2]
            scored = not _is_flag(told)
            level += told
        attempts.append(AttemptReturn(rewards[final.end - 1], (*levels, level if scored else None)))
        pending.clear()

    for span in spans_of(mask):
        if span.begin > 0 and _is_flag(rewards[span.begin - 1]):
            close()
        pending.append(span)
    close()
    return attempts


def spans_of(mask: Sequence[Any]) -> list[Span]:
    """Runs of trained tokens: the turns."""
    found, at = [], 0
    for trained, run in groupby(mask, key=bool):
        length = sum(1 for _ in run)
        if trained:
            found.append(Span(at, at + length))
        at += length
    return found


def estimator(name: str) -> Callable[..., tuple[Any, Any]]:
    """verl's advantage function around the estimator of that name in our own trainer.

    ``algorithm.reagent_std_floor`` and ``algorithm.gamma`` are not read: the settings are those of
    :class:`~reagent_env.trainers.advantages.AdvantageSettings`, λ being in the rewards already.

    Raises:
        ValueError: no such estimator.
    """
    chosen = get_estimator(name)
    settings = AdvantageSettings(weight=1.0)
    check_settings(chosen, settings)

    def advantages(
        token_level_rewards: Any,
        response_mask: Any,
        index: Any = None,
        config: Any = None,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        """[B, T] advantages and returns, the same, for verl's policy loss.

        Raises:
            ValueError: a KL term in the reward has overwritten the flags.
        """
        if config is not None and config.get("use_kl_in_reward", False):
            raise ValueError(
                f"reagent_{name} reads turns and attempts from the rewards, which "
                "algorithm.use_kl_in_reward overwrites; use actor.use_kl_loss instead."
            )
        return _advantages(chosen, settings, token_level_rewards, response_mask, index)

    advantages.__name__ = f"reagent_{name}"
    return advantages


def _advantages(
    chosen: Any, settings: AdvantageSettings, rewards: Any, mask: Any, index: Any
) -> tuple[Any, Any]:
    rows = [read_rewards(r, m) for r, m in zip(rewards.tolist(), mask.tolist(), strict=True)]
    names = [str(one) for one in index] if index is not None else ["one group"] * len(rows)
    members: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if rows[row]:
            members.setdefault(name, []).append(row)
    found = mask.new_zeros(mask.shape, dtype=rewards.dtype)
    groups = list(members.values())
    estimated = estimate_advantages(
        chosen, [[tuple(rows[row]) for row in group] for group in groups], settings
    ).advantages
    for group, of_group in zip(groups, estimated, strict=True):
        for row, of_attempts in zip(group, of_group, strict=True):
            by_turn = [value for turns in of_attempts for value in turns]
            for span, value in zip(spans_of(mask[row].tolist()), by_turn, strict=False):
                found[row, span.begin : span.end] = value
    return found, found


def _is_flag(value: float) -> bool:
    return value == 0 and math.copysign(1.0, value) < 0
