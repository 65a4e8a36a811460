"""Reads xbench's texts, which are published encrypted so that no crawler trains on them.

As published: UTF-8, XORed with the record's canary repeated, then base64. Not a secret: whoever has
the record has its key. :func:`encrypted` is the inverse, for making files of the same shape.
"""

from __future__ import annotations

import base64
import binascii
import itertools


def decrypted(text: str, canary: str) -> str:
    """The plain text of a field.

    Example: ``decrypted(encrypted("42", "key"), "key")`` is ``"42"``.

    Raises:
        ValueError: no base64, an empty canary, or bytes that are no UTF-8 under this canary.
    """
    try:
        blob = base64.b64decode(text, validate=True)
        return _xored(blob, canary).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{text[:40]!r} cannot be decrypted with its record's canary ({error}); download the "
            "data set anew, or give the records in plain text without a canary column."
        ) from error


def encrypted(text: str, canary: str) -> str:
    """A field as published."""
    return base64.b64encode(_xored(text.encode(), canary)).decode("ascii")


def _xored(blob: bytes, canary: str) -> bytes:
    key = canary.encode()
    if not key:
        raise ValueError("An empty canary encrypts nothing; the record is damaged.")
    return bytes(a ^ b for a, b in zip(blob, itertools.cycle(key), strict=False))
