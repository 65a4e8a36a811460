"""A world: which things there are and what is true of them; closed, so that counts are exact.

Not here: how the facts are written (``worlds_articles``) or asked for (``worlds_questions``).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from reagent_env.corpus import Corpus
from reagent_env.task_sets.worlds_schema import Predicate, Schema, Value


@dataclass(frozen=True, eq=False)
class World:
    """Things and facts, e.g. ``world.facts["River Oska"]["river.length"] == 412``."""

    schema: Schema
    name: str
    kinds: Mapping[str, str]
    """Title → kind, in the order of the articles."""
    facts: Mapping[str, Mapping[str, Value]]
    """Title → predicate name → value; a relation's value is a title."""
    seed: int = 0
    """Of the articles' wording."""
    related: Mapping[tuple[str, str], list[str]] = field(default_factory=dict)
    """Predicate and title → titles, for relations to many things at once, such as borders."""

    @functools.cached_property
    def titles_of(self) -> dict[str, list[str]]:
        """Kind → titles, in order."""
        grouped: dict[str, list[str]] = {kind: [] for kind in self.schema.kinds}
        for title, kind in self.kinds.items():
            grouped[kind].append(title)
        return grouped

    @functools.cached_property
    def _members(self) -> dict[tuple[str, str], list[str]]:
        members: dict[tuple[str, str], list[str]] = {k: list(v) for k, v in self.related.items()}
        listed = {p.name for p in self.schema.predicates.values() if p.lists}
        for title, facts in self.facts.items():
            for predicate, value in facts.items():
                if predicate in listed:
                    members.setdefault((predicate, str(value)), []).append(title)
        return members

    def members(self, predicate: Predicate, title: str) -> list[str]:
        """All things of which the relation with this object holds, in the order of the articles."""
        return self._members.get((predicate.name, title), [])

    def objects(self, predicate: Predicate, title: str) -> list[str]:
        """All things that a relation leads to from this one: one, none, or (borders) many."""
        if predicate.mutual:
            return self.members(predicate, title)
        value = self.facts[title].get(predicate.name)
        return [] if value is None else [str(value)]

    @functools.cached_property
    def corpus(self) -> Corpus:
        """One article a thing; the same text in every process."""
        from reagent_env.task_sets.worlds_articles import write_articles

        return Corpus(write_articles(self), name=self.name)
