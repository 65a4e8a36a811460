"""Held-out evaluation: one pass over tasks that training does not see, and no judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import gymnasium
import numpy as np

from reagent_env.agents.refine import speaks_of_critique
from reagent_env.agents.summary import Rate, Summary, summarise
from reagent_env.env import ToolUseEnv
from reagent_env.trainers.collector import episode_seed
from reagent_env.trainers.engines.base import Engine, Sampling
from reagent_env.trainers.players import Job, LocalPlayers, Players
from reagent_env.trainers.rendering import Renderer
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
    players: Players | None = None,
    source: int = 0,
    split: str | None = None,
    max_turns: int | None = None,
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
        players: Who plays; by default ``concurrency`` threads around ``engine``.
        source: Index of the environment among the run's, for ``players``.
        split: Its split, for ``players``.
        max_turns: The turn limit; by default the environment's own.
    """
    with closing(make_env()) as first:
        inner = first.unwrapped
        assert isinstance(inner, ToolUseEnv)
        tasks = inner.tasks
    order = np.random.default_rng((seed, 4)).permutation(len(tasks))[:episodes]
    jobs = [
        Job(
            _GROUP,
            number,
            source,
            tasks[int(index)],
            episode_seed(seed, _GROUP, number),
            sampling,
            max_turns=max_turns,
            split=split,
        )
        for number, index in enumerate(order)
    ]
    if players is not None:
        played = _played(jobs, players, retries, on_episode)
    else:
        with closing(
            LocalPlayers(lambda job: make_env(), engine, renderer, concurrency, "held-out")
        ) as threads:
            try:
                played = _played(jobs, threads, retries, on_episode)
            except BaseException:
                threads.stop()
                raise
    settled = [one for one in played if one.infrastructure_error is None]
    talk = [speaks_of_critique(one.attempts[0]) for one in settled if one.attempts]
    return HeldOut(summarise(played), sum(talk) / max(1, len(talk)), tuple(played))


def _played(
    jobs: Sequence[Job], players: Players, retries: int, on_episode: Callable[[], None]
) -> list[Trajectory]:
    """The trajectories of ``jobs``, in order; those that infrastructure spoiled are played again."""
    found: dict[int, Trajectory] = {}
    left = list(range(len(jobs)))
    for again in range(retries + 1):
        players.announce(len(left))
        futures = [(number, players.play(jobs[number])) for number in left]
        left = []
        for number, future in futures:
            found[number] = future.result().trajectory
            if found[number].infrastructure_error is not None and again < retries:
                left.append(number)
            else:
                on_episode()
    return [found[number] for number in range(len(jobs))]
