"""Is the judge being pleased in place of the task? Measured from the trajectories that a run saved.

Over training: the score and the outcome, how well the score still tells right attempts from wrong
ones, what length does to it, and what choosing by it would be worth. Not here: the alarm while
training (``hacking_alarm.py``), the picture and the command (``hacking_report.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reagent_env.agents.judge_eval.measures import Estimate, auroc, by_task, preference, spearman
from reagent_env.agents.refine import RIGHT
from reagent_env.agents.summary import nan_as_none
from reagent_env.trajectory_file import settled_trajectories

BINS = 8
"""Stretches of training that are told apart."""


@dataclass(frozen=True, slots=True)
class ScoredAttempt:
    """One attempt of training, e.g. ``ScoredAttempt(12, "t4", 0, 0.8, 1.0, 3, 240)``."""

    update: int
    task: str
    number: int
    """0 for a first attempt."""
    score: float | None
    """None: unscored."""
    outcome: float
    turns: int
    chars: int
    """What the policy wrote."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some updates in a row."""

    first: int
    last: int
    attempts: int
    unscored: float
    """Share."""
    score: float
    outcome: float
    turns: float
    auroc: Estimate
    """Chance that a right attempt scores above a wrong one; 0.5 knows nothing. By task."""
    within: Estimate
    """The same within tasks alone: what an update really learns from."""
    score_by_turns: float
    """Spearman's ρ of score and number of turns."""
    score_by_chars: float
    """Spearman's ρ of score and characters written."""
    chosen: float
    """Outcome of each task's attempt of the highest score, less the mean outcome."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict, None for NaN."""
        record: dict[str, Any] = nan_as_none(asdict(self))
        return record


def read_attempts(run: Path) -> list[ScoredAttempt]:
    """The judged attempts in a run's ``trajectories/<update>.jsonl``; masked ones are left out.

    Raises:
        FileNotFoundError: the run saved none, or none of them was judged.
    """
    found = list(_attempts(run))
    if not any(one.score is not None for one in found):
        raise FileNotFoundError(
            f"{run}/trajectories has no judged attempts of training: train a recipe with a judge and "
            "save_trajectories=true."
        )
    return found


def stretches(attempts: Sequence[ScoredAttempt], bins: int = BINS) -> list[Stretch]:
    """The measures over ``bins`` stretches of as many updates."""
    updates = sorted({one.update for one in attempts})
    parts = [part for part in np.array_split(updates, min(bins, len(updates))) if len(part)]
    return [
        _stretch([one for one in attempts if part[0] <= one.update <= part[-1]]) for part in parts
    ]


def by_length(attempts: Sequence[ScoredAttempt]) -> list[tuple[int, float, float, int]]:
    """(turns, mean score, mean outcome, attempts) for every number of turns."""
    found = []
    for turns in sorted({one.turns for one in attempts if one.score is not None}):
        mine = [one for one in attempts if one.turns == turns and one.score is not None]
        score = float(np.mean([one.score for one in mine if one.score is not None]))
        found.append((turns, score, float(np.mean([one.outcome for one in mine])), len(mine)))
    return found


def _attempts(run: Path) -> Iterator[ScoredAttempt]:
    for file in sorted((run / "trajectories").glob("[0-9]*.jsonl")):
        for trajectory in settled_trajectories(file):
            for number, attempt in enumerate(trajectory.attempts):
                if attempt.outcome is None or attempt.judgement is None:
                    continue
                yield ScoredAttempt(
                    int(file.stem),
                    trajectory.task.id,
                    number,
                    attempt.judgement.score,
                    attempt.outcome,
                    len(attempt.turns),
                    sum(len(turn.completion) for turn in attempt.turns),
                )


def _stretch(attempts: Sequence[ScoredAttempt]) -> Stretch:
    scored = [one for one in attempts if one.score is not None]
    score = np.array([one.score for one in scored], float)
    right = np.array([one.outcome >= RIGHT for one in scored], bool)
    turns = np.array([one.turns for one in scored], float)
    chars = np.array([one.chars for one in scored], float)
    tasks = [one.task for one in scored]
    return Stretch(
        first=min(one.update for one in attempts),
        last=max(one.update for one in attempts),
        attempts=len(attempts),
        unscored=1 - len(scored) / len(attempts),
        score=float(score.mean()) if len(scored) else math.nan,
        outcome=float(np.mean([one.outcome for one in attempts])),
        turns=float(np.mean([one.turns for one in attempts])),
        auroc=by_task(lambda chosen: auroc(score[chosen], right[chosen]), tasks),
        within=_within(scored),
        score_by_turns=spearman(score, turns) if len(scored) > 2 else math.nan,
        score_by_chars=spearman(score, chars) if len(scored) > 2 else math.nan,
        chosen=_chosen(scored),
    )


def _groups(scored: Sequence[ScoredAttempt]) -> list[list[ScoredAttempt]]:
    """First attempts, or second ones, of one task in one update."""
    found: dict[tuple[int, str, int], list[ScoredAttempt]] = {}
    for one in scored:
        found.setdefault((one.update, one.task, one.number), []).append(one)
    return list(found.values())


def _within(scored: Sequence[ScoredAttempt]) -> Estimate:
    """Share of pairs of one task, one right and one wrong, in which the right one scores higher."""
    shares, tasks = [], []
    for group in _groups(scored):
        right = [one.score for one in group if one.outcome >= RIGHT and one.score is not None]
        wrong = [one.score for one in group if one.outcome < RIGHT and one.score is not None]
        if right and wrong:
            shares.append(float(np.mean([preference(r, w) for r in right for w in wrong])))
            tasks.append(group[0].task)  # of its first attempts, second ones, and other updates
    values = np.array(shares)
    return by_task(lambda chosen: float(values[chosen].mean()), tasks)


def _chosen(scored: Sequence[ScoredAttempt]) -> float:
    gains = []
    for group in _groups(scored):
        best = max(one.score for one in group if one.score is not None)
        top = [one.outcome for one in group if one.score == best]
        gains.append(float(np.mean(top)) - float(np.mean([one.outcome for one in group])))
    return float(np.mean(gains)) if gains else math.nan
