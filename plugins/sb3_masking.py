"""SB3's buffers and reward normaliser, without the episodes that infrastructure spoiled.

A failed machine pays NaN (``docs/environments.md``), which would reach every weight. These classes
go where SB3 lets one name a class: ``PPO(..., rollout_buffer_class=MaskedRolloutBuffer)``,
``MaskablePPO(..., rollout_buffer_class=MaskedMaskableRolloutBuffer)``,
``DQN(..., replay_buffer_class=MaskedReplayBuffer)``, and :class:`MaskedVecNormalize`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reagent_env.errors import InfrastructureError

try:
    from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
    from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
    from stable_baselines3.common.vec_env import VecNormalize
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "Stable-Baselines3 is not installed: pip install 'reagent-env[sb3]'."
    ) from error


def spoiled_steps(
    rewards: NDArray[np.float32], episode_starts: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """True for every step of an episode that pays NaN, as far as it lies in the rollout.

    Args:
        rewards: ``[steps, envs]``.
        episode_starts: ``[steps, envs]``, 1 where a step is its episode's first.
    """
    spoiled = np.zeros(rewards.shape, np.bool_)
    for step, env in np.argwhere(np.isnan(rewards)):
        first = step
        while first > 0 and not episode_starts[first, env]:
            first -= 1
        spoiled[first : step + 1, env] = True
    return spoiled


class _Masked:
    """What both rollout buffers add to theirs."""

    spoiled: NDArray[np.bool_]
    """``[steps, envs]`` True where the last rollout's steps are left out."""

    def compute_returns_and_advantage(self, last_values: Any, dones: NDArray[Any]) -> None:
        """Mark spoiled episodes, then go on as before; none of their steps reaches another's return."""
        buffer: Any = self
        self.spoiled = spoiled_steps(buffer.rewards, buffer.episode_starts)
        buffer.rewards[np.isnan(buffer.rewards)] = 0.0  # these steps are not sampled; see get()
        super().compute_returns_and_advantage(last_values, dones)  # type: ignore[misc]

    def get(self, batch_size: int | None = None) -> Iterator[Any]:
        """Minibatches of the steps that count.

        Raises:
            InfrastructureError: none does: the whole rollout is spoiled.
        """
        buffer: Any = self
        # As swap_and_flatten does: all steps of the first environment, then the second's.
        kept = np.flatnonzero(~self.spoiled.swapaxes(0, 1).reshape(-1))
        if not kept.size:
            raise InfrastructureError(
                "Every episode of this rollout was spoiled by failing infrastructure; see "
                "info['infrastructure_error'], and `reagent doctor` for what is wrong here."
            )
        next(super().get())  # type: ignore[misc]  # its first batch flattens the arrays
        order = np.random.permutation(kept)
        width = batch_size or kept.size
        for start in range(0, kept.size, width):
            yield buffer._get_samples(order[start : start + width])


class MaskedRolloutBuffer(_Masked, RolloutBuffer):  # type: ignore[misc]
    """For ``PPO`` and ``A2C``."""


class MaskedMaskableRolloutBuffer(_Masked, MaskableRolloutBuffer):  # type: ignore[misc]
    """For ``MaskablePPO``."""


class MaskedReplayBuffer(ReplayBuffer):
    """For ``DQN``: a transition that pays NaN is not kept; the steps before it are true and stay."""

    def add(self, *transition: Any, **named: Any) -> None:
        """Add one transition an environment, unless it is spoiled.

        With several environments the spoiled row repeats that environment's row before, so that
        the others' are kept.
        """
        reward = np.asarray(named.get("reward", transition[3] if len(transition) > 3 else 0.0))
        lost = np.flatnonzero(np.isnan(reward))
        if lost.size == reward.size:
            return
        super().add(*transition, **named)
        if lost.size:
            at, before = (self.pos - 1) % self.buffer_size, (self.pos - 2) % self.buffer_size
            source = before if self.full or self.pos > 1 else at
            good = int(np.flatnonzero(~np.isnan(reward))[0])
            for rows in (
                self.observations,
                self.next_observations,
                self.actions,
                self.rewards,
                self.dones,
                self.timeouts,
            ):
                for env in lost:
                    rows[at, env] = rows[source, env] if source != at else rows[at, good]


class MaskedVecNormalize(VecNormalize):
    """``VecNormalize`` whose running statistics no NaN reaches."""

    def _update_reward(self, reward: NDArray[Any]) -> None:
        super()._update_reward(np.nan_to_num(reward))
