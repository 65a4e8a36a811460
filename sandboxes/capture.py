"""What an execution printed, kept within a cap, and as text however odd its bytes.

Runs inside the sandbox (Python ≥ 3.9, standard library only; shipped with ``zygote.py``).
"""

from __future__ import annotations

import codecs


def _decode_error(error: UnicodeError) -> tuple[str, int]:
    """Keep lone surrogates that UTF-8 forbids; replace every other bad byte."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    three = error.object[error.start : error.start + 3]
    if len(three) == 3 and three[0] == 0xED and 0xA0 <= three[1] <= 0xBF and three[2] >> 6 == 2:
        return three.decode("utf-8", "surrogatepass"), error.start + 3
    return "\ufffd", error.start + 1


codecs.register_error("keep-surrogates", _decode_error)


class Capture:
    """What an execution printed: head and tail within ``cap`` bytes, the middle only counted."""

    def __init__(self, cap: int) -> None:
        self.half = max(cap // 2, 1)
        self.head = bytearray()
        self.tail = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        """Take in printed bytes."""
        self.total += len(data)
        room = self.half - len(self.head)
        if room > 0:
            self.head += data[:room]
            data = data[room:]
        if data:
            self.tail += data
            if len(self.tail) > 4 * self.half:
                del self.tail[: -self.half]

    def text(self) -> tuple[str, int]:
        """Return the text and the number of bytes left out of it."""
        head, tail = bytes(self.head), bytes(self.tail[-self.half :])
        omitted = self.total - len(head) - len(tail)
        if not omitted:
            return (head + tail).decode("utf-8", "keep-surrogates"), 0
        # Not to cut characters in two at the seam.
        cut = len(head)
        while cut and cut > len(head) - 4 and head[cut - 1] & 0xC0 == 0x80:
            cut -= 1
        if cut and head[cut - 1] >= 0xC0:
            lead = head[cut - 1]
            width = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            cut = cut - 1 if cut - 1 + width > len(head) else len(head)
        else:
            cut = len(head)
        start = 0
        while start < min(3, len(tail)) and tail[start] & 0xC0 == 0x80:
            start += 1
        omitted += len(head) - cut + start
        parts = (head[:cut], tail[start:])
        first, last = (part.decode("utf-8", "keep-surrogates") for part in parts)
        return f"{first}\n[... {omitted} bytes omitted ...]\n{last}", omitted


def shorten(text: str, cap: int) -> str:
    """Return ``text``, or its head and tail with a mark between when it is over ``cap``."""
    if len(text) <= cap:
        return text
    half = max(cap // 2, 1)
    return f"{text[:half]}[... {len(text) - 2 * half} characters omitted ...]{text[-half:]}"
