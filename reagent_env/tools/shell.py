"""The ``shell`` tool: bash in the episode's sandbox, in the same files as ``python``."""

from __future__ import annotations

from reagent_env.sandboxes.contract import Sandbox
from reagent_env.tool_definition import ToolOutput, tool
from reagent_env.tools.execution import render_execution


@tool(timeout_s=None)  # the sandbox keeps the deadline
def shell(command: str, *, sandbox: Sandbox) -> ToolOutput:
    """Run a bash command; its working directory and exported variables stay for later calls.

    Args:
        command: The command line.
    """
    return render_execution(sandbox.shell(command))
