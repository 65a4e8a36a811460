"""Plays ScienceWorld: the library's own gold sequences, and a wanderer among things it was shown.

The gold sequence is privileged: the library computes it from the world's inner state, and what the
prompt gives is only which variation it is.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Generator

from reagent_env.families.sci_world_jvm import Variation, shared_pool
from reagent_env.task_sets.phrasing import stable_random
from reagent_env.task_sets.solving import Calls

_VARIATION = re.compile(r"\(ScienceWorld, ([\w-]+), variation (\d+)\)")
_ONE_OBJECT = (
    *("go", "open", "close", "pick up", "put down", "look at", "look in", "activate", "deactivate"),
    *("eat", "flush", "read", "mix", "disconnect", "focus on"),
)
_TWO_OBJECTS = (
    "move {} to {}",
    "pour {} in {}",
    "dunk {} in {}",
    "use {} on {}",
    "connect {} to {}",
)
_computing = threading.Lock()


def solve(prompt: str) -> Generator[Calls, list[str], str]:
    """Send the library's gold sequence for the variation that the prompt names."""
    named = _VARIATION.search(prompt)
    if named is None:
        return ""
    for command in gold_sequence((named[1], int(named[2]), "")):
        yield [("act", {"command": command})]
    return ""


@functools.lru_cache(maxsize=1024)
def gold_sequence(variation: Variation) -> tuple[str, ...]:
    """The library's solution, e.g. of ``("boil", 0, "")``: ``("open door to kitchen", …)``.

    Computed in a Java process beside the episode's, one at a time, in some ten times the time that
    playing it takes.

    Raises:
        ToolBackendError: Java does not start or died.
        TaskError: the library knows no such task.
    """
    with _computing:
        world = shared_pool().acquire()
        try:
            return tuple(world.gold(variation))
        finally:
            shared_pool().release(world)


def wander(prompt: str) -> Generator[Calls, list[str], str]:
    """Random commands on random things in sight, for as long as it lasts."""
    rng = stable_random("wander", prompt)
    things: list[str] = []
    while True:
        if not things or rng.random() < 0.1:
            seen = (yield [("act", {"command": "objects"})])[0]
            things = [line.strip() for line in seen.splitlines()[1:] if line.strip()]
        if not things or rng.random() < 0.2:
            command = rng.choice(["look around", "inventory", "wait1", "0"])
        elif rng.random() < 0.7:
            command = f"{rng.choice(_ONE_OBJECT)} {rng.choice(things)}"
        else:
            command = rng.choice(_TWO_OBJECTS).format(rng.choice(things), rng.choice(things))
        yield [("act", {"command": command})]
