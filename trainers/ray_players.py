"""Episodes on a Ray cluster: each worker owns an engine and environments and plays whole episodes.

::

    learner ── ray.put(weights), version ──▶ worker: engine, sandboxes, judge   × N
       ▲                                         │
       └────────── rollouts, ids and versions ◀──┘

Whole episodes, since then nothing but a job and its rollout crosses the network, a worker's death
costs the episodes it was playing, and ``rollout()`` is the one that runs without Ray. Where actors
run, and that they are started again, is Ray's. Not here: what a worker does (``ray_worker.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

from reagent_env.errors import INFRASTRUCTURE_ERRORS, InfrastructureError
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.players import Job
from reagent_env.trainers.policies.policy import Policy
from reagent_env.trainers.sample import Rollout
from reagent_env.trajectory import Trajectory

START_SECONDS = 600.0
"""How long a worker may take until it can play, at first and after it died."""
CLOSE_SECONDS = 15.0
"""How long workers have to give their sandboxes back before they are killed."""
_LOG = logging.getLogger(__name__)
_COLOURS = re.compile("\x1b\\[[0-9;]*m")


class RayMissing(ImportError):
    """Ray is not installed; the message says how to."""


class RolloutWorkersGone(InfrastructureError):
    """No worker of the cluster can play; the message says what became of the last one."""


class _WorkerLost(Exception):
    """A worker died or cannot be reached."""


class RayPlayers:
    """The workers of a cluster as :class:`~reagent_env.trainers.players.Players`.

    Example::

        with ray_players(config, policy) as players:
            players.publish(0)
            rollout = players.play(job).result()

    A job goes to whichever worker has a seat free. A worker that dies masks the rollouts it was
    playing, with the reason in their trajectories, and gets no job until Ray has started it again;
    whoever gave the jobs may play them once more.
    """

    def __init__(self, config: TrainConfig, policy: Policy, workers: int) -> None:
        """Start the workers; ``ray.init`` comes before.

        Args:
            config: The run's: environment, judge, sandbox, what each worker takes.
            policy: Copied to each worker; later only :meth:`publish` sends its weights.
            workers: How many.

        Raises:
            RolloutWorkersGone: not one of them could be started.
        """
        import ray

        from reagent_env.trainers.ray_worker import RolloutWorker

        actor: Any = ray.remote(RolloutWorker).options(
            num_cpus=config.ray_cpus,
            num_gpus=config.ray_gpus or None,
            max_restarts=-1,
            max_concurrency=config.concurrency + 100,
            scheduling_strategy="SPREAD",
        )
        self._policy = policy
        self._sent: tuple[int, list[Any]] = (-1, [])
        # Kept for as long as the workers: Ray starts a dead one again with the same arguments.
        self._shared = ray.put((config, _on_cpu(policy)))
        self._workers = [actor.remote(self._shared) for _ in range(workers)]
        self._gone: list[str] = []
        self._broken: RolloutWorkersGone | None = None
        self._ready: Future[None] = Future()
        self._loop = asyncio.new_event_loop()
        self._jobs: asyncio.Queue[tuple[Job, Future[Rollout]]] = asyncio.Queue()
        self._thread = threading.Thread(target=self._run, name="ray-players", daemon=True)
        self._thread.start()
        try:
            self._ready.result()
        except BaseException:
            self.close()
            raise

    def announce(self, episodes: int) -> None:
        """Nothing to do: no worker's engine runs in lock-step."""

    def play(self, job: Job) -> Future[Rollout]:
        """Play an episode at the next seat that is free.

        The future raises :class:`RolloutWorkersGone` where there will be none.
        """
        future: Future[Rollout] = Future()
        self._soon(self._enqueue(job, future))
        return future

    def hold(self) -> None:
        """Before weights are pushed to a server that the workers ask: wait until none of them does."""
        import ray

        held = [worker.hold.remote() for worker in self._workers]
        ray.wait(held, num_returns=len(held), timeout=START_SECONDS)  # a dead one asks nothing

    def publish(self, version: int, served_as: str | None = None) -> None:
        """Have all workers sample from the policy's weights as they are now, called ``version``.

        Episodes under way go on with them in mid-episode, as in one process; each token says which
        version drew it. Returns once the weights are in Ray's store.

        Args:
            version: What to call them.
            served_as: What a server that has them already calls them; else they are sent.
        """
        import ray

        from reagent_env.trainers.ray_worker import trained_weights

        weights = trained_weights(self._policy) if served_as is None else served_as
        self._sent = (version, [ray.put(weights)])
        for worker in self._workers:
            worker.load.remote(*self._sent)  # a dead one takes them up with its next job

    def stop(self) -> None:
        """Give up what is under way and what waits. Twice is fine."""
        self._soon(self._drop_waiting())
        for worker in self._workers:
            worker.give_up.remote()

    def close(self) -> None:
        """End the workers: sandboxes first, then the processes. Twice is fine."""
        import ray

        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        closing = [worker.close.remote() for worker in self._workers]
        with contextlib.suppress(Exception):  # a dead one has nothing left to close
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        for worker in self._workers:
            with contextlib.suppress(Exception):
                ray.kill(worker, no_restart=True)

    # What follows runs in the players' own thread.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        tending = [self._loop.create_task(self._tend(worker)) for worker in self._workers]
        try:
            self._loop.run_forever()
        finally:
            for task in [*tending, *asyncio.all_tasks(self._loop)]:
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.run_until_complete(asyncio.gather(*tending, return_exceptions=True))
            self._loop.close()

    async def _tend(self, worker: Any) -> None:
        """Fill a worker's seats whenever it is there; note the end of one that will not be again."""
        try:
            while True:
                # Waits while Ray starts it, at first and again; a call like any other would fail.
                answer = worker.seats.options(max_task_retries=-1).remote()
                seats = await asyncio.wait_for(answer, START_SECONDS)
                if not self._ready.done():
                    self._ready.set_result(None)
                try:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(seats):
                            group.create_task(self._seat(worker))
                except* _WorkerLost:
                    pass
        except Exception as error:
            self._gone.append(_told(error))
            _LOG.warning("A Ray worker is gone for good: %s", self._gone[-1])
        if len(self._gone) == len(self._workers):
            self._broken = RolloutWorkersGone(
                f"All {len(self._workers)} Ray workers are gone, the last for this reason: "
                f"{self._gone[-1]}"
            )
            if not self._ready.done():
                self._ready.set_exception(self._broken)
            await self._drop_waiting()

    async def _seat(self, worker: Any) -> None:
        """One episode after another, until the worker is lost."""
        from ray.exceptions import RayError, RayTaskError

        while True:
            job, future = await self._jobs.get()
            try:
                future.set_result(await worker.play.remote(job, *self._sent))
            except INFRASTRUCTURE_ERRORS as error:  # raised in the worker: it lives
                future.set_result(_spoiled(job, _told(error)))
            except RayTaskError as error:
                future.set_exception(error)
            except RayError as error:
                future.set_result(_spoiled(job, f"its Ray worker was lost: {_told(error)}"))
                raise _WorkerLost from error
            except asyncio.CancelledError:  # a neighbour was the first to notice
                future.set_result(_spoiled(job, "its Ray worker was lost"))
                raise

    async def _enqueue(self, job: Job, future: Future[Rollout]) -> None:
        if self._broken is not None:
            future.set_exception(self._broken)
        else:
            self._jobs.put_nowait((job, future))

    async def _drop_waiting(self) -> None:
        while not self._jobs.empty():
            _, future = self._jobs.get_nowait()
            if self._broken is None:
                future.cancel()
            else:
                future.set_exception(self._broken)

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop)


@contextlib.contextmanager
def ray_players(config: TrainConfig, policy: Policy) -> Iterator[RayPlayers]:
    """The players of ``config.ray``: connects, or starts a Ray on this machine, and ends what it began.

    Args:
        config: ``ray`` is ``local``, ``auto`` (the cluster that this machine belongs to) or an address.
        policy: What is trained.

    Raises:
        RayMissing: no Ray.
        ConnectionError: no cluster answers there.
        RolloutWorkersGone: no worker could be started; says why.
    """
    try:
        import ray
    except ImportError as error:
        raise RayMissing(
            "--ray needs Ray, which is not installed: pip install 'reagent-env[ray]'."
        ) from error
    ours = not ray.is_initialized()
    if ours:
        settings: dict[str, Any] = {"address": config.ray}
        if config.ray == "local":
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_worker_niceness", "0")  # Ray would have them starve: 15
            wanted = max(1, config.ray_workers) * config.ray_cpus
            settings |= {
                "num_cpus": max(wanted, os.cpu_count() or 1),
                "include_dashboard": False,
            }
        ray.init(logging_level=logging.WARNING, log_to_driver=False, **settings)
    try:
        alive = sum(bool(node["Alive"]) for node in ray.nodes())
        players = RayPlayers(config, policy, config.ray_workers or alive)
        try:
            yield players
        finally:
            players.close()
    finally:
        if ours:
            ray.shutdown()


def _on_cpu(policy: Policy) -> Policy:
    """The policy as it can be sent to a process without its device."""
    import copy
    import dataclasses

    import torch

    if next(policy.model.parameters()).device.type == "cpu":
        return policy
    moved: Any = torch.nn.Module.to(copy.deepcopy(policy.model), "cpu")
    return dataclasses.replace(policy, model=moved)


def _spoiled(job: Job, why: str) -> Rollout:
    """The masked rollout of an episode that its worker took along."""
    trajectory = Trajectory(task=job.task, prompt="", seed=job.seed, infrastructure_error=why)
    return Rollout(job.group, job.member, (), (), trajectory)


def _told(error: BaseException) -> str:
    """An error on one line: Ray's own run over many."""
    if isinstance(error, TimeoutError):
        return (
            f"it was not there within {START_SECONDS:g} s; does the cluster have the CPUs, GPUs and "
            "memory that ray_workers, ray_cpus and ray_gpus ask for (`ray status`)?"
        )
    plain = _COLOURS.sub("", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return f"{type(error).__name__}: {' … '.join(lines[:1] + lines[-1:] if lines[1:] else lines)}"
