"""The cold start: imitation of scripted episodes, clean ones first, then some of mixed quality.

A small model learns to copy names from what it reads only on clean demonstrations and at a constant
rate; the mixture afterwards teaches it every strategy, good and bad, for reinforcement learning to
choose from. Not here: the scripts (``demonstrations.py``), a step's loss (``imitation.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reagent_env.trainers.imitation import accumulate_imitation
from reagent_env.trainers.optimiser import falling_rate, optimiser_step
from reagent_env.trainers.sample import Sample


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of imitation, e.g. ``Stage(samples, lr=2.5e-3, epochs=1)``."""

    name: str
    """For the log."""
    samples: Sequence[Sample]
    """What is imitated."""
    lr: float
    """Learning rate, constant up to the last ``decay`` share."""
    epochs: int = 1
    """Passes."""
    decay: float = 0.0
    """Share of the stage over which the rate falls linearly to a tenth."""
    context_weight: float = 0.0
    """How much prompts and observations are learned, too (:func:`accumulate_imitation`)."""

    def steps(self, batch: int) -> int:
        """Updates it takes."""
        return self.epochs * max(1, len(self.samples) // batch)

    def rate(self, step: int, batch: int) -> float:
        """Learning rate at its ``step``."""
        return falling_rate(self.lr, step, self.steps(batch), self.decay)


def order(seed: int, stage: int, epoch: int, count: int) -> np.ndarray[Any, Any]:
    """Indices of a stage's samples in the order of one pass: a pure function, for resuming."""
    return np.random.default_rng((seed, stage, epoch)).permutation(count)


def imitate(
    model: Any,
    optimiser: Any,
    stages: Sequence[Stage],
    *,
    batch: int,
    seed: int,
    pad_id: int,
    micro_batch_tokens: int,
    max_grad_norm: float = 1.0,
    warmup: int = 20,
    start: int = 0,
    on_step: Callable[[int, dict[str, Any]], None] = lambda step, metrics: None,
) -> int:
    """Run every stage; returns the number of updates.

    Args:
        model: The policy.
        optimiser: Of its weights.
        stages: One after another.
        batch: Samples an update.
        seed: Orders the samples.
        pad_id: Of the tokenizer.
        micro_batch_tokens: Tokens of one pass, padding included.
        max_grad_norm: Of an update.
        warmup: Updates over which the first stage's rate rises.
        start: Updates that were made before, on resuming.
        on_step: Called after each with its number (from 0) and ``loss`` (nats a token),
            ``grad_norm``, ``tokens``, ``seconds``, ``stage``, ``lr``.
    """
    done = 0
    model.train()
    for number, stage in enumerate(stages):
        for step in range(stage.steps(batch)):
            if done >= start:
                began = time.monotonic()
                per_epoch = max(1, len(stage.samples) // batch)
                order_now = order(seed, number, step // per_epoch, len(stage.samples))
                first = (step % per_epoch) * batch
                chosen = [stage.samples[int(i)] for i in order_now[first : first + batch]]
                loss = accumulate_imitation(
                    model,
                    chosen,
                    pad_id=pad_id,
                    micro_batch_tokens=micro_batch_tokens,
                    context_weight=stage.context_weight,
                )
                rate = stage.rate(step, batch)
                norm = optimiser_step(
                    optimiser, lr=rate, warmup=warmup, step=done, max_grad_norm=max_grad_norm
                )
                on_step(
                    done,
                    {
                        "stage": stage.name,
                        "loss": loss,
                        "grad_norm": norm,
                        "lr": rate,
                        "tokens": sum(len(sample.ids) for sample in chosen),
                        "seconds": time.monotonic() - began,
                    },
                )
            done += 1
    return done
