"""What a batch of groups comes to."""

from __future__ import annotations

from reagent_env import Task, Trajectory
from reagent_env.trainers import metric_names as names
from reagent_env.trainers.measures import batch_measures
from reagent_env.trainers.sample import AttemptReturn, Group, Rollout


def rollout(member: int, *outcomes: float) -> Rollout:
    attempts = tuple(AttemptReturn(outcome, ()) for outcome in outcomes)
    return Rollout(0, member, (), attempts, Trajectory(task=Task("?", "a"), prompt=""))


def test_what_second_attempts_mend_and_spoil_is_told_apart() -> None:
    group = Group(0, (rollout(0, 0, 1), rollout(1, 1, 0), rollout(2, 1, 0), rollout(3, 1, 1)))
    found = batch_measures([group], weight=0.3, judged=False)
    assert (found[names.SUCCESS], found[names.SECOND], found[names.GAIN]) == (0.75, 0.5, -0.25)
    assert (found[names.MENDED], found[names.SPOILED]) == (0.25, 0.5)
    alone = batch_measures([Group(0, (rollout(0, 1.0),))], weight=0.3, judged=False)
    assert not {names.SECOND, names.MENDED, names.SPOILED} & set(alone)
