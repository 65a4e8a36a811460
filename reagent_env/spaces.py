"""A space of all texts. ``gymnasium.spaces.Text`` limits length and characters, which model text does not."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space

_ALPHABETS = (
    (0x20, 0x7F),
    (0x00, 0x20),
    (0xA0, 0x500),
    (0x4E00, 0x5000),
    (0xDC00, 0xE000),
    (0x1F600, 0x1F640),
)
"""Ranges sampled from: ASCII, control characters, letters, Han, lone (low) surrogates, emoji."""


class AnyText(Space[str]):
    """Any Python string: any length, any character, NUL and lone surrogates included.

    Works with ``SyncVectorEnv`` and ``AsyncVectorEnv(shared_memory=False)``.
    """

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(shape=None, dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """False: text has no fixed size."""
        return False

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """A random text of up to 64 characters, awkward ones among them.

        Raises:
            ValueError: a mask or probabilities were given; all texts are alike here.
        """
        if mask is not None or probability is not None:
            raise ValueError("AnyText takes neither a mask nor probabilities.")
        length = int(self.np_random.integers(0, 65))
        characters = []
        for _ in range(length):
            low, high = _ALPHABETS[int(self.np_random.integers(len(_ALPHABETS)))]
            characters.append(chr(int(self.np_random.integers(low, high))))
        return "".join(characters)

    def contains(self, x: Any) -> bool:
        """True for any string."""
        return isinstance(x, str)

    def to_jsonable(self, sample_n: Any) -> list[str]:
        """The texts themselves; JSON escapes what is awkward."""
        return list(sample_n)

    def from_jsonable(self, sample_n: list[Any]) -> list[str]:
        """The texts themselves."""
        return [str(sample) for sample in sample_n]

    def __repr__(self) -> str:
        return "AnyText()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText)

    def __hash__(self) -> int:
        return hash(AnyText)
