"""Requests and replies over a transport: framing, nonces, deadlines, the host's watchdog, caps.

Everything that comes back is untrusted: a frame out of turn, too large or malformed ends the
sandbox. Not here: what the requests mean (``zygote_sandbox.py``) or how bytes travel.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import json
import os
import secrets
import struct
import time
from collections.abc import Mapping
from typing import Any

from reagent_env.sandboxes.errors import SandboxLost
from reagent_env.sandboxes.transport import Transport

WATCHDOG_S = 1.5
"""Seconds past an execution's own deadline after which the host ends the sandbox."""
SEND_S = 10.0
"""Seconds within which a request must be taken."""
REPLY_CAP = 8 << 20
"""Bytes of the largest reply."""

BOOT = """\
import os,sys
def take(n):
    b=b''
    while len(b)<n:
        c=os.read(0,n-len(b))
        if not c:os._exit(0)
        b+=c
    return b
exec(compile(take(int.from_bytes(take(4),'big')),'<boot>','exec'),{'__name__':'__boot__'})
"""
"""Program of ``python3 -I -c BOOT CONFIG``: reads a length and the zygote's source, and runs it."""

SHIPPED = ("seccomp", "frames", "capture", "wipe", "session", "zygote")
"""Modules of this package that run inside, each after those that it imports."""

_LOADER = """\
import sys, types
for name in ("reagent_env", "reagent_env.sandboxes"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
for name, source in {sources!r}:
    module = types.ModuleType("reagent_env.sandboxes." + name)
    sys.modules[module.__name__] = module
    setattr(sys.modules["reagent_env.sandboxes"], name, module)
    exec(compile(source, "<" + name + ">", "exec"), module.__dict__)
module.main(sys.argv)
"""


@functools.cache
def zygote_source() -> bytes:
    """Return the program that a sandbox's first process runs, as :data:`BOOT` expects it."""
    here = importlib.resources.files("reagent_env.sandboxes")
    sources = [(name, (here / f"{name}.py").read_text(encoding="utf-8")) for name in SHIPPED]
    body = _LOADER.format(sources=sources).encode()
    return struct.pack(">I", len(body)) + body


class RequestRefused(Exception):
    """The sandbox is fine but refuses a request; ``kind`` is ``path``, ``missing`` or ``space``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Channel:
    """One sandbox's conversation: a request, then its reply, in turn.

    Example::

        channel = Channel(transport)
        channel.boot()
        channel.request("ping", seconds=2.0)
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._inbox = bytearray()
        self._count = 0
        self._lost: str | None = None
        self.died = False
        """The far side went away by itself: its stream ended, and not by :meth:`end`."""
        self._owner = os.getpid()

    @property
    def foreign(self) -> bool:
        """True in a forked copy of the process that made it: there, neither use nor end it."""
        return os.getpid() != self._owner

    @property
    def lost(self) -> str | None:
        """Why the sandbox is gone, or None while it is usable."""
        return self._lost

    def boot(self, seconds: float = SEND_S) -> None:
        """Send the zygote's source."""
        self._send(zygote_source(), time.monotonic() + seconds)

    def request(
        self, op: str, fields: Mapping[str, Any] | None = None, *, seconds: float
    ) -> dict[str, Any]:
        """Send one request and return its reply's fields.

        Args:
            op: One of the zygote's operations.
            fields: What goes with it, JSON-encodable.
            seconds: The host's watchdog: without a reply by then the sandbox is ended.

        Raises:
            RequestRefused: The zygote says the request cannot be carried out.
            SandboxLost: Anything else that is not a proper reply.
        """
        if self.foreign:
            raise SandboxLost(
                f"The sandbox belongs to process {self._owner}, this is {os.getpid()}; "
                "make sandboxes after forking, not before."
            )
        if self._lost is not None:
            raise SandboxLost(f"The sandbox is gone: {self._lost}.")
        self._drain()
        self._count += 1
        nonce = secrets.token_hex(16)
        frame = {**(fields or {}), "op": op, "id": self._count, "nonce": nonce}
        body = json.dumps(frame).encode("ascii")
        deadline = time.monotonic() + seconds
        self._send(struct.pack(">I", len(body)) + body, max(deadline, time.monotonic() + SEND_S))
        reply = self._receive(deadline, op, seconds)
        if reply.get("error") == "broken":
            raise self.end(f"it ended itself, {reply.get('message')}")
        if reply.get("id") != self._count or reply.get("nonce") != nonce:
            raise self.end("a reply did not belong to its request")
        if self._inbox:
            raise self.end("it sent more than one reply")
        if reply.get("ok") is True:
            return reply
        raise RequestRefused(str(reply.get("error")), str(reply.get("message")))

    def end(self, reason: str) -> SandboxLost:
        """Kill the far side for ``reason``; returns the exception to raise."""
        if self._lost is None:
            self._lost = reason
        self._transport.kill()
        return SandboxLost(f"The sandbox was lost: {reason}.")

    def close(self) -> None:
        """End the far side and free the stream; idempotent."""
        if self._lost is None:
            self._lost = "it was closed"
        self._transport.kill()
        self._transport.close()

    def hang_up(self) -> None:
        """Ask the zygote to end by itself; silent when it is gone."""
        body = b'{"op": "shutdown", "id": 0, "nonce": ""}'
        with contextlib.suppress(OSError):
            self._transport.send(struct.pack(">I", len(body)) + body, time.monotonic() + 0.2)

    def _send(self, payload: bytes, deadline: float) -> None:
        try:
            self._transport.send(payload, deadline)
        except TimeoutError:
            raise self.end("it does not take requests") from None
        except OSError as error:
            self.died = True
            raise self.end(f"it is not there any more ({error})") from error

    def _drain(self) -> None:
        """A frame before any request was made by nobody we asked."""
        if self._inbox:
            raise self.end("it spoke out of turn")
        try:
            data = self._transport.receive(time.monotonic())
        except TimeoutError:
            return
        except OSError as error:
            self.died = True
            raise self.end(f"it is not there any more ({error})") from error
        if not data:
            self.died = True
            raise self.end("it is not there any more")
        raise self.end("it spoke out of turn")

    def _receive(self, deadline: float, op: str, seconds: float) -> dict[str, Any]:
        size: int | None = None
        while True:
            if size is None and len(self._inbox) >= 4:
                (size,) = struct.unpack_from(">I", self._inbox)
                if size > REPLY_CAP:
                    raise self.end(f"a reply of {size} bytes, over the cap of {REPLY_CAP}")
            if size is not None and len(self._inbox) >= 4 + size:
                body = bytes(self._inbox[4 : 4 + size])
                del self._inbox[: 4 + size]
                break
            try:
                data = self._transport.receive(deadline)
            except TimeoutError:
                raise self.end(f"no answer to {op!r} within {seconds:.1f} s") from None
            except OSError as error:
                self.died = True
                raise self.end(f"it died during {op!r} ({error})") from error
            if not data:
                self.died = True
                raise self.end(f"it died during {op!r}")
            self._inbox += data
        try:
            reply = json.loads(body)
        except (ValueError, RecursionError):
            raise self.end("a reply that is not JSON") from None
        if not isinstance(reply, dict):
            raise self.end("a reply that is not an object")
        return reply
