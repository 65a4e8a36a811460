"""ReAct: ``Thought / Action / Action Input`` and ``Final Answer`` lines (Yao et al., arXiv 2210.03629)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from reagent_env.tool_definition import Tool
from reagent_env.tool_formats.base import (
    ParsedTurn,
    ToolFormat,
    call_from_json,
    decode_json,
    without_leading_thought,
)
from reagent_env.trajectory import ToolCall, ToolResult

# Models write these lines in bold, numbered, in any case: **Action 1:** `python`
_MARK = r"[ \t*_#]*"
_ACTION = re.compile(
    rf"^{_MARK}Action(?:[ \t]+[0-9]+)?{_MARK}:{_MARK}(.*?)[ \t*_]*$", re.MULTILINE | re.IGNORECASE
)
_INPUT = re.compile(
    rf"^{_MARK}Action[ \t]+(?:[0-9]+[ \t]+)?Input(?:[ \t]+[0-9]+)?{_MARK}:{_MARK}",
    re.MULTILINE | re.IGNORECASE,
)


class ReActFormat(ToolFormat):
    """One action a turn; what a completion writes after it (an imagined observation) is ignored."""

    name = "react"
    answer_style = "react"

    def system_prompt(self, tools: Sequence[Tool]) -> str:
        """Instructions, tools by signature and description, and the shape of a turn."""
        described = "\n".join(f"{tool.signature}: {tool.description}" for tool in tools)
        names = ", ".join(tool.name for tool in tools)
        return (
            "Solve the task step by step with these tools:\n"
            f"{described}\n\n"
            "Write each turn as\n"
            "Thought: what to do next\n"
            f"Action: one of [{names}]\n"
            "Action Input: the arguments as one JSON object\n"
            "and wait for the Observation. When you know the answer, end with\n"
            "Thought: I know the answer\n"
            "Final Answer: the answer"
        )

    def parse(self, completion: str) -> ParsedTurn:
        """Read the first action; without one the turn is final."""
        text = without_leading_thought(completion, "Action")
        action = _ACTION.search(text)
        if action is None:
            return ParsedTurn(final_text=text)
        name = action.group(1).strip("` ").removesuffix("()")
        given = _INPUT.search(text, action.end())
        following = _ACTION.search(text, action.end())
        if given is None or (following is not None and following.start() < given.start()):
            return ParsedTurn((ToolCall(name, {}, malformed="'Action Input:' is missing"),))
        try:
            arguments, _ = decode_json(text, given.end())
        except ValueError as error:
            problem = f"'Action Input:' is not a JSON object ({error})"
            return ParsedTurn((ToolCall(name, {}, malformed=problem),))
        return ParsedTurn((call_from_json({"name": name, "arguments": arguments}),))

    def render_results(self, results: Sequence[ToolResult]) -> str:
        """One ``Observation:`` a result."""
        return "\n".join(f"Observation: {outcome.content}" for outcome in results)

    def render_calls(self, calls: Sequence[ToolCall], thought: str = "") -> str:
        """The first call; ReAct takes one a turn.

        Raises:
            ValueError: more than one call was given.
        """
        if len(calls) != 1:
            raise ValueError(f"ReAct makes one call a turn, got {len(calls)}; send them in turn.")
        return (
            f"Thought: {thought}\nAction: {calls[0].name}\n"
            f"Action Input: {json.dumps(dict(calls[0].arguments))}"
        )

    def render_answer(self, answer: str, thought: str = "") -> str:
        """A ``Final Answer:`` line."""
        return f"Thought: {thought or 'I know the answer'}\nFinal Answer: {answer}"
