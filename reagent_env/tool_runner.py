"""Runs the calls of one turn together and turns whatever they do into results.

The policy's mistakes become results that say what was wrong; infrastructure failures are raised.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from reagent_env.daemon_threads import Pending, run_in_thread
from reagent_env.errors import INFRASTRUCTURE_ERRORS, ToolError
from reagent_env.sandboxes.contract import Sandbox
from reagent_env.simulator import Simulator
from reagent_env.task import Task
from reagent_env.tool_definition import Tool, ToolOutput
from reagent_env.trajectory import ToolCall, ToolResult


def run_calls(
    calls: Sequence[ToolCall],
    tools: Mapping[str, Tool],
    *,
    task: Task,
    sandbox: Callable[[], Sandbox],
    max_calls: int,
    deadline: float,
    simulator: Simulator | None = None,
) -> list[ToolResult]:
    """Run ``calls`` at the same time and return one result each, in order.

    Calls that share the sandbox or the simulator run one after another among themselves; all
    others overlap. No call runs in a simulator whose task is over.

    Args:
        calls: What the policy wrote, malformed calls among them.
        tools: The tools there are, by name.
        task: Given to tools that ask for it.
        sandbox: Gives the episode's sandbox; called only if a tool needs it.
        max_calls: Calls beyond this many are answered, not run.
        deadline: Reading of ``time.monotonic()`` after which no call starts or is waited for.
        simulator: The attempt's, given to tools that ask for it.

    Raises:
        InfrastructureError, SandboxError, ConnectionError: something around the policy failed.
    """
    results: list[ToolResult | None] = [None] * len(calls)
    launched: list[tuple[int, Callable[[], ToolResult]]] = []
    here: list[tuple[int, Tool, dict[str, Any]]] = []
    for position, call in enumerate(calls):
        prepared = _prepare(call, tools, position, max_calls)
        if isinstance(prepared, ToolResult):
            results[position] = prepared
            continue
        tool, arguments = prepared
        keeps_deadline = tool.timeout_s is None and not tool.is_async and len(calls) == 1
        if tool.needs_sandbox or tool.needs_simulator or keeps_deadline:
            here.append((position, tool, arguments))
        else:
            given = _inject(tool, arguments, task, sandbox, simulator)
            launched.append((position, _launch(tool, given, call, deadline)))
    failure: Exception | None = None
    for position, tool, arguments in here:
        if time.monotonic() >= deadline:
            results[position] = _failed(
                calls[position], "timeout", "Error: not run; the time for this task is up."
            )
            continue
        try:
            if tool.needs_simulator and simulator is not None and simulator.over:
                told = "Error: not run; the task is over."
                results[position] = _failed(calls[position], "tool_error", told)
                continue
            given = _inject(tool, arguments, task, sandbox, simulator)
            results[position] = _run_now(tool, given, calls[position])
        except INFRASTRUCTURE_ERRORS as error:
            failure = error
            break
    for position, wait in launched:
        try:
            results[position] = wait()
        except INFRASTRUCTURE_ERRORS as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return [outcome for outcome in results if outcome is not None]


def _prepare(
    call: ToolCall, tools: Mapping[str, Tool], position: int, max_calls: int
) -> ToolResult | tuple[Tool, dict[str, Any]]:
    """The tool and its checked arguments, or the result that says why the call cannot run."""
    if call.malformed is not None:
        return _failed(call, "malformed", f"Error: malformed tool call: {call.malformed}.")
    if position >= max_calls:
        return _failed(
            call,
            "too_many_calls",
            f"Error: not run, nor any call after it; at most {max_calls} calls are run in a turn.",
        )
    tool = tools.get(call.name)
    if tool is None:
        near = difflib.get_close_matches(call.name[:200], tools, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        known = ", ".join(tools) or "none"
        shown = call.name if len(call.name) <= 60 else call.name[:57] + "..."
        return _failed(
            call, "unknown_tool", f"Error: there is no tool {shown!r}; tools: {known}.{hint}"
        )
    try:
        return tool, tool.validate(call.arguments)
    except ToolError as error:
        return _failed(call, "bad_arguments", f"Error: {error}")


def _inject(
    tool: Tool,
    arguments: dict[str, Any],
    task: Task,
    sandbox: Callable[[], Sandbox],
    simulator: Simulator | None,
) -> dict[str, Any]:
    for name, kind in tool.injected.items():
        if kind is Task:
            arguments[name] = task
        elif kind is Sandbox:
            arguments[name] = sandbox()
        else:
            arguments[name] = simulator
    return arguments


def _run_now(tool: Tool, arguments: dict[str, Any], call: ToolCall) -> ToolResult:
    """Run a call in this thread; only infrastructure failures are raised."""
    start = time.monotonic()
    try:
        value = tool.function(**arguments)
        if tool.is_async:
            value = asyncio.run_coroutine_threadsafe(value, _background_loop()).result()
    except INFRASTRUCTURE_ERRORS:
        raise
    except Exception as error:
        return _raised(call, error, time.monotonic() - start)
    return _succeeded(call, value, time.monotonic() - start)


async def _run_async(tool: Tool, arguments: dict[str, Any], call: ToolCall) -> ToolResult:
    start = time.monotonic()
    try:
        value = await tool.function(**arguments)
    except INFRASTRUCTURE_ERRORS:
        raise
    except Exception as error:
        return _raised(call, error, time.monotonic() - start)
    return _succeeded(call, value, time.monotonic() - start)


def _launch(
    tool: Tool, arguments: dict[str, Any], call: ToolCall, deadline: float
) -> Callable[[], ToolResult]:
    """Start a call off this thread; calling what is returned waits until its deadline at most."""
    limit = max(0.0, deadline - time.monotonic())
    if tool.timeout_s is not None:
        limit = min(limit, tool.timeout_s)
    deadline = time.monotonic() + limit
    pending: Future[ToolResult] | Pending
    if tool.is_async:
        pending = asyncio.run_coroutine_threadsafe(
            _run_async(tool, arguments, call), _background_loop()
        )
    else:
        pending = run_in_thread(lambda: _run_now(tool, arguments, call))

    def wait() -> ToolResult:
        try:
            return pending.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            if pending.done():  # it arrived, or failed with a TimeoutError of its own
                return pending.result()
            pending.cancel()
            return _failed(
                call, "timeout", f"Error: {call.name} gave no answer in {limit:.3g} s.", limit
            )

    return wait


_loop: asyncio.AbstractEventLoop | None = None
_loop_lock = threading.Lock()


def _background_loop() -> asyncio.AbstractEventLoop:
    """The process's event loop for async tools, on a daemon thread of its own."""
    global _loop
    with _loop_lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="async tools", daemon=True).start()
        return _loop


def _forget_loop() -> None:
    """Threads do not survive a fork: a forked worker starts a loop of its own."""
    global _loop, _loop_lock
    _loop, _loop_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_loop)


def _raised(call: ToolCall, error: Exception, seconds: float) -> ToolResult:
    """What the model reads of an exception: its own mistake, or the tool's."""
    told = (
        str(error)
        if isinstance(error, ToolError)
        else (f"{call.name} failed: {type(error).__name__}: {error}")
    )
    return _failed(call, "tool_error", f"Error: {told}", seconds)


def _succeeded(call: ToolCall, value: Any, seconds: float) -> ToolResult:
    if isinstance(value, ToolOutput):
        return ToolResult(call.name, value.content, value.error, call.id, value.status, seconds)
    if isinstance(value, str):
        content = value
    elif value is None:
        content = "(no output)"
    else:
        try:
            content = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError):
            content = str(value)
    return ToolResult(call.name, content, None, call.id, None, seconds)


def _failed(call: ToolCall, kind: str, content: str, seconds: float = 0.0) -> ToolResult:
    return ToolResult(call.name, content, kind, call.id, None, seconds)
