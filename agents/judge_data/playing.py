"""Plays moves in a real environment and keeps what really came back.

A clean run is the expert's; a flawed one replays its beginning verbatim, does something else, and
goes on from what it then sees. Not here: what to do wrong (``flaws_*.py``).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from reagent_env.agents.judge_data.voice import Call, Move, Voice
from reagent_env.env import ToolUseEnv
from reagent_env.task import Task
from reagent_env.task_sets.solving import Solver
from reagent_env.trajectory import Trajectory, Turn

Policy = Generator[Move, list[str], None]
"""Yields moves, is sent the texts of their results; its last move is an answer."""
Continuation = Callable[[list[str]], Policy]
"""From the results of the flawed turn to the moves after it."""


@dataclass(frozen=True)
class Step:
    """One turn of a clean run, e.g. ``Step(Move(answer="4"), "\\boxed{4}", ())``."""

    move: Move
    completion: str
    results: tuple[str, ...]


@dataclass(frozen=True)
class CleanRun:
    """The expert's run of a task: what a flaw is planted in."""

    task: Task
    trajectory: Trajectory
    steps: tuple[Step, ...]
    solver: Solver
    tools: tuple[str, ...]
    told: str = ""
    """What the policy was given to do: in a world, with its opening."""

    @property
    def length(self) -> int:
        """Turns, the answer's included."""
        return len(self.steps)

    @property
    def answer(self) -> str:
        """The final answer that the expert gave; empty in a world, which it ends by acting."""
        return self.steps[-1].move.answer or ""

    def seen(self, before: int) -> str:
        """All results of the turns before ``before``, as one text."""
        return "\n".join(text for step in self.steps[:before] for text in step.results)

    def call_turns(self) -> range:
        """Indices of the turns with calls."""
        return range(self.length - bool(self.steps[-1].move.final))


def solve_on(run: CleanRun, turn: int, seen: Sequence[str]) -> Policy:
    """The expert's own moves after ``turn``, had that turn's calls answered ``seen``."""
    solving = run.solver(run.task.question)
    next(solving)
    try:
        for step in run.steps[:turn]:
            solving.send(list(step.results))
        calls = solving.send(list(seen))
        while True:
            results = yield Move(calls=tuple(calls))
            calls = solving.send(results)
    except StopIteration as stop:
        yield Move(answer=str(stop.value) or "unknown")
    except ValueError:  # what it was told makes no sense to the script, e.g. a 31 February
        yield Move(answer="unknown")


def clean_moves(solver: Solver, question: str) -> Policy:
    """The expert's moves from the start."""
    solving = solver(question)
    try:
        calls = next(solving)
        while True:
            results = yield Move(calls=tuple(calls))
            calls = solving.send(results)
    except StopIteration as stop:
        yield Move(answer=str(stop.value) or "unknown")


def resume(run: CleanRun, turn: int) -> Policy:
    """The clean run's completions from ``turn`` on, verbatim."""
    for step in run.steps[turn:]:
        yield dataclasses.replace(step.move, written=step.completion)


def play(
    env: ToolUseEnv, task: Task, policy: Policy, voice: Voice
) -> tuple[Trajectory, list[Step]]:
    """Run ``policy`` on ``task`` to the end of the episode; every result is the environment's own."""
    env.reset(options={"task": task})
    steps: list[Step] = []
    seen: str | None = None
    move = next(policy)
    while True:
        completion = voice.say(move, len(steps), seen)
        _, _, terminated, truncated, info = env.step(completion)
        results = tuple(str(one["content"]) for one in info["tool_results"])
        steps.append(Step(move, completion, results))
        if terminated or truncated:
            return without_clock(env.trajectory), steps
        seen = "\n".join(results) or None
        move = policy.send(list(results))


def without_clock(trajectory: Trajectory) -> Trajectory:
    """The same record without times, so that a seed gives the same bytes."""

    def still(turn: Turn) -> Turn:
        results = tuple(dataclasses.replace(one, seconds=0.0) for one in turn.results)
        return dataclasses.replace(turn, results=results)

    attempts = tuple(
        dataclasses.replace(attempt, turns=tuple(still(turn) for turn in attempt.turns))
        for attempt in trajectory.attempts
    )
    return dataclasses.replace(
        trajectory, attempts=attempts, timings={}, agent={"name": "scripted"}
    )


def expert_run(env: ToolUseEnv, task: Task, solver: Solver) -> CleanRun:
    """The expert's run of ``task`` with thoughts, whether or not it solves it."""
    _, info = env.reset(options={"task": task})
    told = str(info["messages"][-1]["content"])
    voice = Voice(env.tool_format, task.question)
    trajectory, steps = play(env, task, clean_moves(solver, told), voice)
    return CleanRun(task, trajectory, tuple(steps), solver, tuple(env.tools), told)


# What a run has seen ------------------------------------------------------------------------------

_HIT = re.compile(r"^\[\d+\] (.*)\n    url: (\S+)\n    (.*)$", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?![\w.]*\w)")


def hits(text: str) -> list[tuple[str, str, str]]:
    """Title, url and snippet of every search result in ``text``."""
    return [(found[0], found[1], found[2]) for found in _HIT.findall(text)]


def numbers(text: str) -> list[str]:
    """The numbers that stand in ``text``, in order, without repeats, thousands commas dropped."""
    found = (one.replace(",", "").rstrip(".") for one in _NUMBER.findall(text))
    return list(dict.fromkeys(found))


def stands_in(answer: str, text: str) -> bool:
    """Whether ``answer`` stands in ``text`` as a word or number of its own."""
    plain = answer.replace(",", "")
    if re.fullmatch(r"-?\d+(?:\.\d+)?", plain):
        return plain in numbers(text)
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None


def title_of(query: str, text: str) -> str | None:
    """The title that a search query begins with, among those of the results in ``text``."""
    fitting = [title for title, _, _ in hits(text) if query.startswith(title)]
    return max(fitting, key=len) if fitting else None


def page_title(url: str) -> str:
    """The title that a page's address stands for, e.g. ``Mount Kol`` for ``wiki://Mount_Kol``."""
    return url.rpartition("://")[2].replace("_", " ")


def first_query(call: Call) -> str:
    """The first query of a search call, or the empty text."""
    queries = call[1].get("queries") if call[0] == "search" else None
    return str(queries[0]) if isinstance(queries, list) and queries else ""
