"""PythonMath: problems that a few lines of Python solve, made by reasoning-gym's generators.

A task is made from split and index alone, when it is asked for. The numbers of a problem decide its
split (:func:`~reagent_env.task_sets.phrasing.content_split`), the wording does not. Not here: the
kinds themselves (``python_math_kinds.py``), nor an agent.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reagent_env.task import Task
from reagent_env.task_sets.lazy import LazyTaskSet
from reagent_env.task_sets.phrasing import choose_phrasing, content_split, stable_random
from reagent_env.task_sets.solving import by_program

SIZES: Mapping[str, int] = {"train": 2400, "validation": 300, "test": 300}
LEVELS = (1, 2, 3)
_GENERATOR_SEED = 20_250_101
_GENERATOR_ITEMS = 2**31 - 1
_MAX_DRAWS = 2_000


@dataclass(frozen=True)
class Kind:
    """One kind of problem: a generator, how it is asked, graded and solved."""

    name: str
    """Such as ``gcd``; stands in ``metadata["kind"]``."""
    generator: str
    """The name of reasoning-gym's data set."""
    levels: tuple[Mapping[str, Any], ...]
    """The generator's configuration at each level, easiest first."""
    facts: Callable[[Mapping[str, Any]], Mapping[str, str] | None]
    """From a generated item to the texts that fill a phrasing; None refuses a degenerate item."""
    phrasings: tuple[str, ...]
    """Templates of the question; the last is held out for the test split."""
    program: str
    """Python that prints the answer, given the facts as variables of the same names."""
    answer: Callable[[Mapping[str, Any]], Any] = lambda item: item["answer"]
    """From a generated item to the task's answer."""
    grader: str = "number"
    grader_options: Mapping[str, Any] = field(default_factory=dict)
    aliases: Callable[[Mapping[str, Any]], list[str]] | None = None
    """From a generated item to other forms of an ``exact`` answer."""


def python_math(
    split: str | None = None,
    levels: Sequence[int] = LEVELS,
    kinds: Sequence[str] | None = None,
    sizes: Mapping[str, int] = SIZES,
) -> LazyTaskSet:
    """Problems of all kinds and levels in turn, 3,000 by default.

    Args:
        split: ``train``, ``validation``, ``test``, or None for all.
        levels: which of the levels 1 (easy) to 3 (hard).
        kinds: which kinds; all by default (:func:`kind_names`).
        sizes: tasks in each split.

    Raises:
        ValueError: for an unknown level or kind, or more tasks than the kinds have problems for.
    """
    known = _kinds()
    names = list(known if kinds is None else kinds)
    unknown: list[object] = [name for name in names if name not in known]
    unknown += [level for level in levels if level not in LEVELS]
    if unknown or not names or not levels:
        raise ValueError(
            f"Unknown or no kinds or levels: {unknown}; known kinds: {', '.join(known)}; "
            f"known levels: {', '.join(map(str, LEVELS))}."
        )
    make = functools.partial(_make, tuple(names), tuple(levels))
    return LazyTaskSet("python_math", sizes, make, split)


def kind_names() -> list[str]:
    """The names of all kinds of problem."""
    return list(_kinds())


def expert_program(question: str) -> str | None:
    """Python that solves a question from its text alone and prints the answer; None if it cannot.

    It needs the standard library only, and knows the phrasings, not the tasks.
    """
    for kind in _kinds().values():
        for pattern in _patterns(kind.name):
            found = pattern.fullmatch(question)
            if found:
                given = "".join(
                    f"{name} = {value!r}\n" for name, value in sorted(found.groupdict().items())
                )
                return given + kind.program
    return None


solve = by_program(expert_program)
"""The expert: one ``python`` call."""


@functools.cache
def _kinds() -> Mapping[str, Kind]:
    from reagent_env.task_sets.python_math_kinds import KINDS

    return {kind.name: kind for kind in KINDS}


@functools.cache
def _patterns(kind_name: str) -> list[re.Pattern[str]]:
    return [
        re.compile(
            re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+?)", re.escape(phrasing)).replace("\\ ", " "),
            re.DOTALL,
        )
        for phrasing in _kinds()[kind_name].phrasings
    ]


@functools.cache
def _generator(kind_name: str, level: int) -> Any:
    import reasoning_gym

    kind = _kinds()[kind_name]
    return reasoning_gym.create_dataset(
        kind.generator,
        seed=_GENERATOR_SEED + level,
        size=_GENERATOR_ITEMS,
        **kind.levels[level - 1],
    )


def _make(names: Sequence[str], levels: Sequence[int], split: str, index: int) -> Task:
    kind = _kinds()[names[index % len(names)]]
    level = levels[index // len(names) % len(levels)]
    number = index // len(names) // len(levels)
    random_ = stable_random("python_math", kind.name, level, split, number)
    for _ in range(_MAX_DRAWS):
        item = _generator(kind.name, level)[random_.randrange(_GENERATOR_ITEMS)]
        facts = kind.facts(item)
        if facts is None or content_split(_content(kind, facts)) != split:
            continue
        phrasing, template = choose_phrasing(random_, kind.phrasings, split)
        options = dict(kind.grader_options)
        if kind.aliases:
            options["aliases"] = kind.aliases(item)
        return Task(
            question=template.format(**facts),
            answer=kind.answer(item),
            grader=kind.grader,
            metadata={
                "kind": kind.name,
                "level": level,
                "phrasing": phrasing,
                "split": split,
                "grader_options": options,
            },
        )
    raise ValueError(
        f"No {kind.name!r} problem of level {level} for split {split!r} in {_MAX_DRAWS} draws; "
        "ask for fewer tasks or another kind."
    )


def _content(kind: Kind, facts: Mapping[str, str]) -> str:
    return json.dumps([kind.name, dict(facts)], sort_keys=True)
