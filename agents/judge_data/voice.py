"""Turns moves into completions, with a thought before each, drawn alike for clean and flawed ones.

The wording must say nothing of the flaw: a judge that read it off the phrasing would be measured
on our phrasing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reagent_env.task_sets.phrasing import stable_random
from reagent_env.tool_formats import ToolFormat
from reagent_env.trajectory import ToolCall

Call = tuple[str, dict[str, Any]]
"""A tool's name and its arguments."""


@dataclass(frozen=True)
class Move:
    """What to do in one turn: calls, or an answer, or a completion already written."""

    calls: tuple[Call, ...] = ()
    """The calls of the turn."""
    answer: str | None = None
    """The final answer."""
    written: str | None = None
    """The completion itself, verbatim: a replayed or a malformed one."""
    breaks: str | None = None
    """How to spoil the text of the call, one of :data:`BREAKS`."""
    belief: str | None = None
    """What the agent takes the last result to say, where that isn't what it says."""
    stated: bool = False
    """Whether the thought is sure to say so."""

    @property
    def final(self) -> bool:
        """Whether the move ends the attempt."""
        return self.answer is not None


BREAKS = ("no_brace", "single_quotes", "no_arguments", "not_json", "list_arguments")
"""Ways in which a call's text is spoilt."""

_OPENINGS: dict[str, tuple[str, ...]] = {
    "search": (
        "Next, look up {what}.",
        "I search for {what}.",
        "The collection should say: {what}.",
        "Searching: {what}.",
        "I need {what}.",
    ),
    "browse": (
        "I open {what}.",
        "Read {what} itself.",
        "The page {what} should tell.",
        "Let me read {what}.",
    ),
    "python": (
        "I compute it with code.",
        "Python can work this out.",
        "Let me run this.",
        "Run the numbers.",
        "Code is safest here.",
    ),
    "file_reader": (
        "I look at {what}.",
        "See what {what} holds.",
        "Read {what} first.",
        "Let me see {what}.",
    ),
    "sql": (
        "I ask the database.",
        "A query can tell.",
        "Let me query that.",
        "The tables should say.",
    ),
    "act": (
        "Next: {what}.",
        "I do this: {what}.",
        "Now {what}.",
        "{what} comes next.",
    ),
    "": ("Let me try this.", "I go on with this.", "Next step.", "Now this."),
    "answer": (
        "That settles it.",
        "This is what was asked for.",
        "So the answer is clear.",
        "I can answer now.",
        "Done.",
    ),
}
_BESIDE = re.compile(r"Available actions: |\(\d+ rows(?:, and more)?\)$")
"""Lines below what was asked for."""
_LINKS = ("So far: {seen}", "The last result: {seen}", "Seen: {seen}", "It says: {seen}")


class Voice:
    """Writes completions; the thought depends on the task, the place and the salt alone.

    Example::

        Voice(get_tool_format("hermes"), "a question").say(Move(answer="4"), turn=1, seen="4")
    """

    def __init__(self, tool_format: ToolFormat, question: str, salt: str = "") -> None:
        self.tool_format = tool_format
        self.question = question
        self.salt = salt

    def say(self, move: Move, turn: int, seen: str | None) -> str:
        """The completion for ``move`` at ``turn``, after the last result ``seen``."""
        if move.written is not None:
            return move.written
        thought = self._thought(move, turn, move.belief if move.belief is not None else seen)
        if move.answer is not None:
            return self.tool_format.render_answer(move.answer, thought)
        calls = [ToolCall(name, arguments) for name, arguments in move.calls]
        if move.breaks is None:
            return self.tool_format.render_calls(calls, thought)
        return f"{thought}\n{broken_call(move.calls[0], move.breaks)}"

    def _thought(self, move: Move, turn: int, seen: str | None) -> str:
        rng = stable_random("voice", self.salt, self.question, turn)
        link, chance, place = rng.choice(_LINKS), rng.random(), rng.random()
        kind = "answer" if move.final else move.calls[0][0] if move.calls else ""
        pool = _OPENINGS.get(kind, _OPENINGS[""])
        opening = pool[int(place * len(pool))]
        what = _object_of(move.calls[0][1]) if move.calls else ""
        parts = [opening.replace("{what}", what)]
        if seen and (chance < 0.5 or move.stated):
            parts.insert(0, link.replace("{seen}", excerpt(seen)))
        return f"<think>\n{' '.join(parts)}\n</think>"


def excerpt(seen: str) -> str:
    """The sentence of a tool's answer that an agent would note: the first hit's, or the last line."""
    hit = re.search(r"^\[1\] (.*)\n    url: \S+\n    (.*)$", seen, re.MULTILINE)
    if hit:
        return f"{hit[1]}: {hit[2][:160]}"
    lines = [line.strip() for line in seen.splitlines() if line.strip()]
    told = [line for line in lines if not _BESIDE.match(line)]
    if told and len(told) < len(lines):
        whole = re.search(r"^.*\.(?= |$)", told[-1][:160])
        return whole[0] if whole else told[-1][:160]
    return lines[-1][:160] if lines else "nothing"


def broken_call(call: Call, how: str) -> str:
    """The text of a call with one mistake in its form, e.g. a brace too few."""
    name, arguments = call
    text = json.dumps({"name": name, "arguments": arguments})
    if how == "no_brace":
        text = text[:-2]
    elif how == "single_quotes":
        text = "{'name': '" + name + "', 'arguments': " + json.dumps(arguments) + "}"
    elif how == "no_arguments":
        text = json.dumps({"name": name, **arguments})
    elif how == "not_json":
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        text = f"{name}({given})"
    elif how == "list_arguments":
        text = json.dumps({"name": name, "arguments": list(arguments.values())})
    else:
        raise ValueError(f"Unknown way to break a call {how!r}; known: {', '.join(BREAKS)}.")
    return f"<tool_call>\n{text}\n</tool_call>"


def _object_of(arguments: dict[str, Any]) -> str:
    values: Sequence[Any] = list(arguments.values())
    first = values[0] if values else ""
    if isinstance(first, list):
        first = first[0] if first else ""
    text = " ".join(str(first).split())
    return "the files" if text == "." else text[:120]
