"""Learning by imitation: the likelihood of tokens that someone else wrote is raised.

For the cold start (recipe ``sft``), for judges (``judge-sft``) and for the option ``distill``.
Demonstrations are encoded once, by the same renderer as rollouts, and trained on the same mask:
the policy's own tokens and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reagent_env.trainers.likelihood import likelihood
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.sample import Sample
from reagent_env.trainers.training_batch import micro_batches, padded_ids
from reagent_env.trajectory import Trajectory


def demonstration(
    trajectory: Trajectory,
    messages: Sequence[dict[str, str]],
    renderer: Renderer,
    *,
    attempts: Sequence[int] | None = None,
) -> Sample:
    """The tokens of a trajectory as the policy would have read and written them.

    Args:
        trajectory: The record.
        messages: What the policy saw first: ``info["messages"]`` of the reset.
        renderer: Of the policy.
        attempts: Indices of the attempts to learn from; the others are read only. Default: all.
    """
    learned = set(range(len(trajectory.attempts)) if attempts is None else attempts)
    sample = Sample()
    sample.read(renderer.opening_ids(messages))
    turn = 0
    observation = ""
    for number, attempt in enumerate(trajectory.attempts):
        if number:
            said = [part for part in (observation, attempt.feedback) if part]
            sample.read(renderer.reply_ids("\n\n".join(said), closed=True))
        for position, one in enumerate(attempt.turns):
            if position:
                sample.read(renderer.reply_ids(observation, closed=True))
            ids = renderer.completion_ids(one.completion)
            if number in learned:
                sample.write(ids, [0.0] * len(ids), turn, 0)
            else:
                sample.read(ids)
            turn += 1
            observation = one.observation
    return sample


def imitation_loss(model: Any, samples: Sequence[Sample], *, pad_id: int, divisor: float) -> Tensor:
    """−Σ log π(token) / ``divisor`` over the tokens that were written, of one micro-batch.

    Args:
        model: The policy.
        samples: Padded together.
        pad_id: Of the tokenizer.
        divisor: Tokens of the whole batch, so that micro-batches add up to its mean.
    """
    device = next(model.parameters()).device
    rows, columns = places(samples)
    ids = padded_ids(samples, pad_id, device)
    return -likelihood(model, ids, rows.to(device), columns.to(device)).logprobs.sum() / divisor


def places(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """[N], [N] row and column of every written token."""
    found = [
        (row, column)
        for row, sample in enumerate(samples)
        for column, turn in enumerate(sample.turn_of)
        if turn >= 0
    ]
    pairs = torch.tensor(found, dtype=torch.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def accumulate_imitation(
    model: Any,
    samples: Sequence[Sample],
    *,
    pad_id: int,
    micro_batch_tokens: int,
    weight: float = 1.0,
) -> float:
    """Add ``weight`` times the gradient of the mean loss over ``samples``; returns that mean in nats.

    The mean is over all tokens of all samples, however they are split into micro-batches.
    """
    tokens = sum(sum(sample.completion_mask) for sample in samples)
    total = 0.0
    for chosen in micro_batches(samples, range(len(samples)), micro_batch_tokens):
        loss = imitation_loss(
            model, [samples[index] for index in chosen], pad_id=pad_id, divisor=max(1, tokens)
        )
        (weight * loss).backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total
