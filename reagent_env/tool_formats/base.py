"""What a tool-call format has to do, and the parsing that all of them share."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reagent_env.tool_definition import Tool
from reagent_env.trajectory import ToolCall, ToolResult


@dataclass(frozen=True, slots=True)
class ParsedTurn:
    """A completion read: calls to run, or, if there is none, the text of a final turn."""

    calls: tuple[ToolCall, ...] = ()
    """The calls in order, malformed ones among them; empty for a final turn."""
    final_text: str | None = None
    """What the final answer is taken from; None where there are calls."""


class ToolFormat(ABC):
    """One way of writing calls and results as text. Stateless; parsing never raises for any text."""

    name: str
    """What ``tool_format=`` calls it."""
    answer_style: str = "boxed"
    """How a final turn marks its answer (see :mod:`reagent_env.answers`)."""
    says_all: bool = False
    """Whether nothing is to be added to its system prompt, whatever the environment."""

    @abstractmethod
    def system_prompt(self, tools: Sequence[Tool]) -> str:
        """The instructions and the tools, as the policy reads them before the question."""

    def instructions(
        self, tools: Sequence[Tool], *, one_call: bool = False, simulated: bool = False
    ) -> str:
        """:meth:`system_prompt`, and what differs in this environment.

        Args:
            tools: What the policy may call.
            one_call: One call a turn is run, and no more.
            simulated: There is a world whose state decides, and no answer to give.
        """
        rules = []
        if one_call and not self.says_all:
            rules.append("One call a turn is run here; further ones are refused.")
        if simulated and not self.says_all:
            rules.append(
                "The task ends by itself when its goal is reached. There is no answer to give: a turn "
                "without a call gives up."
            )
        return "\n\n".join(part for part in (self.system_prompt(tools), " ".join(rules)) if part)

    @abstractmethod
    def parse(self, completion: str) -> ParsedTurn:
        """Read a completion. Mistakes in it become malformed calls, not exceptions."""

    @abstractmethod
    def render_results(self, results: Sequence[ToolResult]) -> str:
        """The observation that carries ``results``."""

    @abstractmethod
    def render_calls(self, calls: Sequence[ToolCall], thought: str = "") -> str:
        """A completion that makes ``calls``; the inverse of :meth:`parse`, for scripted agents."""

    def render_answer(self, answer: str, thought: str = "") -> str:
        """A final turn that gives ``answer``."""
        return f"{thought}\n\\boxed{{{answer}}}" if thought else f"\\boxed{{{answer}}}"


def without_leading_thought(completion: str, first_mark: str) -> str:
    """Drop a leading ``<think>…</think>`` block; calls are never taken from thoughts.

    A block whose opening tag stood in the prompt is recognised by a closing tag that comes
    before the first ``first_mark``. An unclosed block is all thought.
    """
    if completion.lstrip().startswith("<think>"):
        _, closed, rest = completion.partition("</think>")
        return rest if closed else ""
    close = completion.find("</think>")
    mark = completion.find(first_mark)
    if close >= 0 and (mark < 0 or close < mark):
        return completion[close + len("</think>") :]
    return completion


MAX_NESTING = 32
"""Lists and objects inside each other in a call's arguments."""

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(
    strict=False,
    parse_constant=lambda word: (_ for _ in ()).throw(ValueError(f"{word} is not JSON")),
)


def decode_json(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at ``start`` and where it ends; ``ValueError`` if there is none.

    Raw line breaks within strings are let through: models write code that way.
    """
    try:
        value, end = _DECODER.raw_decode(text, skip_space(text, start))
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if _opened(text, start, end) > MAX_NESTING and _deeper_than(value, MAX_NESTING):
        raise ValueError(f"the JSON is nested more than {MAX_NESTING} deep")
    return value, end


def skip_space(text: str, start: int) -> int:
    """The first place from ``start`` on that is no JSON white space."""
    found = _SPACE.match(text, start)
    return start if found is None else found.end()


def _opened(text: str, start: int, end: int) -> int:
    """At least as many lists and objects as the JSON in ``text[start:end]`` has, quickly."""
    return text.count("{", start, end) + text.count("[", start, end)


def _deeper_than(value: Any, limit: int) -> bool:
    """Whether lists and objects are nested deeper: what comes after us recurses over them."""
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (
                outer.values()
                if isinstance(outer, dict)
                else outer
                if isinstance(outer, list)
                else ()
            )
        ]
        if not level:
            return False
    return True


def call_from_json(value: Any, call_id: str | None = None) -> ToolCall:
    """A call from ``{"name": …, "arguments": {…}}``; whatever is wrong is told in ``malformed``."""

    def malformed(problem: str, name: str = "") -> ToolCall:
        return ToolCall(name, {}, call_id, malformed=problem)

    if not isinstance(value, dict):
        return malformed(
            f'a call is a JSON object {{"name": ..., "arguments": {{...}}}}, got {_kind(value)}'
        )
    name = value.get("name")
    if not isinstance(name, str) or not name:
        return malformed('the call has no "name" string')
    if "arguments" not in value:
        return malformed('the call has no "arguments" object', name)
    arguments = value["arguments"]
    if isinstance(arguments, str):
        try:
            arguments, _ = decode_json(arguments)
        except ValueError as error:
            return malformed(f'"arguments" is a string that is not JSON: {error}', name)
    if not isinstance(arguments, dict):
        return malformed(f'"arguments" must be a JSON object, got {_kind(arguments)}', name)
    return ToolCall(name, arguments, call_id)


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else kinds.get(type(value), "a number")
