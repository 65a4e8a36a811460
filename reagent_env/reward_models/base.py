"""What a reward model is: trajectories in, judgements out; and the words for having no score.

Not here: which models there are (``__init__.py``), and what training does with the unscored
(``unscored.py``, ``docs/judge.md``).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from reagent_env.errors import InfrastructureError
from reagent_env.judgement import Judgement
from reagent_env.trajectory import Attempt, Trajectory


@runtime_checkable
class RewardModel(Protocol):
    """Judges the process of an attempt; any object with this method is one.

    The models of this package also take ``judge(trajectories, attempt=0)``: which attempt of each
    trajectory to judge, as a list index. For any other model, cut the trajectory with
    :func:`up_to_attempt`.
    """

    def judge(self, trajectories: Sequence[Trajectory], /) -> list[Judgement]:
        """Judge the last attempt of each trajectory: one judgement each, in the same order.

        A trajectory that cannot be scored gets a judgement that says why; it never raises for
        one, and never invents a score.
        """
        ...


class Unscored(enum.StrEnum):
    """Kinds of having no score: the word before the colon of ``Judgement.unscored``."""

    EMPTY = "empty"
    """There is no turn to judge."""
    UNPARSED = "unparsed"
    """The judge answered something that is not a judgement."""
    CONTEXT_OVERFLOW = "context_overflow"
    """The trajectory does not fit the judge's context."""
    REFUSED = "refused"
    """The server will not serve this request: wrong key, unknown model, invalid parameters."""
    TRANSPORT = "transport"
    """The judge could not be asked: no connection, deadline, 5xx after retries, open breaker."""
    OTHER = "other"
    """A reason of a model that does not use these words."""


class JudgeUnavailable(InfrastructureError):
    """Too many judgements are unscored for training to go on; says how many, and of what kind."""


def unscored(kind: Unscored, detail: str) -> str:
    """The text for ``Judgement.unscored``, e.g. ``"transport: deadline of 60 s"``."""
    return f"{kind}: {detail}"


def kind_of(judgement: Judgement) -> Unscored | None:
    """The kind of a judgement's having no score; None where it has one."""
    if judgement.unscored is None:
        return None
    word = judgement.unscored.partition(":")[0].strip()
    try:
        return Unscored(word)
    except ValueError:
        return Unscored.OTHER


def judged_attempt(trajectory: Trajectory, attempt: int = -1) -> Attempt | None:
    """The attempt to judge, or None where the trajectory has none at all.

    Raises:
        IndexError: the trajectory has attempts, but not this one.
    """
    if not trajectory.attempts:
        return None
    try:
        return trajectory.attempts[attempt]
    except IndexError:
        raise IndexError(
            f"attempt={attempt} of a trajectory with {len(trajectory.attempts)} attempts; "
            "leave it out for the last."
        ) from None


def up_to_attempt(trajectory: Trajectory, attempt: int) -> Trajectory:
    """The trajectory as it stood when ``attempt`` (a list index) was its last.

    Raises:
        IndexError: the trajectory has no such attempt.
    """
    if judged_attempt(trajectory, attempt) is None:
        return trajectory
    count = len(trajectory.attempts)
    return replace(trajectory, attempts=trajectory.attempts[: range(count)[attempt] + 1])


def told(trajectory: Trajectory) -> str:
    """What the policy was given to do: the task's question, and a world's opening below it.

    The trajectory keeps the first observation whole, instructions on the form of calls before the
    question; these are left out. A record whose prompt does not hold its question was made
    elsewhere, and the question is all that is known.

    Example: ``"Your goal: open the door\\n\\nYou cannot see any objects within sight. …"``.
    """
    question = trajectory.task.question
    if not question or trajectory.prompt.endswith(question):
        return question
    _, found, opening = f"\n\n{trajectory.prompt}".partition(f"\n\n{question}\n\n")
    return f"{question}\n\n{opening}" if found else question


def prefixes_of(trajectory: Trajectory) -> list[Trajectory]:
    """The trajectory as it stood after each turn of its last attempt; itself where there is none."""
    if not trajectory.attempts or not trajectory.attempts[-1].turns:
        return [trajectory]
    last = trajectory.attempts[-1]
    begun = [
        replace(last, turns=last.turns[:count], final_answer=None, stop_reason=None)
        for count in range(1, len(last.turns))
    ]
    return [
        replace(trajectory, attempts=(*trajectory.attempts[:-1], attempt))
        for attempt in (*begun, last)
    ]
