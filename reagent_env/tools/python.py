"""The ``python`` tool: code in the episode's sandbox, its variables kept from call to call."""

from __future__ import annotations

from reagent_env.sandboxes.contract import Sandbox
from reagent_env.tool_definition import ToolOutput, tool
from reagent_env.tools.execution import render_execution


@tool(timeout_s=None)  # the sandbox keeps the deadline
def python(code: str, *, sandbox: Sandbox) -> ToolOutput:
    """Run Python code; variables stay for later calls, and a last expression is shown.

    Args:
        code: Python source.
    """
    return render_execution(sandbox.python(code))
