"""What a Ray worker is: a process with an engine and environments of its own, that plays whole episodes.

Not here: which worker plays what, and what happens when one is lost (``ray_players.py``). Plain
Python: Ray makes an actor of it, and a test can do without.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable
from contextlib import ExitStack
from typing import Any

import gymnasium
import torch

from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.engines.base import EngineFailed
from reagent_env.trainers.engines.vllm import VLLMEngine
from reagent_env.trainers.parts import plain_env, training_parts
from reagent_env.trainers.players import Job, LocalPlayers
from reagent_env.trainers.policies.policy import Policy
from reagent_env.trainers.sample import Rollout

Weights = dict[str, torch.Tensor] | str
"""The trained weights by name (of a policy with adapters, the adapters alone), or what a vLLM server
calls those that it has been given."""


def trained_weights(policy: Policy) -> dict[str, torch.Tensor]:
    """What an update changes, copied to the CPU, as workers take it up."""
    return {
        name: one.detach().to("cpu", copy=True)
        for name, one in policy.model.named_parameters()
        if one.requires_grad
    }


def in_a_worker(config: TrainConfig) -> TrainConfig:
    """The run's configuration as one worker has it: no Ray of its own, as many threads as CPUs."""
    threads = config.threads or config.ray_cpus
    return dataclasses.replace(
        config, ray="", ray_workers=0, ray_cpus=1, ray_gpus=0.0, threads=threads
    )


class RolloutWorker:
    """Plays episodes; its weights are those that the newest job, or the learner, has sent.

    Every job brings the version that it wants and where its weights are, so a worker that died and
    was started again is right with its first job, whatever it missed.
    """

    def __init__(self, shared: tuple[TrainConfig, Policy]) -> None:
        """Make engine, judge and environments; the weights are the policy's until others come.

        Args:
            shared: The run's configuration, and a copy of its policy: on the GPU from here on, where
                this process was given one.

        Raises:
            ValueError, SandboxUnavailable, gymnasium.error.Error: as for a run without Ray.
        """
        config, policy = shared
        if torch.cuda.is_available():
            torch.nn.Module.to(policy.model, "cuda")
        self._policy = policy
        self._config = in_a_worker(config)
        self._open = ExitStack()
        self._parts = self._open.enter_context(training_parts(self._config, policy))
        self._version = -1
        self._loading = asyncio.Lock()
        self._players = self._new_players()

    async def seats(self) -> int:
        """Episodes at once that this worker has room for; answers once it is there at all."""
        return self._parts.concurrency

    async def play(self, job: Job, version: int, weights: list[Awaitable[Weights]]) -> Rollout:
        """Play an episode with weights of ``version`` at least.

        Args:
            job: What to play.
            version: Of the learner's weights when the job was sent.
            weights: Where they are, in a list: Ray leaves those alone until they are asked for.
        """
        await self.load(version, weights)
        return await asyncio.wrap_future(self._players.play(job))

    async def load(self, version: int, weights: list[Awaitable[Weights]]) -> None:
        """Sample from weights of ``version`` from now on, unless there are newer ones."""
        async with self._loading:
            if version <= self._version:
                return
            try:
                found = await weights[0]
            except Exception as error:  # Ray lost them: the episode can be played elsewhere
                raise EngineFailed(f"No weights of version {version}: {error}") from error
            await asyncio.to_thread(self._take_up, version, found)
            self._version = version

    async def hold(self) -> None:
        """Before the learner pushes weights to a server: ask it nothing until the next :meth:`load`."""
        if isinstance(self._parts.engine, VLLMEngine):
            await asyncio.to_thread(self._parts.engine.hold)

    async def give_up(self) -> None:
        """Give up the episodes that run; later ones are played as ever."""
        given_up, self._players = self._players, self._new_players()  # before any later job comes
        await asyncio.to_thread(given_up.stop)

    async def close(self) -> None:
        """End episodes, environments and engine."""
        await asyncio.to_thread(self._players.stop)
        await asyncio.to_thread(self._open.close)

    def _take_up(self, version: int, weights: Weights) -> None:
        engine = self._parts.engine
        if isinstance(weights, str):
            assert isinstance(engine, VLLMEngine)
            engine.follow(version, weights)
            return
        engine.pause()
        with torch.no_grad():
            for name, parameter in self._policy.model.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])
        engine.resume(version)

    def _new_players(self) -> LocalPlayers:
        parts = self._parts
        return LocalPlayers(self._make_env, parts.engine, parts.renderer, parts.concurrency)

    def _make_env(self, job: Job) -> gymnasium.Env[str, str]:
        source: Any = self._parts.sources[job.source]
        if job.split is None:
            made: gymnasium.Env[str, str] = source.make()
            return made
        return plain_env(self._config, source.env_id, job.split, self._parts.tool_format)
