"""The words of FileQA: themes (what the tables are about) and phrasings of each kind of question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_SYLLABLES = (
    ("Al", "Bre", "Cor", "Dun", "El", "Fen", "Gar", "Hol", "Ive", "Ker", "Lan", "Mor"),
    ("ford", "wick", "mouth", "stead", "ham", "dale"),
)
_FIRST = (
    *("Ana", "Bo", "Carla", "Dmitri", "Esra", "Femi", "Gita", "Hugo", "Ines", "Jun", "Kofi"),
    *("Lena", "Mats", "Nadia", "Omar", "Petra"),
)
_LAST = (
    *("Abara", "Berg", "Castro", "Dahl", "Endo", "Farkas", "Gomez", "Haas", "Ilves", "Jansen"),
    *("Kaya", "Lund", "Moreau", "Novak"),
)


def _towns(offset: int) -> tuple[str, ...]:
    starts, ends = _SYLLABLES
    return tuple(
        starts[i % len(starts)] + ends[(i // len(starts) * 2 + i + offset) % len(ends)]
        for i in range(24)
    )


def _people(offset: int, many: int = 28) -> tuple[str, ...]:
    return tuple(
        f"{_FIRST[(3 * i + offset) % len(_FIRST)]} {_LAST[(5 * i + offset) % len(_LAST)]}"
        for i in range(many)
    )


@dataclass(frozen=True)
class Theme:
    """What a table is about: the names of its columns and the values they take."""

    table: str
    second: str
    prefix: str
    key: str
    place: str
    item: str
    count: str
    amount: str
    person: str
    group: str
    owner: str
    places: tuple[str, ...]
    items: tuple[str, ...]
    people: tuple[str, ...]
    groups: tuple[str, ...]
    owners: tuple[str, ...]

    def names(self) -> dict[str, str]:
        """The column and table names that phrasings mention."""
        columns = ("second", "key", "item", "count", "amount", "group", "owner")
        return {column: getattr(self, column) for column in columns}


THEMES: tuple[Theme, ...] = (
    Theme(
        *("orders", "products", "OR", "order", "branch", "product", "units", "price", "seller"),
        *("category", "supplier"),
        places=_towns(0),
        items=(
            *("anvil", "bellows", "chisel", "drill", "easel", "flask", "gauge", "hinge", "inkpot"),
            *("jigsaw", "kettle", "lathe", "mallet", "nozzle", "oven", "pulley"),
        ),
        people=_people(0),
        groups=("workshop", "kitchen", "office", "garden", "laboratory", "studio", "stable"),
        owners=tuple(f"{name} Ltd" for name in _towns(1)),
    ),
    Theme(
        *("shipments", "cargo_types", "SH", "shipment", "port", "cargo", "crates", "tonnes"),
        *("captain", "hazard_class", "handler"),
        places=_towns(2),
        items=(
            *("amber", "barley", "cement", "dates", "ebony", "flax", "granite", "hemp", "indigo"),
            *("jute", "kelp", "linseed", "marble", "nickel", "olives", "paper"),
        ),
        people=_people(1),
        groups=("green", "yellow", "orange", "red", "blue", "white", "black"),
        owners=_people(7),
    ),
    Theme(
        *("visits", "exhibits", "VI", "visit", "site", "exhibit", "guests", "takings", "guide"),
        *("wing", "curator"),
        places=_towns(3),
        items=(
            *("armour", "bronzes", "clocks", "dinosaurs", "enamels", "fossils", "globes", "harps"),
            *("icons", "jewels", "kites", "locks", "masks", "nautilus", "organs", "portraits"),
        ),
        people=_people(4),
        groups=("north", "south", "east", "west", "annex", "tower", "cellar"),
        owners=_people(9),
    ),
)

_WHERE = "the rows of the table {table} where {conditions}"

PHRASINGS: Mapping[str, tuple[str, ...]] = {
    "sum": (
        f"What is the total of {{count}} over {_WHERE}? Answer with a whole number.",
        f"Add up the column {{count}} for {_WHERE}. Give the total.",
        f"Take {_WHERE}. What do their {{count}} add up to?",
        f"Give the sum of {{count}} in {_WHERE}.",
        f"For the yearly report somebody needs the overall {{count}} of {_WHERE}. "
        "Which whole number goes into the report?",
    ),
    "average": (
        f"What is the mean of {{amount}} over {_WHERE}? Round to two decimals.",
        f"Average the column {{amount}} for {_WHERE}; give two decimals.",
        f"Take {_WHERE}. What is their average {{amount}}, to two decimals?",
        f"Give the arithmetic mean of {{amount}} in {_WHERE}, rounded to two decimals.",
        f"If {_WHERE} all had the same {{amount}} without changing the total, what would it be, "
        "to two decimals?",
    ),
    "join_sum": (
        f"What is the total of {{count}} over {_WHERE}, counting only each {{item}} whose {{group}} "
        'is "{value}" (see {second})?',
        'The table {second} gives the {group} of each {item}. For {group} "{value}" alone, add up '
        f"{{count}} over {_WHERE}.",
        f'Take {_WHERE} and keep those whose {{item}} has the {{group}} "{{value}}" in {{second}}. '
        "What is the sum of their {count}?",
        'With the {group} of each {item} from {second}, give the sum of {count} for {group} "{value}" '
        "within "
        f"{_WHERE}.",
        f'Looking at {_WHERE}, how large is the overall {{count}} of the {{group}} "{{value}}", as '
        "{second} assigns it to each {item}?",
    ),
    "count": (
        f"How many of {_WHERE} have {{count}} below {{bound}}?",
        f"Count {_WHERE}, but only those with {{count}} less than {{bound}}.",
        f"Take {_WHERE}. In how many of them is {{count}} smaller than {{bound}}?",
        f"Give the number of rows with {{count}} under {{bound}} among {_WHERE}.",
        f"An auditor ticks each of {_WHERE} if its {{count}} is lower than {{bound}}. "
        "How many ticks are there?",
    ),
    "best_item": (
        f"Which {{item}} has the largest total of {{count}} in {_WHERE}?",
        f"Group {_WHERE} by {{item}}. Which {{item}} has the highest sum of {{count}}?",
        f"Take {_WHERE}. Name the {{item}} whose {{count}} add up to the most.",
        f"Name the {{item}} with the greatest overall {{count}} among {_WHERE}.",
        f"A prize goes to the {{item}} with the biggest summed {{count}} within {_WHERE}. "
        "Which one wins?",
    ),
    "largest": (
        f"Rank {_WHERE} by {{amount}}, largest first. Which {{key}} stands at rank {{rank}}?",
        f"Sort {_WHERE} by falling {{amount}} and give the {{key}} at position {{rank}}.",
        f"Take {_WHERE}. Which {{key}} is number {{rank}} by {{amount}}, counted from the highest?",
        f"Give the {{key}} with rank {{rank}} in {{amount}} (1 is the highest) among {_WHERE}.",
        f"If {_WHERE} stood in a line from the highest {{amount}} down, which {{key}} would be at "
        "place {rank}?",
    ),
    "two_hops": (
        'In the table {table}, which {item} belongs to the {key} "{value}", and who is the {owner} '
        "of that {item} according to {second}? Answer with the {owner}.",
        'Find the {key} "{value}" in the table {table} and look its {item} up in {second}. Name the '
        "{owner}.",
        "According to {second}, what is the {owner} of the {item} in the row of the table {table} "
        'with {key} "{value}"?',
        'Name the {owner} that {second} gives for the {item} of {key} "{value}" in the table '
        "{table}.",
        'Somebody has a complaint about {key} "{value}" in the table {table}, and {second} says '
        "whose {item} it is. Which {owner} should be called?",
    ),
    "days": (
        f"How many days lie between the first and the last date in {_WHERE}?",
        f"Find the earliest and the latest date among {_WHERE}. How many days are they apart?",
        f"Take {_WHERE}. How many days is it from their first date to their last?",
        f"Give the difference in days of the latest and the earliest date in {_WHERE}.",
        f"A camera films from the first to the last date of {_WHERE}. "
        "How many days after the start does it stop?",
    ),
}
