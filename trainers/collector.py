"""Keeps groups of rollouts in flight and hands over those that are complete.

A group is G rollouts of one task. While an update waits for its groups, some more are under way, so
that one slow tool or judge holds up nobody; they go on during the update and count in the next.
Under ``deterministic`` an update's own groups are waited for, in order, and no others begun.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

import gymnasium
import numpy as np

from reagent_env.task import Task
from reagent_env.trainers.engines.base import Engine, Sampling
from reagent_env.trainers.players import Job, LocalPlayers, Players
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.sample import Group, Rollout

POLL_SECONDS = 0.5
"""How often a wait for rollouts looks whether the run is being stopped."""


@dataclass(frozen=True, slots=True)
class Source:
    """One environment of the run."""

    env_id: str
    """Its id."""
    make: Callable[[], gymnasium.Env[str, str]]
    """Makes one for a worker, rewards included."""
    tasks: Sequence[Task]
    """Its training tasks."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which task a group is about: a pure function of the run's seed and the group's number."""

    source: int
    """Index of the environment."""
    task: int
    """Index of its task."""


def assignment(seed: int, group: int, sources: Sequence[tuple[float, int]]) -> Assignment:
    """The task of a group: the environment by weight, its tasks in a new random order every pass.

    Args:
        seed: The run's.
        group: Number of the group in the run.
        sources: (weight, number of tasks) of each environment.
    """
    weights = np.array([weight for weight, _ in sources], dtype=float)
    chosen = int(
        np.random.default_rng((seed, group, 1)).choice(len(sources), p=weights / weights.sum())
    )
    count = sources[chosen][1]
    order = np.random.default_rng((seed, group // count, chosen, 2)).permutation(count)
    return Assignment(chosen, int(order[group % count]))


def episode_seed(seed: int, group: int, member: int) -> int:
    """The seed of one rollout: of its environment and of its tokens."""
    return int(np.random.SeedSequence((seed, group, member)).generate_state(1)[0])


@dataclass(slots=True)
class _Open:
    """A group under way."""

    begun: int
    """The update at which it began."""
    rollouts: dict[int, Rollout] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class CollectorCounts:
    """What collecting has cost beside what was used, e.g. ``CollectorCounts(retried=3)``."""

    retried: int = 0
    """Episodes run again after infrastructure failed."""
    masked: int = 0
    """Rollouts left out since it failed every time."""
    stale: int = 0
    """Groups dropped since their tokens came from too old weights."""
    wasted_tokens: int = 0
    """Sampled tokens that no update will see."""


class Collector:
    """Has episodes played, in threads or by the players it is given, and returns groups of rollouts.

    Example::

        with closing(Collector(...)) as collector:
            groups = collector.collect(update=0)
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        engine: Engine,
        renderer: Renderer,
        sampling: Sampling,
        *,
        seed: int,
        groups: int,
        group_size: int,
        spare_groups: int = 2,
        concurrency: int = 64,
        retries: int = 2,
        max_staleness: int = 1,
        turns_at: Callable[[int], int | None] = lambda update: None,
        unfinished: Sequence[int] = (),
        next_group: int = 0,
        players: Players | None = None,
    ) -> None:
        """Start the threads, unless others play; nothing runs before :meth:`collect`.

        Args:
            sources: Environments.
            weights: Their shares of the groups.
            engine: Samples.
            renderer: Of the policy's chat template.
            sampling: How tokens are drawn.
            seed: The run's.
            groups: Groups that :meth:`collect` returns.
            group_size: G.
            spare_groups: Groups in flight beyond those; 0 makes the order fixed.
            concurrency: Episodes at once.
            retries: Further tries of an episode that infrastructure spoiled.
            max_staleness: A group begun more updates ago is dropped and its task run again.
            turns_at: From an update to its turn limit, or None for the environment's own.
            unfinished: Groups that an interrupted run had begun.
            next_group: The first group that no run has begun.
            players: Who plays the episodes; by default ``concurrency`` threads around ``engine``.
        """
        self.counts = CollectorCounts()
        self.next_group = next_group
        self._again = sorted(unfinished)
        self._sources = list(sources)
        self._weighted = [
            (weight, len(source.tasks)) for weight, source in zip(weights, sources, strict=True)
        ]
        self._sampling = sampling
        self._seed = seed
        self._groups = groups
        self._group_size = group_size
        self._spare = spare_groups
        self._retries = retries
        self._max_staleness = max_staleness
        self._turns_at = turns_at
        self._open: dict[int, _Open] = {}
        self._complete: list[tuple[int, Group]] = []
        """(update at which it began, group), in the order of completion."""
        self._running: dict[Future[Rollout], Job] = {}
        self._players = players or LocalPlayers(
            lambda job: self._sources[job.source].make(), engine, renderer, concurrency
        )

    @property
    def unfinished(self) -> list[int]:
        """Groups begun and not handed over yet: where a run that ends here would begin again."""
        complete = [group.index for _, group in self._complete]
        return sorted([*self._open, *complete, *self._again])

    def collect(
        self,
        update: int,
        on_rollout: Callable[[Rollout], None] = lambda rollout: None,
        *,
        count: int | None = None,
    ) -> list[Group]:
        """Groups for ``update``, complete, in order of their numbers.

        Args:
            update: Which is to be made.
            on_rollout: Called with each that ends.
            count: How many; by default as many as an update has.

        Raises:
            Exception: what a worker raised that is no infrastructure failure: a bug, said as it is.
        """
        count = self._groups if count is None else count
        while True:
            self._drop_stale(update)
            if len(self._complete) >= count:
                break
            wanted = count + self._spare
            missing = max(0, wanted - len(self._complete) - len(self._open))
            self._players.announce(missing * self._group_size)
            for _ in range(missing):
                self._begin(update)
            ended, _ = wait(self._running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in ended:
                self._take(future, on_rollout)
        handed = [self._complete.pop(0)[1] for _ in range(count)]
        return sorted(handed, key=lambda group: group.index)

    def close(self) -> None:
        """Give up what is running. Twice is fine."""
        self._players.stop()

    def _begin(self, update: int) -> None:
        if self._again:
            index = self._again.pop(0)
        else:
            index, self.next_group = self.next_group, self.next_group + 1
        self._open[index] = _Open(update)
        for member in range(self._group_size):
            job = self._job(index, member, update)
            self._running[self._players.play(job)] = job

    def _job(self, group: int, member: int, update: int) -> Job:
        chosen = assignment(self._seed, group, self._weighted)
        task = self._sources[chosen.source].tasks[chosen.task]
        seed = episode_seed(self._seed, group, member)
        return Job(group, member, chosen.source, task, seed, self._sampling, self._turns_at(update))

    def _take(self, future: Future[Rollout], on_rollout: Callable[[Rollout], None]) -> None:
        """Count one rollout, and its group where that is complete now."""
        job = self._running.pop(future)
        finished = future.result()
        group = self._open[job.group]
        tries = group.tries[job.member] = group.tries.get(job.member, 0) + 1
        if finished.trajectory.infrastructure_error is not None and tries <= self._retries:
            self.counts.retried += 1
            self.counts.wasted_tokens += _sampled_tokens(finished)
            self._players.announce(1)
            self._running[self._players.play(job)] = job
            return
        if finished.masked:
            self.counts.masked += 1
            self.counts.wasted_tokens += _sampled_tokens(finished)
        group.rollouts[job.member] = finished
        on_rollout(finished)
        if len(group.rollouts) == self._group_size:
            del self._open[job.group]
            rollouts = tuple(group.rollouts[member] for member in range(self._group_size))
            self._complete.append((group.begun, Group(job.group, rollouts)))

    def _drop_stale(self, update: int) -> None:
        """Groups whose tokens come from too old weights run again."""
        for begun, group in list(self._complete):
            if update - begun > self._max_staleness:
                self._complete.remove((begun, group))
                self._again.append(group.index)
                self.counts.stale += 1
                self.counts.wasted_tokens += sum(map(_sampled_tokens, group.rollouts))


def _sampled_tokens(rollout: Rollout) -> int:
    return sum(turn >= 0 for sample in rollout.samples for turn in sample.turn_of)
