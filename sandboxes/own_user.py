"""A user id that no other sandbox on this host uses, held while its owner lives."""

from __future__ import annotations

import contextlib
import secrets
import socket

from reagent_env.sandboxes.errors import SandboxUnavailable

FIRST, COUNT = 200_000, 100_000


class OwnUser:
    """Holds one id ≥ 200000; the kernel frees it when this process ends, however it ends.

    Example::

        user = OwnUser()
        user.uid        # 231337
        user.release()
    """

    def __init__(self) -> None:
        for _ in range(200):
            uid = FIRST + secrets.randbelow(COUNT)
            lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            with contextlib.suppress(OSError):
                lock.bind(f"\0reagent-sandbox-user-{uid}")
                self.uid = uid
                self._lock = lock
                return
            lock.close()
        raise SandboxUnavailable(
            f"No free user id among {FIRST}..{FIRST + COUNT}; close some sandboxes and try again."
        )

    def release(self) -> None:
        """Give the id back; idempotent."""
        self._lock.close()
