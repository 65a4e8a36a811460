"""What can be said of things: kinds, predicates, and the sentences, phrases and questions for them.

A schema is data. From it come the articles, the questions, and the reading of both back into
facts; the fictional worlds and the atlas of real countries differ only in their schema and facts.
Not here: facts, articles, questions.
"""

from __future__ import annotations

import calendar
import datetime
import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

VALUE_TYPES = ("number", "year", "date", "text")
"""Types of an attribute's value; any other value type is a kind of thing: the predicate relates."""

Value = int | str
"""A number or year (int), a date (ISO 8601), a text, or the title of a thing."""

MONTHS = tuple(calendar.month_name)[1:]

_NUMBER = r"\d[\d,]*"
_DATE = rf"\d{{1,2}} (?:{'|'.join(MONTHS)}) \d{{4}}|(?:{'|'.join(MONTHS)}) \d{{1,2}}, \d{{4}}"
_PATTERNS = {"number": _NUMBER, "year": r"\d{1,4}", "date": _DATE, "text": r"[^.;:]+?"}


@dataclass(frozen=True)
class Kind:
    """A sort of thing, e.g. ``Kind("river", pronouns=("It", "The river"), nouns=("river",))``."""

    name: str
    pronouns: tuple[str, ...]
    """What may stand for the title at the start of a sentence."""
    nouns: tuple[str, ...]
    """What the first sentence of an article may call it."""
    plural: str = ""
    gendered: bool = False
    """True where the first pronoun is for women and the second for men."""
    quoted: bool = False
    """True where titles stand in quotation marks in running text (books)."""
    pattern: str = r"[^\"].*"
    """What a title of this kind looks like (regular expression)."""
    fillers: tuple[str, ...] = ()
    """Sentences of no use to any question; ``{S}`` is the subject, ``{o}`` another title."""


@dataclass(frozen=True)
class Predicate:
    """Something that can be said of a thing: an attribute, or a relation to one other thing.

    In sentences ``{S}`` is the subject and ``{v}`` the value; in phrases ``{s}`` is the subject and
    ``{v}`` the object. The last phrase and the last member phrase are held out for test questions.
    """

    name: str
    subject: str
    """Kind of the subject."""
    value: str
    """One of :data:`VALUE_TYPES`, or the object's kind."""
    statements: tuple[str, ...]
    query: str
    """Words to search for beside the subject's title."""
    noun: str = ""
    """An attribute's name with its unit, e.g. ``length in kilometres``."""
    ask: str = ""
    """An idiomatic question, e.g. ``How many kilometres long is {s}?``"""
    units: tuple[str, ...] = ()
    """Unit names that an answer may carry."""
    comparatives: tuple[str, str] | None = None
    """For more and for less, e.g. ``("is longer", "is shorter")``."""
    superlatives: tuple[str, str] | None = None
    """For most and for least, e.g. ``("longest", "shortest")``."""
    happened: str = ""
    """For dates and years, e.g. ``was opened``."""
    phrases: tuple[str, ...] = ()
    """A relation's object, e.g. ``the designer of {s}``."""
    members: tuple[str, ...] = ()
    """All subjects of an object, e.g. ``bridges over {v}``."""
    lists: tuple[str, ...] = ()
    """Sentences of the object's article that list them all: ``{v}`` is the object, ``{m}`` they."""

    mutual: bool = False
    """True for a relation to many things that holds in both directions, such as a border; it
    stands in lists alone."""

    @property
    def is_relation(self) -> bool:
        """True if the value is another thing."""
        return self.value not in VALUE_TYPES

    @property
    def is_ordered(self) -> bool:
        """True for numbers, years and dates."""
        return self.value in ("number", "year", "date")

    @functools.cached_property
    def statement_patterns(self) -> tuple[re.Pattern[str], ...]:
        """Each statement as a pattern with the groups ``S`` and ``v``."""
        value = _PATTERNS.get(self.value, r"[^;:]+?")
        return tuple(
            _pattern(template, {"{S}": "(?P<S>.+?)", "{v}": f"(?P<v>{value})"})
            for template in self.statements
        )

    @functools.cached_property
    def list_patterns(self) -> tuple[re.Pattern[str], ...]:
        """Each list sentence as a pattern with the groups ``v`` (the article's subject) and ``m``."""
        return tuple(
            _pattern(template, {"{v}": "(?P<v>.+?)", "{m}": "(?P<m>.+)"}) for template in self.lists
        )


@dataclass(frozen=True, eq=False)
class Schema:
    """Kinds and predicates by name."""

    name: str
    scheme: str
    """Of the urls of its articles."""
    kinds: Mapping[str, Kind]
    predicates: Mapping[str, Predicate]
    by_subject: Mapping[str, tuple[Predicate, ...]] = field(init=False)

    def __post_init__(self) -> None:
        grouped = {
            kind: tuple(p for p in self.predicates.values() if p.subject == kind)
            for kind in self.kinds
        }
        object.__setattr__(self, "by_subject", grouped)
        for predicate in self.predicates.values():
            if predicate.is_relation and predicate.value not in self.kinds:
                raise ValueError(f"{predicate.name}: no kind {predicate.value!r} in the schema.")

    def listings(self, kind: str) -> tuple[Predicate, ...]:
        """The relations whose subjects an article of this kind lists."""
        return tuple(p for p in self.predicates.values() if p.value == kind and p.lists)

    def pronouns(self, kind: str, title: str) -> tuple[str, ...]:
        """What may stand for this title at the start of a sentence."""
        known = self.kinds[kind]
        if not known.gendered:
            return known.pronouns
        return known.pronouns[:1] if is_woman(title) else known.pronouns[1:]

    def shown(self, kind: str, title: str) -> str:
        """A title as it stands in running text."""
        return f'"{title}"' if self.kinds[kind].quoted else title


def is_woman(title: str) -> bool:
    """Which of the two pronouns a person has: by the name alone, so that nothing need keep it."""
    return hashlib.sha256(title.encode()).digest()[0] % 2 == 0


def show_value(predicate: Predicate, value: Value, style: int = 0) -> str:
    """A value in words: ``12,400``, ``1873``, ``14 March 1873`` (style 1: ``March 14, 1873``)."""
    if predicate.value == "number":
        return f"{value:,}"
    if predicate.value == "date":
        day = datetime.date.fromisoformat(str(value))
        month = MONTHS[day.month - 1]
        return f"{month} {day.day}, {day.year}" if style else f"{day.day} {month} {day.year}"
    return str(value)


def read_value(predicate: Predicate, text: str) -> Value:
    """The inverse of :func:`show_value`.

    Raises:
        ValueError: a text of another form.
    """
    if predicate.value in ("number", "year"):
        return int(text.replace(",", ""))
    if predicate.value == "date":
        return read_date(text)
    return text.strip().strip('"')


def read_date(text: str) -> str:
    """``14 March 1873`` or ``March 14, 1873`` as ``1873-03-14``."""
    first, second, year = text.replace(",", "").split()
    month, day = (second, first) if first.isdigit() else (first, second)
    return datetime.date(int(year), MONTHS.index(month) + 1, int(day)).isoformat()


def compile_phrase(template: str) -> re.Pattern[str]:
    """A phrase as a pattern; each place becomes a group of its name."""
    names = re.findall(r"\{(\w+)\}", template)
    return _pattern(template, {f"{{{name}}}": f"(?P<{name}>.+)" for name in names})


def _pattern(template: str, places: Mapping[str, str]) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+\})", template)
    return re.compile("".join(places.get(part, re.escape(part)) for part in parts))
