"""Judges that know nothing: uniform noise, and a constant. Controls for experiments, not rewards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from reagent_env.judgement import Judgement
from reagent_env.reward_models.base import Unscored, judged_attempt, unscored
from reagent_env.trajectory import Attempt, Trajectory

NEUTRAL_CRITIQUE = "Look over your steps once more before you answer."
"""Says nothing about the attempt at hand."""


class NoiseJudge:
    """Scores uniform in [0, 1], a function of the seed and of what the policy did and read.

    The same attempt has the same score in every process. φ_t depends on the turns up to t alone,
    so judging a prefix agrees with judging the whole.

    Example::

        NoiseJudge(seed=1).judge([trajectory])[0].score
    """

    def __init__(self, seed: int = 0, *, turn_scores: bool = True) -> None:
        self.seed = seed
        self.turn_scores = turn_scores

    def judge(self, trajectories: Sequence[Trajectory], *, attempt: int = -1) -> list[Judgement]:
        """One judgement a trajectory, in the same order."""
        return [self._one(trajectory, attempt) for trajectory in trajectories]

    def _one(self, trajectory: Trajectory, attempt: int) -> Judgement:
        judged = judged_attempt(trajectory, attempt)
        if judged is None or not judged.turns:
            return _empty()
        scores = _uniform(f"{self.seed}\0{trajectory.task.question}", judged)
        return Judgement(
            critique=NEUTRAL_CRITIQUE,
            score=scores[-1],
            turn_scores=scores if self.turn_scores else None,
        )


class ConstantJudge:
    """The same score for everything, e.g. ``ConstantJudge(0.5)``."""

    def __init__(self, score: float = 0.5, *, turn_scores: bool = True) -> None:
        if not 0.0 <= score <= 1.0:
            raise ValueError(f"score must lie in [0, 1], got {score!r}.")
        self.score = score
        self.turn_scores = turn_scores

    def judge(self, trajectories: Sequence[Trajectory], *, attempt: int = -1) -> list[Judgement]:
        """One judgement a trajectory, in the same order."""
        return [self._one(judged_attempt(each, attempt)) for each in trajectories]

    def _one(self, judged: Attempt | None) -> Judgement:
        if judged is None or not judged.turns:
            return _empty()
        scores = (self.score,) * len(judged.turns) if self.turn_scores else None
        return Judgement(critique=NEUTRAL_CRITIQUE, score=self.score, turn_scores=scores)


def _empty() -> Judgement:
    return Judgement(unscored=unscored(Unscored.EMPTY, "the attempt has no turn"))


def _uniform(opening: str, judged: Attempt) -> tuple[float, ...]:
    """One number a turn, each a hash of everything up to it; outcome and rewards have no part."""
    running = hashlib.sha256(opening.encode("utf-8", "surrogatepass"))
    scores = []
    for turn in judged.turns:
        read = [[outcome.name, outcome.content, outcome.error] for outcome in turn.results]
        running.update(json.dumps([turn.completion, read]).encode())
        scores.append(int.from_bytes(running.digest()[:6], "big") / (2**48 - 1))
    return tuple(scores)
