"""Small real stand-ins that tests can build on: tools, tasks, a trajectory."""

from __future__ import annotations

from reagent_env.env import ToolUseEnv
from reagent_env.task import Task
from reagent_env.tool_definition import tool
from reagent_env.trajectory import Attempt, ToolCall, ToolResult, Trajectory, Turn


@tool
def add(a: float, b: float) -> float:
    """Add two numbers.

    Args:
        a: The first number.
        b: The second number.
    """
    return a + b


def addition_tasks(count: int = 20) -> list[Task]:
    """``count`` sums with their answers, e.g. "What is 3 + 4?"."""
    return [
        Task(question=f"What is {n} + {n + 1}?", answer=str(2 * n + 1), grader="number")
        for n in range(count)
    ]


def addition_env(**kwargs: object) -> ToolUseEnv:
    """A :class:`ToolUseEnv` over :func:`addition_tasks` with the tool :func:`add`, no sandbox."""
    return ToolUseEnv(**{"tasks": addition_tasks(), "tools": [add], **kwargs})  # type: ignore[arg-type]


def example_trajectory(score_turns: int = 2) -> Trajectory:
    """A finished trajectory: ``score_turns - 1`` calls of :func:`add`, then the right answer.

    Args:
        score_turns: Turns in all, at least 1.
    """
    calls = [
        Turn(
            completion=f'<tool_call>{{"name": "add", "arguments": {{"a": {n}, "b": 1}}}}</tool_call>',
            calls=(ToolCall("add", {"a": n, "b": 1}),),
            results=(ToolResult("add", str(float(n + 1))),),
            observation=f"<tool_response>\n{float(n + 1)}\n</tool_response>",
        )
        for n in range(score_turns - 1)
    ]
    final = Turn(completion=r"The sum is \boxed{7}.", reward=1.0)
    return Trajectory(
        task=Task(question="What is 3 + 4?", answer="7", grader="number"),
        prompt="What is 3 + 4?",
        tools=(add.schema,),
        attempts=(Attempt((*calls, final), "7", 1.0, "answered"),),
        seed=0,
    )
