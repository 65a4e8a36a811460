"""Tells an engine that works in lock-step how many conversations are still to come.

Such an engine (``deterministic``) computes nothing before every open conversation has a request, so
that what is computed together does not depend on which thread was faster. It cannot know of the
episodes that no thread has begun; it is told here. For any other engine this does nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from reagent_env.trainers.engines.base import Conversation, Engine, Generation, Sampling


class Lockstep:
    """Keeps open and announced conversations together at min(seats, episodes left).

    Example::

        lockstep = Lockstep(engine, seats=8)
        lockstep.announce(len(jobs))           # before any thread starts
        with lockstep.seat() as engine:        # in the thread of an episode
            rollout(env, engine, …)
    """

    def __init__(self, engine: Engine, seats: int) -> None:
        """Know of no episode yet.

        Args:
            engine: In lock-step or not.
            seats: Threads, each of which plays an episode at a time.
        """
        self._engine = engine
        self._expect: Any = None
        if getattr(engine, "deterministic", False):
            self._expect = getattr(engine, "expect", None)
        self._seats = seats
        self._left = 0
        self._changing = threading.Lock()

    def announce(self, episodes: int) -> None:
        """So many episodes more will each take a seat."""
        if self._expect is None:
            return
        with self._changing:
            before, self._left = self._left, self._left + episodes
            if more := min(self._seats, self._left) - min(self._seats, before):
                self._expect(more)

    @contextmanager
    def seat(self) -> Iterator[Engine]:
        """The engine for one episode that was announced."""
        if self._expect is None:
            yield self._engine
            return
        seat = _Seat(self._engine, self._expect)
        try:
            yield seat
        finally:
            with self._changing:
                self._left -= 1
                seat.end(followed=self._left >= self._seats)


class _Seat:
    """An engine whose conversation closes only once the one that follows it is announced."""

    def __init__(self, engine: Engine, expect: Any) -> None:
        self.context_length = engine.context_length
        self._engine = engine
        self._expect = expect
        self._last: Conversation | None = None

    def open(self, seed: int) -> Conversation:
        """A further conversation takes the place of the last."""
        if self._last is not None:
            self._expect(1)
            self._last.close()
        self._last = self._engine.open(seed)
        return _Kept(self._last)

    def end(self, *, followed: bool) -> None:
        """Close the last conversation; ``followed`` if another episode takes the seat."""
        if self._last is None:
            if not followed:
                self._expect(-1)
            return
        if followed:
            self._expect(1)
        self._last.close()

    def pause(self) -> None:
        """As the engine."""
        self._engine.pause()

    def resume(self, version: int) -> None:
        """As the engine."""
        self._engine.resume(version)

    def close(self) -> None:
        """As the engine."""
        self._engine.close()


class _Kept:
    """A conversation that its seat closes."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    def generate(self, new_ids: Sequence[int], sampling: Sampling) -> Future[Generation]:
        """As the conversation."""
        return self._conversation.generate(new_ids, sampling)

    def close(self) -> None:
        """Leave it to the seat."""
