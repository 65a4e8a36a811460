"""A simulator: a small world that an attempt acts in, and whose state, not an answer, is the outcome.

Not here: any world; each family brings one. ``env.py`` makes it, ends with it and closes it.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reagent_env.errors import GraderError
from reagent_env.task import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Simulator(ABC):
    """The state of one attempt at one task: made at its start, closed at its end.

    Tools that annotate a parameter with the simulator's class are given it, one call after another
    in the thread that called ``step()`` (which may be another thread at every step).

    Example::

        class Counter(Simulator):
            def __init__(self, task: Task) -> None:
                self.goal, self.count = task.metadata["goal"], 0

            @property
            def over(self) -> bool:
                return self.count >= self.goal

            @property
            def score(self) -> float:
                return float(self.count == self.goal)

        @tool(timeout_s=None)
        def add(number: int, *, counter: Counter) -> str:
            \"\"\"Add to the counter.

            Args:
                number: How much.
            \"\"\"
            counter.count += number
            return f"The counter shows {counter.count}."

        task = Task("Bring the counter to 3.", None, "simulator", metadata={"goal": 3})
        env = ToolUseEnv([task], [add], simulator=Counter)

    A simulator depends on its task alone, so that a task is the same in every process. What fails
    around it is raised as ``ToolBackendError`` or another infrastructure failure, by its
    constructor too: the episode is masked. Each keeps time limits of its own.
    """

    opening: str = ""
    """What the policy sees at the start, below the task's question."""

    @property
    @abstractmethod
    def over(self) -> bool:
        """True once the task is decided: its goal is reached, or out of reach."""

    @property
    @abstractmethod
    def score(self) -> float:
        """What the state is worth as an outcome, in [0, 1]; asked for when the attempt ends."""

    def render(self) -> NDArray[Any] | None:
        """``[height, width, 3]`` bytes of red, green, blue; None for a world without a picture."""
        return None

    def close(self) -> None:  # noqa: B027 (nothing to close is common)
        """Give back what it holds. Twice is fine."""


MakeSimulator = Callable[[Task], Simulator]


def simulator_maker(named: str | MakeSimulator) -> MakeSimulator:
    """The maker itself, or the one that ``"module:name"`` names.

    Raises:
        ValueError: there is none of that name.
    """
    if callable(named):
        return named
    module, _, name = named.partition(":")
    maker: Any = getattr(importlib.import_module(module), name, None) if name else None
    if not callable(maker):
        raise ValueError(
            f"simulator must be a class or function of a Task, or 'module:name' of one; got {named!r}."
        )
    found: MakeSimulator = maker
    return found


def checked_score(simulator: Simulator) -> float:
    """The simulator's score.

    Raises:
        GraderError: it is no number in [0, 1].
    """
    score = simulator.score
    if not isinstance(score, int | float) or not (math.isfinite(score) and 0 <= score <= 1):
        name = type(simulator).__name__
        raise GraderError(f"{name}.score is {score!r}; a number in [0, 1] is due.")
    return float(score)
