"""The natural test: real rollouts of a policy, and what each of their prefixes is worth to it.

The value of a prefix is the mean outcome of continuations by the policy that made the rollout
(Monte Carlo). Nobody planted anything and nobody labelled anything: where the value falls, the turn
lost something. A judge's φ_t is compared with these values. Playing is ``playing_on.py``'s.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reagent_env.agents.agent import Agent
from reagent_env.agents.judge_eval.judging import judge_all
from reagent_env.agents.judge_eval.measures import auroc, by_task, located, mean_by_task, spearman
from reagent_env.agents.judge_eval.playing_on import Continuation, MakeEnv, outcomes
from reagent_env.reward_models import RewardModel
from reagent_env.reward_models.base import prefixes_of
from reagent_env.trajectory import Trajectory

CONTINUATIONS = 16
"""Of each prefix: a value's standard error is then at most 1/8."""
FALL = 0.35
"""A turn at which the value falls by this much lost something: twice a difference's largest
standard error, (2 · 0.25 / 16)^½ = 0.18."""

Report = dict[str, Any]
Turns = list[tuple[float | None, ...] | None]
"""[rollouts][T] φ_1 … φ_T; None where the judge gave none."""


@dataclass(frozen=True, slots=True)
class ValuedRollout:
    """A rollout and what its prefixes are worth, e.g. values ``(0.5, 0.6, 0.0, 0.0)`` of 3 turns."""

    trajectory: Trajectory
    values: tuple[float, ...]
    """[T + 1] V_0 … V_T: mean outcome after so many turns; the last is the outcome itself."""
    continuations: int
    """Of each but the last."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict."""
        return {
            "trajectory": self.trajectory.to_json(),
            "values": list(self.values),
            "continuations": self.continuations,
        }


def valued(
    rollouts: Sequence[Trajectory],
    make_env: MakeEnv,
    make_agent: Callable[[], Agent],
    *,
    continuations: int = CONTINUATIONS,
    concurrency: int = 8,
    on_outcome: Callable[[], None] = lambda: None,
) -> list[ValuedRollout]:
    """Rollouts with the values of their prefixes; those that cannot be played again are left out.

    Args:
        rollouts: Graded ones, of the policy that ``make_agent`` makes.
        make_env: Makes the environment they were made in.
        make_agent: Makes that policy.
        continuations: Of each prefix.
        concurrency: At once.
        on_outcome: Called after each continuation.
    """
    usable = [one for one in rollouts if is_usable(one)]
    asked = [
        Continuation(one, turns, number)
        for one in usable
        for turns in range(len(one.attempts[0].turns))
        for number in range(continuations)
    ]
    played = iter(
        outcomes(asked, make_env, make_agent, concurrency=concurrency, on_outcome=on_outcome)
    )
    found = []
    for one in usable:
        values = []
        for _ in one.attempts[0].turns:
            ended = [end for end in (next(played) for _ in range(continuations)) if end == end]
            values.append(sum(ended) / len(ended) if ended else math.nan)
        if not any(map(math.isnan, values)):
            outcome = float(one.outcome or 0.0)
            found.append(ValuedRollout(one, (*values, outcome), continuations))
    return found


def is_usable(rollout: Trajectory) -> bool:
    """Whether it is one graded attempt with turns, as a continuation needs."""
    return (
        len(rollout.attempts) == 1
        and bool(rollout.attempts[0].turns)
        and rollout.outcome is not None
        and rollout.infrastructure_error is None
    )


def natural_report(judge: RewardModel, rollouts: Sequence[ValuedRollout], batch: int) -> Report:
    """What the judge says of the rollouts against what they were worth.

    Raises:
        ValueError: there are no rollouts.
    """
    if not rollouts:
        raise ValueError("There is nothing to compare with: no rollout could be played again.")
    whole = judge_all(judge, [one.trajectory for one in rollouts], batch=batch).judgements
    cut = [prefixes_of(one.trajectory) for one in rollouts]
    parts = judge_all(judge, [prefix for each in cut for prefix in each], batch=batch).judgements
    in_turn = iter(parts)
    hindsight: Turns = [
        one.turn_scores if one.turn_scores and len(one.turn_scores) == len(each) else None
        for one, each in zip(whole, cut, strict=True)
    ]
    causal: Turns = [tuple(next(in_turn).score for _ in each) for each in cut]
    falls = [largest_fall(one.values) for one in rollouts]
    return {
        "rollouts": len(rollouts),
        "continuations": rollouts[0].continuations,
        "mean_outcome": float(np.mean([one.values[-1] for one in rollouts])),
        "mean_start_value": float(np.mean([one.values[0] for one in rollouts])),
        "with_a_fall": sum(fall is not None for fall in falls),
        "outcome": _area(
            [(one.score, two.values[-1] >= 0.5) for one, two in zip(whole, rollouts, strict=True)],
            rollouts,
        ),
        "turn_scores": _compared(hindsight, rollouts, falls),
        "prefixes": _compared(causal, rollouts, falls),
    }


def largest_fall(values: Sequence[float]) -> int | None:
    """The turn, from 0, at which the value falls most; None where it nowhere falls by ``FALL``.

    Example: ``largest_fall((0.5, 0.6, 0.1, 0.0))`` is 1.
    """
    drops = [before - after for before, after in itertools.pairwise(values)]
    if not drops or max(drops) < FALL:
        return None
    return drops.index(max(drops))


def _compared(
    turns: Turns, rollouts: Sequence[ValuedRollout], falls: Sequence[int | None]
) -> Report | None:
    """φ_t against V_t over all turns, and the judge's largest fall against the value's."""
    phi: list[float] = []
    value: list[float] = []
    steps: list[tuple[float, float]] = []
    tasks: list[str] = []
    step_tasks: list[str] = []
    ended: list[bool] = []
    credits: list[tuple[float, float, str]] = []
    for scores, one, fall in zip(turns, rollouts, falls, strict=True):
        if scores is None:
            continue
        task = one.trajectory.task.id
        for turn, score in enumerate(scores):
            if score is None:
                continue
            phi.append(score)
            value.append(one.values[turn + 1])
            tasks.append(task)
            ended.append(turn == len(scores) - 1)
            before = scores[turn - 1] if turn else None
            if before is not None:
                steps.append((score - before, one.values[turn + 1] - one.values[turn]))
                step_tasks.append(task)
        credit = None if fall is None else located(scores, fall)
        if credit is not None:
            credits.append((credit, 1 / (len(scores) - 1), task))
    if not phi:
        return None
    scored, worth, last = np.array(phi), np.array(value), np.array(ended)
    changes = np.array(steps).reshape(-1, 2)
    under_way = [task for task, at_end in zip(tasks, ended, strict=True) if not at_end]
    return {
        "turns": len(phi),
        "spearman": by_task(lambda i: spearman(scored[i], worth[i]), tasks).to_json(),
        "spearman_under_way": by_task(
            lambda i: spearman(scored[~last][i], worth[~last][i]), under_way
        ).to_json(),
        "spearman_of_changes": by_task(
            lambda i: spearman(changes[i, 0], changes[i, 1]), step_tasks
        ).to_json(),
        "auroc_likely": by_task(lambda i: auroc(scored[i], worth[i] >= 0.5), tasks).to_json(),
        "auroc_falls": by_task(
            lambda i: auroc(-changes[i, 0], changes[i, 1] <= -FALL), step_tasks
        ).to_json(),
        "turn_found": mean_by_task(
            [c for c, _, _ in credits], [t for _, _, t in credits]
        ).to_json(),
        "chance": float(np.mean([p for _, p, _ in credits])) if credits else None,
    }


def _area(
    scored: Sequence[tuple[float | None, bool]], rollouts: Sequence[ValuedRollout]
) -> dict[str, Any]:
    chosen = [
        (score, right, one.trajectory.task.id)
        for (score, right), one in zip(scored, rollouts, strict=True)
        if score is not None
    ]
    scores = np.array([score for score, _, _ in chosen], float)
    events = np.array([right for _, right, _ in chosen], bool)
    tasks = [task for _, _, task in chosen]
    return by_task(lambda i: auroc(scores[i], events[i]), tasks).to_json()


# Kept, so that further judges are compared with the same values ------------------------------------


def write_valued(path: Path, rollouts: Iterable[ValuedRollout]) -> None:
    """One rollout a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(one.to_json(), sort_keys=True) + "\n" for one in rollouts]
    path.write_text("".join(lines), encoding="ascii")


def read_valued(path: Path) -> Iterator[ValuedRollout]:
    """The inverse of :func:`write_valued`.

    Raises:
        ValueError: a line that is no valued rollout, with its number.
    """
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            trajectory = Trajectory.from_json(record["trajectory"])
            values = tuple(float(one) for one in record["values"])
            if len(values) != len(trajectory.attempts[-1].turns) + 1:
                raise ValueError(f"{len(values)} values of {len(trajectory.turns)} turns")
            yield ValuedRollout(trajectory, values, int(record["continuations"]))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}, line {number}: no rollout with values, as `reagent judge-eval --agent` "
                f"leaves in prefix_values.jsonl ({type(error).__name__}: {error})."
            ) from error
