r"""Drills of TextCraft: imagined recipes, in no book of Minecraft's, and the commands that they take.

There are some 540 goals to learn from, each with the same recipe every time: a small model learns
those by heart, and fails where the goal is new. Recipes drawn afresh cannot be learned by heart, so it
learns to copy what it reads. Results are written as the game writes them; nothing is played.

A drill, messages apart::

    Crafting commands:                                       user
    craft 2 lever using 1 bowl, 3 clay
    Goal: craft lever.
    <tool_call>{… "get 1 bowl"}</tool_call>                  assistant
"""

from __future__ import annotations

import functools
import random

from reagent_env.families.text_craft import text_craft
from reagent_env.families.text_craft_solver import Planner
from reagent_env.tool_formats import get_tool_format
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.sample import Sample
from reagent_env.trajectory import ToolCall, ToolResult

MOST_COMMANDS = 14
"""A book whose goal takes more is drawn again."""
REPEATED = 0.25
"""Share of drills that are recipes to repeat."""
_LINES = 10
_COUNTS = (1, 1, 1, 2, 2, 3, 4, 6, 8, 9)


def text_craft_drill(renderer: Renderer, rng: random.Random) -> Sample:
    """An episode with imagined recipes as the expert would play it, or recipes to repeat.

    An episode copies a few names; copying, which appears as a jump, appears sooner where all is
    copied: lines in another order.
    """
    return _repeated(renderer, rng) if rng.random() < REPEATED else _played(renderer, rng)


def _repeated(renderer: Renderer, rng: random.Random) -> Sample:
    names = rng.sample(item_names(), 3 * _LINES)
    lines = [
        f"craft {rng.choice(_COUNTS)} {names[3 * n]} using {rng.choice(_COUNTS)} {names[3 * n + 1]}, "
        f"{rng.choice(_COUNTS)} {names[3 * n + 2]}"
        for n in range(_LINES)
    ]
    sample = Sample()
    question = "Crafting commands:\n" + "\n".join(lines)
    sample.read(renderer.opening_ids([{"role": "user", "content": question}]))
    rng.shuffle(lines)
    ids = renderer.completion_ids("\n".join(lines))
    sample.write(ids, [0.0] * len(ids), 0, 0)
    return sample


def _played(renderer: Renderer, rng: random.Random) -> Sample:
    while True:
        question = imagined_question(rng)
        commands = Planner(question).commands()
        if 1 < len(commands) <= MOST_COMMANDS:
            break
    form = get_tool_format("compact")
    sample = Sample()
    sample.read(renderer.opening_ids([{"role": "user", "content": question}]))
    for turn, command in enumerate(commands):
        if turn:
            said = form.render_results([ToolResult("act", _answer(commands[turn - 1]))])
            sample.read(renderer.reply_ids(said, closed=True))
        ids = renderer.completion_ids(form.render_calls([ToolCall("act", {"command": command})]))
        sample.write(ids, [0.0] * len(ids), turn, 0)
    return sample


def imagined_question(rng: random.Random) -> str:
    """Recipes over names of the game, drawn at random, and one of their items as the goal.

    An item's parts come after it in the order drawn, so that no recipe needs itself.
    """
    names = rng.sample(item_names(), rng.randint(6, 12))
    recipes = []
    made = rng.randint(2, min(7, len(names) - 2))
    for place in range(made):
        later = names[place + 1 :]
        parts = rng.sample(later, min(len(later), rng.choice((1, 1, 2, 2, 3))))
        listed = ", ".join(f"{rng.choice(_COUNTS)} {part}" for part in parts)
        recipes.append(f"craft {rng.choice(_COUNTS)} {names[place]} using {listed}")
    rng.shuffle(recipes)
    goal = names[rng.randrange(made)]
    return "Crafting commands:\n" + "\n".join(recipes) + f"\n\nGoal: craft {goal}."


@functools.cache
def item_names() -> list[str]:
    """Every item that a recipe names, of whatever split: a name says nothing of its recipe."""
    found: set[str] = set()
    for task in text_craft():
        for line in task.question.splitlines():
            if line.startswith("craft "):
                made, _, parts = line.removeprefix("craft ").partition(" using ")
                found |= {part.split(" ", 1)[1] for part in [made, *parts.split(", ")]}
    return sorted(name for name in found if name.rpartition(" ")[2] not in ("planks", "wool"))


def _answer(command: str) -> str:
    """What the game says to a command that succeeds."""
    verb, _, rest = command.partition(" ")
    made = rest.partition(" using ")[0]
    if verb == "get":
        return f"Got {made}"
    count, _, item = made.partition(" ")
    return f"Crafted {count} minecraft:{item.replace(' ', '_')}"
