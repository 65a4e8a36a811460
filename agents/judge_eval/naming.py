"""Flaws by their names: which (turn, kind) a judge's reasoning states, against which there are.

Two forms are read: that which ``judge-sft`` teaches, ``1 sound, 2 repeated call``, and the rubric's,
``Turn 2: … [repeated_call, severity 0.25].`` Prose names nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from reagent_env.agents.judge_data.records import PlantedRecord
from reagent_env.agents.judge_eval.measures import mean_by_task
from reagent_env.judgement import Judgement

SOUND = "sound"
"""The verdict on a turn without a flaw."""

Flaws = set[tuple[int, str]]
"""(turn, kind); turns count from 0."""

_VERDICT = re.compile(r"(?:^|, )([0-9]{1,3}) ([a-z ]+)(?=,|$)")
_VERDICTS = re.compile(r"[0-9]{1,3} [a-z ]+(?:, [0-9]{1,3} [a-z ]+)*")
_FINDING = re.compile(r"^Turn ([0-9]{1,3}): .*\[([a-z_]+), severity [0-9.]+\]\.$", re.MULTILINE)
_FINDINGS = re.compile(r"^Turn [0-9]{1,3}: (?:no flaw found\.|.*\]\.)$", re.MULTILINE)


def named_flaws(reasoning: str) -> Flaws:
    """What the reasoning names.

    Example: ``named_flaws("1 sound, 2 repeated call")`` is ``{(1, "repeated_call")}``.
    """
    found = _FINDING.findall(reasoning) or _VERDICT.findall(reasoning)
    return {
        (int(number) - 1, kind.strip().replace(" ", "_"))
        for number, kind in found
        if kind.strip() != SOUND
    }


def names_flaws(reasoning: str) -> bool:
    """Whether it is of a form in which flaws are named, be it that there are none."""
    return bool(_VERDICTS.fullmatch(reasoning.strip()) or _FINDINGS.match(reasoning.strip()))


def true_flaws(record: PlantedRecord) -> Flaws:
    """The planted flaw; none in clean and benign records."""
    return set() if record.turn is None else {(record.turn, record.kind)}


def f1(named: Flaws, true: Flaws) -> float:
    """Harmonic mean of precision and recall; 1 where nothing is wrong and nothing is named."""
    if not named and not true:
        return 1.0
    return 2 * len(named & true) / (len(named) + len(true))


def naming_report(
    records: Sequence[PlantedRecord], judgements: Sequence[Judgement]
) -> dict[str, Any] | None:
    """F1 of (turn, kind) over flawed and clean records; None for a judge that names no flaws.

    A judge whose reasonings are mostly of another form names none. ``f1_of_turns`` leaves the kind
    aside, for judges with names of their own.
    """
    said = [
        (record, one.reasoning)
        for record, one in zip(records, judgements, strict=True)
        if one.score is not None
    ]
    formed = [names_flaws(reasoning) for _, reasoning in said]
    if not formed or np.mean(formed) < 0.5:
        return None
    tasks = [record.group for record, _ in said]
    pairs = [(named_flaws(reasoning), true_flaws(record)) for record, reasoning in said]
    turns = [(_turns(named), _turns(true)) for named, true in pairs]
    flawed = [index for index, (record, _) in enumerate(said) if record.flawed]
    kinds = sorted({said[index][0].kind for index in flawed})
    scores = [f1(named, true) for named, true in pairs]
    return {
        "in_the_form": float(np.mean(formed)),
        "f1": mean_by_task(scores, tasks).to_json(),
        "f1_flawed": mean_by_task(
            [scores[index] for index in flawed], [tasks[index] for index in flawed]
        ).to_json(),
        "f1_of_turns": mean_by_task([f1(*each) for each in turns], tasks).to_json(),
        "by_kind": {
            kind: float(np.mean([scores[i] for i in flawed if said[i][0].kind == kind]))
            for kind in kinds
        },
    }


def _turns(flaws: Flaws) -> Flaws:
    return {(turn, "") for turn, _ in flaws}
