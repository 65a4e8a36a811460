"""A ``GRPOTrainer`` whose loss sees turns and attempts, where TRL's own sees one number a rollout.

TRL's loss takes advantages of shape [B, T] from a subclass; this is that subclass. The advantages are
those of our own trainer (``reagent_env.trainers.advantages``), by name. Rollouts that infrastructure
spoiled are left out of every mean and have no token in the loss. Not here: the rollouts themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reagent_env.plugins.trl_record import Played
from reagent_env.trainers.advantages import (
    AdvantageSettings,
    Estimator,
    RunningStd,
    check_settings,
    estimate_advantages,
    get_estimator,
)

try:
    import torch
    from accelerate.utils import gather_object
    from torch import Tensor
    from trl import GRPOTrainer
except ImportError as error:
    raise ImportError(
        "TRL's trainer needs TRL: pip install 'reagent-env[trl,train]' (TRL 1.16 or later)."
    ) from error


class TurnCreditGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """``GRPOTrainer`` with an advantage a turn; everything else is TRL's.

    Example::

        play = make_rollout_func("reagent/MiniMix-v0", judge="rubric", attempts=2)
        TurnCreditGRPOTrainer(model, estimator="turn", rollout_func=play,
                              reward_funcs=play.reward_funcs, train_dataset=play.dataset(512), …)

    ``reward_funcs`` are still called and logged, but the estimator replaces what TRL makes of them
    (``scale_rewards``, ``reward_weights`` and ``multi_objective_aggregation`` do nothing here). Works
    with ``environment_factory`` as well: then a turn is a completion, however many calls it makes.
    """

    def __init__(
        self,
        *args: Any,
        estimator: str | Estimator = "turn",
        settings: AdvantageSettings | None = None,
        **kwargs: Any,
    ) -> None:
        """As ``GRPOTrainer``, and:

        Args:
            *args: Of ``GRPOTrainer``.
            estimator: ``turn``, ``turn_myopic``, ``per_stage``, ``pooled``, ``grpo``, ``rloo``, …, or an
                ``Estimator`` of your own.
            settings: λ, floor and so on; λ by default that of the rollouts.
            **kwargs: Of ``GRPOTrainer``.

        Raises:
            ValueError: no such estimator, one that needs a value head, a setting it cannot honour, or
                TRL's fused loss, which takes one advantage a rollout.
        """
        chosen = get_estimator(estimator) if isinstance(estimator, str) else estimator
        if chosen.needs_values:
            raise ValueError(f"{chosen.name!r} needs a value head, which GRPOTrainer has not.")
        if settings is not None:
            check_settings(chosen, settings)
        self._estimator = chosen
        self._settings = settings
        self._running_std = RunningStd()
        self._generations = 0
        super().__init__(*args, **kwargs)
        if getattr(self.args, "use_liger_kernel", False):
            raise ValueError("use_liger_kernel's loss takes one advantage a rollout; turn it off.")

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        """Tell the environments which completion their next calls belong to."""
        for environment in self.environments or ():
            environment._generation = self._generations
        self._generations += 1
        return super()._generate_single_turn(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch, with advantages of shape [B, T] and masked rollouts out of the loss."""
        self._generations = 0
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        mask = batch.get("tool_mask", torch.ones_like(batch["completion_mask"]))
        mask = mask * batch["completion_mask"]
        local = self._rollouts(inputs, mask)
        training = self.model.training
        size = self.num_generations if training else self.num_generations_eval
        everyone = list(gather_object(local))
        advantages = self._advantages(everyone, size, update=training)
        begin = self.accelerator.process_index * len(local)
        rows = advantages[begin : begin + len(local)]
        batch["advantages"], trained = spread(rows, local, mask)
        batch["tool_mask"] = mask * trained
        batch["num_items_in_batch"] = self.accelerator.gather(batch["tool_mask"].sum()).sum()
        return batch

    def _rollouts(self, inputs: Sequence[dict[str, Any]], mask: Tensor) -> list[Played]:
        """What was played, each with the turn of every token of its completion."""
        if inputs and "played" in inputs[0]:
            return [one["played"] for one in inputs]
        if not self.environments:
            raise ValueError(
                "TurnCreditGRPOTrainer learns from make_environment_factory() or make_rollout_func(); "
                "it was given neither, so there are no turns to credit."
            )
        found = []
        for environment, row in zip(self.environments, mask.tolist(), strict=True):
            turn_of = runs(row)
            played = environment._played(max(turn_of) + 1)
            found.append(replace(played, turn_of=tuple(turn_of)))
        return found

    def _advantages(
        self, rollouts: Sequence[Played], size: int, *, update: bool
    ) -> list[list[float] | None]:
        """[rollouts][turns], None for masked ones."""
        groups = [rollouts[at : at + size] for at in range(0, len(rollouts), size)]
        kept = [[one for one in group if not one.masked] for group in groups]
        settings = self._settings or AdvantageSettings(weight=rollouts[0].weight)
        estimated = estimate_advantages(
            self._estimator,
            [[one.attempts for one in group] for group in kept],
            settings,
            self._running_std,
        )
        if update:
            self._running_std = estimated.running
        found: list[list[float] | None] = []
        for group, values in zip(groups, estimated.advantages, strict=True):
            left = iter(values)
            for one in group:
                if one.masked:
                    found.append(None)
                else:
                    found.append([value for attempt in next(left) for value in attempt])
        return found


def runs(mask: Sequence[float]) -> list[int]:
    """For each token, which run of trained tokens it is in, −1 outside: a run is a completion.

    Example: ``runs([1, 1, 0, 1]) == [0, 0, -1, 1]``.
    """
    found: list[int] = []
    number, before = -1, 0.0
    for value in mask:
        if value and not before:
            number += 1
        found.append(number if value else -1)
        before = value
    return found


def spread(
    rows: Sequence[Sequence[float] | None], rollouts: Sequence[Played], mask: Tensor
) -> tuple[Tensor, Tensor]:
    """[B, T] each token's advantage, its turn's, and [B, T] 1 where a turn of the episode wrote it.

    Nothing of a masked rollout is trained, nor what was written after an episode's end.
    """
    advantages = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    trained = torch.zeros_like(mask)
    for row, (values, one) in enumerate(zip(rows, rollouts, strict=True)):
        if values is None:
            continue
        for column, turn in enumerate((one.turn_of or ())[: mask.shape[1]]):
            if 0 <= turn < len(values):
                advantages[row, column] = values[turn]
                trained[row, column] = 1
    return advantages, trained
