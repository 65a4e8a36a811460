"""Hermes calls: ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``; and a compact prompt for them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from reagent_env.tool_definition import Tool
from reagent_env.tool_formats.base import (
    ParsedTurn,
    ToolFormat,
    call_from_json,
    decode_json,
    skip_space,
    without_leading_thought,
)
from reagent_env.trajectory import ToolCall, ToolResult

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class HermesFormat(ToolFormat):
    """Schemas inside ``<tools>``, calls inside ``<tool_call>``, results inside ``<tool_response>``."""

    name = "hermes"

    def system_prompt(self, tools: Sequence[Tool]) -> str:
        """Instructions with one JSON schema a line."""
        if not tools:
            return "Answer the question. Put the final answer in \\boxed{}."
        schemas = "\n".join(json.dumps(tool.schema) for tool in tools)
        return (
            "Solve the task with the help of tools. You may call one or more functions a turn; "
            "the calls of one turn run together.\n\n"
            f"Function signatures are given within <tools></tools> tags:\n<tools>\n{schemas}\n"
            "</tools>\n\n"
            "For each call, write a JSON object with the function's name and arguments within "
            "<tool_call></tool_call> tags:\n"
            '<tool_call>\n{"name": <function-name>, "arguments": <arguments-object>}\n'
            "</tool_call>\n\n"
            "A turn without a call is final: put the final answer, once, in \\boxed{}."
        )

    def parse(self, completion: str) -> ParsedTurn:
        """Read every ``<tool_call>`` block; JSON strings may hold the tags themselves."""
        text = without_leading_thought(completion, _OPEN)
        calls: list[ToolCall] = []
        position = 0
        while (start := text.find(_OPEN, position)) >= 0:
            if "</think>" in text[position:start]:
                calls.clear()  # the template opened the thought, and these calls were in it
            call, position = _read_call(text, start + len(_OPEN))
            calls.append(call)
        if calls and "</think>" in text[position:]:
            calls.clear()
            text = text[position:].partition("</think>")[2]
        if not calls and _CLOSE in text:
            calls.append(_malformed(f"{_CLOSE} without {_OPEN} before it"))
        return ParsedTurn(tuple(calls)) if calls else ParsedTurn(final_text=text)

    def render_results(self, results: Sequence[ToolResult]) -> str:
        """One ``<tool_response>`` block a result; the closing tag inside a result is defused."""
        return "\n".join(
            "<tool_response>\n"
            + outcome.content.replace("</tool_response>", "<\\/tool_response>")
            + "\n</tool_response>"
            for outcome in results
        )

    def render_calls(self, calls: Sequence[ToolCall], thought: str = "") -> str:
        """One ``<tool_call>`` block a call."""
        blocks = [
            f"{_OPEN}\n{json.dumps({'name': call.name, 'arguments': dict(call.arguments)})}\n{_CLOSE}"
            for call in calls
        ]
        return "\n".join([thought, *blocks] if thought else blocks)


class CompactFormat(HermesFormat):
    """Hermes calls under a prompt of one line a tool, for models with small contexts."""

    name = "compact"
    says_all = True  # who has so little room finds out by trying

    def system_prompt(self, tools: Sequence[Tool]) -> str:
        """One signature a line and one worked call."""
        if not tools:
            return "End with \\boxed{answer}."
        signatures = "\n".join(tool.signature for tool in tools)
        return (
            f"Tools:\n{signatures}\n"
            f'Call: {_OPEN}{{"name": "{tools[0].name}", "arguments": {{...}}}}{_CLOSE}\n'
            "End: \\boxed{answer}"
        )

    def render_calls(self, calls: Sequence[ToolCall], thought: str = "") -> str:
        """One call a line, no spare white space."""
        blocks = [
            f"{_OPEN}{json.dumps({'name': call.name, 'arguments': dict(call.arguments)})}{_CLOSE}"
            for call in calls
        ]
        return "\n".join([thought, *blocks] if thought else blocks)


def _read_call(text: str, start: int) -> tuple[ToolCall, int]:
    """The call whose opening tag ends at ``start``, and where reading goes on."""
    close = text.find(_CLOSE, start)
    after_block = len(text) if close < 0 else close + len(_CLOSE)
    try:
        value, end = decode_json(text, start)
    except ValueError as error:
        where = f"the call is not valid JSON ({error})"
        return _malformed(where if close >= 0 else f"{where}; {_CLOSE} is missing"), after_block
    end = skip_space(text, end)
    if text.startswith(_CLOSE, end):
        return call_from_json(value), end + len(_CLOSE)
    if end == len(text):  # the closing tag was the stop string of the sampler
        return call_from_json(value), end
    return _malformed(f"{_CLOSE} must follow the JSON object of a call"), max(end, after_block)


def _malformed(problem: str) -> ToolCall:
    return ToolCall("", {}, malformed=problem)
