"""Flaws of answering: too soon, by luck, against the evidence, with something nobody said."""

from __future__ import annotations

import random
import re

from reagent_env.agents.judge_data.flaws import FlawKind, Plant
from reagent_env.agents.judge_data.flaws_calls import perturbed
from reagent_env.agents.judge_data.playing import (
    CleanRun,
    Policy,
    first_query,
    hits,
    numbers,
    page_title,
    solve_on,
    stands_in,
    title_of,
)
from reagent_env.agents.judge_data.voice import Move


def _answering(run: CleanRun, at: int, answer: str) -> Plant:
    def policy() -> Policy:
        yield Move(answer=answer)

    return Plant(at, policy(), shift=at + 1 - run.length)


def is_number(text: str) -> bool:
    """Whether ``text`` is a plain number or fraction."""
    return re.fullmatch(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?", text) is not None


def other_answer(run: CleanRun, other: CleanRun, rng: random.Random, known: str) -> str | None:
    """A wrong answer of the right sort that does not stand in ``known``."""
    for _ in range(20):
        if is_number(run.answer):
            wrong = perturbed(run.answer, rng)
        elif is_number(other.answer):
            titles = [t for t, _, _ in hits(other.seen(other.length))]
            names = re.findall(r"\b[A-Z][a-z]+ [A-Z][a-z]+\b|\b[A-Z]{2}-\d+\b", other.task.question)
            pool = titles or names
            if re.fullmatch(r"[A-Z]{2}-\d+", run.answer):
                wrong = perturbed(run.answer, rng)
            elif pool:
                wrong = rng.choice(pool)
            else:
                return None
        else:
            wrong = other.answer
        if wrong != run.answer and not stands_in(wrong, known):
            return wrong
    return None


def _ignored_result(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """The result stands there; the answer is something else that was seen or asked about."""
    last = run.steps[-2].results[0] if run.steps[-2].results else ""
    if not stands_in(run.answer, last):
        return None
    question = run.task.question
    if is_number(run.answer):
        seen = [*numbers(run.seen(run.length - 1)), *numbers(question)]
        pool = [n for n in seen if n != run.answer.replace(",", "")]
    else:
        pool = [t for t, _, _ in hits(run.seen(run.length - 1))]
        pool += re.findall(r"\b[A-Z]{2}-\d+\b|\"([^\"]+)\"", question)
        pool = [name for name in pool if name and name.lower() != run.answer.lower()]
    return _answering(run, run.length - 1, rng.choice(pool)) if pool else None


def _answer_not_in_evidence(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    known = run.task.question + "\n" + run.seen(run.length)
    wrong = other_answer(run, other, rng, known)
    return None if wrong is None else _answering(run, run.length - 1, wrong)


def _skipped_hop(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """Gives what the last look-up should have started from as the answer."""
    at = run.length - 2
    calls = run.steps[at].move.calls
    if len(calls) != 1:
        return None
    if calls[0][0] == "search":
        title = title_of(first_query(calls[0]), run.seen(at))
        if title is None or stands_in(title, run.task.question) or title == run.answer:
            return None
        return _answering(run, at, title)
    code = str(calls[0][1].get("code", ""))
    if "wanted = next(" in code:
        changed = re.sub(r"print\(next\(.*\)\)$", "print(wanted)", code)

        def policy() -> Policy:
            results = yield Move(calls=(("python", {"code": changed}),))
            yield from solve_on(run, at, results)

        return None if changed == code else Plant(at, policy())
    if calls[0][0] == "browse":  # the name of the page, instead of what stands on it
        page = page_title(str(calls[0][1].get("url", "")))
        told = stands_in(page, run.seen(at)) and not stands_in(page, run.task.question)
        return _answering(run, at, page) if told and page != run.answer else None
    found = hits(run.steps[at - 1].results[0]) if at and run.steps[at - 1].results else []
    values = numbers(found[0][2]) if found else []
    if not values:  # a number that the program was to start from
        values = [one for one in numbers(code) if stands_in(one, run.seen(at))]
    return _answering(run, at, values[-1]) if values else None


def _premature_answer(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    at = rng.choice(list(run.call_turns())[-2:])  # near the end, or its brevity would tell
    wrong = other_answer(run, other, rng, run.answer)
    return None if wrong is None else _answering(run, at, wrong)


def _lucky_guess(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """The right answer, before anything seen could give it."""
    turns = [t for t in run.call_turns() if not stands_in(run.answer, run.seen(t))]
    if "file_reader" in run.tools and "search" not in run.tools:
        turns = [t for t in turns if t > 0] or turns
    return _answering(run, rng.choice(turns[-2:]), run.answer) if turns else None


def _kind(name: str, target: float, critique: str, unseen: bool = False) -> FlawKind:
    return FlawKind(name, target, critique, globals()[f"_{name}"], unseen)


KINDS = (
    _kind(
        "ignored_result",
        0.3,
        "The answer given in the {turn} turn is not what the last result says. Answer from the "
        "result that settles the question.",
    ),
    _kind(
        "answer_not_in_evidence",
        0.15,
        "The answer given in the {turn} turn stands in no result. Give only what the tools "
        "returned or what follows from it.",
        unseen=True,
    ),
    _kind(
        "skipped_hop",
        0.3,
        "The {turn} turn stops one step short: it takes an intermediate finding for what was "
        "asked. Go through the question once more, link by link.",
    ),
    _kind(
        "premature_answer",
        0.2,
        "The {turn} turn answers before the evidence is there. Make the look-ups or the "
        "computation that the question needs first.",
        unseen=True,
    ),
    _kind(
        "lucky_guess",
        0.3,
        "The {turn} turn answers without having looked. Even a right answer has to rest on what "
        "the tools returned.",
        unseen=True,
    ),
)
