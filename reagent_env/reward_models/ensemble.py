"""Several judges as one: the mean of their scores, and the words of the first.

Models that were trained alike but for their seed err in different places, most of all on what they
have not met (deep ensembles, arXiv 1612.01474). Not here: what a member is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reagent_env.judgement import Judgement
from reagent_env.reward_models.batched import PATIENCE_S
from reagent_env.trajectory import Trajectory

TurnScores = tuple[float | None, ...] | None


class EnsembleJudge:
    """Asks every member about everything.

    Score and φ are the means of those members that have one; reasoning and critique are the first
    such member's. Unscored is what no member could score, for the first one's reason. Tokens
    and seconds are all members' together.

    Example: ``EnsembleJudge([LocalJudge("judge-0"), LocalJudge("judge-1")]).judge(trajectories)``.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        """Take the judges, the one whose words count first.

        Raises:
            ValueError: there is none.
        """
        if not members:
            raise ValueError("An ensemble has members; got none.")
        self.members = tuple(members)
        self.patience_s = max(getattr(one, "patience_s", PATIENCE_S) for one in members)

    def judge(self, trajectories: Sequence[Trajectory], *, attempt: int = -1) -> list[Judgement]:
        """One judgement a trajectory, in the same order.

        Raises:
            IndexError: a trajectory has attempts, but not this one.
        """
        said = [member.judge(trajectories, attempt=attempt) for member in self.members]
        return [together(judgements) for judgements in zip(*said, strict=True)]

    def __repr__(self) -> str:
        """The members."""
        return f"EnsembleJudge({list(self.members)!r})"


def together(judgements: Sequence[Judgement]) -> Judgement:
    """One judgement of several on the same attempt.

    Example: scores 0.9 and 0.7 make 0.8; 0.9 and unscored make 0.9.
    """
    scored = [one for one in judgements if one.score is not None]
    first = scored[0] if scored else judgements[0]
    score = _mean([one.score for one in scored])
    return replace(
        first,
        score=score,
        turn_scores=_means([one.turn_scores for one in scored], score),
        latency_s=sum(one.latency_s for one in judgements),
        tokens=sum(one.tokens for one in judgements),
    )


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def _means(all_scores: Sequence[TurnScores], score: float | None) -> TurnScores:
    """φ by turn, of the members that give any, the last one ``score``; None where none does."""
    given = [scores for scores in all_scores if scores is not None]
    if not given:
        return None
    return (*(_mean(of_turn) for of_turn in list(zip(*given, strict=True))[:-1]), score)
