"""The byte stream between the host and a sandbox's first process, whatever made that process."""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """A two-way byte stream to one sandbox, and the means to end that sandbox at once.

    ``deadline`` is a reading of ``time.monotonic()``.
    """

    def send(self, payload: bytes, deadline: float) -> None:
        """Send all of ``payload``.

        Raises ``TimeoutError`` past the deadline and ``OSError`` when the far side is gone.
        """

    def receive(self, deadline: float) -> bytes:
        """Return some bytes (at most 64 KiB), ``b""`` at end of file.

        Raises ``TimeoutError`` past the deadline.
        """

    def kill(self) -> None:
        """End the far side and everything in it now. Idempotent; never blocks for long."""

    def close(self) -> None:
        """Free the stream after :meth:`kill`. Idempotent."""
