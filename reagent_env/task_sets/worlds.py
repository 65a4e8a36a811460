"""Fictional worlds in the manner of PhantomWiki: facts that no model can know, in any number.

Countries, cities, rivers, mountains, people, universities, companies, books and bridges with
made-up names, related to each other; one article a thing. Own generator; no code of PhantomWiki.
"""

from __future__ import annotations

import bisect
import datetime
import functools
import random
from collections.abc import Callable, Mapping, Sequence

from reagent_env.task_sets.phrasing import stable_random
from reagent_env.task_sets.worlds_facts import World
from reagent_env.task_sets.worlds_names import (
    ADJECTIVES,
    COMPANY_TRADES,
    NOUNS,
    PUBLISHING,
    NameMaker,
)
from reagent_env.task_sets.worlds_predicates import WORLD_SCHEMA
from reagent_env.task_sets.worlds_schema import Value, is_woman

DEFAULT_SIZE = 1500
"""Things, hence articles, of the default world."""
MIN_SIZE = 120
TWIN_SHARE = 0.08
"""Share of names that differ from another of their kind in one letter."""

_SHARES = {
    "country": 0.016,
    "city": 0.16,
    "river": 0.05,
    "mountain": 0.06,
    "person": 0.33,
    "university": 0.04,
    "company": 0.10,
    "work": 0.16,
    "bridge": 0.084,
}
_LONGEST_LIST = 8
"""No article lists more things of one sort, but for a country's cities."""


@functools.lru_cache(maxsize=4)
def generate_world(size: int = DEFAULT_SIZE, seed: int = 0) -> World:
    """A world of about ``size`` things; the same for the same arguments in every process.

    Example: ``generate_world(size=300, seed=7).corpus.search("River")``.

    Raises:
        ValueError: a size below :data:`MIN_SIZE`.
    """
    if size < MIN_SIZE:
        raise ValueError(f"A world needs size >= {MIN_SIZE} to relate its things, got {size}.")
    return _Maker(size, stable_random("world", size, seed)).world(f"world-{size}-{seed}", seed)


class _Maker:
    """Names things first, then relates and measures them, kind by kind."""

    def __init__(self, size: int, rng: random.Random) -> None:
        self.rng = rng
        self.names = NameMaker(rng)
        self.facts: dict[str, dict[str, Value]] = {}
        self.of: dict[str, list[str]] = {}
        for kind, share in _SHARES.items():
            self.of[kind] = self._titles(kind, max(4, round(size * share)))
        for kind in _SHARES:
            for title in self.of[kind]:
                self.facts[title] = {}

    def world(self, name: str, seed: int) -> World:
        self._people()
        self._places()
        self._makings()
        kinds = {title: kind for kind, titles in self.of.items() for title in titles}
        return World(WORLD_SCHEMA, name, kinds, self.facts, seed)

    # Names --------------------------------------------------------------------------------------

    def _titles(self, kind: str, count: int) -> list[str]:
        if kind == "person":
            return self._people_names(count)
        if kind == "work":
            pairs = [f"The {adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS]
            return self.rng.sample(pairs, min(count, len(pairs)))
        titles: list[str] = []
        roots: list[str] = []
        while len(titles) < count:
            near = None
            if roots and self.rng.random() < TWIN_SHARE:
                near = self.names.twin(self.rng.choice(roots))
            ending = self.rng.choice(("ia", "land", "or", "mark")) if kind == "country" else ""
            root = near or self.names.root((1, 2) if kind == "country" else (2, 3), ending)
            roots.append(root)
            titles.append(self._dressed(kind, root))
        return titles

    def _dressed(self, kind: str, root: str) -> str:
        if kind == "river":
            return f"River {root}"
        if kind == "mountain":
            return f"Mount {root}"
        if kind == "university":
            return f"{root} University"
        if kind == "bridge":
            return f"{root} Bridge"
        if kind == "company":
            trades = PUBLISHING if self.rng.random() < 0.3 else COMPANY_TRADES
            return f"{root} {self.rng.choice(trades)}"
        return root

    def _people_names(self, count: int) -> list[str]:
        first = [self.names.root((1, 2)) for _ in range(max(12, count // 5))]
        last = [self.names.root((2, 3)) for _ in range(max(12, count // 3))]
        titles: dict[str, None] = {}
        while len(titles) < count:
            if titles and self.rng.random() < TWIN_SHARE:
                given, family = self.rng.choice(list(titles)).split()
                near = self.names.twin(family)
                if near:
                    titles[f"{given} {near}"] = None
                continue
            titles[f"{self.rng.choice(first)} {self.rng.choice(last)}"] = None
        return list(titles)

    # Facts --------------------------------------------------------------------------------------

    def _people(self) -> None:
        rng, people = self.rng, self.of["person"]
        born = {title: self._date(1700, 1960) for title in people}
        self.born = {title: int(day[:4]) for title, day in born.items()}
        by_age = sorted(people, key=lambda title: (born[title], title))
        teachers = sorted(
            rng.sample(people, max(2, len(people) // 5)), key=lambda title: (born[title], title)
        )
        taught = dict.fromkeys(teachers, 0)
        for title in people:
            facts, year = self.facts[title], self.born[title]
            facts["person.born"] = born[title]
            if rng.random() < 0.6:
                facts["person.died"] = self._date(year + 45, year + 90)
            mother = self._of_age(by_age, year - 42, year - 18, is_woman)
            if mother and rng.random() < 0.6:
                facts["person.mother"] = mother
            teacher = self._of_age(
                teachers,
                year - 50,
                year - 10,
                functools.partial(_may_teach, taught, mother),
            )
            if teacher and rng.random() < 0.75:
                taught[teacher] += 1
                facts["person.teacher"] = teacher
        for title in by_age:
            if "person.spouse" in self.facts[title] or rng.random() < 0.4:
                continue
            year = self.born[title]
            spouse = self._of_age(
                by_age, year - 8, year + 8, functools.partial(self._may_marry, title)
            )
            if spouse:
                self.facts[title]["person.spouse"] = spouse
                self.facts[spouse]["person.spouse"] = title

    def _may_marry(self, title: str, other: str) -> bool:
        mothers = (self.facts[title].get("person.mother"), self.facts[other].get("person.mother"))
        return (
            is_woman(title) != is_woman(other)
            and "person.spouse" not in self.facts[other]
            and other != mothers[0]
            and title != mothers[1]
            and (mothers[0] is None or mothers[0] != mothers[1])
        )

    def _of_age(
        self, by_age: Sequence[str], first: int, last: int, fits: Callable[[str], bool]
    ) -> str | None:
        """Someone born in these years who fits; None if a dozen tries find nobody."""
        low = bisect.bisect_left(by_age, first, key=self.born.__getitem__)
        high = bisect.bisect_right(by_age, last, key=self.born.__getitem__)
        if low == high:
            return None
        tries = (by_age[self.rng.randrange(low, high)] for _ in range(12))
        return next((title for title in tries if fits(title)), None)

    def _places(self) -> None:
        rng, of = self.rng, self.of
        self._relate("mountain.country", of["mountain"], of["country"], limit=_LONGEST_LIST)
        self._relate(
            "mountain.climber", of["mountain"], self._some("person", len(of["mountain"]) // 2)
        )
        self._relate("river.source", of["river"], of["mountain"])
        self._relate("city.country", of["city"], of["country"], limit=2 * _LONGEST_LIST)
        self._relate("city.river", of["city"], of["river"], share=0.75)
        capitals: dict[str, str] = {}
        for city in of["city"]:
            capitals.setdefault(str(self.facts[city].get("city.country")), city)
        currencies = [self.names.root((2, 3)).lower() for _ in of["country"]]
        for country, currency in zip(of["country"], currencies, strict=True):
            facts = self.facts[country]
            facts["country.area"] = self._number(4_000, 900_000)
            facts["country.population"] = self._number(200_000, 90_000_000)
            facts["country.independence"] = self._date(1500, 1960)
            facts["country.currency"] = currency
            if country in capitals:
                facts["country.capital"] = capitals[country]
        for city in of["city"]:
            self.facts[city]["city.population"] = self._number(3_000, 4_000_000)
            self.facts[city]["city.founded"] = rng.randint(820, 1790)
            self.facts[city]["city.elevation"] = rng.randint(3, 2400)
        for river in of["river"]:
            self.facts[river]["river.length"] = self._number(60, 3_900)
            self.facts[river]["river.basin"] = self._number(900, 700_000)
        for mountain in of["mountain"]:
            facts = self.facts[mountain]
            facts["mountain.height"] = rng.randint(900, 8_200)
            year = self.born[str(facts["mountain.climber"])]
            facts["mountain.climbed"] = self._date(year + 18, year + 50)
        for title in of["person"]:
            self.facts[title]["person.birthplace"] = rng.choice(of["city"])
        self._relate("person.university", of["person"], of["university"], share=0.7)
        self._relate("university.city", of["university"], of["city"])
        for title in of["university"]:
            self.facts[title]["university.founded"] = rng.randint(1180, 1900)
            self.facts[title]["university.students"] = self._number(700, 60_000)
            self.facts[title]["university.books"] = self._number(20_000, 9_000_000)

    def _makings(self) -> None:
        rng, of = self.rng, self.of
        self._relate("company.headquarters", of["company"], of["city"])
        self._relate(
            "company.founder", of["company"], self._some("person", len(of["company"]) // 2)
        )
        for title in of["company"]:
            facts = self.facts[title]
            year = self.born[str(facts["company.founder"])]
            facts["company.founded"] = self._date(year + 20, year + 44)
            facts["company.employees"] = self._number(12, 90_000)
            facts["company.revenue"] = self._number(300_000, 900_000_000)
        publishers = [c for c in of["company"] if c.rpartition(" ")[2] in PUBLISHING]
        self._relate("work.author", of["work"], self._some("person", len(of["work"]) // 3))
        self._relate("work.publisher", of["work"], publishers or of["company"])
        for title in of["work"]:
            facts = self.facts[title]
            year = self.born[str(facts["work.author"])]
            facts["work.published"] = self._date(year + 20, year + 44)
            facts["work.pages"] = rng.randint(48, 1_290)
            facts["work.copies"] = self._number(300, 7_000_000)
        self._relate("bridge.river", of["bridge"], of["river"])
        self._relate("bridge.designer", of["bridge"], self._some("person", len(of["bridge"]) // 3))
        for title in of["bridge"]:
            facts = self.facts[title]
            year = self.born[str(facts["bridge.designer"])]
            facts["bridge.opened"] = self._date(year + 24, year + 44)
            facts["bridge.length"] = self._number(35, 4_800)
            facts["bridge.cost"] = self._number(4_000, 80_000_000)

    def _some(self, kind: str, count: int) -> list[str]:
        """A few of a kind, so that each of them gets several things."""
        titles = self.of[kind]
        return self.rng.sample(titles, min(len(titles), max(3, count)))

    def _relate(
        self,
        predicate: str,
        subjects: Sequence[str],
        objects: Sequence[str],
        *,
        limit: int = _LONGEST_LIST,
        share: float = 1.0,
    ) -> None:
        """Give subjects an object each, none to more than ``limit`` while another has room."""
        room = {title: max(limit, -(-len(subjects) // len(objects))) for title in objects}
        open_objects = list(objects)
        for title in subjects:
            if self.rng.random() >= share:
                continue
            chosen = self.rng.choice(open_objects)
            self.facts[title][predicate] = chosen
            room[chosen] -= 1
            if not room[chosen]:
                open_objects.remove(chosen)

    def _number(self, low: int, high: int) -> int:
        """Between the bounds, small and large magnitudes alike."""
        return int(low * (high / low) ** self.rng.random())

    def _date(self, first_year: int, last_year: int) -> str:
        start = datetime.date(first_year, 1, 1).toordinal()
        end = datetime.date(last_year, 12, 28).toordinal()
        return datetime.date.fromordinal(self.rng.randint(start, end)).isoformat()


def _may_teach(taught: Mapping[str, int], mother: str | None, teacher: str) -> bool:
    return taught[teacher] < _LONGEST_LIST and teacher != mother
