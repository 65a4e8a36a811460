"""The record of an episode: attempts, turns, calls, results, rewards; and its line of JSON.

Files of trajectories are ``trajectory_file.py``'s.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from reagent_env.judgement import Judgement
from reagent_env.task import Task

SCHEMA_VERSION = 1
"""Written into every line; a reader refuses a newer one."""


class StopReason(enum.StrEnum):
    """Why an attempt ended."""

    ANSWERED = "answered"
    """The policy gave its final turn: one without a tool call."""
    FINISHED = "finished"
    """The task's simulator was decided: the goal reached, or out of reach."""
    MAX_TURNS = "max_turns"
    """The turn limit; counts as outcome 0, or as what a simulator's state is worth."""
    WALL_TIME = "wall_time"
    """The episode's time limit; counts like the turn limit."""
    CONTEXT_LENGTH = "context_length"
    """The conversation outgrew the policy's context; counts as outcome 0. Set by whoever acts."""
    INFRASTRUCTURE_FAILURE = "infrastructure_failure"
    """Something around the policy failed: masked, counted, no outcome."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the policy wrote, e.g. ``ToolCall("python", {"code": "print(1)"})``."""

    name: str
    """The tool's name as written; may not exist."""
    arguments: Mapping[str, Any]
    """The arguments as written."""
    id: str | None = None
    """The caller's own id for it, where its format has one."""
    malformed: str | None = None
    """What is wrong with the text of the call, or None; a malformed call is answered, not run."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call came to, e.g. ``ToolResult("python", "1\\n")``."""

    name: str
    """The tool's name as written in the call."""
    content: str
    """What the policy reads."""
    error: str | None = None
    """None, or the kind of failure: ``malformed``, ``unknown_tool``, ``bad_arguments``,
    ``too_many_calls``, ``tool_error``, ``timeout``."""
    call_id: str | None = None
    """The id of the call, where its format has one."""
    status: str | None = None
    """How the sandbox says the execution ended (``ok``, ``timeout_killed``, …), for sandboxed tools."""
    seconds: float = 0.0
    """Time the tool took."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A completion and the environment's reply."""

    completion: str
    """What the policy wrote, raw."""
    calls: tuple[ToolCall, ...] = ()
    """The calls in it, in order."""
    results: tuple[ToolResult, ...] = ()
    """One result for each call."""
    observation: str = ""
    """What the policy reads next; empty at the end."""
    reward: float = 0.0
    """What ``step()`` returned for it, before wrappers."""
    completion_ids: tuple[int, ...] | None = None
    """Token ids as sampled, where the agent kept them."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One pass at the task, from its first completion to its stop."""

    turns: tuple[Turn, ...] = ()
    """Its turns in order."""
    final_answer: str | None = None
    """The answer it gave, as extracted, or None."""
    outcome: float | None = None
    """The grade in [0, 1]; None while running or when masked."""
    stop_reason: str | None = None
    """A :class:`StopReason`, or None while running."""
    judgement: Judgement | None = None
    """What a reward model said of it, where one was asked."""
    feedback: str | None = None
    """The critique (or its control) that opened this attempt; None for a first attempt."""
    feedback_replaced: bool = False
    """True where a critique gave the answer away and ``feedback`` is the neutral one instead."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Everything that happened in one episode."""

    task: Task
    """The task, its answer included: never hand this record itself to a judge."""
    prompt: str
    """The first observation: the task as the policy saw it."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """The schemas of the tools it could call."""
    attempts: tuple[Attempt, ...] = ()
    """One, or two with critique and refinement."""
    env_id: str | None = None
    """The registered id, where there is one."""
    tool_format: str = "hermes"
    """How calls were written."""
    seed: int | None = None
    """The seed of the reset, where one was given."""
    infrastructure_error: str | None = None
    """Type and message of what failed around the policy, or None."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by part: ``tools``, ``total``."""
    agent: Mapping[str, Any] = field(default_factory=dict)
    """Who acted: name, model, sampling, where known."""

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All turns of all attempts."""
        return tuple(turn for attempt in self.attempts for turn in attempt.turns)

    @property
    def outcome(self) -> float | None:
        """The last attempt's outcome."""
        return self.attempts[-1].outcome if self.attempts else None

    @property
    def stop_reason(self) -> str | None:
        """The last attempt's stop reason."""
        return self.attempts[-1].stop_reason if self.attempts else None

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict with the schema's version."""
        record = {
            "schema_version": SCHEMA_VERSION,
            "task": self.task.to_json(),
            "prompt": self.prompt,
            "tools": [dict(schema) for schema in self.tools],
            "attempts": [_attempt_record(attempt) for attempt in self.attempts],
            "stop_reason": self.stop_reason,
            "outcome": self.outcome,
            "env_id": self.env_id,
            "tool_format": self.tool_format,
            "seed": self.seed,
            "infrastructure_error": self.infrastructure_error,
            "timings": dict(self.timings),
            "agent": dict(self.agent),
        }
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Trajectory:
        """The inverse of :meth:`to_json`. Raises ``ValueError`` for a newer schema."""
        version = record.get("schema_version")
        if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
            raise ValueError(
                f"This trajectory has schema version {version!r}; this reagent_env reads 1 to "
                f"{SCHEMA_VERSION}. Upgrade reagent-env to read it."
            )
        return cls(
            task=Task.from_json(record["task"]),
            prompt=record["prompt"],
            tools=tuple(record["tools"]),
            attempts=tuple(_attempt(attempt) for attempt in record["attempts"]),
            env_id=record.get("env_id"),
            tool_format=record.get("tool_format", "hermes"),
            seed=record.get("seed"),
            infrastructure_error=record.get("infrastructure_error"),
            timings=record.get("timings") or {},
            agent=record.get("agent") or {},
        )


def _attempt_record(attempt: Attempt) -> dict[str, Any]:
    record = asdict(attempt)
    for turn in record["turns"]:
        if math.isnan(turn["reward"]):
            turn["reward"] = None  # JSON knows no NaN
    return record


def _attempt(record: Mapping[str, Any]) -> Attempt:
    values = dict(record)
    values["turns"] = tuple(_turn(turn) for turn in record["turns"])
    if record.get("judgement") is not None:
        values["judgement"] = Judgement.from_json(record["judgement"])
    return Attempt(**values)


def _turn(record: Mapping[str, Any]) -> Turn:
    values = dict(record)
    values["calls"] = tuple(ToolCall(**call) for call in record["calls"])
    if values["reward"] is None:
        values["reward"] = math.nan
    values["results"] = tuple(ToolResult(**outcome) for outcome in record["results"])
    if record.get("completion_ids") is not None:
        values["completion_ids"] = tuple(record["completion_ids"])
    return Turn(**values)
