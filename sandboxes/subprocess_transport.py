"""A transport to a child process of this one, over one socket that is its stdin and stdout."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence


class SubprocessTransport:
    """Starts ``argv`` in a process group of its own and talks to it.

    Not for programs that write much to standard error: what it wrote is read once, at the
    end, into ``last_words``.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        user: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._errors, errors_end = os.pipe()
        os.set_blocking(self._errors, False)
        self._closed = False
        self.last_words = ""
        identity = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        try:
            self.process = subprocess.Popen(
                argv,
                stdin=theirs,
                stdout=theirs,
                stderr=errors_end,
                env=dict(env),
                cwd="/",
                start_new_session=True,
                pass_fds=pass_fds,
                **identity,  # type: ignore[call-overload]
            )
        except BaseException:
            self._socket.close()
            os.close(self._errors)
            raise
        finally:
            theirs.close()
            os.close(errors_end)

    def send(self, payload: bytes, deadline: float) -> None:
        """Send all of ``payload``; ``TimeoutError`` past the deadline, ``OSError`` when it is gone."""
        view = memoryview(payload)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)

    def receive(self, deadline: float) -> bytes:
        """Return some bytes, ``b""`` at end of file; looks at least once however late it is."""
        while True:
            try:
                return self._socket.recv(65536)
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
            except ConnectionResetError:
                return b""

    def _wait(self, event: int, deadline: float) -> None:
        left = deadline - time.monotonic()
        poll = select.poll()
        poll.register(self._socket, event)
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError("past the deadline")

    def kill(self) -> None:
        """End the process and its group now."""
        if self._closed:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self.process.kill()

    def close(self) -> None:
        """Reap the process and free the descriptors."""
        if self._closed:
            return
        self.kill()
        self._closed = True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        with contextlib.suppress(OSError):
            self.last_words = os.read(self._errors, 8192).decode("utf-8", "replace").strip()
        self._socket.close()
        os.close(self._errors)
