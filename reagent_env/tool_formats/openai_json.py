"""OpenAI's assistant message as the completion: ``{"content": …, "tool_calls": [...]}``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from reagent_env.tool_definition import Tool
from reagent_env.tool_formats.base import (
    ParsedTurn,
    ToolFormat,
    call_from_json,
    decode_json,
    without_leading_thought,
)
from reagent_env.trajectory import ToolCall, ToolResult


class OpenAIFormat(ToolFormat):
    """The completion is the message that a chat-completions server returns, as JSON."""

    name = "openai"

    def system_prompt(self, tools: Sequence[Tool]) -> str:
        """Instructions and the tools' schemas as one JSON list."""
        schemas = json.dumps([tool.schema for tool in tools])
        return (
            f"Solve the task with the help of these tools:\n{schemas}\n\n"
            'To call tools, answer with one JSON object: {"content": null, "tool_calls": '
            '[{"id": "call_1", "type": "function", "function": {"name": ..., "arguments": '
            '"<JSON object as a string>"}}]}. The calls of one turn run together.\n'
            "An answer without tool_calls is final: put the final answer, once, in \\boxed{}."
        )

    def parse(self, completion: str) -> ParsedTurn:
        """Read a message object, a bare list of calls, or plain text, which is final."""
        # A message begins with a brace; what else stands before a closing tag was thought.
        text = completion
        if not completion.lstrip().startswith(("{", "[")):
            text = without_leading_thought(completion, '{"')
        try:
            message, end = decode_json(text)
            whole = not text[end:].strip()
        except ValueError as error:
            if '"tool_calls"' not in text:
                return ParsedTurn(final_text=text)
            return ParsedTurn((ToolCall("", {}, malformed=f"the message is not JSON ({error})"),))
        calls = message.get("tool_calls") if isinstance(message, Mapping) else message
        if isinstance(calls, list) and calls and _all_calls(calls):
            if not whole:
                problem = "text follows the JSON message"
                return ParsedTurn((ToolCall("", {}, malformed=problem),))
            return ParsedTurn(tuple(_call(call) for call in calls))
        if isinstance(message, Mapping) and calls not in (None, []):
            problem = '"tool_calls" must be a list of {"id", "type", "function"} objects'
            return ParsedTurn((ToolCall("", {}, malformed=problem),))
        if whole and isinstance(message, Mapping) and isinstance(message.get("content"), str):
            # In JSON "\\boxed" takes two backslashes; with one, "\\b" reads as a backspace.
            return ParsedTurn(final_text=message["content"].replace("\boxed", "\\boxed"))
        return ParsedTurn(final_text=text)

    def render_results(self, results: Sequence[ToolResult]) -> str:
        """A JSON list of ``tool`` messages."""
        return json.dumps(
            [
                {
                    "role": "tool",
                    "tool_call_id": outcome.call_id,
                    "name": outcome.name,
                    "content": outcome.content,
                }
                for outcome in results
            ]
        )

    def render_calls(self, calls: Sequence[ToolCall], thought: str = "") -> str:
        """An assistant message with ``tool_calls``."""
        return json.dumps(
            {
                "content": thought or None,
                "tool_calls": [
                    {
                        "id": call.id or f"call_{number}",
                        "type": "function",
                        "function": {
                            "name": call.name,
                            "arguments": json.dumps(dict(call.arguments)),
                        },
                    }
                    for number, call in enumerate(calls, start=1)
                ],
            }
        )

    def render_answer(self, answer: str, thought: str = "") -> str:
        """An assistant message whose content gives the answer."""
        return json.dumps({"content": super().render_answer(answer, thought)})


def _all_calls(calls: list[Any]) -> bool:
    return all(
        isinstance(call, Mapping) and isinstance(call.get("function"), Mapping) for call in calls
    )


def _call(call: Mapping[str, Any]) -> ToolCall:
    call_id = call.get("id")
    return call_from_json(call["function"], call_id if isinstance(call_id, str) else None)
