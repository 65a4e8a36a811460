"""Who plays the episodes of a run: jobs in, futures of rollouts out.

Here are this process's threads; ``ray_players.py`` has the workers of a Ray cluster. Not here: one
episode (``rollout.py``), which episodes (``collector.py``, ``evaluation.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium

from reagent_env.agents.workers import Workers
from reagent_env.env import ToolUseEnv
from reagent_env.task import Task
from reagent_env.trainers.engines.base import Engine, Sampling
from reagent_env.trainers.lockstep import Lockstep
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.rollout import rollout
from reagent_env.trainers.sample import Rollout


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to play, whoever plays it: ``Job(0, 0, 0, task, seed=7, sampling=Sampling())``."""

    group: int
    """Its group's number in the run."""
    member: int
    """0 … G − 1 within the group."""
    source: int
    """Index of the run's environment."""
    task: Task
    """What the episode is about."""
    seed: int
    """Of the environment and of the tokens."""
    sampling: Sampling
    """How tokens are drawn."""
    max_turns: int | None = None
    """The turn limit, where a schedule sets one."""
    split: str | None = None
    """For an evaluation: the plain environment on this split. None: the training one, with rewards."""


class Players(Protocol):
    """Plays jobs, many at once; safe to call from one thread at a time."""

    def announce(self, episodes: int) -> None:
        """So many jobs are about to come; only a lock-step engine cares."""
        ...

    def play(self, job: Job) -> Future[Rollout]:
        """Play an episode. The future raises what is a bug; failed infrastructure masks the rollout."""
        ...

    def stop(self) -> None:
        """Give up what is under way. Twice is fine."""
        ...


class LocalPlayers:
    """Threads of this process, each with environments of its own, around one engine.

    Example::

        players = LocalPlayers(lambda job: make_env(), engine, renderer, seats=8)
        rollout = players.play(job).result()
    """

    def __init__(
        self,
        make_env: Callable[[Job], gymnasium.Env[str, str]],
        engine: Engine,
        renderer: Renderer,
        seats: int,
        name: str = "rollout",
    ) -> None:
        """Start the threads.

        Args:
            make_env: Makes a thread's environment at its first job of that source and split.
            engine: Samples.
            renderer: Of the policy's chat template.
            seats: Episodes at once.
            name: Of the threads.
        """
        self.seats = seats
        self._make_env = make_env
        self._renderer = renderer
        self._lockstep = Lockstep(engine, seats)
        self._workers: Workers[Job, Rollout] = Workers(self._seat, seats, name)

    def announce(self, episodes: int) -> None:
        """So many jobs are about to come."""
        self._lockstep.announce(episodes)

    def play(self, job: Job) -> Future[Rollout]:
        """Play an episode as soon as a thread is free."""
        return self._workers.play(job)

    def stop(self) -> None:
        """Give up what is under way; the futures raise ``Stopped``. Twice is fine."""
        self._workers.stop()

    def close(self) -> None:
        """Wait for the threads and close their environments, unless :meth:`stop` gave them up."""
        self._workers.close()

    @contextmanager
    def _seat(self, stopping: threading.Event) -> Iterator[Callable[[Job], Rollout]]:
        """A thread's own environments, each made when first needed."""
        envs: dict[tuple[int, str | None], gymnasium.Env[str, str]] = {}

        def play(job: Job) -> Rollout:
            with self._lockstep.seat() as engine:
                key = (job.source, job.split)
                if key not in envs:
                    envs[key] = self._make_env(job)
                env = envs[key]
                if job.max_turns is not None:
                    inner: Any = env.unwrapped
                    assert isinstance(inner, ToolUseEnv)
                    inner.max_turns = job.max_turns
                return rollout(
                    env,
                    engine,
                    self._renderer,
                    job.task,
                    job.sampling,
                    seed=job.seed,
                    group=job.group,
                    member=job.member,
                    stopping=stopping,
                )

        try:
            yield play
        finally:
            for env in envs.values():
                env.close()
