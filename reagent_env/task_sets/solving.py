"""What a scripted expert of a task set is: a generator that sees the question and tools' results only.

It yields the calls of a turn as ``(tool, arguments)`` pairs, is sent their results' texts, and
returns the final answer. Not here: acting in an environment (:mod:`reagent_env.agents.expert`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

Calls = list[tuple[str, dict[str, Any]]]
Solver = Callable[[str], Generator[Calls, list[str], str]]


def by_program(program_of: Callable[[str], str | None], look_first: Calls | None = None) -> Solver:
    """A solver that sends one program to the ``python`` tool; its last printed line is the answer.

    Args:
        program_of: From a question to a program, or None where the question is not understood.
        look_first: Calls of a turn before, for a task whose files one would look at.
    """

    def solve(question: str) -> Generator[Calls, list[str], str]:
        if look_first:
            yield look_first
        program = program_of(question)
        if program is None:
            return "unknown"
        results = yield [("python", {"code": program})]
        lines = results[0].strip().splitlines()
        return lines[-1].strip() if lines else "unknown"

    return solve
