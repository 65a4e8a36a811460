"""The fictional world behind MiniMix: things with short names, a few links and numbers each.

Small on purpose: a policy of a million parameters has to read an article and copy from it. Names
are single words of plain syllables, none inside another; every line of an article is ``label:
value``. Not here: questions (``mini_mix_questions.py``).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from reagent_env.corpus import Corpus, Document
from reagent_env.task_sets.phrasing import stable_random

DEFAULT_SIZE = 1000
"""Things in the world."""
ALIAS = "known as"
"""Label of a thing's second name, which stands in no other article."""


@dataclass(frozen=True)
class ThingKind:
    """What things of a kind have, e.g. ``ThingKind({"mayor": "person"}, {"population": 4})``."""

    links: Mapping[str, str]
    """Relation → kind of the thing that it leads to."""
    numbers: Mapping[str, int]
    """Attribute → digits of its number."""


KINDS: Mapping[str, ThingKind] = MappingProxyType(
    {
        "town": ThingKind(
            {"mayor": "person", "river": "river", "guild": "guild"}, {"population": 4, "height": 3}
        ),
        "person": ThingKind(
            {"home": "town", "teacher": "person", "ship": "ship"}, {"salary": 4, "debt": 3}
        ),
        "river": ThingKind(
            {"source": "town", "keeper": "person", "delta": "town"}, {"length": 4, "depth": 3}
        ),
        "guild": ThingKind(
            {"seat": "town", "founder": "person", "rival": "guild"}, {"fund": 4, "fee": 3}
        ),
        "ship": ThingKind(
            {"captain": "person", "port": "town", "owner": "guild"}, {"cargo": 4, "crew": 3}
        ),
    }
)
"""Kind → its relations; every label belongs to one kind."""

_ONSETS = (*"bdfghklmnprstvz", "br", "dr", "gr", "kr", "tr")
_VOWELS = "aeiou"
_CODAS = ("", "", "n", "l", "r", "s", "k", "m")


@dataclass(frozen=True)
class Thing:
    """An entity, e.g. ``Thing("Velmora", "town", "Zorvin", {"mayor": "Ostrin"}, {"height": 481})``."""

    name: str
    kind: str
    alias: str
    links: Mapping[str, str]
    """Relation → name of another thing."""
    numbers: Mapping[str, int]

    @property
    def article(self) -> str:
        """One fact a line, the alias last."""
        facts = {**self.links, **self.numbers, ALIAS: self.alias}
        return "\n".join(f"{label}: {value}" for label, value in facts.items())


@dataclass(frozen=True, eq=False)
class MiniWorld:
    """All things by name, and their articles as a corpus."""

    things: Mapping[str, Thing]
    corpus: Corpus

    def follow(self, start: str, path: tuple[str, ...]) -> list[str | int] | None:
        """What a chain of labels passes through; None where it comes by a thing twice.

        Example: ``world.follow("Ostrin", ("home", "mayor"))`` is ``["Velmora", "Danu"]``.
        """
        found: list[str | int] = []
        here = self.things[start]
        for label in path:
            if label in here.numbers:
                return [*found, here.numbers[label]]
            name = here.links[label]
            if name == start or name in found:
                return None
            found.append(name)
            here = self.things[name]
        return found


@functools.lru_cache(maxsize=4)
def mini_world(size: int = DEFAULT_SIZE, seed: int = 0) -> MiniWorld:
    """The world of a seed, the same in every process.

    Raises:
        ValueError: fewer than 50 things, or more than there are names for.
    """
    if not 50 <= size <= 5000:
        raise ValueError(f"A world has from 50 to 5000 things, got {size!r}.")
    rng = stable_random("mini-mix", size, seed)
    names = _names(rng, 2 * size)
    kinds = [list(KINDS)[i % len(KINDS)] for i in range(size)]
    by_kind = {kind: [n for n, k in zip(names, kinds, strict=False) if k == kind] for kind in KINDS}
    things = {}
    for name, kind, alias in zip(names, kinds, names[size:], strict=False):
        links: dict[str, str] = {}
        for label, other in KINDS[kind].links.items():
            taken = {name, *links.values()}
            links[label] = rng.choice([one for one in by_kind[other] if one not in taken])
        numbers = {
            label: rng.randrange(10 ** (digits - 1), 10**digits)
            for label, digits in KINDS[kind].numbers.items()
        }
        things[name] = Thing(name, kind, alias, links, numbers)
    documents = [Document(one.name, one.name, one.article) for one in things.values()]
    return MiniWorld(things, Corpus(documents, name=f"mini_mix-{size}-{seed}"))


def _names(rng: random.Random, count: int) -> list[str]:
    """Names of two or three syllables, none a part of another and none a label's word."""
    labels = {label for kind in KINDS.values() for label in (*kind.links, *kind.numbers)}
    taken = dict.fromkeys([*labels, *KINDS, "known"], True)
    parts = {part for name in taken for part in _stretches(name)}
    found: list[str] = []
    while len(found) < count:
        syllables = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice((2, 3)))]
        name = "".join(syllables) + rng.choice(_CODAS)
        stretches = _stretches(name)
        if name in parts or any(part in taken for part in stretches):
            continue
        taken[name] = True
        parts |= stretches
        found.append(name.capitalize())
    return found


def _stretches(name: str) -> set[str]:
    """Every part of a name from four letters up, itself included."""
    return {name[i:j] for i in range(len(name)) for j in range(i + 4, len(name) + 1)}
