"""ToolMix: numbers found with ``search`` and ``browse``, then computed with in ``python``.

Some tasks bring a table, read with ``file_reader``, whose rows have to be joined with facts of the
corpus. Every task needs two tools: the numbers stand nowhere but in the articles, and what is
asked of them is not done in the head. The corpus is that of SearchQA's world.
"""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reagent_env.task import Task
from reagent_env.task_sets.phrasing import check_split, choose_phrasing, stable_random
from reagent_env.task_sets.search_qa import SearchTasks
from reagent_env.task_sets.tool_mix_sums import SUMS, Sum
from reagent_env.task_sets.worlds import DEFAULT_SIZE, generate_world
from reagent_env.task_sets.worlds_facts import World
from reagent_env.task_sets.worlds_predicates import WORLD_SCHEMA
from reagent_env.task_sets.worlds_questions import (
    Evidence,
    Language,
    Node,
    Pattern,
    cut,
    facts_as_json,
    find,
    language_of,
    pick,
)
from reagent_env.task_sets.worlds_sampling import Sampler, mixed_splits, quotas
from reagent_env.task_sets.worlds_schema import Predicate, Value
from reagent_env.task_sets.worlds_solver import Calls, NotFound, Researcher

SIZES = {"train": 1600, "validation": 320, "test": 320}
"""Tasks a split, by default."""
LEVELS = (1, 2, 3)
WEIGHTS: Mapping[tuple[str, int], int] = {
    **{(s.name, level): 2 for s in SUMS if s.takes in ("pair", "one") for level in LEVELS},
    **{(s.name, level): 3 for s in SUMS if s.takes == "set" for level in (2, 3)},
    ("weighted_total", 1): 4,
    ("weighted_total", 3): 3,
    ("group_total", 2): 4,
    ("group_total", 3): 3,
}
"""Computation and level → weight. Levels: dependent look-ups, and for tables the kind of join."""

SMALLEST_NUMBER = 200
"""Numbers below it would make a computation easy to do without a tool."""
_ROWS = {1: 4, 2: 8, 3: 6}


def tool_mix(
    split: str | None = None,
    *,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    levels: Sequence[int] | None = None,
    kinds: Sequence[str] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> SearchTasks:
    """Questions that need looking up and computing, with their corpus.

    Example: ``tool_mix("test", levels=(1,), kinds=("growth",))``.

    Args:
        split: ``train``, ``validation``, ``test``, or None for all.
        size: Things in the fictional world.
        seed: Of the world; another seed is another world.
        levels: Only these levels, 1 to 3.
        kinds: Only these computations (:data:`~reagent_env.task_sets.tool_mix_sums.SUMS`).
        sizes: Tasks a split, :data:`SIZES` by default.

    Raises:
        ValueError: an unknown split, level or kind.
    """
    check_split(split)
    weights = {
        (kind, level): weight
        for (kind, level), weight in WEIGHTS.items()
        if (levels is None or level in levels) and (kinds is None or kind in kinds)
    }
    if not weights:
        raise ValueError(
            f"No tasks with levels {levels} and kinds {kinds}; levels: 1, 2, 3; "
            f"kinds: {', '.join(s.name for s in SUMS)}."
        )
    world = generate_world(size, seed)
    tasks: list[Task] = []
    for name, wanted in mixed_splits(sizes or SIZES, split):
        tasks += _drawn(world, name, wanted, tuple(weights.items()))
    return SearchTasks("tool_mix", tasks, world.corpus)


@functools.lru_cache(maxsize=16)
def _drawn(
    world: World, split: str, count: int, weights: tuple[tuple[tuple[str, int], int], ...]
) -> tuple[Task, ...]:
    maker = _Maker(world, split)
    by_name = {s.name: s for s in SUMS}
    tasks: dict[str, Task] = {}
    for (kind, level), wanted in quotas(dict(weights), count).items():
        made = 0
        for _ in range(60 * wanted + 300):
            if made == wanted:
                break
            task = maker.task(by_name[kind], level)
            if task is not None and _identity(task) not in tasks:
                tasks[_identity(task)] = task
                made += 1
    if not tasks:
        raise ValueError(f"{world.name} yields no ToolMix task; make the world larger.")
    mixed = list(tasks.values())
    maker.rng.shuffle(mixed)
    return tuple(mixed)


def _identity(task: Task) -> str:
    """What makes the problem, whatever its wording: the computation, its facts and its outcome."""
    return repr([task.metadata["kind"], sorted(map(str, task.metadata["evidence"])), task.answer])


# Making -------------------------------------------------------------------------------------------


@dataclass
class _Draft:
    """What a task is made of, before it is worded."""

    values: list[Value]
    places: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, tuple[Predicate, Node]] = field(default_factory=dict)
    evidence: list[Evidence] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)


class _Maker:
    """Draws tasks of one split."""

    def __init__(self, world: World, split: str) -> None:
        self.world = world
        self.split = split
        self.rng = stable_random("tool mix", world.name, split)
        self.sampler = Sampler(world, split, self.rng)
        self.language = language_of(world.schema)

    def task(self, kind: Sum, level: int) -> Task | None:
        """One task, or None where this try led nowhere."""
        index, frame = choose_phrasing(self.rng, kind.frames, self.split)
        held_out = index == len(kind.frames) - 1
        draft = {
            "pair": self._quantities,
            "one": self._quantities,
            "set": self._set,
            "file": self._table,
        }[kind.takes](kind, level, held_out)
        if draft is None:
            return None
        draft.places |= kind.numbers(self.rng)
        gold = kind.compute(draft.values, draft.places)
        if gold is None:
            return None
        question = frame
        for place, words in draft.places.items():
            question = question.replace(f"{{{place}}}", words)
        for place, (predicate, node) in draft.nodes.items():
            words = self.language.phrase(self.world, node, self.rng, held_out)
            question = question.replace(f"{{{place}}}", f"the {predicate.noun} of {words}")
        metadata: dict[str, Any] = {
            "kind": kind.name,
            "level": level,
            "hops": level,
            "phrasing": index,
            "split": self.split,
            "tools": ["search", "python"] + (["file_reader"] if draft.files else []),
            "evidence": facts_as_json(draft.evidence),
            "supporting_titles": list(dict.fromkeys(title for title, _, _ in draft.evidence)),
        }
        options: dict[str, Any] = {"any_unit": True}  # the question names it; "12 days" is right
        if kind.decimals:
            # One unit of the last digit asked for, since rounding may be done at another place.
            options |= {"abs_tol": 1.01 * 10**-kind.decimals, "rel_tol": 0.0}
        metadata["grader_options"] = options
        return Task(question, gold, "number", draft.files, metadata)

    def _quantities(self, kind: Sum, level: int, held_out: bool) -> _Draft | None:
        draft = _Draft([])
        hops = [level - 1, self.rng.randint(0, level - 1)]
        self.rng.shuffle(hops)
        seen: set[str] = set()
        for place, depth in zip("ab", hops if kind.takes == "pair" else [level - 1], strict=False):
            path = self.sampler.path(depth)
            if path is None or path[1] in seen:
                return None
            node, title = path
            predicate = self._attribute(title, kind.value)
            if predicate is None:
                return None
            seen |= {title, *node.anchors}
            find(self.world, node, draft.evidence)
            value = self.world.facts[title][predicate.name]
            draft.evidence.append((title, predicate.name, value))
            draft.values.append(value)
            draft.nodes[place] = (predicate, node)
        return draft

    def _set(self, kind: Sum, level: int, held_out: bool) -> _Draft | None:
        path = self.sampler.path(level - 2)
        if path is None:
            return None
        node, title = path
        sets = self.sampler.sets(title, 3, 6)
        if not sets:
            return None
        relation = self.rng.choice(sets)
        members = self.world.members(relation, title)
        predicate = self._attribute(members[0], kind.value)
        if predicate is None or any(predicate.name not in self.world.facts[m] for m in members):
            return None
        draft = _Draft([self.world.facts[m][predicate.name] for m in members])
        find(self.world, node, draft.evidence)
        for member, value in zip(members, draft.values, strict=True):
            draft.evidence += [(member, relation.name, title), (member, predicate.name, value)]
        words = self.language.phrase(self.world, node, self.rng, held_out)
        draft.places["m"] = pick(relation.members, self.rng, held_out).replace("{v}", words)
        draft.places["q"] = predicate.noun
        return draft

    def _table(self, kind: Sum, level: int, held_out: bool) -> _Draft | None:
        """A table of things with a rate each; at level 3 the number is of a related thing."""
        thing = self.rng.choice([k for k in self.world.schema.kinds if self._numeric(k)])
        relations: list[Predicate | None] = [None]
        if level == 3:
            relations = [
                p
                for p in self.world.schema.by_subject[thing]
                if p.phrases and self._numeric(p.value)
            ]
        if not relations:
            return None
        relation = self.rng.choice(relations)
        predicate = self.rng.choice(self._numeric(relation.value if relation else thing))
        pool = self.sampler.anchors[thing]
        rows = self.rng.sample(pool, min(len(pool), _ROWS[level]))
        draft = _Draft([])
        table = [[thing, "rate", "group"]]
        groups = {title: self.rng.choice("ABC") for title in rows}
        chosen = self.rng.choice("ABC")
        rates = []
        for title in rows:
            rate = str(self.rng.randint(12, 97))
            table.append([title, rate, groups[title]])
            if kind.name == "group_total" and groups[title] != chosen:
                continue
            target = title
            if relation is not None:
                target = str(self.world.facts[title].get(relation.name))
                draft.evidence.append((title, relation.name, target))
            value = self.world.facts.get(target, {}).get(predicate.name)
            if value is None:
                return None
            draft.evidence.append((target, predicate.name, value))
            draft.values.append(value)
            rates.append(rate)
        if len(rates) < 2:
            return None
        one = f"that {thing}"
        inner = pick(relation.phrases, self.rng, held_out).replace("{s}", one) if relation else one
        name = f"rates_{self.rng.randint(100, 999)}.csv"
        draft.files[name] = _csv(table)
        draft.places = {
            "f": name,
            "k": thing,
            "q": f"the {predicate.noun} of {inner}",
            "g": chosen,
            "rates": ",".join(rates),
        }
        return draft

    def _attribute(self, title: str, value: str) -> Predicate | None:
        known = [
            p
            for p in self.sampler.attributes(title, lambda p: p.value == value)
            if value != "number" or int(self.world.facts[title][p.name]) >= SMALLEST_NUMBER
        ]
        return self.rng.choice(known) if known else None

    def _numeric(self, kind: str) -> list[Predicate]:
        return [
            p for p in self.world.schema.by_subject.get(kind, ()) if p.value == "number" and p.noun
        ]


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


# Solving ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reader:
    """Reads ToolMix questions: the wordings of the sums, with the language's phrases inside."""

    language: Language
    frames: tuple[Pattern, ...]
    quantities: tuple[Pattern, ...]
    sets: tuple[Pattern, ...]

    def quantity(self, text: str) -> Iterator[tuple[Predicate, Node]]:
        """Every reading of ``the length in metres of …``."""
        for pattern in self.quantities:
            for places in pattern.fits(text):
                for node in self.language.parse_phrase(places["s"]):
                    if self.language.may_be(node, pattern.form.subject):
                        yield pattern.form, node

    def set_of(self, text: str) -> Iterator[tuple[Predicate, Node]]:
        """Every reading of ``bridges over …``."""
        for pattern in self.sets:
            for places in pattern.fits(text):
                for node in self.language.parse_phrase(places["s"]):
                    if self.language.may_be(node, pattern.form.value):
                        yield pattern.form, node


@functools.cache
def _reader() -> _Reader:
    language = language_of(WORLD_SCHEMA)
    predicates = WORLD_SCHEMA.predicates.values()
    return _Reader(
        language,
        tuple(cut(frame, kind) for kind in SUMS for frame in kind.frames),
        tuple(cut(f"the {p.noun} of {{s}}", p) for p in predicates if p.noun),
        tuple(cut(m.replace("{v}", "{s}"), p) for p in predicates for m in p.members),
    )


def solve(question: str) -> Generator[Calls, list[str], str]:
    """Solve a ToolMix question from observations alone.

    Yields a turn's calls as ``[(tool, arguments)]``, is sent their answers in order, and returns
    the final answer (empty where it found none).
    """
    reader = _reader()
    text = " ".join(question.split())
    for pattern in reader.frames:
        kind: Sum = pattern.form
        for places in pattern.fits(text):
            if any(not re.fullmatch(r"\d+(?:\.\d+)?", places[p]) for p in "np" if p in places):
                continue
            steps = {"set": _solve_set, "file": _solve_table}.get(kind.takes, _solve_quantities)
            for attempt in steps(reader, places):
                try:
                    values, numbers = yield from attempt
                except NotFound:
                    continue
                (printed,) = yield [("python", {"code": kind.program(values, numbers)})]
                found = re.search(r"answer = (-?[\d.]+)", printed)
                if found:
                    return found[1]
    return ""


Attempt = Generator[Calls, list[str], tuple[list[Value], dict[str, str]]]


def _solve_quantities(reader: _Reader, places: dict[str, str]) -> Iterator[Attempt]:
    wanted = [list(reader.quantity(places[place])) for place in "ab" if place in places]
    pairs = [[first] for first in wanted[0]]
    if len(wanted) == 2:
        pairs = [[first, second] for first in wanted[0] for second in wanted[1]]
    for quantities in pairs:
        yield _look_up(reader, quantities, places)


def _look_up(
    reader: _Reader, quantities: list[tuple[Predicate, Node]], places: dict[str, str]
) -> Attempt:
    researcher = Researcher(reader.language)
    values = []
    for predicate, node in quantities:
        title = str((yield from researcher.find(node)))
        found = yield from researcher.values([title], predicate)
        values.append(found[title])
    return values, places


def _solve_set(reader: _Reader, places: dict[str, str]) -> Iterator[Attempt]:
    for relation, node in reader.set_of(places["m"]):
        for predicate in WORLD_SCHEMA.by_subject[relation.subject]:
            if predicate.noun == places["q"]:
                yield _look_up_set(reader, relation, node, predicate, places)


def _look_up_set(
    reader: _Reader, relation: Predicate, node: Node, predicate: Predicate, places: dict[str, str]
) -> Attempt:
    researcher = Researcher(reader.language)
    title = str((yield from researcher.find(node)))
    members = yield from researcher.members(title, relation)
    found = yield from researcher.values(members, predicate)
    return [found[member] for member in members], places


def _solve_table(reader: _Reader, places: dict[str, str]) -> Iterator[Attempt]:
    if places["k"] in WORLD_SCHEMA.kinds:
        yield _look_up_table(reader, places)


def _look_up_table(reader: _Reader, places: dict[str, str]) -> Attempt:
    (seen,) = yield [("file_reader", {"path": places["f"]})]
    rows = [row for row in csv.reader(seen.splitlines()) if len(row) == 3 and row[1].isdigit()]
    if "g" in places:
        rows = [row for row in rows if row[2] == places["g"]]
    readings: list[tuple[Predicate, Node]] = []
    for title, _, _ in rows:
        shown = WORLD_SCHEMA.shown(places["k"], title)
        wanted = next(reader.quantity(places["q"].replace(f"that {places['k']}", shown)), None)
        if wanted is None:
            raise NotFound(places["q"])
        readings.append(wanted)
    if not readings:
        raise NotFound(f"no rows in {places['f']}")
    researcher = Researcher(reader.language)
    if readings[0][1].op == "step":
        relation = WORLD_SCHEMA.predicates[readings[0][1].predicate]
        yield from researcher.look_for([row[0] for row in rows], relation)
    titles: list[str] = []
    for _, node in readings:
        titles.append(str((yield from researcher.find(node))))
    found = yield from researcher.values(list(dict.fromkeys(titles)), readings[0][0])
    return [found[title] for title in titles], {"rates": ",".join(row[1] for row in rows)}
