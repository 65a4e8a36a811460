"""Plays TextCraft from its text alone: an expert that plans over the recipes shown, and a wanderer."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass

from reagent_env.task_sets.phrasing import stable_random
from reagent_env.task_sets.solving import Calls

KINDS = ("planks", "wool")
"""Ingredients that stand for any item whose name ends so."""
NO_KIND = "white wool"
"""But for this one, which its recipe puts into no group."""
_RECIPE = re.compile(r"^craft (\d+) (.+?) using (.+)$", re.MULTILINE)
_GOAL = re.compile(r"^Goal: craft (.+)\.$", re.MULTILINE)
_UNREACHABLE = math.inf


@dataclass(frozen=True)
class Recipe:
    """One line shown, e.g. ``Recipe(4, "stick", ((2, "planks"),))``."""

    count: int
    item: str
    parts: tuple[tuple[int, str], ...]


def solve(question: str) -> Generator[Calls, list[str], str]:
    """Craft the goal in the fewest commands that the recipes shown allow."""
    for command in Planner(question).commands():
        yield [("act", {"command": command})]
    return ""


def wander(question: str) -> Generator[Calls, list[str], str]:
    """Random recipes as shown, and their ingredients in random numbers, for as long as it lasts."""
    rng = stable_random("wander", question)
    recipes = _recipes(question)
    while True:
        recipe = rng.choice(recipes)
        if rng.random() < 0.5:
            command = _crafting(recipe, {})
        else:
            command = f"get {rng.randint(1, 8)} {rng.choice(recipe.parts)[1]}"
        yield [("act", {"command": command})]


class Planner:
    """What to do for the goal of a question, e.g. ``Planner(question).commands()``."""

    def __init__(self, question: str) -> None:
        goal = _GOAL.search(question)
        self.goal = goal[1] if goal else ""
        self._of: dict[str, list[Recipe]] = {}
        for recipe in _recipes(question):
            self._of.setdefault(recipe.item, []).append(recipe)
            kind = recipe.item.rpartition(" ")[2]
            if kind in KINDS and recipe.item not in (kind, NO_KIND):
                self._of.setdefault(kind, []).append(recipe)
        self._costs: dict[tuple[str, int], float] = {}

    def commands(self) -> list[str]:
        """The commands in order; none where the goal cannot be reached."""
        if not self._of.get(self.goal) or self._cost(self.goal, 1, ()) == _UNREACHABLE:
            return []
        done: list[str] = []
        self._make(self.goal, 1, Counter(), done, ())
        return done

    def _make(
        self, name: str, count: int, stock: Counter[str], done: list[str], under: tuple[str, ...]
    ) -> str:
        """Add what brings ``count`` of ``name`` into the stock; the item itself, for a kind."""
        recipe = self._cheapest(name, count, under)
        item = recipe.item if recipe else name
        missing = count - stock[item]
        if missing <= 0:
            return item
        if recipe is None:
            done.append(f"get {missing} {name}")
            stock[item] += missing
            return item
        times = math.ceil(missing / recipe.count)
        named: dict[str, str] = {}
        for number, part in recipe.parts:
            named[part] = self._make(part, number * times, stock, done, (*under, name))
            stock[named[part]] -= number * times  # the parts after it are made without
        done += [_crafting(recipe, named)] * times
        stock[item] += recipe.count * times
        return item

    def _cheapest(self, name: str, count: int, under: tuple[str, ...]) -> Recipe | None:
        if name not in self._of:
            return None
        return min(self._of[name], key=lambda recipe: self._price(recipe, count, (*under, name)))

    def _price(self, recipe: Recipe, count: int, under: tuple[str, ...]) -> float:
        times = math.ceil(count / recipe.count)
        return times + sum(self._cost(part, number * times, under) for number, part in recipe.parts)

    def _cost(self, name: str, count: int, under: tuple[str, ...]) -> float:
        """Commands that ``count`` of ``name`` take from nothing."""
        if name in under:
            return _UNREACHABLE
        if name not in self._of:
            return 1
        if (name, count) not in self._costs:
            below = (*under, name)
            cost = min(self._price(recipe, count, below) for recipe in self._of[name])
            if under and cost == _UNREACHABLE:
                return cost  # perhaps only from here
            self._costs[name, count] = cost
        return self._costs[name, count]


def _recipes(question: str) -> list[Recipe]:
    found = []
    for count, item, parts in _RECIPE.findall(question):
        split = (part.split(" ", 1) for part in parts.split(", "))
        found.append(Recipe(int(count), item, tuple((int(n), name) for n, name in split)))
    return found


def _crafting(recipe: Recipe, named: dict[str, str]) -> str:
    parts = ", ".join(f"{number} {named.get(part, part)}" for number, part in recipe.parts)
    return f"craft {recipe.count} {recipe.item} using {parts}"
