"""What a BabyAI agent sees, in words, and the verbs that lead from there.

The wording and the verbs are those of AgentGym's BabyAI. Not here: the game (``baby_ai.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE = range(6)
"""The primitive actions of minigrid."""
CHECK = "check available actions"

_EMPTY, _WALL, _FLOOR, _DOOR, _KEY, _BALL, _BOX, _GOAL, _LAVA = range(1, 10)
_KINDS = {_DOOR: "door", _KEY: "key", _BALL: "ball", _BOX: "box", _GOAL: "goal", _LAVA: "lava"}
_COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
_STATES = ("open", "closed", "locked")
_OPEN = 0
_AHEAD = ((0, -1), (1, 0), (0, 1), (-1, 0))
"""Steps (right, down) of an agent that looks up, right, down, left in its own view."""

Image = Sequence[Sequence[Sequence[int]]]
"""``[column][row]`` of (kind, colour, state): the agent stands below the middle and looks up."""
Cell = tuple[int, int]
_Place = tuple[int, int, int]
"""A cell, and the way one looks there."""


@dataclass(frozen=True)
class Thing:
    """Something in sight, e.g. ``Thing("red ball", 1, "ball", (3, 4), 2, 0)``."""

    name: str
    """Colour and kind; a door's state between them."""
    number: int
    """From near to far, among those of its name."""
    kind: str
    cell: Cell
    front: int
    """Steps ahead of the agent."""
    right: int
    """Steps to its right; negative to its left."""


@dataclass(frozen=True)
class View:
    """What is seen from one place, and what can be done from there."""

    description: str
    verbs: dict[str, list[int]]
    """Verb → the primitive actions that it takes."""
    refused: dict[str, str] = field(default_factory=dict)
    """Verbs that would be understood, and why they cannot be done now."""

    @property
    def text(self) -> str:
        """The description, then the verbs."""
        return f"{self.description}\nAvailable actions: {self.listing}"

    @property
    def listing(self) -> str:
        """The verbs as a list."""
        return "[" + ", ".join(f'"{verb}"' for verb in (*self.verbs, CHECK)) + "]"


def view_of(image: Image, carrying: str | None) -> View:
    """Describe an observation.

    Args:
        image: minigrid's, as nested lists.
        carrying: ``"red key"``, or None.
    """
    things = _things(image)
    here = (len(image) // 2, len(image[0]) - 1)
    facing, reaching = _paths(image, here, {thing.cell for thing in things})
    ahead = image[here[0]][here[1] - 1]
    verbs: dict[str, list[int]] = {"turn left": [LEFT], "turn right": [RIGHT]}
    refused: dict[str, str] = {}
    if _walkable(ahead):
        verbs["move forward"] = [FORWARD]
    else:
        refused["move forward"] = "Something is in front of you."
    if carrying is None:
        refused["drop"] = "You are not carrying anything."
    elif ahead[0] in (_EMPTY, _FLOOR):
        verbs["drop"] = [DROP]
    else:
        refused["drop"] = "There is no room in front of you."
    if ahead[0] in (_DOOR, _BOX):
        verbs["toggle"] = [TOGGLE]
    else:
        refused["toggle"] = "There is no door and no box in front of you."
    for thing in things:
        _add_verbs(
            thing, facing.get(thing.cell), reaching.get(thing.cell), carrying, verbs, refused
        )
    return View(_description(things, image, here, carrying), verbs, refused)


def _add_verbs(
    thing: Thing,
    facing: list[int] | None,
    reaching: list[int] | None,
    carrying: str | None,
    verbs: dict[str, list[int]],
    refused: dict[str, str],
) -> None:
    named = f"{thing.name} {thing.number}"
    possible: dict[str, list[int] | None] = {}
    if thing.kind == "goal":
        possible["go to goal"] = reaching
    else:
        possible[f"go to {named}"] = facing
    if thing.kind in ("key", "ball", "box"):
        if carrying is None:
            possible[f"pickup {named}"] = None if facing is None else [*facing, PICK_UP]
        else:
            refused[f"pickup {named}"] = f"You are carrying a {carrying} already."
    if thing.kind == "door":
        color, state, _ = thing.name.split()
        through = None if facing is None else [*facing, TOGGLE, FORWARD]
        if state == "open":
            possible[f"go through {named}"] = reaching
        elif state == "closed" or carrying == f"{color} key":
            possible[f"toggle and go through {named}"] = through
        else:
            why = f"It is locked, and you are not carrying a {color} key."
            refused[f"toggle and go through {named}"] = why
    for verb, actions in possible.items():
        if actions is None:
            refused[verb] = "There is no free way to it in sight."
        else:
            verbs[verb] = actions


def _things(image: Image) -> list[Thing]:
    """Everything but walls, from near to far."""
    middle, last = len(image) // 2, len(image[0]) - 1
    found: list[tuple[int, int, int, str, str, Cell]] = []
    for column, cells in enumerate(image):
        for row, (kind, color, state) in enumerate(cells):
            if kind not in _KINDS or (column == middle and row == last):
                continue  # in its own place an agent sees what it carries
            front, right = last - row, column - middle
            word = _KINDS[kind]
            name = f"{_COLORS[color]} {word}"
            if kind == _DOOR:
                name = f"{_COLORS[color]} {_STATES[state]} door"
            found.append((front + abs(right), right, front, name, word, (column, row)))
    found.sort()
    counts: dict[str, int] = {}
    things = []
    for _, right, front, name, word, cell in found:
        counts[name] = counts.get(name, 0) + 1
        things.append(Thing(name, counts[name], word, cell, front, right))
    return things


def _paths(
    image: Image, here: Cell, wanted: set[Cell]
) -> tuple[dict[Cell, list[int]], dict[Cell, list[int]]]:
    """Shortest ways over free cells in sight: to face each wanted cell, and to stand in it."""
    width, height = len(image), len(image[0])
    free = [[_walkable(cell) for cell in column] for column in image]
    faced: dict[Cell, _Place] = {}
    reached: dict[Cell, _Place] = {}
    start: _Place = (here[0], here[1], 0)
    before: dict[_Place, tuple[_Place, int] | None] = {start: None}
    left = len(wanted) + sum(free[column][row] for column, row in wanted)
    waiting = deque([start])
    while waiting and left:
        place = waiting.popleft()
        column, row, direction = place
        if (column, row) in wanted and (column, row) not in reached:
            reached[column, row] = place
            left -= 1
        right, down = _AHEAD[direction]
        x, y = column + right, row + down
        if 0 <= x < width and 0 <= y < height:
            if (x, y) in wanted and (x, y) not in faced:
                faced[x, y] = place
                left -= 1
            if free[x][y] and (x, y, direction) not in before:
                before[x, y, direction] = (place, FORWARD)
                waiting.append((x, y, direction))
        for turned, action in ((direction + 3) % 4, LEFT), ((direction + 1) % 4, RIGHT):
            if (column, row, turned) not in before:
                before[column, row, turned] = (place, action)
                waiting.append((column, row, turned))
    return (
        {cell: _way(before, place) for cell, place in faced.items()},
        {cell: _way(before, place) for cell, place in reached.items()},
    )


def _way(before: dict[_Place, tuple[_Place, int] | None], place: _Place) -> list[int]:
    """The actions that led to a place."""
    actions = []
    while (step := before[place]) is not None:
        place, action = step
        actions.append(action)
    return actions[::-1]


def _walkable(cell: Sequence[int]) -> bool:
    kind, _, state = cell
    return kind in (_EMPTY, _FLOOR, _GOAL) or (kind == _DOOR and state == _OPEN)


def _description(things: list[Thing], image: Image, here: Cell, carrying: str | None) -> str:
    if things:
        parts = ["In front of you in this room, you can see several objects:"]
        parts += [f"There is a {t.name} {t.number} {_place(t)}." for t in things]
    else:
        parts = ["You cannot see any objects within sight."]
    parts.append("The room has walls around you.")
    for distance in range(1, here[1] + 1):
        cell = image[here[0]][here[1] - distance]
        if not _walkable(cell):
            if cell[0] == _WALL or cell[0] in _KINDS:
                what = _KINDS.get(cell[0], "wall")
                parts.append(f"You are facing a {what} {distance} steps away.")
            break
    parts.append(
        f"You are carrying a {carrying}." if carrying else "You are not carrying anything."
    )
    return " ".join(parts)


def _place(thing: Thing) -> str:
    if thing.right == 0:
        return f"right in front of you {thing.front} steps away"
    side = "right" if thing.right > 0 else "left"
    return f"{thing.front} steps in front of you and {abs(thing.right)} steps to your {side}"
