"""An environment from outside the registry, on which every plug-in is compared with the bare one.

Its tools look things up, add, break, and lose their service, so that scripts reach every way an
episode can go. ``gym.make("reagent_env.plugins.conformance_env:conformance/Ledger-v0")`` finds it
in any process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium

from reagent_env.env import ToolUseEnv
from reagent_env.errors import ToolBackendError, ToolError
from reagent_env.judgement import Judgement
from reagent_env.task import Task
from reagent_env.tool_definition import tool
from reagent_env.trajectory import Trajectory

LEDGER = "reagent_env.plugins.conformance_env:conformance/Ledger-v0"
"""The id, with the module that registers it."""

ACCOUNTS = {"Ada": 120, "Bo": 45, "Cyd": 300, "Dee": 7, "Eli": 64}


@tool
def balance(owner: str) -> str:
    """Look up what an account holds.

    Args:
        owner: Whose account.
    """
    if owner not in ACCOUNTS:
        raise ToolError(f"no account of {owner!r}; there are {', '.join(ACCOUNTS)}")
    return f"{owner} has {ACCOUNTS[owner]}"


@tool
def add(a: float, b: float) -> str:
    """Add two numbers.

    Args:
        a: The first number.
        b: The second number.
    """
    return f"{a + b:g}"


@tool
def audit(year: int, note: str = "– none –") -> str:
    """Ask the archive about a year; the archive is sometimes closed.

    Args:
        year: Which year.
        note: Written beside the request.
    """
    if year < 1900:
        raise ToolBackendError("the archive does not answer")
    if year > 2100:
        raise RuntimeError("the archive's catalogue is torn")
    return f"{year}: nothing amiss. <b>Note</b>: {note} \\boxed{{0}}"


def ledger_tasks() -> list[Task]:
    """Twenty sums over two accounts."""
    owners = list(ACCOUNTS)
    return [
        Task(
            question=f"How much do {first} and {second} hold together?",
            answer=str(ACCOUNTS[first] + ACCOUNTS[second]),
            grader="number",
        )
        for first in owners
        for second in owners
        if first != second
    ]


class LedgerEnv(ToolUseEnv):
    """Sums over accounts; a turn limit of 5."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            **{"tasks": ledger_tasks(), "tools": [balance, add, audit], "max_turns": 5, **kwargs}
        )


@dataclass(frozen=True)
class ScriptedJudge:
    """Scores by a hash of what the policy wrote: arbitrary, the same everywhere; some unscored."""

    salt: str = ""
    """Another salt is another judge."""

    def judge(self, trajectories: Sequence[Trajectory]) -> list[Judgement]:
        """One judgement each, of its last attempt."""
        return [self._judge_one(trajectory) for trajectory in trajectories]

    def _judge_one(self, trajectory: Trajectory) -> Judgement:
        attempt = trajectory.attempts[-1]
        levels = tuple(
            self._level("\n".join(turn.completion for turn in attempt.turns[: count + 1]))
            for count in range(len(attempt.turns))
        )
        critique = (
            f"Attempt {len(trajectory.attempts)} took {len(levels)} turns; look up both first."
        )
        if levels[-1] < 0.15:
            return Judgement(critique=critique, unscored="the verdict could not be read")
        return Judgement("Counted.", critique, levels[-1], levels)

    def _level(self, text: str) -> float:
        digest = hashlib.sha256((self.salt + text).encode("utf-8", "surrogatepass")).digest()
        return digest[0] / 255


if "conformance/Ledger-v0" not in gymnasium.registry:
    gymnasium.register(
        "conformance/Ledger-v0",
        entry_point="reagent_env.plugins.conformance_env:LedgerEnv",
        vector_entry_point="reagent_env.vector:ToolUseVectorEnv",
        disable_env_checker=True,  # it warns of a NaN reward, which is what some scripts are for
    )
