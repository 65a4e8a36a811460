"""Asks a judge about many trajectories: each different one once, in batches, with the time it took."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reagent_env.judgement import Judgement
from reagent_env.reward_models import RewardModel, make_reward_model
from reagent_env.task import Task
from reagent_env.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Judged:
    """Judgements in the order asked for, and what they cost."""

    judgements: list[Judgement]
    asked: int
    """Different trajectories that the judge saw."""
    seconds: float
    """Wall time of all of it."""


def load_judge(spec: str) -> RewardModel:
    """``rubric``, ``noise``, ``URL#model``, …, or ``module:object`` (a judge, or what makes one).

    Raises:
        ValueError: there is no such judge, or the object cannot judge.
    """
    module, colon, attribute = spec.partition(":")
    if not colon or spec.startswith(("http://", "https://")) or "/" in module:
        return make_reward_model(spec)
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` has it
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"No judge {spec!r}: {error}.") from error
    makes_one = isinstance(found, type) or (callable(found) and not hasattr(found, "judge"))
    judge = found() if makes_one else found
    if not callable(getattr(judge, "judge", None)):
        raise ValueError(f"{spec!r} has no method judge(trajectories).")
    named: RewardModel = judge
    return named


def blinded(trajectory: Trajectory) -> Trajectory:
    """The trajectory without what a judge must not see: answer, outcome, rewards, its task's facts.

    A judge that peeks would be measured on the label instead of on the process.
    """
    task = Task(trajectory.task.question, "", "exact", trajectory.task.files)
    attempts = tuple(
        dataclasses.replace(
            attempt,
            outcome=None,
            judgement=None,
            turns=tuple(dataclasses.replace(turn, reward=0.0) for turn in attempt.turns),
        )
        for attempt in trajectory.attempts
    )
    return dataclasses.replace(trajectory, task=task, attempts=attempts)


def fingerprint(trajectory: Trajectory) -> str:
    """The same for trajectories that a judge sees alike."""
    return hashlib.sha256(json.dumps(trajectory.to_json(), sort_keys=True).encode()).hexdigest()


def judge_all(
    judge: RewardModel,
    trajectories: Sequence[Trajectory],
    *,
    batch: int = 32,
    on_batch: Callable[[int], None] = lambda done: None,
) -> Judged:
    """Judge each different trajectory once, blinded.

    Raises:
        ValueError: the judge returned another number of judgements than it was given.
    """
    shown = [blinded(one) for one in trajectories]
    keys = [fingerprint(one) for one in shown]
    different = dict(zip(keys, shown, strict=True))
    waiting = list(different.items())
    given: dict[str, Judgement] = {}
    start = time.monotonic()
    for begin in range(0, len(waiting), batch):
        part = waiting[begin : begin + batch]
        answers = judge.judge([one for _, one in part])
        if len(answers) != len(part):
            raise ValueError(
                f"The judge gave {len(answers)} judgements of {len(part)} trajectories; "
                "judge() returns one each, in the same order."
            )
        given.update({key: answer for (key, _), answer in zip(part, answers, strict=True)})
        on_batch(len(part))
    seconds = time.monotonic() - start
    return Judged([given[key] for key in keys], len(waiting), seconds)
