"""Threads that can be given up on: reused while they answer, never waited for at exit.

Not an executor of the standard library: those join their threads at exit, where one hung tool
would hang the program, and a fixed number of them would let hung tools use up the rest.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from queue import SimpleQueue
from typing import Any

MAX_IDLE = 128
"""Threads kept waiting for work."""

Job = tuple[Callable[[], Any], "Future[Any]"]
_idle: list[SimpleQueue[Job]] = []


def run_in_thread(work: Callable[[], Any]) -> Future[Any]:
    """Run ``work`` in a daemon thread now; whoever waits no longer may cancel or drop the future."""
    future: Future[Any] = Future()
    try:
        _idle.pop().put((work, future))
    except IndexError:
        jobs: SimpleQueue[Job] = SimpleQueue()
        jobs.put((work, future))
        threading.Thread(target=_serve, args=(jobs,), name="tool call", daemon=True).start()
    return future


def _serve(jobs: SimpleQueue[Job]) -> None:
    while True:
        work, future = jobs.get()
        settle: Callable[[Any], None]
        try:
            outcome = work()
        except BaseException as error:  # carried to whoever waits
            outcome, settle = error, future.set_exception
        else:
            settle = future.set_result
        stays = len(_idle) < MAX_IDLE
        if stays:  # before settling, so that the next call finds this thread
            _idle.append(jobs)
        with contextlib.suppress(InvalidStateError):  # given up on
            settle(outcome)
        if not stays:
            return
        del work, future, outcome, settle


# Threads do not survive a fork: a forked worker starts its own.
os.register_at_fork(after_in_child=_idle.clear)
