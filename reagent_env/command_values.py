"""Values that a command line gives as words: ``--env-arg max_turns=6``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any


def pairs(words: Iterable[str], flag: str) -> dict[str, str]:
    """``["a=1", "b=x=y"]`` as ``{"a": "1", "b": "x=y"}``; the last of a name counts.

    Raises:
        ValueError: a word without ``=``, or without a name before it.
    """
    found = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ValueError(f"{flag} takes key=value, got {word!r}.")
        found[key.strip()] = text.strip()
    return found


def read_literal(text: str) -> Any:
    """A TOML value, or the text itself where it is none: ``"8"`` → 8, ``"compact"`` → ``"compact"``."""
    try:
        return tomllib.loads(f"it = {text}")["it"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text
