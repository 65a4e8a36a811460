"""How samples lie in one pass of the model: padded rows, or a tree in which what they share is once.

Not here: the pass (``likelihood.py``), which samples it has (``training_batch.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reagent_env.trainers.token_tree import Ids, token_tree
from reagent_env.trainers.tree_attention import TokenPaths, token_paths


class Layout(NamedTuple):
    """What a pass computes, and which of its states are asked for.

    Of the sequences ``[5, 6, 7]`` and ``[5, 6, 8, 9]`` without their last tokens, which nothing
    comes after, and asked for the tokens 7 and 9: ``ids=[[5, 6, 0], [5, 6, 8]], before=[1, 5],
    tokens=[7, 9]`` in rows, ``ids=[[5, 6, 8]], before=[1, 2], tokens=[7, 9]`` as a tree.
    """

    ids: Tensor
    """[B, T] what the model reads."""
    before: Tensor
    """[N] places in ``ids``, flattened: the last token before each that is asked for."""
    tokens: Tensor
    """[N] the ids of those that are asked for."""
    positions: Tensor | None = None
    """[1, T] of a tree, each token's place in its sequences."""
    paths: TokenPaths | None = None
    """Of a tree, who sees whom."""


def as_rows(
    sequences: Sequence[Ids],
    rows: Tensor,
    columns: Tensor,
    tokens: Tensor,
    *,
    pad_id: int,
    device: torch.device | str = "cpu",
) -> Layout:
    """One sequence a row, padded on the right: causal attention never sees the padding.

    Args:
        sequences: B lists of ids.
        rows: [N] which sequence each token asked for is in.
        columns: [N] its place there, at least 1; it need not be part of the list itself.
        tokens: [N] its id.
        pad_id: Any id.
        device: Of the tensors.
    """
    longest = max(map(len, sequences))
    padded = [[*one, *[pad_id] * (longest - len(one))] for one in sequences]
    ids = torch.tensor(padded, dtype=torch.int64, device=device)
    return Layout(ids, (rows * longest + columns - 1).to(device), tokens.to(device))


def as_tree(
    sequences: Sequence[Ids],
    rows: Tensor,
    columns: Tensor,
    tokens: Tensor,
    *,
    last_layer: int,
    device: torch.device | str = "cpu",
) -> Layout:
    """All sequences in one row, each token that they share once; arguments as of :func:`as_rows`.

    ``last_layer`` is the index of the model's last layer, which computes only what is asked for.
    """
    tree = token_tree(sequences)
    row, column = rows.numpy(), columns.numpy() - 1
    before = np.zeros(len(row), np.int64)
    asked = []
    new = np.ones(len(tree.ids), bool)  # a state that two sequences ask for is computed once
    for index, path in enumerate(tree.paths):
        mine = row == index
        before[mine] = path[column[mine]]
        places = np.unique(column[mine])
        asked.append(places[new[path[places]]])
        new[path[places]] = False
    return Layout(
        torch.tensor([tree.ids], device=device),
        torch.as_tensor(before, device=device),
        tokens.to(device),
        torch.tensor([tree.positions], device=device),
        token_paths(tree, asked, last_layer, device),
    )
