"""How sure a model was of its reasoning, and a score that says so.

A small judge that writes greedily gives the same few scores again and again: of two attempts that
it calls sound, it was certain of one and all but called the other flawed. What it says is kept; the
score moves toward the mean of the scores it was taught by as much as it doubted its verdicts. Not
here: writing (``local.py``), fitting a calibration on labelled judgements (``judge-eval``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reagent_env.judgement import Judgement


def doubted(judgement: Judgement, certainty: float, prior: float) -> Judgement:
    """The judgement with every score s as c·s + (1 − c)·prior; one without a score as it is.

    Example: ``doubted(Judgement(score=0.95), 0.6, prior=0.6)`` has the score 0.81.

    Args:
        judgement: As the judge wrote it.
        certainty: c, the probability that it gave to its own reasoning, in [0, 1].
        prior: The mean score that it was taught, in [0, 1].
    """
    if judgement.score is None:
        return judgement
    turns = judgement.turn_scores
    return replace(
        judgement,
        score=_moved(judgement.score, certainty, prior),
        turn_scores=None
        if turns is None
        else tuple(None if each is None else _moved(each, certainty, prior) for each in turns),
    )


def _moved(score: float, certainty: float, prior: float) -> float:
    return certainty * score + (1 - certainty) * prior


class Certainty:
    """A logits processor of transformers that notes how probable each greedily chosen token was.

    It changes nothing and comes last; each ``generate`` call gets its own.
    """

    def __init__(self) -> None:
        self._steps: list[Any] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Note the log-probability of the likeliest token, given [B, V] logits."""
        self._steps.append(scores.log_softmax(-1).amax(-1))
        return scores

    def of(self, row: int, ids: Sequence[int], closing: int | None) -> float:
        """Probability of ``ids`` of that row up to ``closing``, the token that ends the reasoning.

        1 where there is no such token: then it is not known where the reasoning ends.
        """
        if closing is None or closing not in ids:
            return 1.0
        return math.exp(sum(float(step[row]) for step in self._steps[: ids.index(closing) + 1]))
