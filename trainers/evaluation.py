"""Held-out evaluation: one pass over tasks that training does not see, and no judge."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import gymnasium
import numpy as np

from reagent_env.agents.refine import speaks_of_critique
from reagent_env.agents.summary import Rate, Summary, summarise
from reagent_env.agents.workers import Workers
from reagent_env.env import ToolUseEnv
from reagent_env.task import Task
from reagent_env.trainers.collector import episode_seed
from reagent_env.trainers.engines.base import Engine, Sampling
from reagent_env.trainers.lockstep import Lockstep
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.rollout import rollout
from reagent_env.trajectory import Trajectory

_GROUP = 1 << 40
"""Seeds of evaluations: far from those of training groups."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What an evaluation came to, e.g. ``HeldOut(summarise(played), 0.0, played)``."""

    summary: Summary
    """Success with its interval, masked episodes, turns, stop reasons."""
    critique_talk: float
    """Share of episodes that speak of feedback or of an earlier attempt, of which there is none."""
    trajectories: tuple[Trajectory, ...]
    """In the order of the tasks."""

    @property
    def success(self) -> Rate:
        """Mean outcome over the episodes that were not masked."""
        return self.summary.outcome


def evaluate_policy(
    make_env: Callable[[], gymnasium.Env[str, str]],
    engine: Engine,
    renderer: Renderer,
    sampling: Sampling,
    *,
    episodes: int,
    seed: int,
    concurrency: int,
    retries: int = 2,
    on_episode: Callable[[], None] = lambda: None,
) -> HeldOut:
    """Act once in each of ``episodes`` different tasks, always the same ones for a seed.

    Args:
        make_env: Makes an environment for a worker, without any reward wrapper.
        engine: Samples.
        renderer: Of the policy.
        sampling: How tokens are drawn.
        episodes: Tasks; all there are, where there are fewer.
        seed: Draws tasks and tokens.
        concurrency: Episodes at once.
        retries: Further tries of an episode that infrastructure spoiled.
        on_episode: Called as each ends.
    """

    @contextmanager
    def seat(stopping: threading.Event) -> Iterator[Callable[[tuple[int, Task]], Trajectory]]:
        with closing(make_env()) as env:

            def play(job: tuple[int, Task]) -> Trajectory:
                number, task = job
                with lockstep.seat() as seated:
                    for _ in range(retries + 1):
                        done = rollout(
                            env,
                            seated,
                            renderer,
                            task,
                            sampling,
                            seed=episode_seed(seed, _GROUP, number),
                            stopping=stopping,
                        )
                        if done.trajectory.infrastructure_error is None:
                            break
                return done.trajectory

            yield play

    with closing(make_env()) as first:
        inner = first.unwrapped
        assert isinstance(inner, ToolUseEnv)
        tasks = inner.tasks
    order = np.random.default_rng((seed, 4)).permutation(len(tasks))[:episodes]
    played: list[Trajectory] = []
    lockstep = Lockstep(engine, concurrency)
    lockstep.announce(len(order))
    with closing(Workers[tuple[int, Task], Trajectory](seat, concurrency, "held-out")) as workers:
        try:
            futures = [
                workers.play((number, tasks[int(index)])) for number, index in enumerate(order)
            ]
            for future in futures:
                played.append(future.result())
                on_episode()
        except BaseException:
            workers.stop()
            raise
    settled = [one for one in played if one.infrastructure_error is None]
    talk = [speaks_of_critique(one.attempts[0]) for one in settled if one.attempts]
    return HeldOut(summarise(played), sum(talk) / max(1, len(talk)), tuple(played))
