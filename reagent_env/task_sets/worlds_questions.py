"""Questions about a world: their logical form, their wording, their answer, and reading them back.

A question is a :class:`Query` over :class:`Node` descriptions of things, such as "the designer of
the longest of the bridges over River Oska". Answering here looks at the facts; finding them by
search is ``worlds_solver``.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from reagent_env.task_sets.phrasing import choose_phrasing
from reagent_env.task_sets.worlds_facts import World
from reagent_env.task_sets.worlds_schema import Predicate, Schema, Value

Evidence = tuple[str, str, Value]
"""Title, predicate and value: one fact that an answer rests on."""


@dataclass(frozen=True)
class Node:
    """A description of one thing.

    ``name``: a title. ``step``: the relation's object of ``of``. ``extreme``: the most or least by
    ``attribute`` among the things whose ``predicate`` is ``of``. ``occurred``: the one of them whose
    ``attribute`` fell into ``year``. ``both``: the one thing that is in two such sets.
    """

    op: str
    title: str = ""
    predicate: str = ""
    of: Node | None = None
    attribute: str = ""
    most: bool = False
    year: int = 0
    predicate2: str = ""
    of2: Node | None = None

    @property
    def hops(self) -> int:
        """How many look-ups depend on each other."""
        if self.of is None:
            return 0
        deepest = max(self.of.hops, self.of2.hops if self.of2 else 0)
        return deepest + (1 if self.op == "step" else 2)

    @property
    def anchors(self) -> tuple[str, ...]:
        """The titles that stand in the question."""
        if self.of is None:
            return (self.title,)
        return self.of.anchors + (self.of2.anchors if self.of2 else ())


@dataclass(frozen=True)
class Query:
    """A question. ``form`` is ``entity``, ``attribute``, ``count`` or ``comparison``."""

    form: str
    node: Node
    predicate: str = ""
    """The attribute asked for or compared by, or the relation counted."""
    other: Node | None = None
    """The second thing of a comparison."""
    most: bool = False
    """For a comparison: ask for the greater."""

    @property
    def hops(self) -> int:
        """How many look-ups depend on each other, 1 or more."""
        if self.form == "entity":
            return self.node.hops
        return max(self.node.hops, self.other.hops if self.other else 0) + 1

    @property
    def anchors(self) -> tuple[str, ...]:
        """The titles that stand in the question."""
        return self.node.anchors + (self.other.anchors if self.other else ())


class Unanswerable(Exception):
    """The world gives no single answer."""


def answer(world: World, query: Query) -> tuple[Value, list[Evidence]]:
    """The one answer by the world's facts, and the facts that it rests on.

    Raises:
        Unanswerable: a fact is missing, or more than one thing fits.
    """
    evidence: list[Evidence] = []
    title = find(world, query.node, evidence)
    if query.form == "entity":
        return title, evidence
    predicate = world.schema.predicates[query.predicate]
    if query.form == "count":
        members = world.members(predicate, title)
        evidence += [(member, predicate.name, title) for member in members]
        return len(members), evidence
    value = _fact(world, title, predicate.name, evidence)
    if query.form == "attribute":
        return value, evidence
    assert query.other is not None
    other = find(world, query.other, evidence)
    other_value = _fact(world, other, predicate.name, evidence)
    if title == other or value == other_value:
        raise Unanswerable("both are equal")
    return (title if (value > other_value) == query.most else other), evidence  # type: ignore[operator]


def find(world: World, node: Node, evidence: list[Evidence]) -> str:
    """The one thing that a description fits; facts used are added to ``evidence``."""
    if node.of is None:
        if node.title not in world.kinds:
            raise Unanswerable(f"no thing {node.title!r}")
        return node.title
    of = find(world, node.of, evidence)
    if node.op == "step":
        return str(_fact(world, of, node.predicate, evidence))
    predicate = world.schema.predicates[node.predicate]
    members = world.members(predicate, of)
    evidence += [(member, predicate.name, of) for member in members]
    if node.op == "both":
        assert node.of2 is not None
        of2 = find(world, node.of2, evidence)
        second = world.members(world.schema.predicates[node.predicate2], of2)
        evidence += [(member, node.predicate2, of2) for member in second]
        fitting = [member for member in members if member in second]
    else:
        values = {m: world.facts[m].get(node.attribute) for m in members}
        evidence += [(m, node.attribute, v) for m, v in values.items() if v is not None]
        if not members or None in values.values():
            raise Unanswerable("a member's value is missing")
        if node.op == "occurred":
            fitting = [m for m, v in values.items() if str(v).startswith(f"{node.year:04d}-")]
        else:
            best = (max if node.most else min)(values.values())  # type: ignore[type-var]
            fitting = [m for m, v in values.items() if v == best]
    if len(fitting) != 1:
        raise Unanswerable(f"{len(fitting)} things fit")
    return fitting[0]


def _fact(world: World, title: str, predicate: str, evidence: list[Evidence]) -> Value:
    value = world.facts[title].get(predicate)
    if value is None:
        raise Unanswerable(f"{title} has no {predicate}")
    evidence.append((title, predicate, value))
    return value


# Wording ----------------------------------------------------------------------------------------

ENTITY_FRAMES = (
    "What is the name of {s}?",
    "Name {s}.",
    "Which {kind} is {s}?",
    "Give the name of {s}.",
    "Find out what {s} is called.",
)
ATTRIBUTE_FRAMES = (
    "What is the {noun} of {s}?",
    "{ask}",
    "Give the {noun} of {s}.",
    "State the {noun} of {s}.",
    "Look up the {noun} of {s}.",
)
COUNT_FRAMES = (
    "How many {m} are there?",
    "What is the number of {m}?",
    "Count the {m}.",
    "Say how many {m} there are.",
    "Find out how many {m} exist.",
)
COMPARISON_FRAMES = (
    "Which one {c}: {a} or {b}?",
    "Name the one that {c}, {a} or {b}.",
    "Of {a} and {b}, which one {c}?",
    "Tell me which one {c}, {a} or {b}.",
    "Take {a} and {b}; give the name of the one that {c}.",
)
EXTREME_PHRASES = (
    "the {sup} of the {m}",
    "the {sup} among the {m}",
    "the one that is {sup} of all {m}",
)
OCCURRED_PHRASES = (
    "the one of the {m} that {happened} in {y}",
    "the only one of the {m} that {happened} in {y}",
    "the single one among the {m} that {happened} in {y}",
)
BOTH_PHRASES = (
    "the {kind} that is both among the {m1} and among the {m2}",
    "the one {kind} found both among the {m1} and among the {m2}",
    "the {kind} that the {m1} and the {m2} have in common",
)


@dataclass(frozen=True)
class Pattern:
    """A wording with places such as ``{s}``, and what it stands for."""

    parts: tuple[str, ...]
    """Fixed texts around the places; one more than places."""
    places: tuple[str, ...]
    form: Any
    """The node or query that it stands for."""

    def fits(self, text: str) -> Iterator[dict[str, str]]:
        """Every way in which the text fills the places; none of them empty."""
        first, last = self.parts[0], self.parts[-1]
        if len(first) + len(last) < len(text) and text.startswith(first) and text.endswith(last):
            yield from self._filled(0, text[len(first) : len(text) - len(last)])

    def _filled(self, place: int, text: str) -> Iterator[dict[str, str]]:
        name = self.places[place]
        if place == len(self.places) - 1:
            yield {name: text}
            return
        between = self.parts[place + 1]
        at = text.find(between, 1)
        while at >= 0 and at + len(between) < len(text):
            for rest in self._filled(place + 1, text[at + len(between) :]):
                yield {name: text[:at], **rest}
            at = text.find(between, at + 1)


_HOLE = Node("name", "?")


@dataclass(frozen=True)
class Language:
    """All wordings of a schema, for writing and for reading questions."""

    schema: Schema
    phrases: Sequence[Pattern] = field(init=False)
    frames: Sequence[Pattern] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "phrases", tuple(self._phrase_patterns()))
        object.__setattr__(self, "frames", tuple(self._frame_patterns()))

    # Writing ------------------------------------------------------------------------------------

    def phrase(self, world: World, node: Node, rng: random.Random, held_out: bool) -> str:
        """A noun phrase for a node; held-out wordings only where asked for."""
        if node.of is None:
            return self.schema.shown(world.kinds[node.title], node.title)
        inner = self.phrase(world, node.of, rng, held_out)
        predicate = self.schema.predicates[node.predicate]
        if node.op == "step":
            return pick(predicate.phrases, rng, held_out).replace("{s}", inner)
        members = pick(predicate.members, rng, held_out).replace("{v}", inner)
        if node.op == "extreme":
            superlatives = self.schema.predicates[node.attribute].superlatives
            assert superlatives is not None
            text = pick(EXTREME_PHRASES, rng, held_out)
            return text.replace("{sup}", superlatives[not node.most]).replace("{m}", members)
        if node.op == "occurred":
            happened = self.schema.predicates[node.attribute].happened
            text = pick(OCCURRED_PHRASES, rng, held_out).replace("{happened}", happened)
            return text.replace("{y}", str(node.year)).replace("{m}", members)
        assert node.of2 is not None
        second = self.schema.predicates[node.predicate2]
        members2 = pick(second.members, rng, held_out).replace(
            "{v}", self.phrase(world, node.of2, rng, held_out)
        )
        text = pick(BOTH_PHRASES, rng, held_out).replace("{kind}", predicate.subject)
        return text.replace("{m1}", members).replace("{m2}", members2)

    def question(
        self, world: World, query: Query, kind: str, rng: random.Random, split: str
    ) -> tuple[str, int]:
        """The question in words, and the index of its frame (the last is held out for test)."""
        frames = {
            "entity": ENTITY_FRAMES,
            "attribute": ATTRIBUTE_FRAMES,
            "count": COUNT_FRAMES,
            "comparison": COMPARISON_FRAMES,
        }[query.form]
        index, frame = choose_phrasing(rng, frames, split)
        held_out = index == len(frames) - 1
        subject = self.phrase(world, query.node, rng, held_out)
        if query.form == "entity":
            return frame.replace("{kind}", kind).replace("{s}", subject), index
        predicate = self.schema.predicates[query.predicate]
        if query.form == "attribute":
            text = frame.replace("{ask}", predicate.ask).replace("{noun}", predicate.noun)
            return text.replace("{s}", subject), index
        if query.form == "count":
            members = pick(predicate.members, rng, held_out).replace("{v}", subject)
            return frame.replace("{m}", members), index
        assert query.other is not None
        assert predicate.comparatives is not None
        text = frame.replace("{c}", predicate.comparatives[not query.most])
        second = self.phrase(world, query.other, rng, held_out)
        return text.replace("{a}", subject).replace("{b}", second), index

    # Reading ------------------------------------------------------------------------------------

    def parse(self, question: str) -> list[Query]:
        """Every reading of a question in which each name looks like one of the kind needed."""
        text = " ".join(question.split())
        found: dict[Query, None] = {}
        cache: dict[str, list[Node]] = {}
        for pattern in self.frames:
            query = pattern.form
            assert isinstance(query, Query)
            for places in pattern.fits(text):
                for node in self.parse_phrase(places["s"], cache):
                    if not self.may_be(node, self._subject_kind(query)):
                        continue
                    if query.form != "comparison":
                        found[_filled_query(query, node, None)] = None
                        continue
                    for other in self.parse_phrase(places["t"], cache):
                        if self.may_be(other, self._subject_kind(query)):
                            found[_filled_query(query, node, other)] = None
        return list(found)

    def parse_phrase(self, text: str, cache: dict[str, list[Node]] | None = None) -> list[Node]:
        """Every reading of a noun phrase."""
        cache = {} if cache is None else cache
        if text in cache:
            return cache[text]
        cache[text] = []
        found: dict[Node, None] = {}
        if text[0].isupper() or text[0] == '"':
            found[Node("name", text.strip('"'))] = None
        for pattern in self.phrases:
            form = pattern.form
            assert isinstance(form, Node)
            for places in pattern.fits(text):
                year = places.get("y", "0")
                if not year.isdigit():
                    continue
                for of in self.parse_phrase(places["s"], cache):
                    if not self.may_be(of, self._of_kind(form.op, form.predicate)):
                        continue
                    if form.of2 is None:
                        found[_filled_node(form, of, None, int(year))] = None
                        continue
                    for of2 in self.parse_phrase(places["t"], cache):
                        if self.may_be(of2, self._of_kind(form.op, form.predicate2)):
                            found[_filled_node(form, of, of2, 0)] = None
        cache[text] = list(found)
        return cache[text]

    def kind_of(self, node: Node) -> str | None:
        """The kind of thing a node describes; None for a name."""
        if node.of is None:
            return None
        predicate = self.schema.predicates[node.predicate]
        return predicate.value if node.op == "step" else predicate.subject

    def may_be(self, node: Node, kind: str | None) -> bool:
        """Whether a node describes, or a name looks like, a thing of this kind (None: of any)."""
        if node.of is not None:
            return kind is None or self.kind_of(node) == kind
        kinds = [self.schema.kinds[kind]] if kind else self.schema.kinds.values()
        return any(re.fullmatch(k.pattern, node.title) for k in kinds)

    def _of_kind(self, op: str, name: str) -> str:
        predicate = self.schema.predicates[name]
        return predicate.subject if op == "step" else predicate.value

    def _subject_kind(self, query: Query) -> str | None:
        if query.form == "entity":
            return None
        predicate = self.schema.predicates[query.predicate]
        return predicate.value if query.form == "count" else predicate.subject

    # All wordings -------------------------------------------------------------------------------

    def _phrase_patterns(self) -> Iterator[Pattern]:
        for predicate in self.schema.predicates.values():
            for phrase in predicate.phrases:
                yield cut(phrase, Node("step", predicate=predicate.name, of=_HOLE))
            for members in predicate.members:
                for attribute in self.schema.by_subject[predicate.subject]:
                    yield from self._set_patterns(predicate, attribute, members)
        for first in self.schema.predicates.values():
            for second in self.schema.by_subject[first.subject]:
                if (first is second and not first.mutual) or not (first.members and second.members):
                    continue
                form = Node(
                    "both", predicate=first.name, of=_HOLE, predicate2=second.name, of2=_HOLE
                )
                for template in BOTH_PHRASES:
                    for members in first.members:
                        for members2 in second.members:
                            text = template.replace("{kind}", first.subject)
                            text = text.replace("{m1}", members.replace("{v}", "{s}"))
                            yield cut(text.replace("{m2}", members2.replace("{v}", "{t}")), form)

    def _set_patterns(
        self, predicate: Predicate, attribute: Predicate, members: str
    ) -> Iterator[Pattern]:
        inner = members.replace("{v}", "{s}")
        for place, superlative in enumerate(attribute.superlatives or ()):
            form = Node(
                "extreme",
                predicate=predicate.name,
                of=_HOLE,
                attribute=attribute.name,
                most=place == 0,
            )
            for template in EXTREME_PHRASES:
                yield cut(template.replace("{sup}", superlative).replace("{m}", inner), form)
        if attribute.happened:
            form = Node("occurred", predicate=predicate.name, of=_HOLE, attribute=attribute.name)
            for template in OCCURRED_PHRASES:
                text = template.replace("{happened}", attribute.happened)
                yield cut(text.replace("{m}", inner), form)

    def _frame_patterns(self) -> Iterator[Pattern]:
        for frame in ENTITY_FRAMES:
            kinds = self.schema.kinds if "{kind}" in frame else ("",)
            for kind in kinds:
                yield cut(frame.replace("{kind}", kind), Query("entity", _HOLE))
        for predicate in self.schema.predicates.values():
            if predicate.noun:
                for frame in ATTRIBUTE_FRAMES:
                    text = frame.replace("{ask}", predicate.ask).replace("{noun}", predicate.noun)
                    yield cut(text, Query("attribute", _HOLE, predicate.name))
            for place, comparative in enumerate(predicate.comparatives or ()):
                form = Query("comparison", _HOLE, predicate.name, _HOLE, most=place == 0)
                for frame in COMPARISON_FRAMES:
                    text = frame.replace("{c}", comparative).replace("{a}", "{s}")
                    yield cut(text.replace("{b}", "{t}"), form)
            for members in predicate.members:
                for frame in COUNT_FRAMES:
                    text = frame.replace("{m}", members.replace("{v}", "{s}"))
                    yield cut(text, Query("count", _HOLE, predicate.name))


@functools.cache
def language_of(schema: Schema) -> Language:
    """The language of a schema, made once."""
    return Language(schema)


def pick(options: Sequence[str], rng: random.Random, held_out: bool) -> str:
    """One of the wordings; the last only where held-out ones are asked for."""
    return options[rng.randrange(len(options) if held_out else len(options) - 1)]


def cut(template: str, form: Any) -> Pattern:
    """A pattern from a text with places such as ``{s}``; a place's name is one letter."""
    pieces = re.split(r"\{(\w)\}", template)
    return Pattern(tuple(pieces[::2]), tuple(pieces[1::2]), form)


def _filled_node(form: Node, of: Node, of2: Node | None, year: int) -> Node:
    return Node(
        form.op, "", form.predicate, of, form.attribute, form.most, year, form.predicate2, of2
    )


def _filled_query(form: Query, node: Node, other: Node | None) -> Query:
    return Query(form.form, node, form.predicate, other, form.most)


def facts_as_json(evidence: Sequence[Evidence]) -> list[list[Value]]:
    """Evidence for a task's metadata, each fact once."""
    return [list(fact) for fact in dict.fromkeys(evidence)]
