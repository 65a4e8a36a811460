"""One of a costly thing for a process: made when first asked for, closed at exit, not inherited.

A fork would share its parent's sockets, threads and child processes, and close them under it.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What has ``close()``."""

    def close(self) -> None:
        """Give back what it holds."""


T = TypeVar("T", bound=Closable)


class PerProcess(Generic[T]):
    """Call it for the process's own, e.g. ``shared_browser = PerProcess(Browser)``.

    A forked child leaves its parent's alone and makes its own. Threads may ask at once. Meant for a
    module's constants: a fork remembers each for as long as the process lives.

    Args:
        make: A function without arguments; what it raises reaches whoever asked, and the next one
            who asks tries again.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: T | None = None
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def __call__(self) -> T:
        """The process's own, made now if it is not there yet."""
        with self._lock:
            if self._made is None:
                self._made = made = self._make()
                atexit.register(made.close)
            return self._made

    def _forget(self) -> None:
        self._made = None
        self._lock = threading.Lock()
