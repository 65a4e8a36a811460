"""What a judgement is worth in ``judge-rl``, given what is truly wrong with the trajectory.

::

    r = 1[parsed] · (0.5·(1 − (s − y)²) + 0.2·1[orders right] + 0.2·F1(turn, kind) + 0.1·utility)

Parsing is a gate, not a bonus. Not here: sampling and the update (``judge_rl.py``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from reagent_env.agents.judge_data.records import PlantedRecord
from reagent_env.judgement import Judgement
from reagent_env.trainers.judge.examples import SOUND
from reagent_env.wrappers.critique_refine import gives_answer_away

_VERDICT = re.compile(r"(?:^|, )([0-9]{1,3}) ([a-z ]+)(?=,|$)")


def judge_reward(
    judgement: Judgement,
    record: PlantedRecord,
    *,
    partner_mean: float | None = None,
    partner_target: float | None = None,
    utility: float = 0.0,
) -> float:
    """r of one judgement, in [0, 1] where ``utility`` is in [0, 1].

    Example: a judgement that scores a clean attempt 0.95, above its flawed partner's mean of 0.4,
    and finds nothing wrong, earns 0.5 + 0.2 + 0.2 = 0.9 without a utility.

    Args:
        judgement: What the judge said, strictly parsed.
        record: The trajectory with its planted flaw, or none.
        partner_mean: Mean score of the other partner's judgements; None where none was scored, and
            then nothing is ordered right.
        partner_target: y of the other partner.
        utility: R(second attempt | this critique) − R(second attempt | retry) of a frozen policy on
            wrong first attempts; 0 where it was not measured. A critique that gives the answer away
            earns none.
    """
    if judgement.score is None:
        return 0.0
    near = 1.0 - (judgement.score - record.target) ** 2
    ordered = 0.0
    if partner_mean is not None and partner_target is not None:
        ordered = float(
            _sign(judgement.score - partner_mean) == _sign(record.target - partner_target)
        )
    if utility and gives_answer_away(judgement.critique, record.trajectory):
        utility = 0.0
    found = f1(named_flaws(judgement.reasoning), true_flaws(record))
    return 0.5 * near + 0.2 * ordered + 0.2 * found + 0.1 * utility


def named_flaws(reasoning: str) -> set[tuple[int, str]]:
    """(turn, kind) of each flaw that the reasoning names; turns count from 0.

    Example: ``named_flaws("1 sound, 2 repeated call")`` is ``{(1, "repeated_call")}``.
    """
    verdicts = _VERDICT.findall(reasoning)
    return {
        (int(number) - 1, verdict.strip().replace(" ", "_"))
        for number, verdict in verdicts
        if verdict.strip() != SOUND
    }


def true_flaws(record: PlantedRecord) -> set[tuple[int, str]]:
    """(turn, kind) of the planted flaw; empty for clean and benign records."""
    return set() if record.turn is None else {(record.turn, record.kind)}


def f1(named: set[tuple[int, str]], true: set[tuple[int, str]]) -> float:
    """Harmonic mean of precision and recall; 1 where nothing is wrong and nothing is named."""
    if not named and not true:
        return 1.0
    return 2 * len(named & true) / (len(named) + len(true))


def mean_score(judgements: Sequence[Judgement]) -> float | None:
    """Of those that have one."""
    scores = [one.score for one in judgements if one.score is not None]
    return sum(scores) / len(scores) if scores else None


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
