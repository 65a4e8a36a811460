"""The themes of SQL's databases, the kinds of question, and the query that each is about."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Theme:
    """Three tables: things of a sort and with a size, people of a town, events of both."""

    name: str
    things: str
    thing: str
    sort: str
    """The column of a thing's sort."""
    sorts: tuple[str, ...]
    size: str
    """The column of a thing's number."""
    people: str
    person: str
    year: str
    """The column of a person's year."""
    events: str
    event: str
    amount: str
    """The column of an event's number."""

    @property
    def words(self) -> Mapping[str, str]:
        """What questions call them."""
        return {
            "things": self.things,
            "a_thing": self.thing,
            "sort_column": self.sort,
            "size": self.size,
            "people": self.people,
            "a_person": self.person,
            "year_column": self.year,
            "events": self.events,
            "an_event": self.event,
            "amount": self.amount,
        }

    def tables(self) -> list[str]:
        """The statements that make the tables."""
        return [
            f"CREATE TABLE {self.things} (id INTEGER PRIMARY KEY, name TEXT, {self.sort} TEXT, "
            f"{self.size} INTEGER);",
            f"CREATE TABLE {self.people} (id INTEGER PRIMARY KEY, name TEXT, town TEXT, "
            f"{self.year} INTEGER);",
            f"CREATE TABLE {self.events} (id INTEGER PRIMARY KEY, {self.thing}_id INTEGER, "
            f"{self.person}_id INTEGER, {self.amount} INTEGER, day TEXT);",
        ]


THEMES = (
    Theme(
        *("shop", "products", "product", "category", ("tools", "toys", "books", "lamps"), "price"),
        *("customers", "customer", "birth_year", "orders", "order", "quantity"),
    ),
    Theme(
        *("library", "titles", "title", "genre", ("drama", "poetry", "travel", "crime"), "pages"),
        *("members", "member", "birth_year", "loans", "loan", "days"),
    ),
    Theme(
        *("garden", "plants", "plant", "family", ("roses", "herbs", "ferns", "palms"), "height"),
        *("gardeners", "gardener", "birth_year", "waterings", "watering", "litres"),
    ),
    Theme(
        *("port", "ships", "ship", "type", ("tanker", "ferry", "trawler", "barge"), "length"),
        *("pilots", "pilot", "birth_year", "voyages", "voyage", "miles"),
    ),
)


@dataclass(frozen=True)
class Kind:
    """One kind of question, and its query over ``t`` (things), ``p`` (people), ``e`` (events)."""

    name: str
    level: int
    slots: tuple[str, ...]
    """What is filled in: ``sort``, ``thing``, ``person``, ``town``, ``year``, ``month``."""
    phrasings: tuple[str, ...]
    """The last is held out for the test split."""
    query: str
    """With ``{columns}`` and ``{slots}``; a second column, where there is one, ranks the rows."""
    least: int = 10
    """Smaller numbers are no answer: they could be guessed."""

    def query_for(self, theme: Theme, slots: Mapping[str, Any]) -> str:
        """The query of a question."""
        joins = (
            f"{theme.events} e JOIN {theme.things} t ON t.id = e.{theme.thing}_id "
            f"JOIN {theme.people} p ON p.id = e.{theme.person}_id"
        )
        return self.query.format(joins=joins, **theme.words, **slots)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "extreme",
            1,
            ("sort",),
            (
                "What is the highest {size} among {things} whose {sort_column} is {sort}?",
                "Find the largest {size} of any of the {things} with {sort_column} {sort}.",
                "Of the {things} with {sort_column} {sort}, how high is the highest {size}?",
                "The {things} whose {sort_column} is {sort} differ in {size}: what is the maximum?",
            ),
            "SELECT MAX({size}) FROM {things} WHERE {sort_column} = '{sort}'",
        ),
        Kind(
            "sum",
            1,
            ("sort",),
            (
                "What is the sum of {size} over all {things} whose {sort_column} is {sort}?",
                "Add up the {size} of all {things} with {sort_column} {sort}.",
                "Of the {things} with {sort_column} {sort}, what is the total {size}?",
                "The {things} whose {sort_column} is {sort}: what does their {size} come to in all?",
            ),
            "SELECT SUM({size}) FROM {things} WHERE {sort_column} = '{sort}'",
        ),
        Kind(
            "of_person",
            2,
            ("person",),
            (
                "What is the total {amount} over all {events} of the {a_person} {person}?",
                "Add up the {amount} of all {events} of {person}, who is a {a_person}.",
                "Over the {events} of the {a_person} called {person}, what is the sum of {amount}?",
                "The {a_person} {person} stands behind several {events}: what {amount} in all?",
            ),
            "SELECT SUM(e.{amount}) FROM {joins} WHERE p.name = '{person}'",
        ),
        Kind(
            "of_sort",
            2,
            ("sort", "month"),
            (
                "What is the total {amount} over {events} in month {month} of 2024 of {things} "
                "whose {sort_column} is {sort}?",
                "Add up the {amount} of the {events} in month {month} of 2024 where the {a_thing} "
                "has the {sort_column} {sort}.",
                "In month {month} of 2024, what was the sum of {amount} over {events} of {things} "
                "with {sort_column} {sort}?",
                "For {things} with {sort_column} {sort}, what {amount} in all had the {events} of "
                "month {month} of 2024?",
            ),
            "SELECT SUM(e.{amount}) FROM {joins} WHERE t.{sort_column} = '{sort}' "
            "AND e.day LIKE '2024-{month}-%'",
        ),
        Kind(
            "of_town_and_sort",
            3,
            ("town", "sort"),
            (
                "What is the total {amount} over {events} of {people} from {town} and of {things} "
                "whose {sort_column} is {sort}?",
                "Add up the {amount} of all {events} of {people} from {town} where the {a_thing} "
                "has the {sort_column} {sort}.",
                "For {people} from {town}, what is the sum of {amount} over {events} of {things} "
                "with {sort_column} {sort}?",
                "Of {events} with {things} whose {sort_column} is {sort}, what {amount} in all is "
                "due to {people} from {town}?",
            ),
            "SELECT SUM(e.{amount}) FROM {joins} WHERE p.town = '{town}' "
            "AND t.{sort_column} = '{sort}'",
        ),
        Kind(
            "of_young",
            3,
            ("year", "sort"),
            (
                "What is the total {amount} over {events} of {people} whose {year_column} is after "
                "{year} and of {things} whose {sort_column} is {sort}?",
                "Add up the {amount} of all {events} of {people} with a {year_column} after {year} "
                "where the {a_thing} has the {sort_column} {sort}.",
                "For {people} with {year_column} after {year}, what is the sum of {amount} over "
                "{events} of {things} with {sort_column} {sort}?",
                "Of {events} with {things} whose {sort_column} is {sort}, what {amount} in all is "
                "due to {people} whose {year_column} is later than {year}?",
            ),
            "SELECT SUM(e.{amount}) FROM {joins} WHERE p.{year_column} > {year} "
            "AND t.{sort_column} = '{sort}'",
        ),
        Kind(
            "best_person",
            4,
            ("sort",),
            (
                "Which {a_person} has the largest total {amount} over {events} of {things} whose "
                "{sort_column} is {sort}?",
                "Name the {a_person} whose {events} of {things} with {sort_column} {sort} add up to "
                "the most {amount}.",
                "Over {events} of {things} with {sort_column} {sort}, which {a_person} has the "
                "highest sum of {amount}?",
                "Counting {things} with {sort_column} {sort} alone, who of the {people} leads in "
                "total {amount} over all {events}?",
            ),
            "SELECT p.name, SUM(e.{amount}) AS total FROM {joins} "
            "WHERE t.{sort_column} = '{sort}' GROUP BY p.id ORDER BY total DESC LIMIT 2",
        ),
        Kind(
            "best_thing",
            4,
            ("town",),
            (
                "Which {a_thing} has the largest total {amount} over {events} of {people} from "
                "{town}?",
                "Name the {a_thing} whose {events} by {people} from {town} add up to the most "
                "{amount}.",
                "Over {events} of {people} from {town}, which {a_thing} has the highest sum of "
                "{amount}?",
                "Counting {people} from {town} alone, which of the {things} leads in total {amount} "
                "over all {events}?",
            ),
            "SELECT t.name, SUM(e.{amount}) AS total FROM {joins} "
            "WHERE p.town = '{town}' GROUP BY t.id ORDER BY total DESC LIMIT 2",
        ),
    )
}
"""Kind of question by name."""


def expert_query(question: str) -> str | None:
    """The query that a question is about, from its text alone; None where it is not understood."""
    for theme in THEMES:
        for kind in KINDS.values():
            for pattern in _patterns(theme, kind):
                found = pattern.search(question)
                if found:
                    return kind.query_for(theme, found.groupdict())
    return None


@functools.cache
def _patterns(theme: Theme, kind: Kind) -> list[re.Pattern[str]]:
    slots = {slot: f"SLOT{slot}SLOT" for slot in kind.slots}
    found = []
    for phrasing in kind.phrasings:
        text = re.escape(phrasing.format(**theme.words, **slots))
        found.append(re.compile(re.sub(r"SLOT(\w+?)SLOT", r"(?P<\1>[\\w ]+?)", text) + "$"))
    return found
