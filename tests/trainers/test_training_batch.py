"""Rollouts as flat arrays: each trained token once, with its own turn's advantage."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from reagent_env import Task, Trajectory  # noqa: E402
from reagent_env.trainers.sample import AttemptReturn, Rollout, Sample  # noqa: E402
from reagent_env.trainers.training_batch import (  # noqa: E402
    micro_batches,
    training_batch,
)

RECORD = Trajectory(Task("What is 2 + 3?", "5"), "")


def sample(*turn_of: int, version: int = 3) -> Sample:
    return Sample(
        ids=[10 + place for place in range(len(turn_of))],
        turn_of=list(turn_of),
        sampled_logprobs=[-0.1 * place if turn >= 0 else 0.0 for place, turn in enumerate(turn_of)],
        versions=[version if turn >= 0 else -1 for turn in turn_of],
    )


def rollout(*samples: Sample, turns: tuple[int, ...]) -> Rollout:
    attempts = tuple(AttemptReturn(1.0, (None,) * count) for count in turns)
    return Rollout(0, 0, samples, attempts, RECORD)


def test_every_written_token_stands_there_once_with_its_turn_and_attempt() -> None:
    both = rollout(sample(-1, -1, 0, 0, -1, 1, -1, 2), turns=(2, 1))
    apart = rollout(sample(-1, 0), sample(-1, 1, 1), turns=(1, 1))
    batch = training_batch([both, apart], [[[0.1, 0.2], [0.3]], [[0.4], [0.5]]])
    assert batch.sample_of.tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert batch.columns.tolist() == [2, 3, 5, 7, 1, 1, 2]
    assert batch.tokens.tolist() == [12, 13, 15, 17, 11, 11, 12]
    assert [len(one) for one in batch.sequences] == [7, 1, 2]  # nothing comes after the last token
    assert batch.turns.tolist() == [0, 0, 1, 2, 3, 4, 4]
    assert batch.segments.tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert batch.advantages.tolist() == pytest.approx([0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
    assert batch.sampled_logprobs.tolist() == pytest.approx(
        [-0.2, -0.3, -0.5, -0.7] + [-0.1] * 2 + [-0.2]
    )
    assert batch.versions.tolist() == [3] * 7
    assert batch.tokens_of([1, 2]).tolist() == [4, 5, 6]


def test_turns_of_an_attempt_that_is_left_out_are_not_trained() -> None:
    batch = training_batch([rollout(sample(-1, 0, -1, 1, 1), turns=(1,))], [[[0.5]]])
    assert batch.columns.tolist() == [1]


def test_advantages_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[2\] for attempts of \[1\]"):
        training_batch([rollout(sample(-1, 0), turns=(1,))], [[[0.5, 0.5]]])


def test_micro_batches_hold_alike_lengths_and_no_more_than_they_may() -> None:
    sequences = [[7] * length for length in (5, 30, 6, 5, 31)]
    cut = list(micro_batches(sequences, range(5), max_tokens=20))
    assert cut == [[0, 3, 2], [1], [4]]
    assert list(micro_batches(sequences, [], max_tokens=20)) == []
