"""What all generated task sets share: content splits, held-out phrasings, stable random numbers.

Not here: any task. Nothing depends on the hash seed, the process or the order of access.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from reagent_env.task import SPLITS

HELD_OUT_SHARE = 0.5
"""Share of test tasks that are asked in the held-out phrasing, which training never shows."""


def stable_random(*key: object) -> random.Random:
    """A random generator that depends on nothing but the key, e.g. ``stable_random("gcd", 2, 17)``."""
    return random.Random("\x1f".join(map(str, key)))


def content_split(content: str | bytes) -> str:
    """The split that a content belongs to: 80 / 10 / 10 by SHA-256, whatever its phrasing.

    Give it what makes the task (the numbers, the table, the facts asked for), not the wording, so
    that one problem in two phrasings never stands in two splits. A generator keeps drawing until
    the content falls into the split wanted, and writes it into ``metadata["split"]``.
    """
    blob = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    bucket = int.from_bytes(hashlib.sha256(b"content\0" + blob).digest()[:4], "big") % 10
    return SPLITS[0] if bucket < 8 else SPLITS[bucket - 7]


def choose_phrasing(
    random_: random.Random, phrasings: Sequence[str], split: str
) -> tuple[int, str]:
    """The index and text of a phrasing: the last one is held out for the test split.

    Test tasks take the held-out phrasing with probability :data:`HELD_OUT_SHARE`, else a known one.

    Raises:
        ValueError: for fewer than four phrasings, or an unknown split.
    """
    if len(phrasings) < 4:
        raise ValueError(f"A kind needs at least four phrasings, got {len(phrasings)}.")
    check_split(split)
    held_out = len(phrasings) - 1
    index = random_.randrange(held_out)
    if split == "test" and random_.random() < HELD_OUT_SHARE:
        index = held_out
    return index, phrasings[index]


def check_split(split: str | None) -> None:
    """Raise ``ValueError`` unless ``split`` is a known split or None (all of them)."""
    if split is not None and split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; known: {', '.join(SPLITS)}, or None for all.")
