"""Reagent-C as an evaluation: a critique, then a second attempt; and the controls beside it.

Each mode is a wrapper around the environment; ``evaluate.py`` runs it like any other. The numbers
here compare the two attempts of each episode.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium

from reagent_env.agents.summary import Rate, mean_interval, nan_as_none, rate
from reagent_env.judgement import Judgement
from reagent_env.reward_models.base import RewardModel
from reagent_env.trajectory import Attempt, Trajectory
from reagent_env.wrappers import CritiqueRefine

MODES = ("critique", "retry", "shuffled", "self", "independent")
"""What the second attempt follows: the judge's critique; a neutral turn; the critique of another
task; the policy's own critique; nothing, being a second independent sample."""

RIGHT = 0.5
"""Outcomes from here on count as right where right and wrong are told apart."""


def refiner(
    mode: str, judge: RewardModel
) -> Callable[[gymnasium.Env[str, str]], gymnasium.Env[str, str]]:
    """The wrapper of a mode; environments of one evaluation share it.

    Args:
        mode: One of :data:`MODES`; for ``self``, ``judge`` is the policy's own model as a judge.
        judge: Writes the critiques.
    """
    if mode not in MODES:
        raise ValueError(f"Unknown refinement {mode!r}; known: {', '.join(MODES)}.")
    feedback: Any = {"retry": "retry", "independent": "independent"}.get(mode, "critique")
    if mode == "shuffled":
        feedback = ShuffledCritiques()
    return lambda env: CritiqueRefine(env, judge, feedback=feedback)


class ShuffledCritiques:
    """Gives each episode the critique that another task's episode got: same words, wrong subject."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, str]] = []

    def __call__(self, trajectory: Trajectory, judgement: Judgement) -> str:
        """Keep this critique for another task; return one of another task, or "" while there is none."""
        with self._lock:
            others = [kept for kept in self._waiting if kept[0] != trajectory.task.id]
            if judgement.critique.strip():
                self._waiting.append((trajectory.task.id, judgement.critique))
            if not others:
                return ""
            self._waiting.remove(others[0])
            return others[0][1]


@dataclass(frozen=True)
class Refinement:
    """First and second attempts side by side."""

    first: Rate
    """Outcome of first attempts."""
    second: Rate
    """Outcome of second attempts, over the same episodes."""
    wrong_to_right: int
    """Episodes whose second attempt mends a wrong first."""
    right_to_wrong: int
    """Episodes whose second attempt spoils a right first."""
    gain: float
    """Mean of second minus first outcome."""
    gain_interval: tuple[float, float]
    """95 % interval of the mean difference, paired by episode."""
    critiques_replaced: int
    """Critiques that gave the answer away and were replaced by the neutral one."""
    unscored: int
    """First attempts that the judge could not score."""
    policy_chars: tuple[float, float]
    """Characters the policy wrote an episode: in first attempts, in second ones."""
    critique_talk: float
    """Share of first attempts that speak of feedback or an earlier attempt nobody gave them."""
    masked: int
    """Episodes that infrastructure spoiled."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict; a mean of nothing is None."""
        encodable: dict[str, Any] = nan_as_none(asdict(self))
        return encodable


_CRITIQUE_TALK = re.compile(
    r"\b(?:the (?:critique|reviewer|feedback|review)|(?:my|the) (?:previous|earlier|first|last) "
    r"(?:attempt|answer|try)|as (?:suggested|advised|pointed out))\b",
    re.IGNORECASE,
)


def speaks_of_critique(attempt: Attempt) -> bool:
    """Whether an attempt refers to feedback or to an earlier attempt."""
    return any(_CRITIQUE_TALK.search(turn.completion) for turn in attempt.turns)


def compare_attempts(trajectories: Iterable[Trajectory]) -> Refinement:
    """Compare first and second attempts; episodes without two graded attempts are masked."""
    pairs: list[tuple[Attempt, Attempt]] = []
    masked = 0
    for trajectory in trajectories:
        attempts = trajectory.attempts
        if len(attempts) < 2 or attempts[0].outcome is None or attempts[1].outcome is None:
            masked += 1
        else:
            pairs.append((attempts[0], attempts[1]))
    firsts = [first.outcome or 0.0 for first, _ in pairs]
    seconds = [second.outcome or 0.0 for _, second in pairs]
    gains = [after - before for before, after in zip(firsts, seconds, strict=True)]
    low, mean, high = mean_interval(gains)
    return Refinement(
        first=rate(firsts),
        second=rate(seconds),
        wrong_to_right=sum(b < RIGHT <= a for b, a in zip(firsts, seconds, strict=True)),
        right_to_wrong=sum(a < RIGHT <= b for b, a in zip(firsts, seconds, strict=True)),
        gain=mean,
        gain_interval=(low, high),
        critiques_replaced=sum(second.feedback_replaced for _, second in pairs),
        unscored=sum(
            first.judgement is not None and first.judgement.unscored is not None
            for first, _ in pairs
        ),
        policy_chars=(
            _mean([_written(first) for first, _ in pairs]),
            _mean([_written(second) for _, second in pairs]),
        ),
        critique_talk=_mean([float(speaks_of_critique(first)) for first, _ in pairs]),
        masked=masked,
    )


def _written(attempt: Attempt) -> float:
    return float(sum(len(turn.completion) for turn in attempt.turns))


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else float("nan")
