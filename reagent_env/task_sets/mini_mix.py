"""MiniMix: short questions that take one to three look-ups and, in part, a computation.

The default task for training: a policy of a million parameters can learn it within minutes on a
laptop, and still has to choose between ``search``, ``browse`` and ``python``, follow links in order
and stop at the right place. The answer stands in no prompt; every split asks about chains (a start
and the labels followed from it) that no other split asks about. Not here: the world
(``mini_mix_world.py``), the wording (``mini_mix_questions.py``).
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from types import MappingProxyType

from reagent_env.task import Task
from reagent_env.task_sets.mini_mix_questions import (
    LEADS,
    OPERATIONS,
    Plan,
    Term,
    read_plan,
    worded,
)
from reagent_env.task_sets.mini_mix_world import (
    DEFAULT_SIZE,
    MiniWorld,
    Thing,
    mini_world,
)
from reagent_env.task_sets.phrasing import check_split, content_split, stable_random
from reagent_env.task_sets.search_qa import SearchTasks
from reagent_env.task_sets.solving import Calls
from reagent_env.task_sets.worlds_sampling import mixed_splits

SIZES = {"train": 16000, "validation": 500, "test": 1000}
"""Tasks a split, by default."""

_FACTORS = range(12, 99)


def mini_mix(
    split: str | None = None,
    *,
    levels: Sequence[int] | None = None,
    kinds: Sequence[str] | None = None,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> SearchTasks:
    """Look-ups and sums in a small fictional world, with one corpus for all splits.

    Example: ``mini_mix("train", levels=(2, 3))``. Kinds take turns, so any stretch is balanced.

    Args:
        split: ``train``, ``validation``, ``test``, or None for all.
        levels: Only questions of these levels: calls that they take, 1 to 4.
        kinds: Only these of :data:`QUESTION_KINDS`.
        size: Things in the world.
        seed: Of the world; another seed is another world.
        sizes: Tasks a split; by default :data:`SIZES`, or as many as the world has of the kinds.

    Raises:
        ValueError: an unknown split, level or kind, no kind of the levels asked for, or too few
            questions for ``sizes``.
    """
    check_split(split)
    wanted = _chosen_kinds(levels, kinds)
    tasks: list[Task] = []
    for name, count in mixed_splits(sizes or SIZES, split):
        drawn = _drawn(size, seed, name, count, wanted)
        if sizes is not None and len(drawn) < count:
            raise ValueError(
                f"A world of {size} things has only {len(drawn)} questions of {', '.join(wanted)} in "
                f"{name!r}, not {count}; ask for fewer, or for a larger world: size=."
            )
        tasks += drawn
    return SearchTasks("mini_mix", tasks, mini_world(size, seed).corpus)


def _chosen_kinds(levels: Sequence[int] | None, kinds: Sequence[str] | None) -> tuple[str, ...]:
    for kind in kinds or ():
        if kind not in QUESTION_KINDS:
            raise ValueError(f"Unknown kind {kind!r}; kinds: {', '.join(QUESTION_KINDS)}.")
    known = sorted(set(_LEVELS.values()))
    for level in levels or ():
        if level not in known:
            raise ValueError(f"Unknown level {level!r}; levels: {known}.")
    chosen = tuple(
        kind
        for kind in QUESTION_KINDS
        if (kinds is None or kind in kinds) and (levels is None or _LEVELS[kind] in levels)
    )
    if not chosen:
        raise ValueError(f"No kind of {kinds!r} has a level of {levels!r}; levels: {_LEVELS}.")
    return chosen


# Drawing ------------------------------------------------------------------------------------------


class _Chains:
    """The chains that one split may ask about."""

    def __init__(self, world: MiniWorld, split: str, rng: random.Random) -> None:
        self.world = world
        self._split = split
        self._rng = rng
        self._things = list(world.things.values())

    def draw(self, hops: int, ends: str) -> Term:
        """A chain of so many labels that ends in a ``name``, a ``number``, or ``either``."""
        while True:
            start = here = self._rng.choice(self._things)
            path: list[str] = []
            for left in range(hops - 1, -1, -1):
                labels = _labels(here, "name" if left else ends)
                path.append(self._rng.choice(labels))
                if left:
                    here = self.world.things[here.links[path[-1]]]
            if self.world.follow(start.name, tuple(path)) is None:
                continue
            if content_split("/".join((start.name, *path))) == self._split:
                return Term(start.name, tuple(path))

    def draw_alias(self, hops: int, ends: str) -> Term:
        """The same, its start named by its alias."""
        term = self.draw(hops, ends)
        thing = self.world.things[term.start]
        return Term(thing.alias, term.path, thing.kind)

    def factor(self) -> int:
        """A number to multiply by."""
        return self._rng.choice(_FACTORS)

    def pair(self, first: Term, second: Term) -> Plan:
        """A sum or difference of both, the larger value first where they are subtracted."""
        operation = self._rng.choice(("plus", "minus"))
        if operation == "minus" and self.value(first) < self.value(second):
            first, second = second, first
        return Plan(first, operation, second)

    def value(self, term: Term) -> int:
        """The number that a chain ends in."""
        return int(value_of(self.world, term))


def _labels(thing: Thing, ends: str) -> list[str]:
    numbers = list(thing.numbers) if ends != "name" else []
    return [*(thing.links if ends != "number" else ()), *numbers]


def value_of(world: MiniWorld, term: Term) -> str | int:
    """What a term comes to in its world."""
    start = term.start
    if term.alias_of:
        start = _by_alias(world)[start]
    found = world.follow(start, term.path)
    assert found is not None, f"{term} comes by a thing twice"
    return found[-1]


@functools.lru_cache(maxsize=4)
def _by_alias(world: MiniWorld) -> dict[str, str]:
    return {thing.alias: thing.name for thing in world.things.values()}


QUESTION_KINDS: Mapping[str, Callable[[_Chains], Plan]] = MappingProxyType(
    {
        "fact": lambda chains: Plan(chains.draw(1, "either")),
        "alias": lambda chains: Plan(chains.draw_alias(1, "either")),
        "chain_2": lambda chains: Plan(chains.draw(2, "either")),
        "scale": lambda chains: Plan(chains.draw(1, "number"), "times", chains.factor()),
        "chain_3": lambda chains: Plan(chains.draw(3, "either")),
        "alias_chain": lambda chains: Plan(chains.draw_alias(2, "either")),
        "pair": lambda chains: chains.pair(chains.draw(1, "number"), chains.draw(1, "number")),
        "chain_pair": lambda chains: chains.pair(
            chains.draw(2, "number"), chains.draw(1, "number")
        ),
    }
)
"""Kind → a plan of it; in rising order of the calls that it takes."""

_LEVELS = {
    "fact": 1,
    "alias": 2,
    "chain_2": 2,
    "scale": 2,
    "chain_3": 3,
    "alias_chain": 3,
    "pair": 3,
    "chain_pair": 4,
}


@functools.lru_cache(maxsize=16)
def _drawn(
    size: int, seed: int, split: str, count: int, kinds: tuple[str, ...]
) -> tuple[Task, ...]:
    world = mini_world(size, seed)
    rng = stable_random("mini-mix questions", size, seed, split, *kinds)
    chains = _Chains(world, split, rng)
    asked: set[Plan] = set()
    tasks: list[Task] = []
    left = list(kinds)
    while left and len(tasks) < count:
        for kind in tuple(left[: count - len(tasks)]):
            plan = _new_plan(chains, kind, asked)
            if plan is None:
                left.remove(kind)
                continue
            asked.add(plan)
            tasks.append(_task(world, kind, plan, split, rng.randrange(12)))
    return tuple(tasks)


def _new_plan(chains: _Chains, kind: str, asked: set[Plan]) -> Plan | None:
    """A plan that was not asked yet; None where a thousand draws found none."""
    for _ in range(1000):
        plan = QUESTION_KINDS[kind](chains)
        if plan not in asked and len({term.start for term in plan.terms}) == len(plan.terms):
            return plan
    return None


def _task(world: MiniWorld, kind: str, plan: Plan, split: str, phrasing: int) -> Task:
    answer = value_of(world, plan.first)
    if plan.operation:
        second = plan.second if isinstance(plan.second, int) else None
        if isinstance(plan.second, Term):
            second = int(value_of(world, plan.second))
        assert second is not None
        answer = _computed(int(answer), plan.operation, second)
    return Task(
        worded(plan, phrasing % len(LEADS[plan.answer_form])),
        answer,
        "exact" if isinstance(answer, str) else "number",
        {},
        {"kind": kind, "level": plan.level, "hops": plan.hops, "split": split},
    )


def _computed(first: int, operation: str, second: int) -> int:
    return {"plus": first + second, "minus": first - second, "times": first * second}[operation]


# Solving ------------------------------------------------------------------------------------------


def solve(question: str) -> Generator[Calls, list[str], str]:
    """Solve a MiniMix question from observations alone, one call a turn.

    Yields a turn's calls as ``[(tool, arguments)]``, is sent their answers in order, and returns
    the final answer (empty where a label was not to be found).
    """
    plan = read_plan(question)
    if plan is None:
        return ""
    values: list[str] = []
    for term in plan.terms:
        value = yield from _look_up(term)
        if value is None:
            return ""
        values.append(value)
    if not plan.operation:
        return values[0]
    if isinstance(plan.second, int):
        values.append(str(plan.second))
    code = f" {OPERATIONS[plan.operation]} ".join(values)
    results = yield [("python", {"code": code})]
    return results[0].strip()


def _look_up(term: Term) -> Generator[Calls, list[str], str | None]:
    here = term.start
    if term.alias_of:
        results = yield [("search", {"queries": [here]})]
        found = re.search(r"url: (\w+)", results[0])
        if found is None:
            return None
        here = found[1]
    for label in term.path:
        results = yield [("browse", {"url": here})]
        found = re.search(rf"^{label}: (\w+)$", results[0], re.MULTILINE)
        if found is None:
            return None
        here = found[1]
    return here
