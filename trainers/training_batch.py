"""Rollouts as the learner takes them: flat arrays over the tokens that the policy sampled.

Flat, because turns are short and prompts and observations are long: what is not trained takes no
room here. Not here: how they lie in a pass (``layout.py``), the model (``learner.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reagent_env.trainers.sample import Rollout

TurnAdvantages = Sequence[Sequence[float]]
"""[attempts][turns] of one rollout."""


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """N trained tokens of S samples, in order: by sample, then by place."""

    sequences: tuple[list[int], ...]
    """[S] what the model reads of each sample: all that comes before its last trained token."""
    tokens: Tensor
    """[N] int64, ids."""
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
        chosen = torch.zeros(len(self.sequences), dtype=torch.bool)
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
    sequences: list[list[int]] = []
    tokens: list[int] = []
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
            last = 1
            for column, turn in enumerate(sample.turn_of):
                if turn < 0 or turn >= len(by_turn):
                    continue
                last = column
                tokens.append(sample.ids[column])
                sample_of.append(len(sequences))
                columns.append(column)
                segments.append(attempts_before + attempt_of_turn[turn])
                turns.append(turns_before + turn)
                values.append(by_turn[turn])
                logprobs.append(sample.sampled_logprobs[column])
                versions.append(sample.versions[column])
            sequences.append(sample.ids[:last])
        attempts_before += len(shape)
        turns_before += len(by_turn)
    return TrainingBatch(
        sequences=tuple(sequences),
        tokens=torch.tensor(tokens, dtype=torch.int64),
        sample_of=torch.tensor(sample_of, dtype=torch.int64),
        columns=torch.tensor(columns, dtype=torch.int64),
        segments=torch.tensor(segments, dtype=torch.int64),
        turns=torch.tensor(turns, dtype=torch.int64),
        advantages=torch.tensor(values, dtype=torch.float32),
        sampled_logprobs=torch.tensor(logprobs, dtype=torch.float32),
        versions=torch.tensor(versions, dtype=torch.int64),
    )


def micro_batches(
    sequences: Sequence[Sequence[int]], chosen: Iterable[int], max_tokens: int
) -> Iterator[list[int]]:
    """Split ``chosen`` sequences into lists that, padded, hold about ``max_tokens`` tokens each.

    Sequences of like length go together; one longer than the bound goes alone.
    """
    batch: list[int] = []
    for index in sorted(chosen, key=lambda index: (len(sequences[index]), index)):
        longest = len(sequences[index])  # the newest is the longest
        if batch and longest * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
