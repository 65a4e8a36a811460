"""Reads commands to a world: what they take, make and go to; what the goal is; what is offered.

A command is one of a kind by its verb: taking (``get 2 oak logs``), making (``craft 1 stick using 2
bamboo``), going to a thing, turning, looking. Not here: what is wrong with them
(``rubric_checks_world.py``).
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from reagent_env.reward_models.rubric_text import STOP_WORDS
from reagent_env.reward_models.rubric_view import Call, View

_TAKING = re.compile(r"(?:get|take|fetch|collect|gather|mine|pick ?up|grab) (?:(\d{1,6}) )?(.+)")
_MAKING = re.compile(
    r"(?:craft|make|build|create|brew|smelt) (?:(\d{1,6}) )?(.+?) (?:using|from|with|out of) (.+)"
)
_PART = re.compile(r"(?:(\d{1,6}) )?(.+)")
_GOING = re.compile(r"(?:go|walk|move|run|travel) (?:to|towards) (.+)")
_HANDLING = re.compile(
    r"(?:toggle|open|close|unlock|use|take|get|pick ?up|drop|put|push|pull|move)\b"
)
_ASKING = re.compile(
    r"(?:craft|make|build|create|brew|smelt|get|fetch|obtain)?(?: ?(?:an?|the|\d+))?"
)
_WANTED = re.compile(r"\b(?:an?|the) ([a-z]+(?: [a-z]+){0,3})")
_NO_PART = STOP_WORDS | {"next", "left", "right", "front", "behind", "object", "thing", "after"}
_GOAL = re.compile(
    r"^.{0,40}\b(?:goal|task|mission|objective)\b[^:\n]{0,40}:[ \t]*(.+)$", re.I | re.M
)
_OFFERED = re.compile(
    r"(?:available|possible|following) actions?[^\[\n]{0,20}\[([^\[\]]{0,8000})\]", re.I
)
MOST_COMMANDS = 400
"""Commands read of an attempt."""
_LONGEST_COMMAND = 1_000


@dataclass(frozen=True, slots=True)
class Dealing:
    """What one command took and brought, e.g. 1 oak logs for 4 oak planks."""

    call: Call
    taken: Counter[str]
    brought: Counter[str]


def goal_of(view: View) -> str:
    """The line that states the goal, or else the task's first paragraph."""
    found = _GOAL.search(view.question[:40_000])
    return found[1] if found else view.question.split("\n\n", 1)[0]


def commands_of(view: View) -> list[Call]:
    """The calls that carry a command of sensible length, the first of them where there are many."""
    found = (call for call in view.calls if 0 < len(call.command) <= _LONGEST_COMMAND)
    return list(itertools.islice(found, MOST_COMMANDS))


def dealing(call: Call) -> Dealing | None:
    """What a command deals with, if it was done."""
    if call.error is not None:
        return None
    making = _MAKING.fullmatch(call.command)
    if making is not None:
        brought = Counter({plain(making[2]): int(making[1] or 1)})
        return Dealing(call, parts_of(call.command), brought)
    taking = _TAKING.fullmatch(call.command)
    if taking is None or taking[1] is None:
        return None
    return Dealing(call, Counter(), Counter({plain(taking[2]): int(taking[1])}))


def parts_of(command: str) -> Counter[str]:
    """What a making command takes: thing → number."""
    making = _MAKING.fullmatch(command)
    found: Counter[str] = Counter()
    for part in re.split(r", | and ", making[3]) if making else ():
        one = _PART.fullmatch(part.strip())
        if one is not None:
            found[plain(one[2])] += int(one[1] or 1)
    return found


def is_goal(name: str, goal: str) -> bool:
    """Whether a thing is what the goal asks for, e.g. ``oak slab`` of ``craft oak slab``."""
    before, found, after = goal.rpartition(name)
    return bool(found) and after in ("", "s") and _ASKING.fullmatch(before.strip()) is not None


def goal_things(goal: str) -> list[frozenset[str]]:
    """The words of each thing in a goal: of ``open the red door`` only ``red`` and ``door``."""
    found = []
    for words in _WANTED.findall(goal.lower()[:2_000]):
        kept: list[str] = []
        for word in words.split():
            if word in STOP_WORDS or word in ("next", "on", "behind"):
                break
            kept.append(word)
        found.append(frozenset(kept) - _NO_PART)
    return found


def handles(command: str, thing: frozenset[str]) -> bool:
    """Whether a command does something with a thing, or with whatever is before one."""
    if _GOING.match(command) or not _HANDLING.match(command):
        return False
    named = frozenset(one for each in things_of(command) for one in each.split())
    return not named or bool(named & thing == named)


def things_of(command: str) -> list[str]:
    """The things that a command names: two words and more, or what is taken or made."""
    making = _MAKING.fullmatch(command)
    if making is not None:
        return [plain(making[2]), *parts_of(command)]
    for pattern in (_TAKING, _GOING):
        found = pattern.fullmatch(command)
        if found is not None:
            return [" ".join(re.sub(r"\d+", " ", plain(found[found.re.groups])).split())]
    return []


def plain(text: str) -> str:
    """Lower case, without prefixes such as ``minecraft:`` and underscores."""
    return re.sub(r"\b[a-z]+:(?=[a-z_])", "", text.lower()).replace("_", " ").strip(" .")


def offers_of(text: str) -> frozenset[str]:
    """The commands that a text lists as possible."""
    found = None
    for found in _OFFERED.finditer(text[-40_000:]):  # noqa: B007 (the last one counts)
        pass
    if found is None:
        return frozenset()
    return frozenset(" ".join(one.lower().split()) for one in re.findall(r'"([^"]+)"', found[1]))


def is_named(thing: str, known: Sequence[str]) -> bool:
    """Whether a thing was named: its words side by side, or one word between them."""
    words = thing.split()[:8]
    if not words or any(thing in text for text in known):
        return True
    pattern = r"\b" + r"(?: [a-z]+)? ".join(map(re.escape, words)) + r"\b"
    return any(re.search(pattern, text) for text in known)
