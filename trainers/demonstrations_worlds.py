"""What scripted demonstrations need to know of TextCraft and BabyAI: clumsy play, and words.

In a world a flaw is a detour: a random move that costs turns, and at times the goal. How many turns
an episode may have (``--schedule``) matters to a policy that learned such play: a long limit forgives
detours and pays for none of them, a short one cuts off what needs many moves. Not here: the moves
(``families/*_solver.py``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from types import MappingProxyType

from reagent_env.families import baby_ai_solver, text_craft_solver
from reagent_env.task_sets.solving import Calls, Solver
from reagent_env.trainers.demonstrations import Knowledge
from reagent_env.trainers.demonstrations_strategies import Play, Strategy
from reagent_env.trainers.drills_text_craft import item_names, text_craft_drill

DETOURS = (0.3, 0.6, 0.9)
"""Shares of random moves; an episode keeps to one, so that there is something to choose between."""
LEAVING = 0.12
"""Chance at each turn that an episode which gives up does so there."""

Reading = Callable[[str, str], str]
"""From a task's question and what is in sight to a question that a player could begin with now."""


def detours(
    wander: Solver, reading: Reading, *, keeps_plan: bool, leaving: float = 0.0
) -> Strategy:
    """The solver's moves among random ones; after a move that failed it plans anew.

    Args:
        wander: Makes random moves.
        reading: What it, and the solver, go by in mid-episode.
        keeps_plan: Whether the solver goes on with its plan after a random move.
        leaving: Chance at each turn that the episode is given up.
    """

    def strategy(solver: Solver, question: str, rng: random.Random) -> Play:
        share = rng.choice(DETOURS)
        shown = question
        steps: Generator[Calls, list[str], str] | None = None
        while True:
            if rng.random() < leaving:
                return ""
            if rng.random() < share:
                # Its random numbers go by the text: a number behind it makes them new ones.
                move = next(wander(f"{shown}\n{rng.random()}"))
                (seen,) = yield move
                shown = reading(question, seen)
                steps = steps if keeps_plan else None
                continue
            try:
                if steps is None:
                    steps = solver(shown)
                    move = next(steps)
                else:
                    move = steps.send([seen])
            except StopIteration:
                return ""
            (seen,) = yield move
            shown = reading(question, seen)
            if seen.startswith(_FAILED):
                steps = None

    return strategy


_FAILED = ("Could not", "Error:")


def in_sight(question: str, seen: str) -> str:
    """BabyAI's goal with the view of now in place of the first one."""
    return f"{question.partition(chr(10))[0]}\n\n{seen}"


def the_same(question: str, seen: str) -> str:
    """TextCraft's recipes stay what they are."""
    return question


MIXED = MappingProxyType({"clean": 0.1, "detours": 0.6, "giving_up": 0.3})
"""Strategy → probability, of both."""

TEXT_CRAFT = Knowledge(
    strategies={
        "detours": detours(text_craft_solver.wander, the_same, keeps_plan=True),
        "giving_up": detours(text_craft_solver.wander, the_same, keeps_plan=True, leaving=LEAVING),
    },
    mixed=MIXED,
    frames=lambda: (
        '<tool_call>{"name": "act", "arguments": {"command": "',
        "Crafting commands:\n",
        "\n\nGoal: craft ",
        "craft ",
        "get ",
        " using ",
        "Crafted ",
        "Got ",
        "minecraft:",
        "Could not execute ",
        "Could not find enough items to craft ",
        "Could not find ",
        *item_names(),
    ),
    drill=text_craft_drill,
)
"""For :class:`~reagent_env.trainers.demonstrations.ScriptedPolicy` and the tokenizer."""

BABY_AI = Knowledge(
    strategies={
        "detours": detours(baby_ai_solver.wander, in_sight, keeps_plan=False),
        "giving_up": detours(baby_ai_solver.wander, in_sight, keeps_plan=False, leaving=LEAVING),
    },
    mixed=MIXED,
    frames=lambda: (
        '<tool_call>{"name": "act", "arguments": {"command": "',
        "Your goal: ",
        "In front of you in this room, you can see several objects: ",
        "There is a ",
        " right in front of you ",
        " steps away",
        " steps in front of you and ",
        " steps to your left. ",
        " steps to your right. ",
        "The room has walls around you. ",
        "You are facing a ",
        "You are not carrying anything.",
        "You are carrying a ",
        '\nAvailable actions: ["turn left", "turn right", ',
        '"move forward", ',
        '"check available actions"]',
        '"toggle and go through ',
        '"go through ',
        '"go to ',
        '"pickup ',
        '"toggle", ',
        '"drop", ',
        '", ',
        "turn left",
        "turn right",
        "move forward",
        "go to ",
        "pickup ",
        "toggle and go through ",
        "go through ",
    ),
)
"""For :class:`~reagent_env.trainers.demonstrations.ScriptedPolicy` and the tokenizer."""
