"""Supervised training of a judge: the likelihood of the judgements it should have written is raised.

The loop is the cold start's (``trainers/sft.py``); here are its samples and its checkpoints. A run
that was interrupted goes on from its last checkpoint, exactly. Not here: where the examples come
from (``examples.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reagent_env.trainers.checkpoints import (
    latest_checkpoint,
    load_checkpoint,
    policy_saver,
    restore_random_state,
    save_checkpoint,
)
from reagent_env.trainers.judge.examples import JudgeExample
from reagent_env.trainers.optimiser import make_optimiser
from reagent_env.trainers.sample import Sample
from reagent_env.trainers.sft import Stage, imitate


@dataclass(frozen=True, slots=True)
class JudgeUpdate:
    """One update, e.g. ``JudgeUpdate(update=20, updates=900, loss=0.41, tokens=5120)``."""

    update: int
    """Updates made."""
    updates: int
    """Updates in all."""
    loss: float
    """Mean over the judgements' tokens, in nats."""
    tokens: int
    """Tokens of the update, prompts included."""


def judge_sample(example: JudgeExample, tokenizer: Any) -> Sample:
    """The tokens of an example; those of the judgement and its end are learned."""
    prompt = tokenizer.apply_chat_template(
        example.messages, add_generation_prompt=True, tokenize=False
    )
    sample = Sample()
    sample.read(list(tokenizer(prompt, add_special_tokens=False)["input_ids"]))
    written = list(tokenizer(example.judgement, add_special_tokens=False)["input_ids"])
    written.append(tokenizer.eos_token_id)
    sample.write(written, [0.0] * len(written), turn=0, version=0)
    return sample


def teller(say: Callable[[str], None], what: str = "") -> Callable[[JudgeUpdate], None]:
    """Says every twentieth update and the last; ``what`` stands before them."""

    def tell(update: JudgeUpdate) -> None:
        if update.update % 20 == 0 or update.update == update.updates:
            say(
                f"{what}update {update.update}/{update.updates}: loss {update.loss:.4f} nats a token"
            )

    return tell


def train_judge(
    model: Any,
    tokenizer: Any,
    samples: Sequence[Sample],
    *,
    epochs: int,
    batch: int = 32,
    lr: float = 2.5e-3,
    micro_batch_tokens: int = 8_192,
    seed: int = 0,
    run: Path | None = None,
    checkpoint_every: int = 200,
    on_update: Callable[[JudgeUpdate], None] = lambda update: None,
) -> int:
    """Train ``model`` in place; the rate falls to a tenth over the second half. Returns the updates.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        samples: Encoded examples.
        epochs: Passes over them.
        batch: Examples an update.
        lr: Learning rate of the first half.
        micro_batch_tokens: Tokens of one forward and backward pass, padding included.
        seed: Draws the order.
        run: Where checkpoints go, and where an interrupted run's are looked for; none without it.
        checkpoint_every: Updates between checkpoints.
        on_update: Called after each update.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("There is nothing to learn from: no examples.")
    stage = Stage("judge", samples, lr=lr, epochs=epochs, decay=0.5)
    updates = stage.steps(batch)
    optimiser = make_optimiser(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.05)
    found = None if run is None else latest_checkpoint(run)
    start = 0 if found is None else _restore(found, model, optimiser)

    def after(step: int, metrics: dict[str, Any]) -> None:
        made = step + 1
        if run is not None and (made % checkpoint_every == 0 or made == updates):
            save_checkpoint(
                run,
                made,
                save_policy=policy_saver(model, tokenizer),
                optimizer=optimiser.state_dict(),
                state={"update": made},
                keep=2,
            )
        on_update(JudgeUpdate(made, updates, metrics["loss"], metrics["tokens"]))

    imitate(
        model,
        optimiser,
        [stage],
        batch=batch,
        seed=seed,
        pad_id=tokenizer.pad_token_id,
        micro_batch_tokens=micro_batch_tokens,
        start=start,
        on_step=after,
    )
    model.eval()
    return updates


def _restore(folder: Path, model: Any, optimiser: Any) -> int:
    """Put the weights and the optimiser back; returns the updates made."""
    from safetensors.torch import load_model

    load_model(model, folder / "model.safetensors")
    checkpoint = load_checkpoint(folder)
    optimiser.load_state_dict(checkpoint.optimizer)
    restore_random_state(checkpoint.random_state)
    return checkpoint.update
