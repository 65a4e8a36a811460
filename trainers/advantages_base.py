"""What every advantage estimator takes and gives: batches of returns in, numbers per turn out.

Not here: the estimators (``advantages_group.py``, ``advantages_turn.py``, ``advantages_gae.py``) and
finding them by name (``advantages.py``). Nothing in these files needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from reagent_env.trainers.sample import AttemptReturn

GroupReturns: TypeAlias = Sequence[tuple[AttemptReturn, ...]]
"""[G] rollouts of one task, masked ones left out; each has one or two attempts."""

Batch: TypeAlias = Sequence[GroupReturns]
"""[groups][G][attempts]."""

Advantages: TypeAlias = list[list[list[list[float]]]]
"""[groups][G][attempts][turns]: every token of a turn is trained with its turn's advantage."""

Place: TypeAlias = tuple[int, int, int]
"""Group, rollout, attempt: where in a batch."""

CREDITS = ("auto", "trajectory", "turn")
SMALLEST_STD = 1e-6
"""Below every floor: rounding errors of equal returns must not become advantages of one."""


@dataclass(frozen=True, slots=True)
class AdvantageSettings:
    """What turns returns into advantages, e.g. ``AdvantageSettings(weight=0.3, std_floor=0.1)``.

    Raises:
        ValueError: a value out of its range.
    """

    weight: float = 0.3
    """λ: an attempt's return is R + λ·score (arXiv 2601.22154); 0 leaves the outcome alone."""
    std_floor: float = 0.1
    """Units of reward; a group's std counts as no less than this."""
    apart: bool = False
    """Normalise the outcome by its group, and the process by a running std of the whole batch."""
    credit: str = "auto"
    """``trajectory`` or ``turn``: who is paid for the process; ``auto`` is the estimator's own way."""
    improvement_bonus: float = 0.0
    """β: second attempts are also paid β·(R² − R¹); ``per_stage`` alone."""
    gamma: float = 1.0
    """Discount from a step to the next within an attempt (across attempts it is 0); ``gae`` alone."""
    gae_lambda: float = 0.95
    """GAE's λ (arXiv 1506.02438): 0 trusts the value head, 1 the returns; ``gae`` alone."""

    def __post_init__(self) -> None:
        for name in ("weight", "std_floor", "improvement_bonus"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} must be finite and not negative, got {getattr(self, name)!r}."
                )
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)!r}.")
        if self.credit not in CREDITS:
            raise ValueError(f"Unknown credit {self.credit!r}; known: {', '.join(CREDITS)}.")


@dataclass(frozen=True, slots=True)
class RunningStd:
    """Std of scores about their group's mean, over the batches seen; new after each batch.

    Example::

        running = RunningStd().updated([-0.1, 0.1])
        running.std                             # 0.1
        json.dumps(dataclasses.asdict(running)) # RunningStd(**json.loads(…)) brings it back

    An exponential mean of squares, divided by its weight, so that the first batch counts in full.
    """

    mean_square: float = 0.0
    """Decayed sum of the batches' mean squares."""
    weight: float = 0.0
    """Decayed sum of ones; 0 before the first batch."""
    decay: float = 0.9
    """Share of the past that is kept at each batch."""

    def updated(self, deviations: Sequence[float]) -> RunningStd:
        """After a batch whose scores lie this far from their groups' means; none changes nothing."""
        if not deviations:
            return self
        now = sum(d * d for d in deviations) / len(deviations)
        keep = self.decay
        return RunningStd(
            keep * self.mean_square + (1 - keep) * now, keep * self.weight + (1 - keep), keep
        )

    @property
    def std(self) -> float:
        """0 before the first batch."""
        return math.sqrt(self.mean_square / self.weight) if self.weight > 0 else 0.0


class Estimate(Protocol):
    """The shape that all estimators share."""

    def __call__(
        self,
        batch: Batch,
        settings: AdvantageSettings,
        *,
        running: RunningStd = ...,
        values: Advantages | None = ...,
    ) -> Advantages:
        """Advantages of every turn of ``batch``.

        Args:
            batch: Returns of the batch's rollouts.
            settings: λ, floor and so on.
            running: Of the scores, this batch included; for ``apart``.
            values: A value head's estimate at the start of every turn, where one is needed.
        """
        ...


def stage_pools(batch: Batch) -> Iterable[list[Place]]:
    """For each group, its first attempts, then its second ones."""
    for g, group in enumerate(batch):
        for k in range(max((len(rollout) for rollout in group), default=0)):
            yield [(g, i, k) for i, rollout in enumerate(group) if k < len(rollout)]


def at(batch: Batch, place: Place) -> AttemptReturn:
    """The attempt at ``place``."""
    g, i, k = place
    return batch[g][i][k]


def over_turns(batch: Batch, found: dict[Place, float]) -> Advantages:
    """An attempt's one advantage, repeated over its turns."""
    return [
        [
            [[found[g, i, k]] * attempt.turns for k, attempt in enumerate(rollout)]
            for i, rollout in enumerate(group)
        ]
        for g, group in enumerate(batch)
    ]


def score_deviations(batch: Batch) -> list[float]:
    """How far each score lies from the mean of its group's scored attempts of the same number."""
    found = []
    for pool in stage_pools(batch):
        scores = [score for place in pool if (score := at(batch, place).score) is not None]
        if len(scores) >= 2:
            middle = sum(scores) / len(scores)
            found += [score - middle for score in scores]
    return found
