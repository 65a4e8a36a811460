"""Keys and values of many conversations, a row each, written in place and read as views.

transformers' own caches hold one batch whose rows advance together. Here each row has its own
length: a forward pass says which rows it runs, and at which positions. Not here: who owns a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache

FIRST_ROWS, FIRST_LENGTH = 8, 128
"""Storage begins with this much, or what it needed before it was last cleared, and doubles when it
is too small."""


class SlotCache(Cache):
    """A transformers cache with rows of different lengths; layers may differ in heads.

    Example, a step of one token each for rows 0 and 1, which hold 7 and 3 tokens so far::

        cache.reserve(rows=2, length=9)
        cache.aim([0, 1], torch.tensor([[7], [3]]), span=8)
        model(input_ids, position_ids=…, attention_mask=…, past_key_values=cache)

    What stands beyond a row's length is left over from something else, but always finite: masked
    with a weight of 0 it adds nothing.
    """

    def __init__(self, max_rows: int, max_length: int) -> None:
        """Nothing is allocated before the first forward pass.

        Args:
            max_rows: Rows that storage never exceeds.
            max_length: Tokens of a row that storage never exceeds.
        """
        super().__init__(layers=[])
        self._max = (max_rows, max_length)
        self.rows = 0
        """Rows allocated."""
        self.length = 0
        """Positions allocated in each row."""
        self._first = self._needed = (FIRST_ROWS, FIRST_LENGTH)
        self._stores: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """Keys and values by layer, each ``[rows, kv_heads, length, head_dim]``."""
        self._chosen: slice | torch.Tensor = slice(0, 0)
        self._numbers = torch.zeros(0, dtype=torch.long)
        self._positions = torch.zeros(0, 0, dtype=torch.long)
        self._span = 0
        self._places: dict[int, torch.Tensor] = {}

    def reserve(self, rows: int, length: int) -> None:
        """Have at least ``rows`` × ``length``, keeping what is there."""
        self._needed = max(rows, self._needed[0]), max(length, self._needed[1])
        if rows <= self.rows and length <= self.length:
            return
        wanted = []
        for need, have, first, most in (
            (rows, self.rows, self._first[0], self._max[0]),
            (length, self.length, self._first[1], self._max[1]),
        ):
            wanted.append(have if need <= have else min(most, max(need, 2 * have, first)))
        old_rows, old_length = self.rows, self.length
        self.rows, self.length = wanted
        for layer, pair in self._stores.items():
            grown = []
            for store in pair:
                bigger = store.new_zeros(self.rows, store.shape[1], self.length, store.shape[3])
                bigger[:old_rows, :, :old_length] = store
                grown.append(bigger)
            self._stores[layer] = (grown[0], grown[1])

    def aim(self, rows: Sequence[int], positions: torch.Tensor, span: int) -> None:
        """Say where the next forward pass writes and reads.

        Args:
            rows: n different ones; read as a view where they ascend by one, else copied.
            positions: ``[n, m]`` where each new token's keys and values go.
            span: Positions that are read.
        """
        self._numbers = torch.tensor(rows, device=positions.device)
        first, last = rows[0], rows[-1]
        adjacent = list(rows) == list(range(first, last + 1))
        self._chosen = slice(first, last + 1) if adjacent else self._numbers
        self._positions, self._span = positions, span
        self._places.clear()

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write ``[n, kv_heads, m, head_dim]``, return ``[n, kv_heads, span, head_dim]``."""
        if layer_idx not in self._stores:
            self._stores[layer_idx] = (self._empty(key_states), self._empty(value_states))
        places = self._places_of(key_states.shape[1])
        found = []
        for store, states in zip(self._stores[layer_idx], (key_states, value_states), strict=True):
            flat = store.view(-1, store.shape[3])
            flat.index_copy_(0, places, states.reshape(-1, store.shape[3]))
            if isinstance(self._chosen, slice):
                found.append(store[self._chosen, :, : self._span])
            else:
                found.append(store[:, :, : self._span].index_select(0, self._chosen))
        return found[0], found[1]

    def copy(self, source: int, target: int, span: int) -> None:
        """Copy the first ``span`` positions of a row to another."""
        for pair in self._stores.values():
            for store in pair:
                store[target, :, :span] = store[source, :, :span]

    def swap(self, one: int, other: int, span: int) -> None:
        """Exchange the first ``span`` positions of two rows."""
        for pair in self._stores.values():
            for store in pair:
                kept = store[one, :, :span].clone()
                store[one, :, :span] = store[other, :, :span]
                store[other, :, :span] = kept

    def clear(self) -> None:
        """Give the memory back."""
        self._stores.clear()
        if self.rows:
            self._first, self._needed = self._needed, (FIRST_ROWS, FIRST_LENGTH)
        self.rows = self.length = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions that the pass under way reads, its own tokens not counted."""
        return self._span - self._positions.shape[1]

    def _empty(self, states: torch.Tensor) -> torch.Tensor:
        _, heads, _, size = states.shape
        return states.new_zeros(self.rows, heads, self.length, size)

    def _places_of(self, heads: int) -> torch.Tensor:
        """``[n · heads · m]`` where each vector goes in ``[rows · heads · length, head_dim]``."""
        places = self._places.get(heads)
        if places is None:
            positions = self._positions
            head = torch.arange(heads, device=positions.device)
            first = (self._numbers[:, None] * heads + head)[:, :, None] * self.length
            places = self._places[heads] = (first + positions[:, None, :]).flatten()
        return places
