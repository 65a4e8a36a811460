"""Runs an agent over tasks, several episodes at once, and keeps every trajectory.

Resumable: episodes already in the folder's ``trajectories.jsonl`` are not run again. What the
numbers come to is ``summary.py``'s.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager
from pathlib import Path

import gymnasium
import numpy as np

from reagent_env.agents.agent import Agent
from reagent_env.agents.chat import ContextOverflow
from reagent_env.agents.workers import Stopped, Workers
from reagent_env.env import ToolUseEnv
from reagent_env.errors import INFRASTRUCTURE_ERRORS
from reagent_env.trajectory import StopReason, Trajectory
from reagent_env.trajectory_file import TrajectoryWriter, settled_trajectories

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
    masked episodes are tried again when the evaluation is resumed.

    Ctrl-C (``KeyboardInterrupt``) ends it within about a second: what is finished is kept, episodes
    under way are given up at their next turn, and nobody waits for a server that does not answer.

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
        for trajectory in (settled_trajectories(path) if path.exists() else ())
        if trajectory.infrastructure_error is None
    }
    with (
        _workers(make_env, make_agent, concurrency) as (env, workers),
        TrajectoryWriter(path) as writer,
    ):
        tasks = env.tasks
        order = np.random.default_rng(seed).permutation(len(tasks))[:episodes]
        chosen = [tasks[int(index)] for index in order]
        done = [finished[task.id] for task in chosen if task.id in finished]
        for trajectory in done:
            on_episode(trajectory)
        waiting = [task for task in chosen if task.id not in finished]
        left = iter(range(len(waiting)))
        tries = [0] * len(waiting)
        running: dict[Future[Trajectory], int] = {}

        def start(position: int) -> None:
            running[workers.play(waiting[position])] = position

        def keep(trajectory: Trajectory) -> None:
            writer.write(trajectory)
            done.append(trajectory)
            on_episode(trajectory)

        try:
            for position in itertools.islice(left, concurrency):
                start(position)
            while running:
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    position = running.pop(future)
                    trajectory = future.result()
                    tries[position] += 1
                    if trajectory.infrastructure_error is not None and tries[position] <= retries:
                        start(position)
                        continue
                    keep(trajectory)
                    for following in itertools.islice(left, 1):
                        start(following)
        except BaseException:
            workers.stop()
            for future in running:  # what ended in the meantime is worth keeping
                if future.done() and future.exception() is None:
                    trajectory = future.result()
                    if trajectory.infrastructure_error is None:
                        keep(trajectory)
            raise
    return done


def run_episode(
    env: gymnasium.Env[str, str],
    agent: Agent,
    task: object,
    stopping: threading.Event | None = None,
) -> Trajectory:
    """Play one episode on ``task`` to its end and return its record.

    Raises:
        Stopped: ``stopping`` was set before the episode ended.
    """
    inner = env.unwrapped
    assert isinstance(inner, ToolUseEnv)
    observation, info = env.reset(options={"task": task})
    agent.begin(info)
    stopped: StopReason | None = None
    failure: str | None = None
    over = False
    while not over:
        if stopping is not None and stopping.is_set():
            raise Stopped
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


@contextmanager
def _workers(
    make_env: MakeEnv, make_agent: Callable[[], Agent], concurrency: int
) -> Iterator[tuple[ToolUseEnv, Workers[object, Trajectory]]]:
    """Threads with an environment and an agent each, the sandboxes set aside for them, and one
    environment more to ask about the tasks."""

    @contextmanager
    def seat(stopping: threading.Event) -> Iterator[Callable[[object], Trajectory]]:
        with closing(make_env()) as env:
            agent = make_agent()
            yield lambda task: run_episode(env, agent, task, stopping)

    with closing(make_env()) as first:
        env = first.unwrapped
        assert isinstance(env, ToolUseEnv)
        pool = env.sandbox_pool
        if pool is not None:
            pool.reserve(concurrency)
        try:
            with closing(Workers[object, Trajectory](seat, concurrency)) as workers:
                yield env, workers
        finally:
            if pool is not None:
                pool.unreserve(concurrency)
