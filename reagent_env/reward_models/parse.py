"""Text of a judge → ``Judgement``, strictly: what is not exactly a judgement has no score.

::

    judgement = think critique [turns] score      only blanks before, between, after; and padding
    think     = "<think>" text "</think>"         may be absent where the server split it off
    critique  = "<critique>" text "</critique>"
    turns     = "<turns>[" φ_1 "," … "," φ_n "]</turns>"      φ = number or null
    score     = "<score>" number "</score>"
    number    = "0" ["." 1–16 digits] | "1" ["." 1–16 zeros]  ASCII; no sign, exponent or percent

A text of think or critique ends at the first closing tag. It may quote ``<score>`` and ``<turns>``,
which then mean nothing; it may not hold a further tag of think, nor, in the critique, of critique:
where a block ends would be a matter of opinion.
Nothing is clamped, repaired or guessed, and nothing becomes 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from reagent_env.judgement import Judgement
from reagent_env.reward_models.base import Unscored, unscored

MAX_CHARS = 100_000
"""A judge's answer is a few thousand characters; a longer one is refused unread."""
KEPT_CHARS = 4_000
"""Of an unreadable answer, kept as ``reasoning`` for whoever looks into it."""

_BLANK = " \t\r\n"
_NUMBER = re.compile(r"0(?:\.[0-9]{1,16})?|1(?:\.0{1,16})?")
_THINK_TAGS = ("<think>", "</think>")
_CRITIQUE_TAGS = ("<critique>", "</critique>")


class _Unreadable(Exception):
    """Says what is wrong with the text."""


def parse_judgement(text: str, turns: int | None = None, reasoning: str | None = None) -> Judgement:
    """Read one judgement; never raises for what the text holds.

    Args:
        text: What the judge wrote.
        turns: Turns of the attempt, which ``<turns>`` must match; None where unknown.
        reasoning: What the server split off as reasoning, if it did: the think block.

    Returns:
        A scored judgement, or one whose ``unscored`` begins with ``"unparsed: "`` and whose
        critique is empty.

    Example::

        parse_judgement("<think>…</think><critique>Check units.</critique><score>0.4</score>", 2)
    """
    try:
        return _parse(text, turns, reasoning)
    except _Unreadable as problem:
        seen = text if not reasoning else f"{reasoning}\n{text}"
        return Judgement(
            reasoning=seen[:KEPT_CHARS], unscored=unscored(Unscored.UNPARSED, str(problem))
        )


def render_judgement(
    reasoning: str, critique: str, score: float, turn_scores: Sequence[float | None] | None = None
) -> str:
    """The text that :func:`parse_judgement` reads back, scores rounded to four decimals.

    Raises:
        ValueError: the texts hold tags that would not read back, or a score is out of range.
    """
    turns = ""
    if turn_scores is not None:
        written = ", ".join("null" if s is None else _decimal(s) for s in turn_scores)
        turns = f"<turns>[{written}]</turns>\n"
    text = (
        f"<think>{reasoning}</think>\n<critique>{critique}</critique>\n"
        f"{turns}<score>{_decimal(score)}</score>"
    )
    read = parse_judgement(text)
    if (read.reasoning, read.critique) != (reasoning.strip(_BLANK), critique.strip(_BLANK)):
        raise ValueError(
            f"This judgement would not read back ({read.unscored or 'its blocks differ'}); "
            "take the judgement's own tags out of its texts."
        )
    return text


def _parse(text: str, turns: int | None, reasoning: str | None) -> Judgement:
    if len(text) > MAX_CHARS:
        raise _Unreadable(f"{len(text)} characters, more than {MAX_CHARS}")
    rest = text.strip(_BLANK)
    thought = reasoning.strip(_BLANK) if reasoning else ""
    if rest.startswith("<think>") or not thought:
        block, rest = _block(rest, "think", forbidden=_THINK_TAGS[:1])
        thought = f"{thought}\n{block}" if thought else block
    critique, rest = _block(rest, "critique", forbidden=(*_THINK_TAGS, _CRITIQUE_TAGS[0]))
    listed = None
    if rest.startswith("<turns>"):
        listed, rest = _block(rest, "turns")
    number, rest = _block(rest, "score")
    if rest:
        raise _Unreadable("text after the score")
    score = _number(number, "score")
    scores = None if listed is None else _turn_scores(listed, turns, score)
    return Judgement(reasoning=thought, critique=critique, score=score, turn_scores=scores)


def _block(text: str, tag: str, forbidden: tuple[str, ...] = ()) -> tuple[str, str]:
    """What the block that opens ``text`` holds, and what follows it, both without outer blanks."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    if not text.startswith(opening):
        raise _Unreadable(f"no {opening} where it belongs")
    end = text.find(closing)
    if end < 0:
        raise _Unreadable(f"{opening} is not closed")
    inner = text[len(opening) : end]
    for nested in forbidden:
        if nested in inner:
            raise _Unreadable(f"{nested} inside {opening}")
    return inner.strip(_BLANK), text[end + len(closing) :].strip(_BLANK)


def _number(text: str, what: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise _Unreadable(f"{what} {text[:40]!r} is not a plain decimal in [0, 1]")
    return float(text)


def _turn_scores(text: str, turns: int | None, score: float) -> tuple[float | None, ...]:
    if not (text.startswith("[") and text.endswith("]") and len(text) >= 2):
        raise _Unreadable("<turns> is not a list")
    inner = text[1:-1].strip(_BLANK)
    items = [item.strip(_BLANK) for item in inner.split(",")] if inner else []
    if turns is not None and len(items) != turns:
        raise _Unreadable(f"<turns> lists {len(items)} scores for {turns} turns")
    scores = [None if item == "null" else _number(item, "turn score") for item in items]
    return (*scores[:-1], score) if scores else ()


def _decimal(score: float) -> str:
    if not 0.0 <= score <= 1.0:
        raise ValueError(f"A score lies in [0, 1], got {score!r}.")
    return f"{score:.4f}".rstrip("0").rstrip(".")
