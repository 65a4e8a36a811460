"""What TRL's tests share: a trainer whose completions are written beforehand, and scripted engines."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from trl import GRPOConfig, GRPOTrainer

from reagent_env.plugins.trl_trainer import TurnCreditGRPOTrainer
from reagent_env.trainers.engines.base import Generation, Sampling
from reagent_env.trainers.policies import load_policy
from reagent_env.trainers.policies.policy import Policy

GROUP = 2
LIBRARIES_WARN = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
"""accelerate reads an attribute that transformers has renamed."""
_policy: list[Policy] = []


def tiny() -> Policy:
    """The tiny policy, loaded once."""
    if not _policy:
        _policy.append(load_policy("tiny"))
    return _policy[0]


class WrittenEngine:
    """An engine that "samples" completions written beforehand; conversation n gets list n."""

    context_length = 100_000

    def __init__(self, tokenizer: Any, completions: Callable[[int], Sequence[str]]) -> None:
        self._tokenizer = tokenizer
        self._completions = completions
        self._opened = 0

    def open(self, seed: int) -> WrittenConversation:
        self._opened += 1
        return WrittenConversation(self._tokenizer, self._completions(self._opened - 1))

    def pause(self) -> None: ...

    def resume(self, version: int) -> None: ...

    def close(self) -> None: ...


class WrittenConversation:
    def __init__(self, tokenizer: Any, completions: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._left = list(completions)

    def generate(self, new_ids: Sequence[int], sampling: Sampling) -> Future[Generation]:
        future: Future[Generation] = Future()
        ids = written_ids(self._tokenizer, self._left.pop(0))
        logprobs = tuple(-0.01 * (place + 1) for place in range(len(ids)))
        future.set_result(Generation(tuple(ids), logprobs, "stop", 1))
        return future

    def close(self) -> None: ...


def written_ids(tokenizer: Any, text: str) -> list[int]:
    """A completion as it would be sampled: its text, then the end of turn."""
    ids: list[int] = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    return [*ids, int(tokenizer.eos_token_id)]


class WrittenTrainer(GRPOTrainer):
    """TRL's trainer whose model "samples" ``self.written[rollout][generation]`` in TRL's own loop."""

    written: list[list[str]]

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], None]:
        round_, self._written_rounds = self._written_rounds, self._written_rounds + 1
        there = [texts for texts in self.written if len(texts) > round_ or round_ == 0]
        assert len(there) >= len(prompt_ids), "TRL asks for more than was written"
        asked = there[: len(prompt_ids)]
        return [written_ids(self.processing_class, texts[round_]) for texts in asked], None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._written_rounds = 0
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        return batch


class WrittenTurnTrainer(TurnCreditGRPOTrainer, WrittenTrainer):
    """Ours, on the same; keeps what was played."""

    kept: list[Any]

    def _rollouts(self, *args: Any) -> list[Any]:
        self.kept = super()._rollouts(*args)
        return self.kept


def make_trainer(
    trainer_class: type[GRPOTrainer], folder: Any, *, group: int = GROUP, **given: Any
) -> Any:
    """A trainer of the tiny policy that never touches the disk or the net."""
    args = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=group,
        num_generations=group,
        max_completion_length=1900,
        max_steps=1,
        learning_rate=1e-4,
        report_to=[],
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        save_strategy="no",
        disable_tqdm=True,
        **given.pop("config", {}),
    )
    given.setdefault("processing_class", tiny().tokenizer)
    trainer = trainer_class(tiny().model, args=args, **given)
    trainer.model.train()
    return trainer


def trained_texts(tokenizer: Any, ids: Sequence[int], turns: Sequence[int]) -> list[str]:
    """The text of each turn's tokens, without the end of turn."""
    found: dict[int, list[int]] = {}
    for token, turn in zip(ids, turns, strict=False):
        if turn >= 0 and token != tokenizer.eos_token_id:
            found.setdefault(turn, []).append(int(token))
    return [tokenizer.decode(found[turn]) for turn in sorted(found)]


def as_rows(batch: dict[str, Any], name: str, row: int = 0) -> list[Any]:
    """A row of one of the batch's tensors."""
    tensor = batch[name][row]
    assert isinstance(tensor, torch.Tensor)
    return list(tensor.tolist())
