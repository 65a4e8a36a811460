"""Sequences that share forward passes: who has which row, who reads, who samples.

Runs in the engine's thread alone. Not here: threads, futures, pauses (``hf.py``).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import torch

from reagent_env.trainers.engines.base import Sampling
from reagent_env.trainers.engines.hf_cache import SlotCache
from reagent_env.trainers.engines.hf_masks import CausalMasks
from reagent_env.trainers.engines.hf_sampling import draw

PREFILL_TOKENS = 2048
"""Tokens of one forward pass that reads, padding included; longer prompts take several passes."""
CHUNK_TOKENS = 512
"""Tokens of one sequence in such a pass."""
SHARED_TOKENS = 16
"""Sequences that begin with as many tokens in common share their keys and values, by copying."""
SPARSE = 0.6
"""Rows are moved together when fewer than this share of those computed on are sampling."""


@dataclass(slots=True, eq=False)
class Sequence:
    """A conversation's tokens, and the completion under way."""

    seed: int
    ids: list[int] = field(default_factory=list)
    kept: int = 0
    """How many of ``ids``, from the first, have keys and values in its row."""
    slot: int | None = None
    """Its row."""
    used: int = 0
    """When it last came or was finished; the smallest is forgotten first."""
    leads: bool = False
    """Whether it reads a beginning that nobody had; those that begin alike wait for it."""
    sampling: Sampling = field(default_factory=Sampling)
    begin: int = 0
    """Where the completion under way begins in ``ids``."""
    logprobs: list[float] = field(default_factory=list)
    """One for each token of the completion."""
    version: int = 0
    """Of the weights that sampled its first token."""
    finish: str | None = None
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)


@dataclass(slots=True)
class Counts:
    """What passes came to."""

    sampled: int = 0
    prefilled: int = 0
    shared: int = 0
    steps: int = 0
    evictions: int = 0


class Batch:
    """Runs sequences through ``model``, one pass each :meth:`advance`.

    A sequence that comes reads all tokens but its last; the last one is read by the pass that
    samples what follows, together with everybody else's. So does one that was forgotten.
    """

    def __init__(
        self,
        model: Any,
        *,
        stop_ids: frozenset[int],
        context_length: int,
        device: torch.device,
        max_live: int,
        pad_id: int,
    ) -> None:
        self.counts = Counts()
        self.version = 0
        """Of the weights as they are."""
        self._model = model
        self._masks = CausalMasks(model.config.get_text_config(), context_length)
        self._stop_ids = stop_ids
        self._context_length = context_length
        self._device = device
        self._pad_id = pad_id
        # One position more than is ever used: padding is written there.
        self._cache = SlotCache(max_live, context_length + 1)
        self._owners: list[Sequence | None] = [None] * max_live
        self._waiting: list[Sequence] = []
        self._live: list[Sequence] = []
        self._clock = 0

    @property
    def busy(self) -> bool:
        """Whether any completion is under way."""
        return bool(self._live or self._waiting)

    @property
    def under_way(self) -> list[Sequence]:
        """Sequences whose completion is under way."""
        return [*self._live, *self._waiting]

    def add(self, sequence: Sequence, new_ids: list[int], sampling: Sampling) -> None:
        """Append ``new_ids`` and begin a completion."""
        self._clock += 1
        sequence.used = self._clock
        sequence.ids += new_ids
        sequence.begin = len(sequence.ids)
        sequence.sampling = sampling
        sequence.logprobs = []
        sequence.finish = None
        self._waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Give its row back, and its completion up."""
        for those in (self._waiting, self._live):
            if sequence in those:
                those.remove(sequence)
        if sequence.slot is not None:
            self._owners[sequence.slot] = None
            sequence.slot, sequence.kept = None, 0
        if not self.busy and not any(self._owners):
            self._cache.clear()

    def forget(self) -> None:
        """Keep no keys and values: every sequence reads its tokens again when it goes on."""
        for one in self._owners:
            if one is not None:
                one.kept, one.slot = 0, None
        self._owners = [None] * len(self._owners)
        self._waiting = self.under_way
        self._live = []
        self._cache.clear()

    def give_up(self) -> None:
        """Forget everything, and all completions under way."""
        self.forget()
        self._waiting = []

    def advance(self) -> list[Sequence]:
        """One pass: reading for some that wait, else a token for all at work; who is finished."""
        self._take_slots()
        reading = self._to_read()
        if reading:
            self._read(reading)
            return []
        return self._step() if self._live else []

    def _take_slots(self) -> None:
        """A row for each that waits, first come, first served; idle ones make room."""
        working = set(map(id, self.under_way))
        for sequence in self._waiting:
            if sequence.slot is not None:
                continue
            if None in self._owners:
                slot = self._owners.index(None)
            else:
                idle = [one for one in self._owners if one is not None and id(one) not in working]
                if not idle:
                    break
                oldest = min(idle, key=lambda one: one.used)
                slot = self._owners.index(oldest)
                oldest.slot, oldest.kept = None, 0
                self.counts.evictions += 1
            self._owners[slot] = sequence
            sequence.slot, sequence.kept = slot, 0

    def _copy_beginning(self, sequence: Sequence) -> None:
        """Take over what another row keeps of the same beginning: a system prompt, a group's task."""
        assert sequence.slot is not None
        ids, source, longest = sequence.ids, None, SHARED_TOKENS - 1
        for other in self._owners:
            if other is None or other.kept <= longest or other.ids[:longest] != ids[:longest]:
                continue
            common = _common(ids, other.ids, min(other.kept, len(ids) - 1))
            if common > longest:
                source, longest = other.slot, common
        if source is not None:
            self._cache.reserve(self._rows_needed(), longest + 1)
            self._cache.copy(source, sequence.slot, longest)
            sequence.kept = longest
            self.counts.shared += longest

    def _to_read(self) -> list[tuple[Sequence, int]]:
        """Who reads how many tokens in the next pass; who has read all starts sampling."""
        ready: list[tuple[Sequence, int]] = []
        waiting: list[Sequence] = []
        led: set[tuple[int, ...]] = set()
        for sequence in self._waiting:
            beginning = tuple(sequence.ids[:SHARED_TOKENS])
            if sequence.slot is not None and not sequence.kept:
                if beginning in led:  # somebody reads it just now; copied once that is over
                    waiting.append(sequence)
                    continue
                self._copy_beginning(sequence)
                sequence.leads = not sequence.kept and len(beginning) == SHARED_TOKENS
            missing = len(sequence.ids) - 1 - sequence.kept
            if sequence.slot is not None and missing == 0:
                sequence.leads = False
                self._live.append(sequence)
                continue
            if sequence.leads:
                led.add(beginning)
            waiting.append(sequence)
            if sequence.slot is not None:
                ready.append((sequence, min(missing, CHUNK_TOKENS)))
        self._waiting = waiting
        if not ready:
            return []
        first = ready[0][1]
        # Of similar length, so that little is padding.
        alike = [one for one in ready if first / 2 <= one[1] <= 1.5 * first]
        longest = max(count for _, count in alike)
        return alike[: max(1, PREFILL_TOKENS // longest)]

    def _read(self, reading: list[tuple[Sequence, int]]) -> None:
        longest = max(count for _, count in reading)
        reading = sorted(reading, key=lambda one: one[0].slot or 0)  # side by side: no copy
        rows = [one.slot for one, _ in reading if one.slot is not None]
        ids, positions = [], []
        for sequence, count in reading:
            start, padding = sequence.kept, longest - count
            ids.append(sequence.ids[start : start + count] + [self._pad_id] * padding)
            positions.append([*range(start, start + count), *([self._context_length] * padding)])
        span = max(one.kept + count for one, count in reading)
        # One more than is read: there goes what padding writes.
        self._cache.reserve(self._rows_needed(), span + 1)
        places = torch.tensor(positions, device=self._device)
        self._forward(
            torch.tensor(ids, device=self._device),
            rows,
            places.clamp(max=self._cache.length - 1),
            span,
        )
        for sequence, count in reading:
            sequence.kept += count
            self.counts.prefilled += count

    def _step(self) -> list[Sequence]:
        """Sample a token for every sequence at work; return those that are finished."""
        self._close_ranks()
        live = self._live
        slots = [one.slot for one in live if one.slot is not None]
        rows = 1 + max(slots)
        span = max(len(one.ids) for one in live)
        # A row in between that is not at work writes beyond what it keeps.
        positions = [0 if one is None else one.kept for one in self._owners[:rows]]
        self._cache.reserve(self._rows_needed(), max(span, *positions) + 1)
        tokens = [self._pad_id] * rows
        for sequence, slot in zip(live, slots, strict=True):
            tokens[slot] = sequence.ids[-1]
        logits = self._forward(
            torch.tensor(tokens, device=self._device)[:, None],
            range(rows),
            torch.tensor(positions, device=self._device)[:, None],
            span,
        )[:, -1]
        if slots != list(range(rows)):
            logits = logits[torch.tensor(slots, device=self._device)]
        drawn, logprobs = draw(
            logits, [one.sampling for one in live], [one.random.random() for one in live]
        )
        done = []
        for sequence, token, logprob in zip(live, drawn, logprobs, strict=True):
            if not sequence.logprobs:
                sequence.version = self.version
            sequence.kept += 1
            sequence.ids.append(token)
            sequence.logprobs.append(logprob)
            if token in self._stop_ids:
                sequence.finish = "stop"
            elif len(sequence.logprobs) >= sequence.sampling.max_tokens:
                sequence.finish = "length"
            elif len(sequence.ids) >= self._context_length:
                sequence.finish = "context"
            else:
                continue
            sequence.used = self._clock
            done.append(sequence)
        if done:
            self._live = [one for one in live if one.finish is None]
        self.counts.sampled += len(live)
        self.counts.steps += 1
        return done

    def _forward(
        self,
        ids: torch.Tensor,
        rows: list[int] | range,
        positions: torch.Tensor,
        span: int,
    ) -> torch.Tensor:
        """Logits ``[n, 1, vocabulary]`` at the last of ids ``[n, m]``."""
        self._cache.aim(rows, positions, span)
        outputs = self._model(
            input_ids=ids,
            position_ids=positions.clamp(max=self._context_length - 1),
            attention_mask=self._masks.at(positions, span, self._model.dtype),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = outputs.logits
        return logits

    def _rows_needed(self) -> int:
        return 1 + max(slot for slot, one in enumerate(self._owners) if one is not None)

    def _close_ranks(self) -> None:
        """Move rows at work to the front where too many of those computed on are not at work."""
        count = len(self._live)
        by_slot = {one.slot: one for one in self._live if one.slot is not None}
        if count >= SPARSE * (1 + max(by_slot)):
            return
        gaps = [slot for slot in range(count) if slot not in by_slot]
        beyond = [slot for slot in sorted(by_slot) if slot >= count]
        for gap, slot in zip(gaps, beyond, strict=True):
            mover, other = by_slot[slot], self._owners[gap]
            kept = max(mover.kept, 0 if other is None else other.kept)
            self._cache.swap(gap, slot, kept)
            self._owners[gap], self._owners[slot] = mover, other
            mover.slot = gap
            if other is not None:
                other.slot = slot


def _common(one: list[int], other: list[int], most: int) -> int:
    """How many of the first ``most`` tokens are the same."""
    if one[:most] == other[:most]:
        return most
    return next(place for place in range(most) if one[place] != other[place])
