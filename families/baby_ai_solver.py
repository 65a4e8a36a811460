"""Plays BabyAI from its text alone: an expert of single rooms and their neighbours, and a wanderer.

The expert looks around, remembers what stood where as long as it only turned, goes through doors it
has not been through, fetches keys, and moves what it carries out of its way.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass

from reagent_env.families.baby_ai_view import CHECK
from reagent_env.task_sets.phrasing import stable_random
from reagent_env.task_sets.solving import Calls

_SEEN = re.compile(
    r"There is a ((\w+) (?:(open|closed|locked) )?(\w+)) (\d+) "
    r"(?:right in front of you (\d+) steps away|"
    r"(\d+) steps in front of you and (\d+) steps to your (left|right))"
)
_CARRYING = re.compile(r"You are carrying a (\w+) (\w+)\.")
_LISTED = re.compile(r'"([^"]+)"')
_WANTED = re.compile(
    r"(?:a|the) (?:(red|green|blue|purple|yellow|grey) )?(ball|box|key|door|object)"
    r"(?: (?:on your (left|right)|in (front) of you|(behind) you))?"
)
_DONE = ("The task is completed.", "The task has failed.")
_MOST_MOVES = 200

Moves = Generator[Calls, list[str], None]


@dataclass(frozen=True)
class Seen:
    """One thing in sight, e.g. ``Seen("red ball", "red", "ball", "", 1, 2, -1)``."""

    name: str
    color: str
    kind: str
    state: str
    number: int
    front: int
    right: int

    @property
    def named(self) -> str:
        """As verbs name it."""
        return f"{self.name} {self.number}"

    def turned(self, turns: int) -> tuple[int, int]:
        """(front, right) as they were before so many turns to the right."""
        front, right = self.front, self.right
        for _ in range(turns % 4):
            front, right = -right, front
        return front, right


@dataclass(frozen=True)
class Wanted:
    """What a mission describes, e.g. ``Wanted("red", "ball", "left")``; empty is anything."""

    color: str
    kind: str
    place: str = ""

    def fits(self, thing: Seen, turns: int) -> bool:
        """Whether it may be this, seen after ``turns`` turns to the right from the start."""
        if self.color not in ("", thing.color) or self.kind not in ("", thing.kind):
            return False
        front, right = thing.turned(turns)
        places = {"left": right < 0, "right": right > 0, "front": front > 0, "behind": front < 0}
        return not self.place or places[self.place]


@dataclass(frozen=True)
class _Look:
    """What was seen to one side."""

    things: list[Seen]
    verbs: list[str]

    @property
    def room(self) -> int:
        """How far the farthest thing is, for want of walls."""
        return max((thing.front for thing in self.things), default=0)

    @property
    def blocked(self) -> int:
        """Things close in front."""
        return sum(thing.front <= 2 and abs(thing.right) <= 1 for thing in self.things)


class Over(Exception):
    """The episode has ended."""


def solve(question: str) -> Generator[Calls, list[str], str]:
    """Do the mission's parts one after another."""
    player = _Player(question)
    try:
        for part in parts_of(question):
            yield from player.do_part(part)
    except (Over, _Lost):
        pass
    return ""


def wander(question: str) -> Generator[Calls, list[str], str]:
    """A random one of the actions listed, for as long as it lasts."""
    rng = stable_random("wander", question)
    shown = question
    while True:
        choices = [verb for verb in _verbs(shown) if verb != CHECK]
        (shown,) = yield [("act", {"command": rng.choice(choices or ["turn left"])})]


def parts_of(question: str) -> list[str]:
    """The actions of a mission in the order in which they are to be done."""
    found = re.search(r"Your goal: (.+)", question)
    mission = found[1] if found else ""
    first, _, second = mission.partition(", then ")
    if not second:
        second, _, first = mission.partition(" after you ")
        if not first:
            first, second = second, ""
    return [part for half in (first, second) for part in half.split(" and ") if part]


def _verbs(text: str) -> list[str]:
    listed = text.rpartition("Available actions: ")[2]
    return _LISTED.findall(listed)


class _Lost(Exception):
    """Nothing left to try."""


class _Player:
    """What is known while playing: the last view, the way it is turned, the doors gone through."""

    def __init__(self, question: str) -> None:
        self.turns = 0
        """To the right, since the place that ``moved`` counts from."""
        self.moved = 0
        """Verbs that may have changed the place."""
        self.moves = 0
        self._read(question)

    # Looking ------------------------------------------------------------------------------------

    def _read(self, text: str) -> None:
        self.text = text
        self.verbs = _verbs(text)
        carried = _CARRYING.search(text)
        self.carrying = f"{carried[1]} {carried[2]}" if carried else None
        self.things = [_seen(found) for found in _SEEN.finditer(text)]

    def act(self, command: str) -> Moves:
        """One verb.

        Raises:
            Over: that was the last.
        """
        self.moves += 1
        if self.moves > _MOST_MOVES:
            raise _Lost
        (text,) = yield [("act", {"command": command})]
        if text.endswith(_DONE):
            raise Over
        if text.startswith("Error:"):
            self.verbs = _verbs(text)
            return
        if command == "turn right":
            self.turns += 1
        elif command == "turn left":
            self.turns -= 1
        elif command not in ("drop", "toggle"):
            self.moved += 1
            self.turns = 0
        self._read(text)

    def matching(self, wanted: Wanted) -> list[Seen]:
        """What in sight fits, near things first; places are those of the very start."""
        if wanted.place and self.moved:
            wanted = Wanted(wanted.color, wanted.kind)
        return [thing for thing in self.things if wanted.fits(thing, self.turns)]

    def find(self, wanted: Wanted, verb: str = "go to") -> Generator[Calls, list[str], Seen]:
        """Turn and walk until something wanted can be reached by ``verb``."""
        while True:
            views: list[_Look] = []
            for _ in range(4):
                views.append(_Look(self.things, self.verbs))
                for thing in self.matching(wanted):
                    if f"{verb} {thing.named}" in self.verbs:
                        return thing
                    if verb == "pickup" and self.carrying and f"go to {thing.named}" in self.verbs:
                        yield from self.put_down()
                        views.clear()
                        break
                else:
                    if len(views) < 4:
                        yield from self.act("turn right")
                    continue
                break
            if views:
                yield from self.go_on(wanted, views)

    def go_on(self, wanted: Wanted, views: list[_Look]) -> Moves:
        """Clear or open a way, seen in ``views`` to all four sides, of which the last is before us."""
        for step in (self.approach(wanted, views), self.fetch_key(views), self.leave(views)):
            moved = self.moves
            yield from step
            if self.moves != moved:
                return
        raise _Lost

    def approach(self, wanted: Wanted, views: list[_Look]) -> Moves:
        """Walk towards something wanted that is in sight and cannot be reached from here."""
        seen = [
            (thing.front + abs(thing.right), side)
            for side, look in enumerate(views)
            for thing in look.things
            if wanted.fits(thing, 0 if self.moved else side) and thing.state != "locked"
        ]
        for _, side in sorted(seen):
            if "move forward" in views[side].verbs:
                yield from self.turn(side + 1)
                yield from self.act("move forward")
                return

    def fetch_key(self, views: list[_Look]) -> Moves:
        """Take the key of a locked door in sight, from a box if there is no other place for it."""
        locked = {t.color for look in views for t in look.things if t.state == "locked"}
        if any(f"{color} key" == self.carrying for color in locked):
            return
        for side, look in enumerate(views):
            for thing in look.things:
                if thing.kind == "key" and thing.color in locked:
                    yield from self.turn(side + 1)
                    yield from self.pick_up(Wanted(thing.color, "key"))
                    return
        for side, look in enumerate(views):
            for thing in look.things:
                if locked and thing.kind == "box" and f"go to {thing.named}" in look.verbs:
                    yield from self.turn(side + 1)
                    yield from self.act(f"go to {thing.named}")
                    if "toggle" in self.verbs and not self.carrying:
                        yield from self.act("toggle")
                    return

    def leave(self, views: list[_Look]) -> Moves:
        """Go through a closed door, else an open one in front, else as far ahead as can be."""
        ways: list[tuple[int, int, int, str]] = []
        for side, look in enumerate(views):
            for thing in look.things:
                opened = thing.state == "open"
                command = f"{'go through' if opened else 'toggle and go through'} {thing.named}"
                if command in look.verbs and (thing.front or thing.right):
                    behind = opened and side == 2 and thing.right == 0
                    ways.append((opened + behind, thing.front + abs(thing.right), side, command))
            if "move forward" in look.verbs:
                ways.append((2, look.blocked - look.room, side, "move forward"))
        if not ways:
            return
        kind, _, side, command = min(ways)
        yield from self.turn(side + 1)
        yield from self.act(command)
        for _ in range(2 if kind == 2 and "forward" in command else 1):
            if "move forward" in self.verbs:
                yield from self.act("move forward")

    def turn(self, times: int) -> Moves:
        """To the right, the shorter way round."""
        if times % 4 == 3:
            yield from self.act("turn left")
        else:
            for _ in range(times % 4):
                yield from self.act("turn right")

    # Doing --------------------------------------------------------------------------------------

    def do_part(self, part: str) -> Moves:
        """One action of a mission."""
        wanted = [
            Wanted(found[1] or "", "" if found[2] == "object" else found[2], _place(found))
            for found in _WANTED.finditer(part)
        ]
        if part.startswith("go to"):
            yield from self.go_to(wanted[0])
        elif part.startswith("pick up"):
            yield from self.pick_up(wanted[0])
        elif part.startswith("open"):
            yield from self.open(wanted[0])
        elif part.startswith("put"):
            yield from self.put_next(wanted[0], wanted[1])

    def go_to(self, wanted: Wanted) -> Moves:
        """Face it."""
        thing = yield from self.find(wanted)
        if thing.front == 1 and thing.right == 0:
            yield from self.turn(
                1
            )  # in front from the start: what counts is an action that ends so
            yield from self.turn(3)
        else:
            yield from self.act(f"go to {thing.named}")

    def pick_up(self, wanted: Wanted) -> Moves:
        """Take it, whatever is carried put down first."""
        thing = yield from self.find(wanted, "pickup")
        yield from self.act(f"pickup {thing.named}")

    def put_down(self) -> Moves:
        """Drop what is carried where there is room."""
        for _ in range(4):
            if "drop" in self.verbs:
                yield from self.act("drop")
                return
            yield from self.act("turn right")
        raise _Lost

    def open(self, wanted: Wanted) -> Moves:
        """Open a door, with its key where it is locked."""
        door = yield from self.find(wanted)
        if door.state == "locked":
            yield from self.unlock(door)
            return
        yield from self.act(f"go to {door.named}")
        yield from self.act("toggle")
        if door.state == "open":
            yield from self.act("toggle")

    def unlock(self, door: Seen) -> Moves:
        """Fetch the key, from a box if need be, and open the door."""
        key = Wanted(door.color, "key")
        if self.carrying != f"{door.color} key":
            found = yield from self.find(key, "pickup")
            yield from self.act(f"pickup {found.named}")
        same = yield from self.find(Wanted(door.color, "door"))
        yield from self.act(f"go to {same.named}")
        yield from self.act("toggle")

    def put_next(self, moved: Wanted, fixed: Wanted) -> Moves:
        """Carry one thing next to another."""
        if self.carrying is None or not _names(moved, self.carrying):
            yield from self.pick_up(moved)
        thing = yield from self.find(fixed)
        yield from self.act(f"go to {thing.named}")
        for side, back in (("turn right", "turn left"), ("turn left", "turn right")):
            yield from self.act(side)
            if "move forward" not in self.verbs:
                yield from self.act(back)
                continue
            yield from self.act("move forward")
            yield from self.act(back)
            if "drop" in self.verbs:
                yield from self.act("drop")
                return
            yield from self.act(back)
            yield from self.act("move forward")
            yield from self.act(side)
        yield from self.turn(2)
        yield from self.act("move forward")
        yield from self.turn(2)
        yield from self.act("drop")


def _seen(found: re.Match[str]) -> Seen:
    name, color, state, kind, number, ahead, front, aside, side = found.groups()
    right = 0 if ahead else int(aside) * (1 if side == "right" else -1)
    return Seen(name, color, kind, state or "", int(number), int(ahead or front), right)


def _place(found: re.Match[str]) -> str:
    return found[3] or found[4] or found[5] or ""


def _names(wanted: Wanted, carried: str) -> bool:
    color, kind = carried.split()
    return wanted.color in ("", color) and wanted.kind in ("", kind)
