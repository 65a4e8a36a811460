"""Stops asking a server that keeps failing, and lets one request through now and then to see.

::

    closed ──k failures in a row──> open ──cooldown──> half open ──success──> closed
                                     ^                      └──────failure──────┘

Not here: what a failure is (``chat_call.py``). Used from one event loop, so without a lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class CircuitBreaker:
    """Admits requests while their server is thought to work.

    Example::

        if breaker.admit():
            ...  # ask, then exactly one of:
            breaker.succeeded() or breaker.failed("HTTP 503") or breaker.abandoned()
    """

    def __init__(
        self,
        failures: int = 8,
        cooldown_s: float = 10.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if failures < 1 or cooldown_s < 0:
            raise ValueError(
                f"A breaker needs failures >= 1 and cooldown_s >= 0, got {failures}, {cooldown_s}."
            )
        self.failures = failures
        self.cooldown_s = cooldown_s
        self.last_failure = ""
        """The latest failure's words."""
        self.times_opened = 0
        """How often it opened."""
        self._clock = clock
        self._in_a_row = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether requests are turned away, but for a probe."""
        return self._opened_at is not None

    def admit(self) -> bool:
        """Whether this request may go out; after the cooldown, one at a time may."""
        if self._opened_at is None:
            return True
        if self._probing or self._clock() - self._opened_at < self.cooldown_s:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """The server answered, whatever it said."""
        self._in_a_row = 0
        self._opened_at = None
        self._probing = False

    def failed(self, why: str) -> None:
        """The server did not answer as servers do."""
        self.last_failure = why
        self._in_a_row += 1
        if self._probing or (self._opened_at is None and self._in_a_row >= self.failures):
            self.times_opened += self._opened_at is None
            self._opened_at = self._clock()
        self._probing = False

    def abandoned(self) -> None:
        """The request was given up before anything was learned of the server."""
        self._probing = False
