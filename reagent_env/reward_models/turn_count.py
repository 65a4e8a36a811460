"""Holds a model in this process to one entry a turn in its lists, while it writes.

A small judge that writes greedily now and then loses count, and a list of the wrong length is no
judgement. What the entries say stays its own. Not here: reading the list (``parse.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class HeldList:
    """The tokens around a list such as ``<turns>[0.4, 0.35]</turns>``, each of them alone."""

    opening: tuple[int, ...]
    """One or two tokens after which the list begins."""
    comma: int
    closing: int


def held_lists(tokenizer: Any, verdicts: bool) -> tuple[HeldList, ...]:
    """The lists that this tokenizer's model can be held in; none where tokens span their ends.

    Example: a tokenizer that writes ``]</`` as one token gives ``()``, and its model is not held.

    Args:
        tokenizer: The model's own.
        verdicts: Whether it was taught to think in one verdict a turn, ``1 sound, 2 unit slip``.
    """
    turns = _held(tokenizer, "<turns>[0.4, 0.35]</turns>", ("<turns>", "["), "]")
    thought = _held(tokenizer, "<think>1 sound, 2 sound</think>", ("<think>",), "</think>")
    return tuple(one for one in (turns, thought if verdicts else None) if one is not None)


def _held(tokenizer: Any, text: str, opening: tuple[str, ...], closing: str) -> HeldList | None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    written = [tokenizer.decode([one]) for one in ids]
    begins = tuple(written[: len(opening)]) == opening
    if not begins or written.count(",") != 1 or written.count(closing) != 1:
        return None
    places = written.index(","), written.index(closing)
    return HeldList(tuple(ids[: len(opening)]), ids[places[0]], ids[places[1]])


class TurnCount:
    """A logits processor of transformers: one entry a turn in each list, of [B] ``turns``.

    It follows one ``generate`` call from its first token, so each call gets its own.
    """

    def __init__(self, lists: Sequence[HeldList], turns: Sequence[int], device: Any) -> None:
        import torch

        commas = torch.tensor([max(1, each) - 1 for each in turns], device=device)
        nowhere = torch.zeros(len(turns), dtype=torch.bool, device=device)
        self._following = [_Following(one, commas, nowhere, nowhere) for one in lists]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Forbid, given [B, T] tokens so far, what would make a list too long or too short.

        Args:
            input_ids: [B, T] prompt and what is written.
            scores: [B, V] logits of the next token; changed in place.
        """
        for one in self._following:
            one.follow(input_ids)
            short = one.inside & (one.commas_left > 0)
            scores[short, one.listed.closing] = float("-inf")
            scores[one.inside & ~short, one.listed.comma] = float("-inf")
        return scores


@dataclass(slots=True)
class _Following:
    """Where each row stands in one list."""

    listed: HeldList
    commas_left: Any
    """[B] commas still to come."""
    inside: Any
    """[B] True between the list's ends."""
    over: Any
    """[B] True after it: a further list is not held, and not a judgement either."""

    def follow(self, input_ids: Any) -> None:
        """Take the newest token of each row into account."""
        last = input_ids[:, -1]
        opens = (last == self.listed.opening[-1]) & ~self.over
        if len(self.listed.opening) == 2:
            opens &= input_ids[:, -2] == self.listed.opening[0]
        self.commas_left = self.commas_left - (self.inside & (last == self.listed.comma)).long()
        closes = self.inside & (last == self.listed.closing)
        self.inside = (self.inside | opens) & ~closes
        self.over = self.over | closes
