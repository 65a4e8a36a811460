"""What a judgement is worth in ``judge-rl``, given what is truly wrong with the trajectory.

::

    r = 1[parsed] · (0.5·(1 − (s − y)²) + 0.2·1[orders right] + 0.2·F1(turn, kind) + 0.1·utility)

Parsing is a gate, not a bonus. Not here: sampling and the update (``judge_rl.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reagent_env.agents.judge_data.records import PlantedRecord
from reagent_env.agents.judge_eval.naming import f1, named_flaws, true_flaws
from reagent_env.judgement import Judgement
from reagent_env.wrappers.critique_refine import gives_answer_away


@dataclass(frozen=True, slots=True)
class RewardParts:
    """What r is made of, e.g. ``RewardParts(near=0.9, ordered=1.0, found=1.0, utility=0.5)``."""

    near: float = 0.0
    """1 − (s − y)²."""
    ordered: float = 0.0
    """1 where the pair is ordered right."""
    found: float = 0.0
    """F1 of (turn, kind)."""
    utility: float = 0.0
    """Of the critique, in [−1, 1]."""
    parsed: bool = True

    @property
    def total(self) -> float:
        """r; 0 where nothing was parsed."""
        if not self.parsed:
            return 0.0
        return 0.5 * self.near + 0.2 * self.ordered + 0.2 * self.found + 0.1 * self.utility


def reward_parts(
    judgement: Judgement,
    record: PlantedRecord,
    *,
    partner_mean: float | None = None,
    partner_target: float | None = None,
    utility: float = 0.0,
) -> RewardParts:
    """What one judgement earns, and for what.

    Example: a judgement that scores a clean attempt 0.95, above its flawed partner's mean of 0.4,
    and finds nothing wrong, earns 0.5 + 0.2 + 0.2 = 0.9 without a utility.

    Args:
        judgement: What the judge said, strictly parsed.
        record: The trajectory with its planted flaw, or none.
        partner_mean: Mean score of the other partner's judgements; None where none was scored, and
            then nothing is ordered right.
        partner_target: y of the other partner.
        utility: R(second attempt | this critique) − R(second attempt | retry) of a frozen policy on
            wrong first attempts (``utility.py``); 0 where it was not measured. A critique that gives
            the answer away earns none.
    """
    if judgement.score is None:
        return RewardParts(parsed=False)
    ordered = 0.0
    if partner_mean is not None and partner_target is not None:
        ordered = float(
            _sign(judgement.score - partner_mean) == _sign(record.target - partner_target)
        )
    if utility and gives_answer_away(judgement.critique, record.trajectory):
        utility = 0.0
    return RewardParts(
        near=1.0 - (judgement.score - record.target) ** 2,
        ordered=ordered,
        found=f1(named_flaws(judgement.reasoning), true_flaws(record)),
        utility=utility,
    )


def mean_score(judgements: Sequence[Judgement]) -> float | None:
    """Of those that have one."""
    scores = [one.score for one in judgements if one.score is not None]
    return sum(scores) / len(scores) if scores else None


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
