"""ScienceWorld: thirty kinds of experiments in a simulated house, by text commands (arXiv 2203.07540).

The world is the package ``scienceworld``'s; here are its tasks and its scores. Not here: the Java
processes that it runs in (``sci_world_jvm.py``), the expert (``sci_world_solver.py``).

The library's score counts subgoals up to 100 and falls to -100 where the wrong thing is focused on,
which ends the episode. As an outcome that is a number from 0 to 1, 0 for a wrong focus; and 0
for what the world begins with, as some variations begin where a subgoal is reached already.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from reagent_env.errors import TaskError, ToolBackendError, ToolError
from reagent_env.families.sci_world_jvm import World, shared_pool
from reagent_env.needs import require
from reagent_env.simulator import Simulator
from reagent_env.task import SPLITS, Task
from reagent_env.task_sets.phrasing import check_split
from reagent_env.tool_definition import tool

ENV_ID = "reagent/SciWorld-v0"
MAX_COMMAND_CHARS = 200

KINDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "boil": (30, 3),
        "change-the-state-of-matter-of": (30, 3),
        "chemistry-mix": (32, 2),
        "chemistry-mix-paint-secondary-color": (36, 1),
        "chemistry-mix-paint-tertiary-color": (36, 1),
        "find-animal": (300, 1),
        "find-living-thing": (300, 1),
        "find-non-living-thing": (300, 1),
        "find-plant": (300, 1),
        "freeze": (30, 3),
        "grow-fruit": (126, 3),
        "grow-plant": (126, 3),
        "identify-life-stages-1": (14, 2),
        "identify-life-stages-2": (10, 1),
        "inclined-plane-determine-angle": (168, 3),
        "inclined-plane-friction-named-surfaces": (1386, 3),
        "inclined-plane-friction-unnamed-surfaces": (162, 3),
        "lifespan-longest-lived": (125, 1),
        "lifespan-longest-lived-then-shortest-lived": (125, 1),
        "lifespan-shortest-lived": (125, 1),
        "measure-melting-point-known-substance": (436, 2),
        "measure-melting-point-unknown-substance": (300, 2),
        "melt": (30, 3),
        "mendelian-genetics-known-plant": (120, 3),
        "mendelian-genetics-unknown-plant": (480, 3),
        "power-component": (20, 1),
        "power-component-renewable-vs-nonrenewable-energy": (20, 1),
        "test-conductivity": (900, 2),
        "test-conductivity-of-unknown-substances": (600, 2),
        "use-thermometer": (540, 2),
    }
)
"""Kind → its variations in the library, and its level: 1 where the gold sequence of the last variation
has up to 20 commands, 2 for up to 50, 3 for more."""
LEVELS = (1, 2, 3)


def sci_world(
    split: str | None = None,
    *,
    levels: Sequence[int] = LEVELS,
    kinds: Sequence[str] = tuple(KINDS),
    simplifications: str = "",
) -> list[Task]:
    """The library's 7,207 variations in its own train, development and test parts.

    Example: ``sci_world("test", kinds=("boil", "melt"))``. Kinds take turns for as long as they last.

    Args:
        split: ``train``, ``validation`` (the library's development part), ``test``, or None for all.
        levels: Only kinds of these levels, 1 to 3.
        kinds: Only these of :data:`KINDS`.
        simplifications: As the library takes them: ``easy``, or names joined by commas.

    Raises:
        NeedMissing: the package ``scienceworld`` or Java is not installed.
        ValueError: an unknown split, level or kind, or none left.
    """
    check_split(split)
    for given, known in ((levels, LEVELS), (kinds, tuple(KINDS))):
        unknown = [one for one in given if one not in known]
        if unknown:
            raise ValueError(f"Unknown {unknown}; known: {', '.join(map(str, known))}.")
    from reagent_env.registration import ENVIRONMENTS  # which Gymnasium's import imports

    require(ENV_ID, *ENVIRONMENTS[ENV_ID]["needs"])
    chosen = [
        [
            _task(kind, variation, part, simplifications)
            for part, variations in parts_of(KINDS[kind][0]).items()
            if split in (None, part)
            for variation in variations
        ]
        for kind in kinds
        if KINDS[kind][1] in levels
    ]
    longest = max(map(len, chosen), default=0)
    tasks = [some[place] for place in range(longest) for some in chosen if place < len(some)]
    if not tasks:
        raise ValueError(f"No kind of {list(kinds)} has a level of {list(levels)}.")
    return tasks


def parts_of(variations: int) -> dict[str, range]:
    """The library's own parts of so many variations: a half, a quarter, and the rest.

    Example: ``parts_of(30)`` is ``{"train": range(0, 14), "validation": range(14, 21), "test":
    range(21, 30)}``. Source: ``PythonInterface.getSets``, whose rule holds from 5 variations up.
    """
    quarter = variations // 4
    cuts = (0, 2 * quarter, 3 * quarter, variations)
    return {split: range(cuts[n], cuts[n + 1]) for n, split in enumerate(SPLITS)}


class SciWorld(Simulator):
    """One variation of a task in a Java process of its own."""

    def __init__(self, task: Task) -> None:
        """Set the world up and look around.

        Raises:
            TaskError: the library knows no such task.
            ToolBackendError: Java does not start or died.
        """
        self._score = 0.0
        self._over = False
        self._world: World | None = shared_pool().acquire(_variation_of(task))
        self._score_at_start = max(0.0, self._world.score_at_start)
        self.opening = self._world.opening

    @property
    def over(self) -> bool:
        """Whether the task was completed, or lost by a wrong focus."""
        return self._over

    @property
    def score(self) -> float:
        """The library's score; 0 after a wrong focus, and while it is what the world began with."""
        return self._score

    def act(self, command: str) -> str:
        """Run one command of the library's."""
        if self._world is None:
            raise ToolBackendError("The world of this episode is closed.")
        observation, score, completed = self._world.step(command)
        self._score = min(1.0, score) if score > self._score_at_start else 0.0
        self._over = completed or score < 0
        return observation

    def close(self) -> None:
        """Give the Java process back."""
        if self._world is not None:
            shared_pool().release(self._world)
            self._world = None


@tool(timeout_s=None)
def act(command: str, *, world: SciWorld) -> str:
    """Do one thing in the house.

    Commands, where OBJ is a thing named as you see it ("thermometer", "door to kitchen"): look around,
    look at OBJ, look in OBJ, read OBJ, inventory, task, go OBJ, open OBJ, close OBJ, pick up OBJ,
    put down OBJ, move OBJ to OBJ, pour OBJ in OBJ, dunk OBJ in OBJ, mix OBJ, use OBJ on OBJ,
    activate OBJ, deactivate OBJ, connect OBJ to OBJ, disconnect OBJ, eat OBJ, flush OBJ, focus on OBJ,
    wait, wait1. To be asked which of several things you mean is to answer with its number.
    Focus only on what the task names: a wrong focus ends it.

    Args:
        command: One command, e.g. "open door to kitchen".
    """
    words = " ".join(command.split()).encode("utf-8", "replace").decode()
    if not words or len(words) > MAX_COMMAND_CHARS:
        raise ToolError(
            f"a command has 1 to {MAX_COMMAND_CHARS} characters, got {len(words)}; "
            'e.g. "look around".'
        )
    return world.act(words)


@functools.lru_cache(maxsize=8192)
def _task(kind: str, variation: int, split: str, simplifications: str) -> Task:
    return Task(
        f"Carry out the task below in the house you are in (ScienceWorld, {kind}, variation {variation}).",
        None,
        "simulator",
        metadata={
            "kind": kind,
            "variation": variation,
            "simplifications": simplifications,
            "level": KINDS[kind][1],
            "split": split,
        },
    )


def _variation_of(task: Task) -> tuple[str, int, str]:
    kind, variation = task.metadata.get("kind"), task.metadata.get("variation")
    if not isinstance(kind, str) or not isinstance(variation, int):
        raise TaskError(
            "A ScienceWorld task has metadata 'kind' and 'variation', e.g. 'boil' and 0; "
            f"got {kind!r} and {variation!r}."
        )
    return kind, variation, str(task.metadata.get("simplifications", ""))
