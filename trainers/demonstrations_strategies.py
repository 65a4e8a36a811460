"""Ways to play a task by script: the solver's own, clumsy ones, and wrong ones, side by side.

Each works over any solver and sees the question and tools' results only. Those in :data:`RIGHT` end
in the solver's answer, all others in another. Not here: which one is played when
(``demonstrations.py``).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType

from reagent_env.task_sets.solving import Calls, Solver

Play = Generator[Calls, list[str], str]
"""What a solver is, and a strategy over one: yields a turn's calls, returns the final answer."""
Strategy = Callable[[Solver, str, random.Random], Play]
"""From a solver, a question and random numbers to a play."""
Misreading = Callable[[str, random.Random], str | None]
"""From a question to an easier one that a hasty reader takes it for; None where there is none."""

BROKEN = "broken call"
"""Stands in a play's calls for a tool's name: the call beside it is written without its last brace."""

_ROUND = ("10", "100", "1000")
"""Numbers out of the air. Few, since to learn noise costs a small model what it can copy."""

_VALUE = re.compile(r"(?<![\w.])(?:[A-Z][a-z]{2,}|\d{2,})(?![\w.]*\w)")


def clean(solver: Solver, question: str, rng: random.Random) -> Play:
    """The solver's own play."""
    return (yield from solver(question))


def repeated(solver: Solver, question: str, rng: random.Random) -> Play:
    """One call is made twice, at the latest the last; the answer is right."""
    play = _Replay(solver, question)
    calls: Calls = []
    while play.calls is not None:
        calls = play.calls
        results = yield calls
        if not play.flawed and rng.random() < 0.5:
            play.flawed = True
            results = yield calls
        play.send(results)
    if not play.flawed and calls:
        yield calls
    return play.answer


def malformed(solver: Solver, question: str, rng: random.Random) -> Play:
    """The first or the second call, if there is one, lacks its last brace and is made again.

    The answer is right.
    """
    play = _Replay(solver, question)
    while (calls := play.calls) is not None:
        if not play.flawed and (play.turn >= 1 or rng.random() < 0.5):
            play.flawed = True
            yield [(BROKEN, {"name": calls[0][0], "arguments": calls[0][1]})]
        play.send((yield calls))
    return play.answer


def guess(solver: Solver, question: str, rng: random.Random) -> Play:
    """Answers at once, with a name of the question or a number out of the air."""
    named = [word for word in values_in(question) if not word.isdigit()][1:]
    numeric = re.match(r"(?:How much|How many|Compute|State)\b", question) or not named
    return rng.choice(_ROUND) if numeric else rng.choice(named)
    yield []  # never reached: it makes this function a generator


def premature(solver: Solver, question: str, rng: random.Random) -> Play:
    """Answers with a value on the way: the one that the next call would have gone on from."""
    play = _Replay(solver, question)
    while (calls := play.calls) is not None:
        results = yield calls
        play.send(results)
        if play.calls is not None and rng.random() < 0.95:
            used = [one for one in values_in("\n".join(results)) if one in _written(play.calls)]
            return rng.choice(used or values_in("\n".join(results)) or ["unknown"])
    return play.misread(rng)


def wrong_turn(solver: Solver, question: str, rng: random.Random) -> Play:
    """Takes another value of the last result than the question asks for, and goes on with it."""
    play = _Replay(solver, question)
    results: list[str] = []
    while (calls := play.calls) is not None:
        exchanged = _with_another_value(calls, results, question, rng)
        if exchanged is not None and not play.flawed and rng.random() < 0.75:
            play.flawed = True
            calls = exchanged
        results = yield calls
        play.send(results)
    return play.answer if play.flawed and play.answer else play.misread(rng)


def in_head(solver: Solver, question: str, rng: random.Random) -> Play:
    """Answers with one of the numbers where the computation with them in ``python`` should come."""
    play = _Replay(solver, question)
    while (calls := play.calls) is not None:
        if calls[0][0] == "python":
            numbers: list[str] = re.findall(r"\d+", _written(calls))
            return rng.choice(numbers or _ROUND)
        play.send((yield calls))
    return play.misread(rng)


def misread(solver: Solver, question: str, rng: random.Random) -> Play:
    """Looks up all it needs, then answers with another value of the last result."""
    play = _Replay(solver, question)
    while (calls := play.calls) is not None:
        play.send((yield calls))
    return play.misread(rng)


def misreading_strategy(misreading: Misreading) -> Strategy:
    """Solves an easier question in place of the one asked; :func:`misread` where there is none."""

    def strategy(solver: Solver, question: str, rng: random.Random) -> Play:
        easier = misreading(question, rng)
        play = _Replay(solver, question if easier is None else easier)
        while (calls := play.calls) is not None:
            play.send((yield calls))
        return play.answer if easier is not None and play.answer else play.misread(rng)

    return strategy


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "clean": clean,
        "repeated": repeated,
        "malformed": malformed,
        "guess": guess,
        "premature": premature,
        "wrong_turn": wrong_turn,
        "in_head": in_head,
        "misread": misread,
    }
)
"""Strategies over any solver, by name."""

RIGHT = frozenset({"clean", "repeated", "malformed"})
"""Strategies that end in the solver's answer; all others end in another."""


class _Replay:
    """A solver under way: its next calls, or its answer."""

    def __init__(self, solver: Solver, question: str) -> None:
        self._steps = solver(question)
        self._seen: list[str] = []
        self.answer = ""
        self.calls: Calls | None = None
        """What it calls next; None where it has its answer."""
        self.turn = 0
        self.flawed = False
        """Whether the strategy has done what it is for."""
        self._advance(None)

    def send(self, results: list[str]) -> None:
        """Hand over the results of :attr:`calls`."""
        self.turn += 1
        self._seen.append("\n".join(results))
        self._advance(results)

    def misread(self, rng: random.Random) -> str:
        """A value that was seen late and is not the answer; a number for a number."""
        others: list[str] = []
        for text in reversed(self._seen):
            found = [value for value in values_in(text) if value != self.answer]
            others = [v for v in found if v.isdigit() == self.answer.isdigit()] or others or found
            if others and others[0].isdigit() == self.answer.isdigit():
                break
        return rng.choice(others or _ROUND)

    def _advance(self, results: list[str] | None) -> None:
        try:
            self.calls = next(self._steps) if results is None else self._steps.send(results)
        except StopIteration as stop:
            self.calls, self.answer = None, str(stop.value)


def values_in(text: str) -> list[str]:
    """The capitalised words and the numbers of two digits up, each once, in order."""
    return list(dict.fromkeys(_VALUE.findall(text)))


def _written(calls: Calls) -> str:
    return json.dumps([arguments for _, arguments in calls])


def _with_another_value(
    calls: Calls, results: list[str], question: str, rng: random.Random
) -> Calls | None:
    """The calls with a value from the last results exchanged for another new one of its sort."""
    seen = values_in("\n".join(results))
    written = _written(calls)
    for value in values_in(written):
        others = [v for v in seen if v != value and v.isdigit() == value.isdigit()]
        others = [v for v in others if v not in written and v not in question]
        if value in seen and others:
            other = rng.choice(others)
            changed = json.loads(re.sub(rf"\b{re.escape(value)}\b", other, written))
            return [(name, arguments) for (name, _), arguments in zip(calls, changed, strict=True)]
    return None
