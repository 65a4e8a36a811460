"""AgentGym's way of acting: ``Thought:`` and ``Action:``, every completion an action, none final."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reagent_env.tool_definition import Tool
from reagent_env.tool_formats.base import ParsedTurn, ToolFormat, without_leading_thought
from reagent_env.trajectory import ToolCall, ToolResult

_ACTION = re.compile(r"Action:[ \t]*\n?(.*?)(?=\n\s*\n|\nThought:|\Z)", re.DOTALL)


class AgentGymFormat(ToolFormat):
    """Reads the last ``Action:`` as a call of the one tool ``act``.

    Example: ``Thought:\\nPlanks first.\\n\\nAction:\\nget 1 oak planks``.

    With ``whole``, the whole completion is the action: SearchQA's and WebArena's servers read it
    themselves. A completion without exactly one action is a malformed call, and uses up its turn.
    """

    name = "agentgym"
    says_all = True  # no completion is final, and none gives up

    def __init__(self, *, whole: bool = False) -> None:
        self.whole = whole

    def system_prompt(self, tools: Sequence[Tool]) -> str:
        """How to write a turn."""
        if self.whole:
            return "Solve the task step by step. Write one action a turn and wait for what follows."
        return (
            "Solve the task step by step. Write each turn as\n"
            "Thought:\nyour thoughts\n\nAction:\nyour next action\n"
            "with exactly one action, and wait for what follows."
        )

    def parse(self, completion: str) -> ParsedTurn:
        """The action as a call."""
        if self.whole:
            return ParsedTurn((ToolCall("act", {"action": completion}),))
        found = _ACTION.findall(without_leading_thought(completion, "Action:"))
        actions = [action.strip() for action in found if action.strip()]
        if len(actions) != 1:
            problem = (
                f"write exactly one 'Action:' with an action below it; there are {len(actions)}"
            )
            return ParsedTurn((ToolCall("act", {}, malformed=problem),))
        return ParsedTurn((ToolCall("act", {"action": actions[0]}),))

    def render_results(self, results: Sequence[ToolResult]) -> str:
        """What the world shows, as it is."""
        return "\n".join(outcome.content for outcome in results)

    def render_calls(self, calls: Sequence[ToolCall], thought: str = "") -> str:
        """One action.

        Raises:
            ValueError: not one call of ``act``.
        """
        if len(calls) != 1 or calls[0].name != "act":
            raise ValueError("AgentGym takes one action a turn: one call of 'act'.")
        action = str(calls[0].arguments.get("action", ""))
        return action if self.whole else f"Thought:\n{thought}\n\nAction:\n{action}"
