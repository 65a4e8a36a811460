"""Where the names and numbers of an attempt come from: the question, a result's line, or nowhere.

The short view for small judges (``marks.py``) is made of what is found here. Nothing is weighed:
what a missing source means is the judge's to say. Reads texts as words; understands no language.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Phrase = tuple[str, ...]
"""A name or a number as lower-case words, e.g. ``("mount", "kol")`` or ``("46147",)``."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+")
_PHRASE = re.compile(
    r"(?P<number>(?<![\w.])\d+(?:\.\d+)?(?![\w]))"
    r"|(?P<identifier>[A-Za-z]+(?:[_-]\w+)+(?:\.\w+)?|\w+\.[a-z]{2,4}\b)"
    r"|(?P<name>[A-Z][\w'’]*(?: [A-Z][\w'’]*)*)"
)
_SENTENCE_BEGINS = re.compile(r"(?:^|[.:;?!\n]|\A)\s*$")
_LONGEST_TEXT = 20_000


def plain(text: str) -> str:
    """The text's beginning and end, thousands commas and schemes of addresses dropped."""
    if len(text) > _LONGEST_TEXT:
        text = f"{text[: _LONGEST_TEXT // 2]}\n{text[-_LONGEST_TEXT // 2 :]}"
    return _THOUSANDS.sub("", re.sub(r"\b\w+://", "", text))


def words(text: str) -> list[str]:
    """Lower-case words and numbers, in order; ``orders_2019`` is two."""
    return _WORD.findall(plain(text).casefold())


def phrases(text: str, known: Iterable[str] = ()) -> list[Phrase]:
    """The names, identifiers and numbers in a text, in order.

    A single capitalised word that opens a sentence counts only if it is among the ``known`` words.

    Example: ``phrases("Find the height of Mount Kol.")`` is ``[("mount", "kol")]``.
    """
    text = plain(text)
    known = set(known)
    found: list[Phrase] = []
    for match in _PHRASE.finditer(text):
        parts = tuple(_WORD.findall(match[0].casefold()))
        if not parts:
            continue
        opens = match["name"] is not None and _SENTENCE_BEGINS.search(text[: match.start()][-20:])
        if opens and len(parts) == 1 and parts[0] not in known:
            continue
        found.append(parts)
    return found


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a result with its heading, e.g. of the page of Mount Kol, what it says of its height."""

    turn: int
    """Index of the turn whose result it stands in; −1 for an earlier attempt's."""
    words: frozenset[str]
    """Its words and its heading's."""
    told: bool
    """Whether it speaks of something that the call asked about; always, for computed ones."""
    computed: bool
    """Whether a program printed it."""
    text: str
    """The line itself."""


def lines_of(turn: int, content: str, asked: Sequence[Phrase], computed: bool) -> list[Line]:
    """A result's lines; ``[1] Title`` heads those below it, else the first line heads them all."""
    found: list[Line] = []
    heading = ""
    for number, line in enumerate(plain(content).splitlines()):
        if not line.strip():
            continue
        entry = re.match(r"\[\d+\] (.*)", line)
        if entry is not None:
            heading = entry[1]
        elif number == 0:
            heading = line
        together = frozenset(words(f"{heading}\n{line}"))
        told = computed or not asked or any(together.issuperset(phrase) for phrase in asked)
        found.append(Line(turn, together, told, computed, line))
        if len(found) >= 400:
            break
    return found


@dataclass(frozen=True, slots=True)
class Source:
    """Where a phrase stands, e.g. ``Source("line", line)``."""

    kind: str
    """``question``, ``line``, ``own`` (earlier words of the agent), or ``new``."""
    line: Line | None = None


class Sources:
    """What has been read so far; grows turn by turn."""

    def __init__(self, question: str) -> None:
        self.question = frozenset(words(question))
        self.lines: list[Line] = []
        self.own: set[str] = set()
        self.read: dict[str, list[int]] = {}
        """Each word that was read, and the places in ``lines`` that hold it."""

    def add(self, lines: Sequence[Line]) -> None:
        """Append a result's lines."""
        for line in lines:
            for word in line.words:
                self.read.setdefault(word, []).append(len(self.lines))
            self.lines.append(line)

    def knows(self, phrase: Iterable[str]) -> bool:
        """Whether every word of it stands in the question or in some result."""
        return all(word in self.question or word in self.read for word in phrase)

    def of(self, phrase: Phrase) -> Source:
        """The best source: the question, else the latest line that was asked about, else any.

        A line that says it comes before one that only stands below a heading which does: whoever
        writes below a heading could else choose the line that is shown.
        """
        if self.question.issuperset(phrase):
            return Source("question")
        holding = self._holding(phrase)
        if holding:
            told = [line for line in holding if line.told] or holding
            said = [line for line in told if set(words(line.text)).issuperset(phrase)]
            return Source("line", (said or told)[-1])
        return Source("own" if self.own.issuperset(phrase) else "new")

    def together(self, mentioned: Sequence[Phrase]) -> bool:
        """Whether one line (or the question) holds all of these phrases."""
        every = {word for phrase in mentioned for word in phrase}
        return self.question.issuperset(every) or bool(self._holding(every))

    def _holding(self, wanted: Iterable[str]) -> list[Line]:
        """The lines that hold all of these words, in order."""
        places = [self.read.get(word, []) for word in wanted]
        fewest = min(places, key=len, default=[])
        lines = (self.lines[place] for place in fewest)
        wanted = set(wanted)
        return [line for line in lines if line.words.issuperset(wanted)]
