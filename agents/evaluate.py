"""Runs an agent over tasks, several episodes at once, and keeps every trajectory.

Resumable: episodes already in the folder's ``trajectories.jsonl`` are not run again. What the
numbers come to is ``summary.py``'s.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import gymnasium
import numpy as np

from reagent_env.agents.agent import Agent
from reagent_env.agents.chat import ContextOverflow
from reagent_env.env import ToolUseEnv
from reagent_env.errors import INFRASTRUCTURE_ERRORS
from reagent_env.trajectory import StopReason, Trajectory
from reagent_env.trajectory_file import TrajectoryWriter, read_trajectories

MakeEnv = Callable[[], gymnasium.Env[str, str]]


def evaluate(
    make_env: MakeEnv,
    make_agent: Callable[[], Agent],
    episodes: int,
    *,
    out: Path,
    concurrency: int = 4,
    seed: int = 0,
    retries: int = 2,
    on_episode: Callable[[Trajectory], None] = lambda trajectory: None,
) -> list[Trajectory]:
    """Run ``episodes`` different tasks, drawn by ``seed``, and return their trajectories.

    An episode that infrastructure spoils is run again up to ``retries`` times, then kept as masked;
    masked episodes are tried again when the evaluation is resumed. Ctrl-C leaves what is finished.

    Args:
        make_env: Makes one environment a worker.
        make_agent: Makes one agent a worker.
        episodes: How many tasks; all there are if there are fewer.
        out: Folder of ``trajectories.jsonl``.
        concurrency: Episodes at once.
        seed: Draws the tasks, without repetition.
        retries: Further tries of an episode that infrastructure spoiled.
        on_episode: Called with each trajectory as it ends, from the calling thread.

    Raises:
        SandboxUnavailable: there can never be enough sandboxes for ``concurrency`` episodes.
    """
    path = out / "trajectories.jsonl"
    finished = {
        trajectory.task.id: trajectory
        for trajectory in (read_trajectories(path) if path.exists() else ())
        if trajectory.infrastructure_error is None
    }
    with _workers(make_env, make_agent, concurrency) as workers, TrajectoryWriter(path) as writer:
        tasks = workers.env.tasks
        order = np.random.default_rng(seed).permutation(len(tasks))[:episodes]
        chosen = [tasks[int(index)] for index in order]
        done = [finished[task.id] for task in chosen if task.id in finished]
        for trajectory in done:
            on_episode(trajectory)
        waiting = [task for task in chosen if task.id not in finished]

        def run(task_position: int) -> Trajectory:
            return workers.run(lambda env, agent: run_episode(env, agent, waiting[task_position]))

        left = iter(range(len(waiting)))
        tries = [0] * len(waiting)
        running: dict[Future[Trajectory], int] = {}
        for position in _first(left, concurrency):
            running[workers.threads.submit(run, position)] = position
        while running:
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                position = running.pop(future)
                trajectory = future.result()
                tries[position] += 1
                if trajectory.infrastructure_error is not None and tries[position] <= retries:
                    running[workers.threads.submit(run, position)] = position
                    continue
                writer.write(trajectory)
                done.append(trajectory)
                on_episode(trajectory)
                for following in _first(left, 1):
                    running[workers.threads.submit(run, following)] = following
    return done


def run_episode(env: gymnasium.Env[str, str], agent: Agent, task: object) -> Trajectory:
    """Play one episode on ``task`` to its end and return its record."""
    inner = env.unwrapped
    assert isinstance(inner, ToolUseEnv)
    observation, info = env.reset(options={"task": task})
    agent.begin(info)
    stopped: StopReason | None = None
    failure: str | None = None
    over = False
    while not over:
        try:
            completion = agent.act(observation, info)
        except ContextOverflow:
            stopped = StopReason.CONTEXT_LENGTH
            break
        except INFRASTRUCTURE_ERRORS as error:
            stopped = StopReason.INFRASTRUCTURE_FAILURE
            failure = f"{type(error).__name__}: {error}"
            break
        observation, _, terminated, truncated, info = env.step(completion)
        over = terminated or truncated
        if not over and info.get("attempt_ended") and "messages" in info:
            agent.begin(info)  # an independent attempt: nothing is carried over
    trajectory = dataclasses.replace(inner.trajectory, agent={"name": agent.name})
    if stopped is None:
        return trajectory
    attempt = dataclasses.replace(
        trajectory.attempts[-1],
        stop_reason=str(stopped),
        outcome=0.0 if failure is None else None,
    )
    return dataclasses.replace(
        trajectory,
        attempts=(*trajectory.attempts[:-1], attempt),
        infrastructure_error=failure,
    )


class _Workers:
    """Environments and agents, one pair a thread, and the sandboxes set aside for them."""

    def __init__(
        self, make_env: MakeEnv, make_agent: Callable[[], Agent], concurrency: int
    ) -> None:
        self.threads = ThreadPoolExecutor(concurrency, thread_name_prefix="episode")
        self._make_env = make_env
        self._make_agent = make_agent
        self._here = threading.local()
        self._lock = threading.Lock()
        self._envs: list[gymnasium.Env[str, str]] = []
        first = make_env()
        self._envs.append(first)
        assert isinstance(first.unwrapped, ToolUseEnv)
        self.env: ToolUseEnv = first.unwrapped
        self._pool = self.env.sandbox_pool
        self._reserved = concurrency
        if self._pool is not None:
            self._pool.reserve(concurrency)

    def run(self, play: Callable[[gymnasium.Env[str, str], Agent], Trajectory]) -> Trajectory:
        """Play with this thread's own environment and agent."""
        if not hasattr(self._here, "pair"):
            env = self._make_env()
            with self._lock:
                self._envs.append(env)
            self._here.pair = (env, self._make_agent())
        env, agent = self._here.pair
        return play(env, agent)

    def close(self) -> None:
        """Wait for the running episodes, close the environments, give the sandboxes back."""
        self.threads.shutdown(wait=True, cancel_futures=True)
        for env in self._envs:
            env.close()
        if self._pool is not None:
            self._pool.unreserve(self._reserved)


@contextmanager
def _workers(
    make_env: MakeEnv, make_agent: Callable[[], Agent], concurrency: int
) -> Iterator[_Workers]:
    workers = _Workers(make_env, make_agent, concurrency)
    try:
        yield workers
    finally:
        workers.close()


def _first(positions: Iterator[int], count: int) -> Sequence[int]:
    return list(itertools.islice(positions, count))
