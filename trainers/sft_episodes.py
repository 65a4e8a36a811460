"""Scripted episodes for the cold start, played in the real environment and kept as tokens.

Not here: the scripts (``demonstrations.py``), training on them (``sft.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import gymnasium
import numpy as np

from reagent_env.agents.expert import solver_of
from reagent_env.agents.workers import Workers
from reagent_env.env import ToolUseEnv
from reagent_env.task import Task
from reagent_env.trainers.demonstrations import ScriptedPolicy, demonstrate, knowledge_of
from reagent_env.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Script:
    """How an episode is played, e.g. ``Script(task, {"clean": 1.0}, seed=7)``."""

    task: Task
    quality: Mapping[str, float]
    """Strategy → probability."""
    seed: int


@dataclass(frozen=True, slots=True)
class ScriptedEpisode:
    """An episode and what its policy saw first."""

    trajectory: Trajectory
    messages: tuple[dict[str, str], ...]


def scripts(
    tasks: Sequence[Task],
    count: int,
    quality: Mapping[str, float],
    seed: int,
    *,
    by_level: bool = False,
) -> Iterator[Script]:
    """``count`` scripts over the tasks, a new random order every pass.

    Args:
        tasks: What is played.
        count: How many scripts.
        quality: Strategy → probability.
        seed: Of order and strategies.
        by_level: A task of level n comes n times a pass: what takes more calls needs more practice.
    """
    if by_level:
        tasks = [task for task in tasks for _ in range(max(1, int(task.metadata.get("level", 1))))]
    for number in range(count):
        order = np.random.default_rng((seed, number // len(tasks))).permutation(len(tasks))
        yield Script(tasks[int(order[number % len(tasks)])], quality, seed * 1_000_003 + number)


def play_scripts(
    make_env: Callable[[], gymnasium.Env[str, str]],
    wanted: Sequence[Script],
    *,
    env_id: str,
    threads: int = 8,
    on_episode: Callable[[], None] = lambda: None,
) -> list[ScriptedEpisode]:
    """Play every script; those that infrastructure spoiled are left out.

    Args:
        make_env: Makes an environment for a thread, with wrappers where second attempts are wanted.
        wanted: What to play.
        env_id: Whose solver plays.
        threads: Episodes at once.
        on_episode: Called after each.

    Raises:
        ValueError: the environment has no solver.
    """
    solver, knowledge = solver_of(env_id), knowledge_of(env_id)

    @contextmanager
    def seat(stopping: threading.Event) -> Iterator[Callable[[Script], ScriptedEpisode]]:
        with closing(make_env()) as env:
            inner = env.unwrapped
            assert isinstance(inner, ToolUseEnv)

            def play(script: Script) -> ScriptedEpisode:
                policy = ScriptedPolicy(
                    solver,
                    inner.tool_format,
                    quality=script.quality,
                    knowledge=knowledge,
                    seed=script.seed,
                )
                trajectory = demonstrate(env, policy, script.task, seed=script.seed)
                return ScriptedEpisode(trajectory, policy.messages)

            yield play

    played: list[ScriptedEpisode] = []
    with closing(Workers[Script, ScriptedEpisode](seat, threads, "script")) as workers:
        try:
            futures = [workers.play(script) for script in wanted]
            for future in futures:
                episode = future.result()
                if episode.trajectory.infrastructure_error is None:
                    played.append(episode)
                on_episode()
        except BaseException:
            workers.stop()
            raise
    return played
