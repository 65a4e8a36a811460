"""What scripted flaws need to know of MiniMix: its questions' plans. Not here: the flaws."""

from __future__ import annotations

import random
from dataclasses import replace

from reagent_env.task_sets.mini_mix_questions import read_plan
from reagent_env.trainers.demonstrations import Knowledge


def without_a_hop(question: str, rng: random.Random) -> str | None:
    """The question as a hasty reader takes it: a label of its longest chain left out.

    Example: ``What is the mayor of the home of Ostrin?`` becomes ``What is the mayor of Ostrin?``.
    None where nothing can be left out.
    """
    plan = read_plan(question)
    if plan is None or max(len(term.path) for term in plan.terms) < 2:
        return None
    short = [
        replace(term, path=_but_one(term.path, rng)) if len(term.path) > 1 else term
        for term in plan.terms
    ]
    second = short[1] if len(short) > 1 else plan.second
    return question.replace(str(plan), str(replace(plan, first=short[0], second=second)))


def _but_one(path: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
    """A path without one of its labels, the last one kept."""
    left_out = rng.randrange(len(path) - 1)
    return path[:left_out] + path[left_out + 1 :]


def fitting(question: str) -> frozenset[str]:
    """The wrong strategies that a question has an occasion for.

    Example: ``fitting("Find the mayor of Velmora.")`` is ``{"guess", "misread"}``: one look-up
    leaves nothing to skip, and no value of a result to go on from wrongly.
    """
    found = {"guess", "misread"}
    plan = read_plan(question)
    if plan is None:
        return frozenset(found)
    if plan.level > 1:
        found.add("premature")
    if plan.operation:
        found |= {"in_head", "wrong_turn"}
    if any(len(term.path) > 1 for term in plan.terms):
        found |= {"skipped_hop", "wrong_turn"}
    return frozenset(found)


KNOWLEDGE = Knowledge({"skipped_hop": without_a_hop}, fitting)
"""For :class:`~reagent_env.trainers.demonstrations.ScriptedPolicy`."""
