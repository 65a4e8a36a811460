"""Scores that know less than the judge's: controls that tell whether a gain comes from what it knows.

Applied to a batch's returns just before advantages, so that the judge is asked, and critiques are
given, as in the run that is compared. What the log says of scores is still the judge's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from reagent_env.trainers.advantages_base import Batch, GroupReturns
from reagent_env.trainers.sample import AttemptReturn

Scores = Sequence[tuple[float | None, ...]]
"""[N] φ_1 … φ_T of each attempt of a stage (first or second attempts of one group)."""

CONSTANT = 0.5


def controlled(batch: Batch, control: str, seed: tuple[int, ...]) -> list[GroupReturns]:
    """The batch with other scores in place of the judge's; outcomes stay, the unscored stay so.

    Args:
        batch: [groups][G][attempts].
        control: A name of :data:`CONTROLS`, or ``none``, which changes nothing.
        seed: Of what is drawn.

    Raises:
        ValueError: there is no such control.
    """
    if control == "none":
        return list(batch)
    if control not in CONTROLS:
        raise ValueError(f"Unknown score_control {control!r}; known: {', '.join(CONTROLS)}, none.")
    change = CONTROLS[control]
    rng = np.random.default_rng(seed)
    return [_in_group(group, change, rng) for group in batch]


def _in_group(
    group: GroupReturns,
    change: Callable[[Scores, np.random.Generator], Scores],
    rng: np.random.Generator,
) -> GroupReturns:
    rollouts: list[list[AttemptReturn]] = [list(rollout) for rollout in group]
    for stage in range(max((len(rollout) for rollout in rollouts), default=0)):
        there = [rollout for rollout in rollouts if stage < len(rollout)]
        changed = change([rollout[stage].turn_scores for rollout in there], rng)
        for rollout, scores in zip(there, changed, strict=True):
            rollout[stage] = replace(rollout[stage], turn_scores=scores)
    return [tuple(rollout) for rollout in rollouts]


def shuffled(scores: Scores, rng: np.random.Generator) -> Scores:
    """The same scores, dealt out anew within the group: same mean and spread, nothing known.

    Final scores among final ones, those of turns on the way among themselves.
    """
    last = [one[-1] for one in scores]
    inner = [level for one in scores for level in one[:-1]]
    last = [last[place] for place in rng.permutation(len(last))]
    inner = [inner[place] for place in rng.permutation(len(inner))]
    dealt, start = [], 0
    for one, final in zip(scores, last, strict=True):
        end = start + len(one) - 1
        dealt.append((*inner[start:end], final))
        start = end
    return dealt


def constant(scores: Scores, rng: np.random.Generator) -> Scores:
    """One half for everything."""
    return [tuple(None if level is None else CONSTANT for level in one) for one in scores]


def noise(scores: Scores, rng: np.random.Generator) -> Scores:
    """Uniform in [0, 1], independent."""
    return [
        tuple(None if level is None else float(rng.uniform()) for level in one) for one in scores
    ]


def length(scores: Scores, rng: np.random.Generator) -> Scores:
    """The mean over the group's attempts of as many turns: what length alone tells of the score."""
    found = []
    for one in scores:
        alike = [other for other in scores if len(other) == len(one)]
        found.append(
            tuple(
                None if level is None else _mean([other[t] for other in alike])
                for t, level in enumerate(one)
            )
        )
    return found


def _mean(levels: Sequence[float | None]) -> float:
    known = [level for level in levels if level is not None]
    return sum(known) / len(known)


CONTROLS = MappingProxyType(
    {"shuffled": shuffled, "constant": constant, "noise": noise, "length": length}
)
"""Name → control, as ``score_control`` of ``TrainConfig`` takes it."""
