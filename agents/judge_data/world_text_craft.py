"""What is a flaw in TextCraft's commands: things fetched for nothing, or never heard of."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from reagent_env.agents.judge_data.flaws import Plant
from reagent_env.agents.judge_data.flaws_calls import inserted
from reagent_env.agents.judge_data.flaws_world import Words, command_of, saying
from reagent_env.agents.judge_data.playing import CleanRun

_RECIPE = re.compile(r"^craft (\d+) (.+?) using (.+)$", re.MULTILINE)


class TextCraftWords(Words):
    """``get 2 oak logs``, ``craft 4 oak planks using 1 oak logs``, ``inventory``."""

    look = "inventory"

    def failed(self, text: str) -> bool:
        """The game says ``Could not …``."""
        return text.startswith("Could not")

    def too_early(self, run: CleanRun, at: int, later: int) -> bool:
        """Something that it takes is fetched or crafted by a turn in between."""
        taken = _taken(command_of(run.steps[later]))
        return any(_made(command_of(step)) in taken for step in run.steps[at:later])

    def repeated(self, run: CleanRun, rng: random.Random) -> Plant | None:
        """A fetch again, at once or later."""
        turn = rng.choice(_fetches(run))
        at = rng.randint(turn + 1, run.length - 1)
        return inserted(run, at, saying(run, command_of(run.steps[turn])))

    def needless(self, run: CleanRun, rng: random.Random) -> Plant | None:
        """More of what was fetched, when all is there."""
        _, count, item = command_of(run.steps[rng.choice(_fetches(run))]).split(" ", 2)
        more = rng.choice([number for number in range(1, 9) if str(number) != count])
        return inserted(run, run.length - 1, saying(run, f"get {more} {item}"))

    def aside(self, run: CleanRun, rng: random.Random) -> Plant | None:
        """What only another recipe takes."""
        used = {item for step in run.steps for item in _taken(command_of(step))}
        crafted = {item for _, item, _ in _RECIPE.findall(run.told)}
        others = [
            f"get {number} {item}"
            for number, item in _parts(run.told)
            if item not in used | crafted | {"planks", "wool"}
        ]
        if not others:
            return None
        at = rng.randint(0, run.length - 1)
        return inserted(run, at, saying(run, rng.choice(others)))

    def strange(self, run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
        """A thing of another task's recipes."""
        strangers = [part for part in _parts(other.told) if part[1] not in run.told]
        if not strangers:
            return None
        number, item = rng.choice(strangers)
        at = rng.randint(0, run.length - 1)
        return inserted(run, at, saying(run, f"get {number} {item}"))

    def reordered(self, run: CleanRun) -> Sequence[int] | None:
        """The first two fetches that stand side by side, changed about."""
        commands = [command_of(step) for step in run.steps]
        for turn in range(run.length - 1):
            if all(command.startswith("get ") for command in commands[turn : turn + 2]):
                return [
                    *range(turn),
                    turn + 1,
                    turn,
                    *range(turn + 2, run.length),
                ]
        return None


def _fetches(run: CleanRun) -> list[int]:
    found = [turn for turn in range(run.length - 1) if command_of(run.steps[turn])[:4] == "get "]
    return found or [0]


def _made(command: str) -> str:
    """The item that a command brings, e.g. ``oak logs`` for ``get 2 oak logs``."""
    return command.partition(" using ")[0].split(" ", 2)[-1]


def _taken(command: str) -> set[str]:
    return {item for _, item in _parts(command)}


def _parts(text: str) -> list[tuple[str, str]]:
    """(number, item) of all that recipes and crafting commands in a text take."""
    found = []
    for _, _, parts in _RECIPE.findall(text):
        for part in parts.split(", "):
            number, _, item = part.partition(" ")
            found.append((number, item))
    return list(dict.fromkeys(found))
