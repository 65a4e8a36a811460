"""How one sandbox execution reads to the model; shared by the tools that run code."""

from __future__ import annotations

from reagent_env.sandboxes.contract import Execution, Status
from reagent_env.tool_definition import ToolOutput

_NOTES = {
    Status.TIMEOUT_INTERRUPTED: "[interrupted: it ran longer than the time limit; variables are kept]",
    Status.TIMEOUT_KILLED: "[killed: it ran longer than the time limit and ignored the interrupt]",
    Status.OOM: "[killed: out of memory]",
    Status.OUTPUT_LIMIT: "[stopped: it printed too much]",
    Status.SESSION_DIED: "[the session's process ended]",
}
_TIMEOUTS = (Status.TIMEOUT_INTERRUPTED, Status.TIMEOUT_KILLED)


def render_execution(execution: Execution) -> ToolOutput:
    """The output, the last value, and in brackets what else the model has to know."""
    lines = []
    if execution.output:
        lines.append(execution.output.rstrip("\n"))
    if execution.omitted_chars:
        lines.append(f"[{execution.omitted_chars} characters of output omitted in the middle]")
    if execution.value is not None:
        lines.append(execution.value)
    if note := _NOTES.get(execution.status):
        lines.append(note)
    if execution.exit_code not in (None, 0):
        lines.append(f"[exit code {execution.exit_code}]")
    if not execution.state_kept:
        lines.append("[a fresh session was started: variables are gone, files are kept]")
    failed = "timeout" if execution.status in _TIMEOUTS else "tool_error"
    return ToolOutput(
        content="\n".join(lines) or "(no output)",
        status=str(execution.status),
        error=None if execution.status is Status.OK else failed,
    )
