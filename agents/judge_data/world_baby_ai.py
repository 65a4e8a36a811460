"""What is a flaw in BabyAI's verbs: going elsewhere, turning about, things that are not in sight."""

from __future__ import annotations

import random
import re

from reagent_env.agents.judge_data.flaws import Plant
from reagent_env.agents.judge_data.flaws_calls import inserted
from reagent_env.agents.judge_data.flaws_world import Words, command_of, saying
from reagent_env.agents.judge_data.playing import CleanRun, Policy, resume
from reagent_env.agents.judge_data.voice import Move

_LISTED = re.compile(r'"([^"]+)"')
_OBJECT = re.compile(r"(red|green|blue|purple|yellow|grey) (?:(?:open|closed|locked) )?(\w+)")
_COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
_TURNS = ("turn left", "turn right")


class BabyAIWords(Words):
    """``turn left``, ``go to red ball 1``, ``pickup grey key 1``, ``toggle``, …"""

    look = "check available actions"

    def failed(self, text: str) -> bool:
        """A refused verb is an error."""
        return text.startswith("Error:")

    def too_early(self, run: CleanRun, at: int, later: int) -> bool:
        """It is not among the actions listed before turn ``at``."""
        return command_of(run.steps[later]) not in _listed(_shown(run, at))

    def repeated(self, run: CleanRun, rng: random.Random) -> Plant | None:
        """Going again to where one stands."""
        turns = [n for n in range(run.length - 1) if command_of(run.steps[n]).startswith("go to ")]
        if not turns:
            return None
        turn = rng.choice(turns)
        return inserted(run, turn + 1, saying(run, command_of(run.steps[turn])))

    def needless(self, run: CleanRun, rng: random.Random) -> Plant | None:
        """Turning away and back when the last step is possible."""
        at = run.length - 1
        if command_of(run.steps[at]) not in _listed(_shown(run, at)):
            return None
        return _turning(run, at, rng)

    def aside(self, run: CleanRun, rng: random.Random) -> Plant | None:
        """To another thing in sight, before anything but turning was done; then from there."""
        mission = run.task.question
        if re.search(r", then | after you | and |left|right|front|behind", mission):
            return None
        meant = {_object(command_of(step)) for step in run.steps} | {_object(mission)}
        places = []
        for at in range(run.length):
            places += [(at, verb) for verb in _ways(run, at) if _elsewhere(verb, mission, meant)]
            if command_of(run.steps[at]) not in _TURNS:
                break
        if not places:
            return None
        at, verb = rng.choice(places)

        def policy() -> Policy:
            results = yield saying(run, verb)
            yield from _anew(run, results[0])

        return Plant(at, policy(), shift=1)

    def strange(self, run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
        """A thing of which neither the mission nor any view so far has spoken."""
        at = rng.randint(0, run.length - 1)
        known = "\n".join([run.told, run.seen(at)])
        named = {_object(found[0]) for found in _OBJECT.finditer(known)}
        kinds = ("ball", "box", "key")
        strangers = [(c, k) for c in _COLORS for k in kinds if (c, k) not in named]
        if not strangers:
            return None
        color, kind = rng.choice(strangers)
        verb = rng.choice(("go to", "pickup"))
        return inserted(run, at, saying(run, f"{verb} {color} {kind} {rng.randint(1, 2)}"))


def _ways(run: CleanRun, at: int) -> list[str]:
    """The things to which one can go before turn ``at``."""
    return [verb for verb in _listed(_shown(run, at)) if verb.startswith("go to ")]


def _elsewhere(verb: str, mission: str, meant: set[tuple[str, str] | None]) -> bool:
    """Whether a verb goes to a thing of a sort that the mission does not want."""
    thing = _object(verb)
    if thing is None or thing in meant:
        return False
    return "object" not in mission and thing[1] not in mission


def _turning(run: CleanRun, at: int, rng: random.Random) -> Plant:
    first, second = rng.choice((_TURNS, _TURNS[::-1]))

    def policy() -> Policy:
        yield saying(run, first)
        yield saying(run, second)
        yield from resume(run, at)

    return Plant(at, policy(), shift=2)


def _anew(run: CleanRun, view: str) -> Policy:
    """The expert's moves from what it sees now."""
    solving = run.solver(f"{run.task.question}\n\n{view}")
    try:
        calls = next(solving)
        while True:
            results = yield Move(calls=tuple(calls))
            calls = solving.send(results)
    except StopIteration:
        yield Move(answer="done")


def _shown(run: CleanRun, at: int) -> str:
    """The last view before turn ``at``."""
    return run.steps[at - 1].results[0] if at else run.told


def _listed(view: str) -> list[str]:
    return _LISTED.findall(view.rpartition("Available actions: ")[2])


def _object(text: str) -> tuple[str, str] | None:
    """Colour and kind of the first thing that a text names."""
    found = _OBJECT.search(text)
    return (found[1], found[2]) if found else None
