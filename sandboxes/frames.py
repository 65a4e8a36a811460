"""Frames of the sandbox's own streams: a 4-byte big-endian length, then a JSON object.

Runs inside the sandbox (Python ≥ 3.9, standard library only; shipped with ``zygote.py``). The
host's end, which trusts nothing it reads, is ``channel.py``.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any

Json = dict[str, Any]
FRAME_CAP = 64 << 20
"""Bytes of the largest request."""


class Broken(Exception):
    """The sandbox can no longer be trusted or used; the host must replace it."""


def pack(frame: Json) -> bytes:
    """Return a frame's bytes; ASCII JSON, so NUL and lone surrogates survive."""
    body = json.dumps(frame).encode("ascii")
    return struct.pack(">I", len(body)) + body


def unpack(inbox: bytearray, cap: int) -> Json | None:
    """Take one whole frame off ``inbox``, or return None; :class:`Broken` when it is malformed."""
    if len(inbox) < 4:
        return None
    (size,) = struct.unpack_from(">I", inbox)
    if size > cap:
        raise Broken(f"a frame of {size} bytes, over the cap of {cap}")
    if len(inbox) < 4 + size:
        return None
    body = bytes(inbox[4 : 4 + size])
    del inbox[: 4 + size]
    try:
        frame = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Broken(f"a frame that is not JSON: {error}") from None
    if not isinstance(frame, dict):
        raise Broken("a frame that is not an object")
    return frame


def write_all(fd: int, content: bytes) -> None:
    """Write every byte."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
