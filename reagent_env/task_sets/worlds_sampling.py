"""Draws questions about a world and makes tasks of them: any number, shape and depth.

A task's split is that of the thing that its question starts from (of two, the first by name), so
that no question about it is put in another split.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reagent_env.task import SPLITS, Task
from reagent_env.task_sets.phrasing import content_split, stable_random
from reagent_env.task_sets.worlds_facts import World
from reagent_env.task_sets.worlds_questions import (
    Evidence,
    Node,
    Query,
    Unanswerable,
    answer,
    facts_as_json,
    find,
    language_of,
)
from reagent_env.task_sets.worlds_schema import Predicate, Value, show_value

MAX_MEMBERS = 6
"""Largest set whose members all have to be looked up."""

SHAPES: Mapping[tuple[str, int], int] = {
    ("relation", 1): 10,
    ("attribute", 1): 12,
    ("chain", 2): 9,
    ("attribute", 2): 10,
    ("count", 2): 3,
    ("comparison", 2): 4,
    ("intersection", 2): 5,
    ("superlative", 2): 4,
    ("chain", 3): 7,
    ("attribute", 3): 7,
    ("superlative", 3): 5,
    ("filter", 3): 4,
    ("comparison", 3): 3,
    ("count", 3): 2,
    ("intersection", 3): 2,
    ("chain", 4): 5,
    ("attribute", 4): 5,
    ("superlative", 4): 3,
}
"""Shape and hops → weight. Shapes: one relation, a chain of them, an attribute at a chain's end, a
comparison of two things, a count, the most or least of a set, the member of a set by year, the one
thing in two sets."""


@dataclass(frozen=True)
class Drawn:
    """A query with its answer by the facts."""

    shape: str
    query: Query
    answer: Value
    evidence: tuple[Evidence, ...]


class Sampler:
    """Draws queries whose first name belongs to one split."""

    def __init__(self, world: World, split: str, rng: random.Random) -> None:
        self.world = world
        self.schema = world.schema
        self.rng = rng
        self.split = split
        self.anchors = anchors_of(world)[split]
        self._kinds = [kind for kind, titles in self.anchors.items() if titles]

    def draw(self, shape: str, hops: int) -> Drawn | None:
        """One query of a shape, or None where this try led nowhere."""
        draw: Callable[[int], Query | None] = getattr(self, f"_{shape}")
        query = draw(hops)
        if query is None or query.hops != hops:
            return None
        # A question about two things may be drawn from either end: the first by name decides.
        if content_split(min(query.anchors)) != self.split:
            return None
        try:
            value, evidence = answer(self.world, query)
        except Unanswerable:
            return None
        if len(set(query.anchors)) < len(query.anchors) or self._given_away(query, value):
            return None
        return Drawn(shape, query, value, tuple(evidence))

    def path(self, hops: int, kind: str | None = None) -> tuple[Node, str] | None:
        """A chain of relations from a name of the split, ending at a thing (of a kind)."""
        title = self._anchor()
        node, seen = Node("name", title), {title}
        for _ in range(hops):
            steps = [
                (p, str(v))
                for p in self.schema.by_subject[self.world.kinds[title]]
                if p.phrases and (v := self.world.facts[title].get(p.name)) and str(v) not in seen
            ]
            if not steps:
                return None
            predicate, title = self.rng.choice(steps)
            seen.add(title)
            node = Node("step", predicate=predicate.name, of=node)
        if kind is not None and self.world.kinds[title] != kind:
            return None
        return node, title

    def attributes(self, title: str, keep: Callable[[Predicate], Any]) -> list[Predicate]:
        """The attributes known of a thing that pass a test."""
        return [
            p
            for p in self.schema.by_subject[self.world.kinds[title]]
            if p.noun and keep(p) and self.world.facts[title].get(p.name) is not None
        ]

    # Shapes -------------------------------------------------------------------------------------

    def _relation(self, hops: int) -> Query | None:
        return self._chain(hops)

    def _chain(self, hops: int) -> Query | None:
        path = self.path(hops)
        return Query("entity", path[0]) if path else None

    def _attribute(self, hops: int) -> Query | None:
        path = self.path(hops - 1)
        return self._asked(path, lambda p: True) if path else None

    def _comparison(self, hops: int) -> Query | None:
        first = self.path(hops - 1)
        if first is None:
            return None
        kind = self.world.kinds[first[1]]
        known = self.attributes(first[1], lambda p: p.comparatives)
        second = next(
            (p for _ in range(12) if (p := self.path(hops - 1, kind)) and p[1] != first[1]), None
        )
        if second is None or not known:
            return None
        most = self.rng.random() < 0.5
        return Query("comparison", first[0], self.rng.choice(known).name, second[0], most)

    def _count(self, hops: int) -> Query | None:
        path = self.path(hops - 1)
        sets = self.sets(path[1], 2, 99) if path else []
        return Query("count", path[0], self.rng.choice(sets).name) if path and sets else None

    def _superlative(self, hops: int) -> Query | None:
        # Either the thing itself, or an attribute or relation of it: one look-up more.
        further = hops > 2 and self.rng.random() < 0.6
        path = self.path(hops - 2 - further)
        if path is None:
            return None
        options = [
            (s, a)
            for s in self.sets(path[1], 3, MAX_MEMBERS)
            for a in self.schema.by_subject[s.subject]
            if a.superlatives
        ]
        if not options:
            return None
        relation, attribute = self.rng.choice(options)
        node = Node(
            "extreme",
            predicate=relation.name,
            of=path[0],
            attribute=attribute.name,
            most=self.rng.random() < 0.5,
        )
        return self._further(node, further)

    def _filter(self, hops: int) -> Query | None:
        further = self.rng.random() < 0.5
        path = self.path(hops - 2 - further)
        if path is None:
            return None
        options = [
            (s, a)
            for s in self.sets(path[1], 3, MAX_MEMBERS)
            for a in self.schema.by_subject[s.subject]
            if a.happened
        ]
        if not options:
            return None
        relation, attribute = self.rng.choice(options)
        member = self.rng.choice(self.world.members(relation, path[1]))
        day = self.world.facts[member].get(attribute.name)
        if day is None:
            return None
        node = Node(
            "occurred",
            predicate=relation.name,
            of=path[0],
            attribute=attribute.name,
            year=int(str(day)[:4]),
        )
        return self._further(node, further)

    def _intersection(self, hops: int) -> Query | None:
        further = hops > 2
        title = self._anchor()
        options = []
        for relation in self.sets(title, 2, 99):
            for member in self.world.members(relation, title):
                for second in self.schema.by_subject[relation.subject]:
                    if not second.members or (second is relation and not second.mutual):
                        continue
                    options += [
                        (relation, second, other)
                        for other in self.world.objects(second, member)
                        if other != title and len(self.world.members(second, other)) > 1
                    ]
        if not options:
            return None
        relation, second, other_title = self.rng.choice(options)
        node = Node(
            "both",
            predicate=relation.name,
            of=Node("name", title),
            predicate2=second.name,
            of2=Node("name", other_title),
        )
        return self._further(node, further)

    # Parts --------------------------------------------------------------------------------------

    def _anchor(self) -> str:
        return self.rng.choice(self.anchors[self.rng.choice(self._kinds)])

    def sets(self, title: str, least: int, most: int) -> list[Predicate]:
        """The sets of this size that a thing's article lists."""
        return [
            p
            for p in self.schema.listings(self.world.kinds[title])
            if p.members and least <= len(self.world.members(p, title)) <= most
        ]

    def _further(self, node: Node, further: bool) -> Query | None:
        """The thing, or something about it."""
        if not further:
            return Query("entity", node)
        try:
            title = find(self.world, node, [])
        except Unanswerable:
            return None
        if self.rng.random() < 0.5:
            return self._asked(
                (node, title), lambda p: p.name != node.attribute and p.value != "text"
            )
        relations = [
            p
            for p in self.schema.by_subject[self.world.kinds[title]]
            if p.phrases and p.name in self.world.facts[title] and p.name != node.predicate
        ]
        if not relations:
            return None
        return Query("entity", Node("step", predicate=self.rng.choice(relations).name, of=node))

    def _asked(self, path: tuple[Node, str], keep: Callable[[Predicate], Any]) -> Query | None:
        known = self.attributes(path[1], keep)
        return Query("attribute", path[0], self.rng.choice(known).name) if known else None

    def _given_away(self, query: Query, value: Value) -> bool:
        """True where the answer stands in the question, as a name or as part of one."""
        if isinstance(value, int):
            return False
        wanted = str(value).lower()
        return any(re.search(rf"\b{re.escape(wanted)}\b", name.lower()) for name in query.anchors)


def draw_tasks(
    world: World,
    split: str,
    count: int,
    shapes: Mapping[tuple[str, int], int] = SHAPES,
) -> list[Task]:
    """``count`` tasks of a split (fewer where the world is too small), in a fixed mixed order.

    Raises:
        ValueError: the world yields no task at all.
    """
    rng = stable_random("questions", world.name, split)
    sampler = Sampler(world, split, rng)
    tasks: dict[str, Task] = {}
    left = dict(shapes)
    while len(tasks) < count and left:
        # A shape that the world has too few of leaves its share to the others.
        for (shape, hops), wanted in quotas(left, count - len(tasks)).items():
            made = 0
            for _ in range(40 * wanted + 200):
                if made == wanted:
                    break
                drawn = sampler.draw(shape, hops)
                task = _task(world, drawn, rng, split) if drawn else None
                if task is not None and _identity(task) not in tasks:
                    tasks[_identity(task)] = task
                    made += 1
            if made < wanted:
                del left[shape, hops]
    if not tasks:
        raise ValueError(f"{world.name} yields no question for split {split!r}; make it larger.")
    mixed = list(tasks.values())
    rng.shuffle(mixed)
    return mixed


def quotas(weights: Mapping[Any, int], count: int) -> dict[Any, int]:
    """Shares of ``count`` by weight that add up to it (largest remainders)."""
    total = sum(weights.values())
    exact = {key: count * weight / total for key, weight in weights.items()}
    whole = {key: int(share) for key, share in exact.items()}
    for key in sorted(exact, key=lambda k: whole[k] - exact[k])[: count - sum(whole.values())]:
        whole[key] += 1
    return whole


def _identity(task: Task) -> str:
    """What makes the question, whatever its wording."""
    return str(task.metadata["query"])


def _task(world: World, drawn: Drawn, rng: random.Random, split: str) -> Task | None:
    language = language_of(world.schema)
    kind = world.kinds.get(str(drawn.answer), "")
    question, phrasing = language.question(world, drawn.query, kind, rng, split)
    gold, grader, options = gold_answer(world, drawn.query, drawn.answer)
    titles = list(dict.fromkeys(title for title, _, _ in drawn.evidence))
    metadata: dict[str, Any] = {
        "kind": drawn.shape,
        "level": drawn.query.hops,
        "hops": drawn.query.hops,
        "phrasing": phrasing,
        "split": split,
        "source": world.schema.name,
        "query": repr_query(drawn.query),
        "evidence": facts_as_json(drawn.evidence),
        "supporting_titles": titles,
    }
    if options:
        metadata["grader_options"] = options
    return Task(question, gold, grader, metadata=metadata)


def gold_answer(world: World, query: Query, value: Value) -> tuple[Any, str, dict[str, Any]]:
    """Answer, grader and the grader's options for a value asked for."""
    if query.form == "count":
        return value, "number", {"any_unit": True}
    if query.form == "attribute":
        predicate = world.schema.predicates[query.predicate]
        if predicate.value == "number":
            return value, "number", {"unit": list(predicate.units)}
        if predicate.value == "year":
            return value, "number", {"unit": ["AD", "CE"]}
        if predicate.value == "date":
            shown = [show_value(predicate, value), show_value(predicate, value, 1), str(value)]
            return shown, "exact", {}
    aliases = other_names(str(value))
    return value, "exact", {"aliases": aliases} if aliases else {}


def other_names(title: str) -> list[str]:
    """Other ways to write a thing's name, e.g. ``Oska River`` for ``River Oska``."""
    kind, _, root = title.partition(" ")
    if kind == "River" and root:
        return [f"{root} River"]
    if kind == "Mount" and root:
        return [f"Mt. {root}"]
    return []


def repr_query(query: Query) -> str:
    """A short canonical text of the logical form, e.g. ``bridge.length(bridge.river(…))``."""
    if query.form == "comparison":
        assert query.other is not None
        pair = sorted((repr_node(query.node), repr_node(query.other)))
        return f"{'more' if query.most else 'less'} {query.predicate}: {pair[0]} / {pair[1]}"
    form = "" if query.form == "entity" else f"{query.form} {query.predicate}: "
    return form + repr_node(query.node)


def repr_node(node: Node) -> str:
    """A short canonical text of a description."""
    if node.of is None:
        return node.title
    inside = repr_node(node.of)
    if node.op == "step":
        return f"{node.predicate}({inside})"
    if node.op == "both":
        assert node.of2 is not None
        sets = sorted((f"{node.predicate}={inside}", f"{node.predicate2}={repr_node(node.of2)}"))
        return f"both({'; '.join(sets)})"
    which = node.year if node.op == "occurred" else "most" if node.most else "least"
    return f"{which} {node.attribute}({node.predicate}={inside})"


@functools.lru_cache(maxsize=8)
def anchors_of(world: World) -> dict[str, dict[str, list[str]]]:
    """Split → kind → titles: which things a split's questions start from."""
    grouped: dict[str, dict[str, list[str]]] = {
        split: {kind: [] for kind in world.schema.kinds} for split in SPLITS
    }
    for title, kind in world.kinds.items():
        grouped[content_split(title)][kind].append(title)
    return grouped


def mixed_splits(sizes: Mapping[str, int], split: str | None) -> Iterator[tuple[str, int]]:
    """The splits asked for with their sizes."""
    for name in SPLITS:
        if split in (None, name) and sizes.get(name):
            yield name, sizes[name]


def only_levels(
    shapes: Mapping[tuple[str, int], int], levels: Sequence[int] | None, kinds: Sequence[str] | None
) -> dict[tuple[str, int], int]:
    """The shapes of these hops and kinds.

    Raises:
        ValueError: none is left.
    """
    kept = {
        (shape, hops): weight
        for (shape, hops), weight in shapes.items()
        if (levels is None or hops in levels) and (kinds is None or shape in kinds)
    }
    if not kept:
        known = sorted({shape for shape, _ in shapes}), sorted({hops for _, hops in shapes})
        raise ValueError(
            f"No questions with levels {levels} and kinds {kinds}; kinds: {', '.join(known[0])}; "
            f"levels: {', '.join(map(str, known[1]))}."
        )
    return kept
