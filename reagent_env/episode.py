"""What changes while an episode of :class:`~reagent_env.env.ToolUseEnv` runs, and its record."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from reagent_env.judgement import Judgement
from reagent_env.task import Task
from reagent_env.trajectory import Attempt, StopReason, Turn

if TYPE_CHECKING:
    from reagent_env.sandboxes.pool import Lease
    from reagent_env.simulator import Simulator


class RunningAttempt:
    """One attempt as it grows."""

    def __init__(self, feedback: str | None = None, replaced: bool = False) -> None:
        self.feedback = feedback
        self.replaced = replaced
        self.began = time.monotonic()
        self.turns: list[Turn] = []
        self.final_answer: str | None = None
        self.outcome: float | None = None
        self.stop_reason: StopReason | None = None
        self.judgement: Judgement | None = None

    def record(self) -> Attempt:
        """The attempt as it stands."""
        return Attempt(
            turns=tuple(self.turns),
            final_answer=self.final_answer,
            outcome=self.outcome,
            stop_reason=self.stop_reason,
            judgement=self.judgement,
            feedback=self.feedback,
            feedback_replaced=self.replaced,
        )


class RunningEpisode:
    """One episode as it grows: its attempts, its sandbox or simulator, what was judged already."""

    def __init__(self, task: Task, seed: int | None) -> None:
        self.task = task
        self.prompt = ""
        self.seed = seed
        self.began = time.monotonic()
        self.ended: float | None = None
        self.attempts = [RunningAttempt()]
        self.judgements: dict[tuple[int, int, int], tuple[object, Judgement]] = {}
        self.lease: Lease | None = None
        self.simulator: Simulator | None = None
        self.simulator_failure: Exception | None = None
        """What kept the attempt's simulator from starting; its first step is masked with it."""
        self.infrastructure_error: str | None = None
        self.tool_seconds = 0.0

    @property
    def attempt(self) -> RunningAttempt:
        """The attempt that runs, or ended last."""
        return self.attempts[-1]
