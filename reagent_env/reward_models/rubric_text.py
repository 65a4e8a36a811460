"""Reads numbers, words and names out of untrusted text, in time linear in its length.

Not here: what is made of them (``rubric_view.py``, ``rubric_checks_*.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"0x[0-9a-f]+"
    r"|[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?"
    r"|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?"
    r"|[^\W\d_]+"
)
_ANY_DIGIT = re.compile(r"[0-9]")
_NUMBER = re.compile(
    r"(?<![\w.])(-?)("
    r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?"
    r"|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?)"
)
_NAME = re.compile(r"[A-ZÀ-Þ][\w'’]*(?:[ -][A-ZÀ-Þ][\w'’]*)*")
_SENTENCE_END = frozenset(".!?\n>]")

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
_COMMON = """a an and are as at be been but by did do does for from had has have he her his how i
if in into is it its me my no nor not of on or our over per she so than that the their them then
there these they this those to under up was we were what when where which who whom whose why will
with would you your yes results result error nothing found url files file page answer
monday tuesday wednesday thursday friday saturday sunday"""
STOP_WORDS = frozenset(_COMMON.split()) | frozenset(MONTHS)
"""Words too common to link or to ground anything."""


def canonical_number(text: str) -> str:
    """One spelling of a number: no thousands commas, no idle zeros (``1,640.50`` → ``1640.5``)."""
    text = text.replace(",", "").lower()
    if text.startswith("0x"):
        return text
    if "e" in text:
        return f"{float(text):.12g}" if len(text) <= 40 else text
    whole, _, fraction = text.partition(".")
    whole = whole.lstrip("0") or "0"
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def tokens(text: str) -> list[str]:
    """Every lower-case word and canonical number, a grouped number also by its parts."""
    found = _TOKEN.findall(text.lower())
    if text.isascii() and _ANY_DIGIT.search(text) is None:
        return found
    every = []
    for token in found:
        if token[0] in "0123456789":
            every.append(canonical_number(token))
            if "," in token:
                every += [canonical_number(part) for part in token.split(",")]
        else:
            every.append(token)
    return every


def signed_numbers(text: str) -> Iterator[str]:
    """Canonical numbers with their sign, where a minus stands free before them."""
    for found in _NUMBER.finditer(text):
        number = canonical_number(found[2])
        yield f"-{number}" if found[1] and number != "0" else number


def names(text: str, initial: bool = False) -> Iterator[tuple[str, ...]]:
    """Runs of capitalised words, in lower case, without common words at their edges.

    A single word that only begins a sentence is no name; a whole line is. A run that begins a
    sentence is given without its first word too: ``Take Ada Lovelace`` holds ``Ada Lovelace``.

    Args:
        text: Any text.
        initial: Give single words that begin a sentence too.
    """
    for found in _NAME.finditer(text):
        words = found[0].replace("_", " ").replace("-", " ").lower().split()
        words = [word[:-2] if word.endswith(("'s", "’s")) else word for word in words]
        words = [word.strip("'’") for word in words]
        while words and words[0] in STOP_WORDS:
            words.pop(0)
        while words and words[-1] in STOP_WORDS:
            words.pop()
        if not words or (len(words) == 1 and len(words[0]) < 2):
            continue
        if begins_sentence(text, found.start()):
            if len(words) > 1:
                yield tuple(words)
                if len(words) > 2:
                    yield tuple(words[1:])
            elif initial or text[found.end() : found.end() + 1] in ("", "\n", "\r"):
                yield tuple(words)
        else:
            yield tuple(words)


def begins_sentence(text: str, start: int) -> bool:
    """True where only blanks or an opening quote stand between ``start`` and a sentence's end."""
    place = start - 1
    steps = 0
    while place >= 0 and text[place] in " \t\"'“(*_" and steps < 8:
        if text[place] in '"“':
            return False
        place -= 1
        steps += 1
    return place < 0 or text[place] in _SENTENCE_END


def is_number(token: str) -> bool:
    """True for what :func:`tokens` gives for a number."""
    return bool(token) and token[0] in "0123456789"


def as_float(number: str) -> float | None:
    """The value of a canonical number, or None where it is too long to matter."""
    if len(number) > 40:
        return None
    try:
        return float(int(number, 16)) if number.startswith("0x") else float(number)
    except (ValueError, OverflowError):
        return None
