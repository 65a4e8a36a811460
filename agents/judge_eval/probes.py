"""Probes that understand nothing: length, outcome, words. A flaw they can tell measures no judge.

Each is a logistic regression for one flaw kind, fitted on other tasks than it is tried on.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reagent_env.agents.judge_eval.measures import auroc, folds, preference
from reagent_env.trajectory import Trajectory

FLAG_ABOVE = 0.6
"""A probe above this, in pairwise accuracy or AUROC, marks the flaw kind."""
PROBES = ("length", "outcome", "words")


@dataclass(frozen=True, slots=True)
class Pair:
    """A flawed (or twin) trajectory, its clean partner, and their task."""

    flawed: Trajectory
    clean: Trajectory
    task: str


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How well a probe tells one kind, e.g. ``ProbeResult(pairwise=0.5, auroc=0.52)``."""

    pairwise: float
    auroc: float

    @property
    def flagged(self) -> bool:
        """Whether it tells too much."""
        return max(self.pairwise, self.auroc) > FLAG_ABOVE


def run_probe(name: str, pairs: Sequence[Pair]) -> ProbeResult:
    """Try the probe ``name`` of :data:`PROBES` on the pairs of one flaw kind."""
    trajectories = [p.flawed for p in pairs] + [p.clean for p in pairs]
    tasks = [p.task for p in pairs] * 2
    good = np.array([False] * len(pairs) + [True] * len(pairs))
    if name == "words":
        scores = _by_words(trajectories, good, tasks)
    else:
        features = {"length": length_features, "outcome": _outcome_features}[name]
        scores = _out_of_fold(np.array([features(t) for t in trajectories]), good, tasks)
    half = len(pairs)
    prefers = [preference(scores[half + i], scores[i]) for i in range(half)]
    return ProbeResult(float(np.mean(prefers)) if prefers else math.nan, auroc(scores, good))


def length_features(trajectory: Trajectory) -> list[float]:
    """Logarithms of turns, of characters written and of characters read."""
    turns = trajectory.attempts[-1].turns if trajectory.attempts else ()
    written = sum(len(turn.completion) for turn in turns)
    read = sum(len(turn.observation) for turn in turns)
    return [math.log1p(len(turns)), math.log1p(written), math.log1p(read)]


def _outcome_features(trajectory: Trajectory) -> list[float]:
    return [trajectory.outcome or 0.0]


def words_of(trajectory: Trajectory) -> Counter[str]:
    """The words of everything written and read, numbers all alike; signs as words."""
    turns = trajectory.attempts[-1].turns if trajectory.attempts else ()
    text = "\n".join(turn.completion + "\n" + turn.observation for turn in turns).lower()
    return Counter(re.findall(r"[a-z_]+|\d|[^\sa-z0-9]", text))


def _by_words(
    trajectories: Sequence[Trajectory], good: npt.NDArray[np.bool_], tasks: Sequence[str]
) -> npt.NDArray[np.float64]:
    from sklearn.feature_extraction import DictVectorizer

    counts = [words_of(one) for one in trajectories]
    spread = Counter(word for one in counts for word in one)
    kept = [{w: math.log1p(n) for w, n in one.items() if spread[w] > 1} for one in counts]
    return _out_of_fold(DictVectorizer(sparse=True).fit_transform(kept), good, tasks)


def _out_of_fold(
    features: Any, good: npt.NDArray[np.bool_], tasks: Sequence[str]
) -> npt.NDArray[np.float64]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = np.full(len(good), 0.5)
    for train, test in folds(tasks):
        if len(set(good[train])) < 2:
            continue
        model = make_pipeline(
            StandardScaler(with_mean=False), LogisticRegression(C=0.1, max_iter=1_000)
        )
        model.fit(features[train], good[train])
        scores[test] = model.predict_proba(features[test])[:, 1]
    return scores
