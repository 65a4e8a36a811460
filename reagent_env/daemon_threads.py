"""Threads that can be given up on: reused while they answer, never waited for at exit.

Not an executor of the standard library: those join their threads at exit, where one hung tool
would hang the program, and a fixed number of them would let hung tools use up the rest.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

MAX_IDLE = 128
"""Threads kept waiting for work."""


class Pending:
    """What a thread is going to answer; whoever waits no longer may drop it.

    One lock instead of the condition of a ``concurrent.futures.Future``: whoever waits wakes once,
    not twice, which is a third of what a short call costs.
    """

    __slots__ = ("_answer", "_error", "_running")

    def __init__(self) -> None:
        self._running = threading.Lock()
        self._running.acquire()  # until the answer is there
        self._answer: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """True once there is an answer or an error."""
        return not self._running.locked()

    def result(self, timeout: float | None = None) -> Any:
        """The answer, waited for ``timeout`` seconds at most.

        Raises:
            TimeoutError: it is not there yet.
            BaseException: what the work raised.
        """
        if not self._running.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError
        self._running.release()  # for the next who asks
        try:
            if self._error is not None:
                raise self._error
            return self._answer
        finally:
            del self  # an error's traceback holds this frame: no cycle

    def cancel(self) -> bool:
        """False: a thread cannot be stopped, its answer goes nowhere."""
        return False

    def settle(self, answer: Any, error: BaseException | None) -> None:
        """The thread's: here it is."""
        self._answer, self._error = answer, error
        self._running.release()


Job = tuple[Callable[[], Any], Pending]
_idle: list[SimpleQueue[Job]] = []


def run_in_thread(work: Callable[[], Any]) -> Pending:
    """Run ``work`` in a daemon thread now."""
    pending = Pending()
    try:
        _idle.pop().put((work, pending))
    except IndexError:
        jobs: SimpleQueue[Job] = SimpleQueue()
        jobs.put((work, pending))
        threading.Thread(target=_serve, args=(jobs,), name="tool call", daemon=True).start()
    return pending


def _serve(jobs: SimpleQueue[Job]) -> None:
    while True:
        work, pending = jobs.get()
        answer, error = None, None
        try:
            answer = work()
        except BaseException as raised:  # carried to whoever waits
            error = raised
        stays = len(_idle) < MAX_IDLE
        if stays:  # before settling, so that the next call finds this thread
            _idle.append(jobs)
        pending.settle(answer, error)
        if not stays:
            return
        del work, pending, answer, error


# Threads do not survive a fork: a forked worker starts its own.
os.register_at_fork(after_in_child=_idle.clear)
