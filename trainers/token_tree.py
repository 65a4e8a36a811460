"""Sequences that begin alike as one tree of tokens, in which what they share stands once.

Rollouts of a group share their prompt, those of a run its system prompt, two samples of an episode
often more. A causal model computes the same at every token of a common beginning, so one
computation serves all (``tree_attention.py``), and its gradient is the sum of theirs. Not here:
tensors (``layout.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

READ_SHARE = 8
"""A token that is read again as a key and value costs about 1/8 of one that is computed."""

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class TokenTree:
    """S sequences over N different tokens.

    Example: of ``[5, 6, 7]`` and ``[5, 6, 8, 9]`` it is
    ``TokenTree(ids=[5, 6, 7, 8, 9], positions=[0, 1, 2, 2, 3], paths=([0, 1, 2], [0, 1, 3, 4]),
    shared=(0, 2))``.
    """

    ids: list[int]
    """[N] token ids."""
    positions: list[int]
    """[N] of each, its place in the sequences it belongs to."""
    paths: tuple[NDArray[np.int64], ...]
    """[S] of each sequence, in the order given: where its tokens stand in ``ids``."""
    shared: tuple[int, ...]
    """[S] of each, how many tokens from its first on another one brought along."""


def token_tree(sequences: Sequence[Ids]) -> TokenTree:
    """The tree of ``sequences``, none of which is empty."""
    ids: list[int] = []
    positions: list[int] = []
    paths: list[NDArray[np.int64]] = [np.zeros(0, np.int64)] * len(sequences)
    shared = [0] * len(sequences)
    before = -1
    for index in alphabetically(sequences, range(len(sequences))):
        sequence = sequences[index]
        same = common(sequences[before], sequence) if before >= 0 else 0
        own = np.arange(len(ids), len(ids) + len(sequence) - same)
        paths[index] = np.concatenate([paths[before][:same], own]) if same else own
        shared[index] = same
        ids += sequence[same:]
        positions += range(same, len(sequence))
        before = index
    return TokenTree(ids, positions, tuple(paths), tuple(shared))


def alphabetically(sequences: Sequence[Ids], chosen: Iterable[int]) -> list[int]:
    """``chosen`` in the order in which each has the longest beginning in common with its neighbours."""
    return sorted(chosen, key=lambda index: (list(sequences[index]), index))


def common(one: Ids, other: Ids) -> int:
    """How many tokens both begin with: ``common([5, 6, 7], [5, 6, 8, 9]) == 2``."""
    least, most = 0, min(len(one), len(other))
    while least < most:  # halves, since comparing slices is faster than a loop over tokens
        middle = (least + most + 1) // 2
        if one[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


def tree_micro_batches(
    sequences: Sequence[Ids], chosen: Iterable[int], max_tokens: int
) -> Iterator[list[int]]:
    """Split ``chosen`` into lists whose trees are each about ``max_tokens`` of work.

    What begins alike stays together. A sequence costs the tokens that it does not share with the
    one before it, and a :data:`READ_SHARE` th of all that its attention reads; one that is over the
    bound goes alone.
    """
    batch: list[int] = []
    cost = 0.0
    for index in alphabetically(sequences, chosen):
        length = len(sequences[index])
        same = common(sequences[batch[-1]], sequences[index]) if batch else 0
        more = length - same + same / READ_SHARE
        if batch and cost + more > max_tokens:
            yield batch
            batch, cost, more = [], 0.0, float(length)
        batch.append(index)
        cost += more
    if batch:
        yield batch


def tree_shares(sequences: Sequence[Ids], chosen: Iterable[int], count: int) -> list[list[int]]:
    """Deal ``chosen`` to ``count`` processes: neighbours together, about as many tokens to each."""
    ordered = alphabetically(sequences, chosen)
    own = [
        len(sequences[index]) - (common(sequences[before], sequences[index]) if place else 0)
        for place, (before, index) in enumerate(
            zip([*ordered[:1], *ordered], ordered, strict=False)
        )
    ]
    dealt: list[list[int]] = [[] for _ in range(count)]
    done = 0
    for index, tokens in zip(ordered, own, strict=True):
        # By the middle of its tokens, so that the first one alone does not fill a share.
        dealt[min(count - 1, (2 * done + tokens) * count // (2 * sum(own)))].append(index)
        done += tokens
    return dealt
