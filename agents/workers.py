"""Threads that play episodes: jobs in, futures out; each thread keeps what it plays with.

The threads are daemons: one that waits for a server that never answers holds up nobody's exit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

STOP_SECONDS = 0.5
"""How long :meth:`Workers.stop` waits for its threads to notice."""


class Stopped(Exception):
    """The work is ending; this job was given up and leaves no record."""


class Workers(Generic[Job, Result]):
    """Plays jobs in ``count`` threads.

    Example::

        @contextmanager
        def seat(stopping):                    # entered by each thread at its first job
            with closing(make_env()) as env:
                yield lambda task: play(env, task, stopping)

        workers = Workers(seat, count=8)
        trajectory = workers.play(task).result()
    """

    def __init__(
        self,
        seat: Callable[[threading.Event], AbstractContextManager[Callable[[Job], Result]]],
        count: int,
        name: str = "episode",
    ) -> None:
        """Start the threads.

        Args:
            seat: Makes what a thread plays with; it is given the event that says the work is ending,
                and yields the function that plays one job.
            count: Threads.
            name: Of the threads.
        """
        self.stopping = threading.Event()
        self._seat = seat
        self._jobs: SimpleQueue[tuple[Job, Future[Result]] | None] = SimpleQueue()
        self._ended = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def play(self, job: Job) -> Future[Result]:
        """Play ``job`` as soon as a thread is free. The future raises :class:`Stopped` after :meth:`stop`."""
        future: Future[Result] = Future()
        self._jobs.put((job, future))
        return future

    def stop(self) -> None:
        """Give up the jobs that run; wait a moment for those that notice, for no other."""
        self.stopping.set()
        self._end(time.monotonic() + STOP_SECONDS)

    def close(self) -> None:
        """Wait for the threads, unless :meth:`stop` gave them up. Twice is fine."""
        if not self.stopping.is_set():
            self._end(None)

    def _end(self, deadline: float | None) -> None:
        if not self._ended:
            self._ended = True
            for _ in self._threads:
                self._jobs.put(None)
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        entered: AbstractContextManager[Callable[[Job], Result]] | None = None
        play: Callable[[Job], Result] | None = None
        try:
            while (given := self._jobs.get()) is not None:
                job, future = given
                try:
                    if self.stopping.is_set():
                        raise Stopped
                    if play is None:
                        entered = self._seat(self.stopping)
                        play = entered.__enter__()
                    future.set_result(play(job))
                except BaseException as error:  # raised where the future is asked
                    future.set_exception(error)
                del given, job, future
        finally:
            if entered is not None and play is not None:
                entered.__exit__(None, None, None)
