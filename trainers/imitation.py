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

from reagent_env.trainers.layout import as_rows
from reagent_env.trainers.likelihood import likelihood
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.sample import Sample
from reagent_env.trainers.training_batch import micro_batches
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


def accumulate_imitation(
    model: Any,
    samples: Sequence[Sample],
    *,
    pad_id: int,
    micro_batch_tokens: int,
    weight: float = 1.0,
    context_weight: float = 0.0,
) -> float:
    """Add ``weight`` times the gradient of the mean loss over ``samples``; returns that mean in nats.

    The mean is over all written tokens of all samples, however they are split into micro-batches.

    Args:
        model: The policy.
        samples: Demonstrations.
        pad_id: Of the tokenizer.
        micro_batch_tokens: Tokens of one pass, padding included.
        weight: Of the whole.
        context_weight: How much the mean loss over all *other* tokens (prompts, observations) counts
            beside. A model without any training learns from them to copy, which the few written
            tokens teach many times more slowly; one that can copy has no use for it.
    """
    device = next(model.parameters()).device
    written = max(1, sum(sum(sample.completion_mask) for sample in samples))
    context = max(1, sum(len(sample.ids) - 1 for sample in samples) - written)
    total = 0.0
    sequences = [sample.ids for sample in samples]
    for chosen in micro_batches(sequences, range(len(samples)), micro_batch_tokens):
        some = [samples[index] for index in chosen]
        rows, columns, tokens, own = _places(some, context=context_weight > 0)
        read = [sample.ids for sample in some]
        layout = as_rows(read, rows, columns, tokens, pad_id=pad_id, device=device)
        logprobs = likelihood(model, layout).logprobs
        loss = -logprobs[own].sum() / written
        total += loss.item()
        if context_weight > 0:
            loss = loss - context_weight * logprobs[~own].sum() / context
        (weight * loss).backward()
    return total


def _places(samples: Sequence[Sample], *, context: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[N] row, column, id and whether it was written: of written tokens, or of all but the first."""
    found = [
        (row, column, sample.ids[column], turn >= 0)
        for row, sample in enumerate(samples)
        for column, turn in enumerate(sample.turn_of)
        if turn >= 0 or (context and column > 0)
    ]
    places = torch.tensor(found, dtype=torch.int64).reshape(-1, 4)
    return places[:, 0], places[:, 1], places[:, 2], places[:, 3].bool()
