"""From judged trajectories to what a judge should have written about them.

A planted record says what is wrong and where; the example says it in the judge's words: a verdict
for each turn, a critique, φ_t and the score. Some records are shown otherwise too, so that the
judge meets what policies do: prefixes of attempts under way, and second attempts. Not here: the
planting (``agents/judge_data``), encoding (``training.py``).
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from reagent_env.agents.judge_data.flaws import CLEAN_CRITIQUE
from reagent_env.agents.judge_data.records import CLEAN, PlantedRecord
from reagent_env.agents.judge_eval.naming import SOUND
from reagent_env.reward_models.parse import render_judgement
from reagent_env.task_sets.phrasing import stable_random
from reagent_env.trajectory import StopReason, Trajectory

Messages = list[dict[str, str]]
View = Callable[[Trajectory], Messages | None]
"""What the judge reads of a trajectory; None where it does not fit."""

_THOUGHT = re.compile(r"<think>.*?</think>\s*", re.DOTALL)

UNFINISHED = "unfinished"
"""The kind of an attempt that the turn limit ended; no planter makes it."""
UNFINISHED_TARGET = 0.2
UNFINISHED_CRITIQUE = (
    "The attempt ended without an answer. Go for what the question asks, one look-up a step, and "
    "answer as soon as it is known."
)


@dataclass(frozen=True, slots=True)
class JudgeExample:
    """What a judge reads and what it should write; ``kind`` is the flaw's, or ``clean``."""

    messages: Messages
    """The prompt, without anything of the task's answer."""
    judgement: str
    """Text that ``parse_judgement`` reads."""
    kind: str
    """Kind of flaw, for leaving one out."""


def judge_examples(
    records: Iterable[PlantedRecord],
    view: View,
    *,
    prefixes: float = 0.25,
    unfinished: float = 0.06,
    second_attempts: float = 0.1,
    bare: float = 0.3,
    seed: int = 0,
) -> list[JudgeExample]:
    """Examples of ``records``, each view once; the same arguments give the same examples.

    Args:
        records: Flawed, clean and benign ones.
        view: What the judge will read.
        prefixes: Share of records of which also a prefix is shown, as of an attempt under way.
        unfinished: Share of which also a prefix is shown that the turn limit ended.
        second_attempts: Share shown also as a second attempt, after a flawed first one.
        bare: Share of which all is also shown without thoughts, as small policies write.
        seed: Draws those.
    """
    records = list(records)
    flawed: dict[str, Trajectory] = {
        one.pair_id: one.trajectory for one in records if one.turn is not None
    }
    shown: dict[tuple[str, str], JudgeExample] = {}
    for record in records:
        rng = stable_random("judge example", seed, record.pair_id, record.kind)
        varied = [record]
        turns = len(record.turn_targets)
        if turns > 1 and rng.random() < prefixes:
            varied.append(prefix_of(record, rng.randint(1, turns - 1)))
        if turns > 2 and rng.random() < unfinished:
            varied.append(unfinished_of(record, rng.randint(2, turns - 1)))
        first = flawed.get(record.pair_id)
        if first is not None and rng.random() < second_attempts:
            varied.append(as_second(record, first))
        if rng.random() < bare:
            varied += [without_thoughts(one) for one in varied]
        for one in varied:
            example = _example(one, view, rng)
            if example is not None:
                key = (example.messages[-1]["content"], example.judgement)
                shown.setdefault(key, example)
    return list(shown.values())


def prefix_of(record: PlantedRecord, turns: int) -> PlantedRecord:
    """The record as it stood after ``turns`` turns, its flaw with it only if that was made by then."""
    attempt = record.trajectory.attempts[-1]
    begun = dataclasses.replace(
        attempt, turns=attempt.turns[:turns], final_answer=None, stop_reason=None, outcome=None
    )
    targets = record.turn_targets[:turns]
    made = record.turn is not None and record.turn < turns
    return dataclasses.replace(
        record,
        trajectory=dataclasses.replace(
            record.trajectory, attempts=(*record.trajectory.attempts[:-1], begun)
        ),
        kind=record.kind if made or record.turn is None else CLEAN,
        turn=record.turn if made else None,
        critique=record.critique if made else CLEAN_CRITIQUE,
        target=targets[-1],
        turn_targets=targets,
        diverges=None,
    )


def unfinished_of(record: PlantedRecord, turns: int) -> PlantedRecord:
    """The first ``turns`` turns as an attempt that the turn limit ended: no answer is a flaw."""
    begun = prefix_of(record, turns)
    attempt = dataclasses.replace(begun.trajectory.attempts[-1], stop_reason=StopReason.MAX_TURNS)
    attempts = (*begun.trajectory.attempts[:-1], attempt)
    return dataclasses.replace(
        begun,
        trajectory=dataclasses.replace(begun.trajectory, attempts=attempts),
        kind=UNFINISHED,
        turn=turns - 1,
        target=min(begun.target, UNFINISHED_TARGET),
        turn_targets=(*begun.turn_targets[:-1], min(begun.target, UNFINISHED_TARGET)),
        critique=UNFINISHED_CRITIQUE,
    )


def as_second(record: PlantedRecord, first: Trajectory) -> PlantedRecord:
    """The record as a second attempt, after ``first``."""
    attempt = dataclasses.replace(record.trajectory.attempts[-1], feedback="Look again.")
    together = dataclasses.replace(record.trajectory, attempts=(first.attempts[-1], attempt))
    return dataclasses.replace(record, trajectory=together)


def without_thoughts(record: PlantedRecord) -> PlantedRecord:
    """The record with the calls and the answers alone, of every attempt."""
    attempts = tuple(
        dataclasses.replace(
            attempt,
            turns=tuple(
                dataclasses.replace(turn, completion=_THOUGHT.sub("", turn.completion))
                for turn in attempt.turns
            ),
        )
        for attempt in record.trajectory.attempts
    )
    return dataclasses.replace(
        record, trajectory=dataclasses.replace(record.trajectory, attempts=attempts)
    )


def judgement_text(record: PlantedRecord) -> str:
    """What a judge should write of a record, e.g. ``<think>1 sound, 2 repeated call</think>…``."""
    named = [SOUND] * len(record.turn_targets)
    if record.turn is not None:
        named[record.turn] = record.kind.replace("_", " ")
    reasoning = ", ".join(f"{number} {verdict}" for number, verdict in enumerate(named, 1))
    return render_judgement(reasoning, record.critique, record.target, record.turn_targets)


def _example(record: PlantedRecord, view: View, rng: random.Random) -> JudgeExample | None:
    messages = view(record.trajectory)
    if messages is None:
        return None
    kind = record.kind if record.turn is not None else CLEAN
    return JudgeExample(messages, judgement_text(record), kind)


def balanced(examples: Sequence[JudgeExample], seed: int = 0) -> list[JudgeExample]:
    """All examples, the rarer of flawed and clean ones repeated until both are as many; shuffled."""
    rng = random.Random(seed)
    clean = [one for one in examples if one.kind == CLEAN]
    flawed = [one for one in examples if one.kind != CLEAN]
    few, many = sorted((clean, flawed), key=len)
    again = [few[i % len(few)] for i in range(len(many) - len(few))] if few else []
    together = [*few, *many, *again]
    rng.shuffle(together)
    return together
