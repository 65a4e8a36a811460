"""What a flaw is, and the list of them; how each is made is in ``flaws_*.py``."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from reagent_env.agents.judge_data.playing import CleanRun, Policy


@dataclass(frozen=True)
class Plant:
    """A flaw ready to be played: the clean run's first ``at`` turns, then ``policy``."""

    at: int
    """Turns shared with the clean run."""
    policy: Policy
    """After ``lead`` moves comes the flawed one; then it goes on."""
    shift: int = 0
    """Turns that it is expected to take more (or fewer) than the clean run."""
    lead: int = 0
    """Moves of ``policy`` before the flawed one, where a flaw needs something to be a flaw about."""


Planter = Callable[[CleanRun, CleanRun, random.Random], Plant | None]
"""From a clean run, the clean run of another task, and a source of chance; None if it can't."""


@dataclass(frozen=True)
class FlawKind:
    """A kind of flaw, e.g. ``FLAWS["unit_slip"]``."""

    name: str
    target: float
    """Quality of a process with this flaw, from its severity: slight 0.7, moderate 0.5, serious 0.3,
    grave 0.15."""
    critique: str
    """Reference critique; ``{turn}`` is the flawed turn in words."""
    plant: Planter
    unseen: bool = False
    """Whether the answer given may not stand in any result; a pair where it does is dropped."""


CLEAN_TARGET = 0.95
"""Quality of a process without a flaw."""

CLEAN_CRITIQUE = (
    "The steps were sound: each call served the question, its result was used, and the answer "
    "rests on what the tools returned."
)

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")


def ordinal(turn: int) -> str:
    """A turn's index in words, since a digit might be an answer: 0 is ``first``."""
    return _ORDINALS[turn] if turn < len(_ORDINALS) else "later"


def flaw_kinds() -> dict[str, FlawKind]:
    """Every kind by name, as it is planted where questions are asked of tools."""
    from reagent_env.agents.judge_data import flaws_answers, flaws_calls, flaws_values

    kinds = (*flaws_calls.KINDS, *flaws_values.KINDS, *flaws_answers.KINDS)
    return {kind.name: kind for kind in kinds}
