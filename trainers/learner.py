"""The learner: from rollouts with advantages to changed weights.

Reads downwards: likelihood under the weights as they are, the sampler's correction, then for every
mini-batch loss, gradient (in micro-batches), step. Not here: advantages (``advantages.py``), the
formulas (``losses.py``, ``importance.py``), when (``train.py``).
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.imitation import accumulate_imitation
from reagent_env.trainers.importance import Corrected, ImportanceSettings, importance_weights
from reagent_env.trainers.layout import as_rows, as_tree
from reagent_env.trainers.learner_processes import Processes, together
from reagent_env.trainers.likelihood import likelihood
from reagent_env.trainers.losses import (
    LossSettings,
    PolicyTokens,
    loss_means,
    mean_by_attempt,
    policy_loss,
    token_weights,
    value_loss,
)
from reagent_env.trainers.optimiser import falling_rate, make_optimiser, optimiser_step
from reagent_env.trainers.policies.policy import Policy
from reagent_env.trainers.sample import Rollout, Sample
from reagent_env.trainers.training_batch import TrainingBatch, TurnAdvantages, training_batch
from reagent_env.trainers.tree_attention import attending_to_trees, last_layer, why_no_trees

if TYPE_CHECKING:
    from transformers import PreTrainedModel

P = ParamSpec("P")
R = TypeVar("R")


class _Found(NamedTuple):
    """What one pass says of N tokens."""

    logprobs: Tensor
    """[N] as in ``Likelihood``."""
    entropy: Tensor
    """[N] likewise."""
    values: Tensor
    """[N] the value head's estimate before each token; 0 without one."""

    def on_cpu(self) -> _Found:
        """The same, where another process can have it."""
        return _Found(*(one.cpu() for one in self))


@dataclass(slots=True)
class PassCounts:
    """What passes came to since the learner was made, e.g. ``PassCounts(read=10_118, computed=6_850)``."""

    read: int = 0
    """Tokens of the samples that passes were about."""
    computed: int = 0
    """Tokens that went through the model for it, padding included."""


class _Scored(nn.Module):
    """Policy and value head as one module, whose forward pass is all that training asks of either."""

    def __init__(self, model: Any, value_head: nn.Linear | None) -> None:
        super().__init__()
        self.model = model
        self.value_head = value_head

    def forward(self, *args: Any, **kwargs: Any) -> _Found:
        """As ``likelihood`` without its first argument."""
        found = likelihood(self.model, *args, **kwargs)
        if self.value_head is None:
            values = torch.zeros_like(found.logprobs)
        else:
            values = self.value_head(found.states.float()).squeeze(-1)
        return _Found(found.logprobs, found.entropy, values)


def _over_trees(
    method: Callable[Concatenate[Learner, P], R],
) -> Callable[Concatenate[Learner, P], R]:
    """A method whose passes, backward ones included, may be over trees."""

    @functools.wraps(method)
    def call(self: Learner, *args: P.args, **kwargs: P.kwargs) -> R:
        models = [self._trained] if self.reference is None else [self._trained, self.reference]
        with attending_to_trees(*(models if self.why_no_trees is None else ())):
            return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[Learner, P], R]", call)


class Learner:
    """Owns the policy's weights while they change, its optimiser, and what stands beside them.

    Example::

        learner = Learner(policy, config)
        metrics = learner.update(rollouts, advantages, update=0)
    """

    def __init__(
        self,
        policy: Policy,
        config: TrainConfig,
        *,
        fixed_length: int,
        reference: PreTrainedModel | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Prepare to train.

        Args:
            policy: Its model is changed in place.
            config: Loss, optimiser, sizes.
            fixed_length: Most tokens that an attempt can have, for ``aggregation="fixed_length"``.
            reference: What ``kl`` keeps the policy near, where ``policy`` has been trained already
                (a resumed run); by default the policy as it is.
            processes: Who else computes the updates.

        Raises:
            ValueError: ``distill`` with several processes.
        """
        self.processes = processes or Processes()
        if config.distill and self.processes.count > 1:
            raise ValueError("distill is learned in one process; leave it out, or train in one.")
        self.policy = policy
        self.config = config
        self.value_head: nn.Linear | None = None
        if config.advantage == "gae":
            # From zero: at the start every state is worth 0, and nothing is random.
            device = next(policy.model.parameters()).device
            self.value_head = nn.Linear(int(policy.model.config.hidden_size), 1).to(device)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        self.reference: Any = None
        self._in_place: _Scored | None = None
        if config.kl > 0 and not config.lora_rank:  # with adapters, the reference is the base below
            frozen: Any = copy.deepcopy(policy.model) if reference is None else reference
            self.reference = frozen.eval().requires_grad_(False)
        # Shards are no model that could sample or be saved: those are trained beside the policy.
        trained: Any = copy.deepcopy(policy.model) if self.processes.sharded else policy.model
        scored: Any = _Scored(trained, self.value_head)
        optimiser: Any = make_optimiser(
            scored.parameters(),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self._scored, self.optimiser = self.processes.prepare(scored, optimiser)
        self._trained = trained
        self.why_no_trees = (
            why_no_trees(policy.model, policy.context_length)
            if config.share_prefixes
            else "share_prefixes is off"
        )
        """Why each sample is computed in a row of its own; None: what they share is computed once."""
        self._last_layer = last_layer(policy.model)
        self.counts = PassCounts()
        self.device = next(self._scored.parameters()).device
        self.steps = 0
        """Optimiser steps made; for the warm-up, kept in checkpoints."""
        self._fixed_length = fixed_length
        self._pad_id = int(policy.tokenizer.pad_token_id or 0)
        self._loss = LossSettings(
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            kl_weight=config.kl,
            entropy_weight=config.entropy,
        )
        self._importance = ImportanceSettings(
            cap=config.importance_cap,
            reject=config.reject_ratio > 1,
            lowest=1 / config.reject_ratio if config.reject_ratio > 1 else 0.5,
            highest=config.reject_ratio if config.reject_ratio > 1 else 2.0,
        )

    @together
    def restore(self, optimiser: dict[str, Any], value_head: dict[str, Tensor], steps: int) -> None:
        """Go on from a checkpoint: its weights came with the policy.

        Args:
            optimiser: Its ``state_dict()``.
            value_head: Likewise; empty where there is none.
            steps: Optimiser steps made.
        """
        self.optimiser.load_state_dict(optimiser)
        if self.value_head is not None:
            self.value_head.load_state_dict(value_head)
        self.steps = steps

    def optimiser_state(self) -> dict[str, Any]:
        """For a checkpoint. Shards' moments stay where they are: a run resumed under FSDP has new ones."""
        state: dict[str, Any] = self.optimiser.state_dict()
        return {**state, "state": {}} if self.processes.sharded else state

    def follow(self) -> None:
        """On every process but the first: repeat its calls until :meth:`end`."""
        while (call := self.processes.follow())[0] != "end":
            name, args, kwargs = call
            getattr(self, name)(*args, **kwargs)

    def end(self) -> None:
        """On the first process, once all is done: let the others go. Twice is not fine."""
        self.processes.lead(("end", (), {}))

    @together
    @_over_trees
    def values(self, rollouts: Sequence[Rollout]) -> list[list[list[float]]]:
        """[rollouts][attempts][turns] the value head's estimate where each turn begins.

        Raises:
            ValueError: this learner has no value head.
        """
        if self.value_head is None:
            raise ValueError("Only advantage='gae' trains a value head.")
        shape = [[[0.0] * attempt.turns for attempt in one.attempts] for one in rollouts]
        batch = training_batch(rollouts, shape)
        estimates = self._likelihood(batch, range(len(batch.sequences))).values.cpu()
        flat = torch.zeros(int(batch.turns.max()) + 1 if len(batch) else 0)
        first = _first_of_turns(batch)
        flat[batch.turns[first]] = estimates[first]
        numbers = iter(flat.tolist())
        return [[[next(numbers, 0.0) for _ in turns] for turns in attempts] for attempts in shape]

    @together
    @_over_trees
    def update(
        self,
        rollouts: Sequence[Rollout],
        advantages: Sequence[TurnAdvantages],
        *,
        update: int,
        values: Sequence[TurnAdvantages] | None = None,
        imitated: Sequence[Sample] = (),
    ) -> dict[str, float]:
        """Change the weights by one update; returns what is worth logging.

        Args:
            rollouts: Not masked.
            advantages: [rollouts][attempts][turns].
            update: Its number: with the seed it settles the order of mini-batches.
            values: What :meth:`values` gave, for ``gae``.
            imitated: Samples of the option ``distill``, learned beside.
        """
        began = time.monotonic()
        batch = training_batch(rollouts, advantages)
        if not len(batch):
            return {"tokens": 0.0}
        config = self.config
        # Not train(): dropout would part the ratio's two sides. Checkpointing looks at the mode, though.
        self._trained.train(config.gradient_checkpointing)
        everything = range(len(batch.sequences))
        # One step on one batch: its own pass gives π_old, detached. Several steps, or sequences that
        # may be rejected, want it beforehand.
        several = config.minibatches * config.epochs > 1 or self._importance.reject
        old = self._likelihood(batch, everything).logprobs.cpu() if several else None
        reference = self._reference_logprobs(batch) if config.kl > 0 else None
        targets = None
        if values is not None:
            targets = _flat(batch, advantages) + _flat(batch, values)

        sums: list[dict[str, float]] = []
        logged: dict[str, list[float]] = {}
        seen: list[tuple[int, Tensor, Tensor, Tensor]] = []
        for epoch in range(config.epochs):
            for chosen in self._minibatches(batch, update, epoch):
                tokens = batch.tokens_of(chosen)
                kept, importance = torch.ones(len(batch), dtype=torch.bool), None
                if old is not None:
                    corrected = self._corrected(batch, old[tokens], tokens)
                    kept[tokens], importance = corrected.mask, corrected.weights
                    _add(logged, {f"sampler/{k}": v for k, v in corrected.metrics.items()})
                mask = kept[tokens]
                weights = torch.zeros(len(batch))
                weights[tokens] = token_weights(
                    config.aggregation,
                    mask,
                    batch.segments[tokens],
                    fixed_length=self._fixed_length,
                )
                place = torch.zeros(len(batch), dtype=torch.int64)
                place[tokens] = torch.arange(len(tokens))
                sampler: list[tuple[Tensor, Tensor]] = []
                shares = list(self._micro_batches(batch, chosen))
                for number, (rows, counts) in enumerate(shares, start=1):
                    with self.processes.adding_up(self._scored, last=number == len(shares)):
                        mine = batch.tokens_of(rows)
                        found = self._pass(batch, rows, mine)
                        old_here = (
                            found.logprobs.detach() if old is None else old[mine].to(self.device)
                        )
                        if old is None:
                            corrected = self._corrected(batch, old_here.cpu(), mine)
                            weight_here = corrected.weights
                            if counts:
                                sampler.append((old_here.cpu(), mine))
                        else:
                            assert importance is not None
                            weight_here = importance[place[mine]]
                        loss, one = policy_loss(
                            config.loss,
                            PolicyTokens(
                                logprobs=found.logprobs,
                                old_logprobs=old_here,
                                advantages=batch.advantages[mine].to(self.device),
                                mask=kept[mine].to(self.device),
                                segments=batch.segments[mine].to(self.device),
                                importance=weight_here.to(self.device),
                                ref_logprobs=None
                                if reference is None
                                else reference[mine].to(self.device),
                                entropy=found.entropy,
                            ),
                            weights[mine].to(self.device),
                            self._loss,
                        )
                        if targets is not None and self.value_head is not None:
                            loss = loss + self._value_loss(
                                batch, found, mine, values, targets, weights
                            )
                        # accelerate takes the mean over processes; the loss is a sum over samples.
                        ((self.processes.count if counts else 0) * loss).backward()
                        if counts:
                            sums.append(one)
                            logprobs, entropy = found.logprobs.detach(), found.entropy.detach()
                            seen.append((epoch, mine, logprobs.cpu(), entropy.cpu()))
                sampler = self.processes.gathered(sampler)
                if sampler:
                    where = torch.cat([mine for _, mine in sampler])
                    whole = self._corrected(batch, torch.cat([one for one, _ in sampler]), where)
                    _add(logged, {f"sampler/{k}": v for k, v in whole.metrics.items()})
                if imitated and epoch == 0:
                    loss_there = accumulate_imitation(
                        self.policy.model,
                        imitated,
                        pad_id=self._pad_id,
                        micro_batch_tokens=config.micro_batch_tokens,
                        weight=config.distill_weight,
                    )
                    _add(logged, {"distill/loss": loss_there})
                norm = optimiser_step(
                    self.optimiser,
                    lr=falling_rate(config.lr, update, config.updates, config.lr_decay),
                    warmup=config.warmup,
                    step=self.steps,
                    max_grad_norm=config.max_grad_norm,
                )
                self.steps += 1
                _add(logged, {"grad_norm": norm})
        self._write_back()
        by_token = torch.zeros(len(batch)), torch.zeros(len(batch))
        for _, mine, logprobs, entropy in sorted(
            self.processes.gathered(seen), key=lambda one: one[0]
        ):  # the last epoch has the last word, whichever process computed it
            by_token[0][mine], by_token[1][mine] = logprobs, entropy
        everywhere = torch.ones(len(batch), dtype=torch.bool)
        attempt_of = _attempt_of_tokens(batch, rollouts)
        return {
            "tokens": float(len(batch)),
            "seconds/update": time.monotonic() - began,
            **loss_means(self.processes.gathered(list[Mapping[str, float]](sums))),
            **{name: float(np.mean(numbers)) for name, numbers in logged.items()},
            **{
                f"{name}/{attempt}": mean
                for name, numbers in zip(("logprob", "entropy"), by_token, strict=True)
                for attempt, mean in mean_by_attempt(numbers, everywhere, attempt_of).items()
            },
        }

    def _minibatches(self, batch: TrainingBatch, update: int, epoch: int) -> Iterator[list[int]]:
        """Samples of each optimiser step, shuffled where there are several."""
        count = len(batch.sequences)
        if self.config.minibatches == 1:
            yield list(range(count))
            return
        random = np.random.default_rng((self.config.seed, update, epoch, 3))
        for part in np.array_split(random.permutation(count), self.config.minibatches):
            if len(part):
                yield sorted(int(index) for index in part)

    def _write_back(self) -> None:
        """Where the weights are shards, the policy gets them whole."""
        if self.processes.sharded:
            whole = self.processes.accelerator.get_state_dict(self._scored)
            if self.processes.index == 0:
                self.policy.model.load_state_dict(
                    {name.removeprefix("model."): one for name, one in whole.items()}, strict=False
                )

    def _micro_batches(
        self, batch: TrainingBatch, samples: Sequence[int]
    ) -> Iterator[tuple[list[int], bool]]:
        """What this process computes of ``samples``, and whether each part counts."""
        return self.processes.shares(
            batch.sequences,
            samples,
            self.config.micro_batch_tokens,
            trees=self.why_no_trees is None,
        )

    def _pass(self, batch: TrainingBatch, rows: Sequence[int], tokens: Tensor) -> _Found:
        """The likelihood of ``tokens``, all of them in the samples ``rows``, with its gradient."""
        row_of = torch.zeros(len(batch.sequences), dtype=torch.int64)
        row_of[list(rows)] = torch.arange(len(rows))
        where = row_of[batch.sample_of[tokens]], batch.columns[tokens], batch.tokens[tokens]
        sequences = [batch.sequences[row] for row in rows]
        if self.why_no_trees is None:
            layout = as_tree(sequences, *where, last_layer=self._last_layer, device=self.device)
        else:
            layout = as_rows(sequences, *where, pad_id=self._pad_id, device=self.device)
        self.counts.read += sum(map(len, sequences))
        self.counts.computed += layout.ids.numel()
        scored = self._scored if self._in_place is None else self._in_place
        found: _Found = scored(
            layout,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            entropy_gradient=self.config.entropy > 0,
        )
        return found

    @torch.no_grad()
    def _likelihood(self, batch: TrainingBatch, samples: Sequence[int]) -> _Found:
        """Of every token of the batch, in its order, without gradient."""
        found: list[tuple[Tensor, _Found]] = []
        for rows, counts in self._micro_batches(batch, samples):
            mine = batch.tokens_of(rows)
            one = self._pass(batch, rows, mine)
            if counts:
                found.append((mine, one if self.processes.count == 1 else one.on_cpu()))
        found = self.processes.gathered(found)
        order = torch.cat([mine for mine, _ in found]).argsort()
        return _Found(
            *(
                torch.cat([getattr(one, name) for _, one in found])[order]
                for name in ("logprobs", "entropy", "values")
            )
        )

    def _reference_logprobs(self, batch: TrainingBatch) -> Tensor:
        """[N] log-probabilities under the policy that training began with."""
        with self._as_reference():
            return self._likelihood(batch, range(len(batch.sequences))).logprobs.cpu()

    @contextmanager
    def _as_reference(self) -> Iterator[None]:
        """The reference in the policy's place: a frozen copy, or the model without its adapters."""
        if self.reference is None:
            with self._trained.disable_adapter():
                yield
            return
        self._in_place = _Scored(self.reference, None)
        try:
            yield
        finally:
            self._in_place = None

    def _corrected(self, batch: TrainingBatch, old: Tensor, tokens: Tensor) -> Corrected:
        """Weights of ``tokens``, whose log π_old is ``old``."""
        return importance_weights(
            old,
            batch.sampled_logprobs[tokens],
            torch.ones(len(tokens), dtype=torch.bool),
            batch.segments[tokens],
            self._importance,
        )

    def _value_loss(
        self,
        batch: TrainingBatch,
        found: _Found,
        mine: Tensor,
        values: Sequence[TurnAdvantages] | None,
        targets: Tensor,
        weights: Tensor,
    ) -> Tensor:
        """PPO's value loss where turns begin; each turn counts as much as its tokens together."""
        assert values is not None
        first = _first_of_turns(batch)
        at_start = torch.zeros(len(batch), dtype=torch.bool)
        at_start[first] = True
        by_turn = torch.zeros(int(batch.turns.max()) + 1)
        by_turn.index_add_(0, batch.turns, weights)
        here = torch.where(at_start[mine], by_turn[batch.turns[mine]], 0.0)
        return self.config.value_weight * value_loss(
            found.values,
            _flat(batch, values)[mine].to(self.device),
            targets[mine].to(self.device),
            here.to(self.device),
        )


def _flat(batch: TrainingBatch, by_turn: Sequence[TurnAdvantages]) -> Tensor:
    """[N] each token's number of its turn."""
    numbers = [value for rollout in by_turn for attempt in rollout for value in attempt]
    return torch.tensor(numbers, dtype=torch.float32)[batch.turns]


def _first_of_turns(batch: TrainingBatch) -> Tensor:
    """Indices of the tokens with which turns begin."""
    before = torch.cat([torch.tensor([-1]), batch.turns[:-1]])
    return (batch.turns != before).nonzero().squeeze(-1)


def _attempt_of_tokens(batch: TrainingBatch, rollouts: Sequence[Rollout]) -> Tensor:
    """[N] 0 in first attempts, 1 in second ones."""
    numbers = [k for rollout in rollouts for k in range(len(rollout.attempts))]
    return torch.tensor(numbers, dtype=torch.int64)[batch.segments]


def _add(logged: dict[str, list[float]], metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        logged.setdefault(name, []).append(value)
