"""Rollouts as the learner takes them: flat arrays over the tokens that the policy sampled.

Flat, because turns are short and prompts and observations are long: what is not trained takes no
room here. Not here: padding and the model (``learner.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reagent_env.trainers.sample import Rollout, Sample

TurnAdvantages = Sequence[Sequence[float]]
"""[attempts][turns] of one rollout."""


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """N trained tokens of S samples, in order: by sample, then by place."""

    samples: tuple[Sample, ...]
    """[S] the sequences."""
    sample_of: Tensor
    """[N] int64, which sample."""
    columns: Tensor
    """[N] int64, place in that sample's ids."""
    segments: Tensor
    """[N] int64, which attempt of the batch, 0 … A − 1: the sequence of sequence-level means."""
    turns: Tensor
    """[N] int64, which turn of the batch, 0 … U − 1."""
    advantages: Tensor
    """[N] float32."""
    sampled_logprobs: Tensor
    """[N] float32, at which the engine drew the token."""
    versions: Tensor
    """[N] int64, of the weights that drew it."""

    def __len__(self) -> int:
        return len(self.columns)

    def tokens_of(self, samples: Sequence[int]) -> Tensor:
        """Indices into the N tokens of those that belong to ``samples``."""
        chosen = torch.zeros(len(self.samples), dtype=torch.bool)
        chosen[list(samples)] = True
        return chosen[self.sample_of].nonzero().squeeze(-1)


def training_batch(
    rollouts: Sequence[Rollout], advantages: Sequence[TurnAdvantages]
) -> TrainingBatch:
    """The trained tokens of ``rollouts``, each with its turn's advantage.

    Args:
        rollouts: Not masked.
        advantages: [rollouts][attempts][turns].

    Raises:
        ValueError: a rollout and its advantages differ in shape.
    """
    samples: list[Sample] = []
    sample_of: list[int] = []
    columns: list[int] = []
    segments: list[int] = []
    turns: list[int] = []
    values: list[float] = []
    logprobs: list[float] = []
    versions: list[int] = []
    attempts_before = turns_before = 0
    for rollout, given in zip(rollouts, advantages, strict=True):
        shape = [attempt.turns for attempt in rollout.attempts]
        if [len(of_turns) for of_turns in given] != shape:
            raise ValueError(
                f"Advantages of shape {[len(of_turns) for of_turns in given]} for attempts of "
                f"{shape} turns."
            )
        by_turn = [value for of_turns in given for value in of_turns]
        attempt_of_turn = rollout.attempt_of_turn()
        for sample in rollout.samples:
            for column, turn in enumerate(sample.turn_of):
                if turn < 0 or turn >= len(by_turn):
                    continue
                sample_of.append(len(samples))
                columns.append(column)
                segments.append(attempts_before + attempt_of_turn[turn])
                turns.append(turns_before + turn)
                values.append(by_turn[turn])
                logprobs.append(sample.sampled_logprobs[column])
                versions.append(sample.versions[column])
            samples.append(sample)
        attempts_before += len(shape)
        turns_before += len(by_turn)
    return TrainingBatch(
        samples=tuple(samples),
        sample_of=torch.tensor(sample_of, dtype=torch.int64),
        columns=torch.tensor(columns, dtype=torch.int64),
        segments=torch.tensor(segments, dtype=torch.int64),
        turns=torch.tensor(turns, dtype=torch.int64),
        advantages=torch.tensor(values, dtype=torch.float32),
        sampled_logprobs=torch.tensor(logprobs, dtype=torch.float32),
        versions=torch.tensor(versions, dtype=torch.int64),
    )


def micro_batches(
    samples: Sequence[Sample], chosen: Sequence[int], max_tokens: int
) -> Iterator[list[int]]:
    """Split ``chosen`` samples into lists that, padded, hold about ``max_tokens`` tokens each.

    Samples of like length go together; one longer than the bound goes alone.
    """
    batch: list[int] = []
    for index in sorted(chosen, key=lambda index: (len(samples[index].ids), index)):
        longest = len(samples[index].ids)  # the newest is the longest
        if batch and longest * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def padded_ids(
    samples: Sequence[Sample], pad_id: int, device: torch.device | str = "cpu"
) -> Tensor:
    """[B, T] ids padded on the right."""
    longest = max(len(sample.ids) for sample in samples)
    rows = [sample.ids + [pad_id] * (longest - len(sample.ids)) for sample in samples]
    return torch.tensor(rows, dtype=torch.int64, device=device)
