"""Where flaws are planted: in questions to tools, or in the worlds of simulators.

A ground says which flaws and twins there are, when an expert's run is clean, how a length is evened
out, and how a pair is graded. Not here: worlds (``flaws_world.py``), the flaws themselves.
"""

from __future__ import annotations

import dataclasses
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from reagent_env.agents.judge_data.benign import TWINS, Twin, second_looks, twin_is_true
from reagent_env.agents.judge_data.flaws import FlawKind, Plant, flaw_kinds
from reagent_env.agents.judge_data.flaws_answers import is_number
from reagent_env.agents.judge_data.flaws_calls import perturbed
from reagent_env.agents.judge_data.playing import CleanRun, Policy, Step, resume, stands_in
from reagent_env.env import ToolUseEnv
from reagent_env.errors import GraderError
from reagent_env.graders import grade
from reagent_env.task import Task
from reagent_env.trajectory import StopReason, Trajectory


class Ground(ABC):
    """What planting must know of a sort of environment."""

    kinds: Sequence[FlawKind]
    """The flaws, in the order in which they are tried."""
    twins: Mapping[str, Twin]
    """The benign twins."""

    @abstractmethod
    def clean(self, trajectory: Trajectory) -> bool:
        """Whether an expert's run is one to plant in."""

    @abstractmethod
    def flawed(self, run: CleanRun, prepared: Plant, looks: int, place: list[int]) -> Policy:
        """The shared beginning, the flaw, the rest, and so many harmless looks.

        Writes the flawed turn's index into ``place``.
        """

    @abstractmethod
    def padded(self, run: CleanRun, looks: int) -> Policy:
        """The clean run with so many harmless looks."""

    @abstractmethod
    def shows(self, run: CleanRun, kind: FlawKind, flawed: Trajectory, turn: int) -> bool:
        """Whether what was played has the flaw of this kind at ``turn``, and no accident beside it."""

    @abstractmethod
    def labelled(
        self,
        wanted: str,
        run: CleanRun,
        other: CleanRun,
        pair: tuple[Trajectory, Trajectory],
        rng: random.Random,
    ) -> tuple[str, Trajectory, Trajectory]:
        """The label, and the flawed and the clean trajectory as graded under it."""

    @abstractmethod
    def same(self, run: CleanRun, twin: Trajectory, steps: Sequence[Step]) -> bool:
        """Whether a played twin did what the run did."""


def ground_of(env: ToolUseEnv) -> Ground:
    """The ground for an environment: a world where its tools act on a simulator.

    Raises:
        ValueError: a world of which nobody has said how to do wrong in it.
    """
    if any(tool.needs_simulator for tool in env.tools.values()):
        from reagent_env.agents.judge_data.flaws_world import World, world_of

        return World(world_of("" if env.spec is None else env.spec.id))
    if "sql" in env.tools:
        from reagent_env.agents.judge_data import flaws_queries

        return Questions(flaws_queries.KINDS)
    return Questions(tuple(flaw_kinds().values()))


class Questions(Ground):
    """Questions with an answer: an attempt ends with it, and a grader knows the right one."""

    def __init__(self, kinds: Sequence[FlawKind]) -> None:
        self.kinds = kinds
        self.twins = TWINS

    def clean(self, trajectory: Trajectory) -> bool:
        """Answered rightly."""
        return trajectory.outcome == 1.0 and trajectory.stop_reason == StopReason.ANSWERED

    def flawed(self, run: CleanRun, prepared: Plant, looks: int, place: list[int]) -> Policy:
        """With second looks before the answer."""
        history: list[Any] = []
        for step in run.steps[: prepared.at]:
            results = yield dataclasses.replace(step.move, written=step.completion)
            history.append((step.move.calls, tuple(results)))
        move = next(prepared.policy)
        first = True
        while True:
            if move.final:
                yield from _looks(run, history, looks)
            if first:
                place.append(len(history))
                first = False
            results = yield move
            history.append((move.calls, tuple(results)))
            try:
                move = prepared.policy.send(results)
            except StopIteration:
                return

    def padded(self, run: CleanRun, looks: int) -> Policy:
        """With second looks before the answer."""
        history: list[Any] = []
        for move in resume(run, 0):
            if move.final:
                yield from _looks(run, history, looks)
            results = yield move
            history.append((move.calls, tuple(results)))

    def shows(self, run: CleanRun, kind: FlawKind, flawed: Trajectory, turn: int) -> bool:
        """It came to an answer of its own, which stands in no result where it may not."""
        given = flawed.attempts[-1].final_answer or ""
        crashed = given == "unknown" or "Error" in given  # the expert's script gave up
        if flawed.stop_reason != StopReason.ANSWERED or crashed:
            return False
        read = "\n".join(turn.observation for turn in flawed.turns)
        return not (kind.unseen and stands_in(given, read))

    def labelled(
        self,
        wanted: str,
        run: CleanRun,
        other: CleanRun,
        pair: tuple[Trajectory, Trajectory],
        rng: random.Random,
    ) -> tuple[str, Trajectory, Trajectory]:
        """Graded by the task's own answer, or by a wrong one as ``wanted`` says, where it can."""
        flawed, clean = pair
        label, task = _label(wanted, run, other, flawed, rng)
        return label, _graded(flawed, task), _graded(clean, task)

    def same(self, run: CleanRun, twin: Trajectory, steps: Sequence[Step]) -> bool:
        """The same answer, still on what it was answered."""
        return twin.outcome == 1.0 and twin_is_true(run, steps)


def _looks(run: CleanRun, history: list[Any], count: int) -> Policy:
    """Up to ``count`` second looks; they become part of ``history``."""
    for _ in range(count):
        look = next(second_looks(run.task.question, run.tools, history), None)
        if look is None:
            return
        results = yield look
        history.append((look.calls, tuple(results)))


def _label(
    wanted: str, run: CleanRun, other: CleanRun, flawed: Trajectory, rng: random.Random
) -> tuple[str, Task]:
    """The task as recorded: with its own answer, or a wrong one as ``wanted`` says, where it can."""
    given = flawed.attempts[-1].final_answer or ""
    if not isinstance(run.task.answer, str | int | float):
        return "as_is", run.task  # lists and the like: a grader would refuse a text in their place
    if wanted == "lucky" and flawed.outcome == 0.0:
        task = _mislabelled(run.task, given)
        if _grades(task, given, run.answer) == (1.0, 0.0):
            return wanted, task
    if wanted == "unlucky":
        counted = any(char.isdigit() for char in run.answer)
        strange = perturbed(run.answer, rng) if counted else other.answer
        task = _mislabelled(run.task, strange)
        if _grades(task, given, run.answer) == (0.0, 0.0):
            return wanted, task
    return "as_is", run.task


def _grades(task: Task, *answers: str) -> tuple[float, ...] | None:
    try:
        return tuple(grade(task, answer) for answer in answers)
    except GraderError:
        return None  # the made-up answer is none that this grader could be given


def _mislabelled(task: Task, answer: str) -> Task:
    return dataclasses.replace(
        task, answer=answer.replace(",", "") if is_number(answer) else answer
    )


def _graded(trajectory: Trajectory, task: Task) -> Trajectory:
    """The record as it had been under ``task``, which differs in its recorded answer only."""
    attempt = trajectory.attempts[-1]
    outcome = grade(task, attempt.final_answer)
    last = dataclasses.replace(attempt.turns[-1], reward=outcome)
    attempt = dataclasses.replace(attempt, outcome=outcome, turns=(*attempt.turns[:-1], last))
    return dataclasses.replace(trajectory, task=task, attempts=(*trajectory.attempts[:-1], attempt))
