"""Whatever a completion says is a call: so a policy need not know how to make one.

What the benchmarks' environments of so many turns have in common. It imports nothing that trains, so
that the memory of a side that is not ours is its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from reagent_env.tool_definition import Tool
from reagent_env.tool_formats import ToolFormat
from reagent_env.tool_formats.base import ParsedTurn
from reagent_env.trajectory import ToolCall, ToolResult

FOUND = "The register has one entry: the harbour of Velmora was built in 1704. " * 2
"""What the one tool, ``look``, always says."""


class AnyCall(ToolFormat):
    """Every completion is a call of ``look``."""

    name = "any-call"

    def system_prompt(self, tools: Sequence[Tool]) -> str:
        return "Look the question up, then answer it."

    def parse(self, completion: str) -> ParsedTurn:
        return ParsedTurn((ToolCall("look", {"text": completion}),))

    def render_results(self, results: Sequence[ToolResult]) -> str:
        return "\n".join(f"<tool_response>\n{one.content}\n</tool_response>" for one in results)

    def render_calls(self, calls: Sequence[ToolCall], thought: str = "") -> str:
        return str(calls[0].arguments["text"])
