"""Java processes with a ScienceWorld simulator each, pooled: a start takes seconds, a step does not.

One process holds one simulator at a time, since the library keeps its random numbers and its count
of objects in statics. It is driven through the library's own jar by Py4J, without the library's
Python class: that one cannot pass options to Java, and asks the simulator four further questions at
every step. Not here: tasks, scores (``sci_world.py``).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reagent_env.daemon_threads import run_in_thread
from reagent_env.errors import TaskError, ToolBackendError
from reagent_env.per_process import PerProcess

Variation = tuple[str, int, str]
"""A task of the library's: its kind, its variation, its simplifications (``""`` for none)."""
JAVA_OPTIONS = (
    "-Xmx384m",
    "-XX:+UseSerialGC",  # no pool of collector threads a process
    # The simulator keeps what a room holds in hash sets of objects without a hash of their own. Java
    # draws those at random, so that two processes list the same room in different orders. A constant
    # one makes a task the same in every process.
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",
)
START_SECONDS = 120.0
CALL_SECONDS = 900.0
"""The longest silence before a process is given up; a gold sequence may take minutes to compute."""
IDLE_SECONDS = 300.0
"""After so long without use, a process is ended."""


class World:
    """One Java process and the simulator in it.

    Example::

        world = World()
        world.load(("boil", 0, ""))
        world.opening                        # "Your task is to boil water. …"
        world.step("open door to kitchen")   # ("The door is now open.", 0.0, False)
        world.close()

    Raises:
        ToolBackendError: Java does not start, dies, or stays silent too long.
    """

    def __init__(self, java_options: Sequence[str] = JAVA_OPTIONS) -> None:
        self.broken = False
        """True once a call failed: the process is not to be used again."""
        self.opening = ""
        """The task's description and the first look around."""
        self.score_at_start = 0.0
        """What the library gives for where the agent happens to stand at first."""
        self.untouched: Variation | None = None
        """What is loaded, as long as nothing was done in it."""
        self._closed = False
        try:
            starting = run_in_thread(lambda: _launch(java_options))
            port, token, self._process = starting.result(START_SECONDS)
        except Exception as error:  # also a first line that is no port
            raise ToolBackendError(
                f"Java did not start ScienceWorld ({type(error).__name__}: {error}); "
                "try `java -version`, and `reagent envs` for what is missing."
            ) from error
        from reagent_env.families.sci_world_client import connected  # py4j is an extra

        gateway, self._client = connected(port, token, CALL_SECONDS)
        try:
            self._world: Any = self._asked(
                lambda: gateway.jvm.scienceworld.runtime.pythonapi.PythonInterface()
            )
        except BaseException:
            self.close()
            raise

    @property
    def process_id(self) -> int:
        """The Java process's id."""
        return int(self._process.pid)

    def load(self, variation: Variation) -> None:
        """Set up a task and look around, unless it stands so already.

        Raises:
            TaskError: the library knows no such task.
        """
        if variation == self.untouched:
            return
        self._load(variation, gold=False)
        seen = self.call("step", "look around")  # the library's own reset begins so
        self.opening = f"{self.call('getTaskDescription')}\n\n{seen}"
        self.score_at_start = float(self.call("getScore"))
        self.untouched = variation

    def step(self, command: str) -> tuple[str, float, bool]:
        """Run a command: what is seen then, the score (1 at the goal, below 0 if lost), if complete."""
        self.untouched = None
        seen, score = str(self.call("step", command)), float(self.call("getScore"))
        if score < 0 and self._failed():
            raise ToolBackendError(f"ScienceWorld failed at {command!r} or before: {seen}")
        return seen.strip(), score, bool(self.call("getCompleted"))

    def gold(self, variation: Variation) -> list[str]:
        """The library's own solution of a task; takes it many times as long as playing it."""
        self.untouched = None
        self._load(variation, gold=True)
        return [str(command) for command in self.call("getGoldActionSequence")]

    def call(self, method: str, *arguments: object) -> Any:
        """Call a method of the library's ``PythonInterface``; a Java list comes as a list."""

        def ask() -> Any:
            answer = getattr(self._world, method)(*arguments)
            return answer if isinstance(answer, str | int | float) else list(answer)

        return self._asked(ask)

    def close(self) -> None:
        """End the process. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._client.end()
        _silence(self._process.stdin.close)  # it ends itself where nobody holds this
        try:
            self._process.wait(0.5)
        except Exception:
            self._process.kill()
            _silence(lambda: self._process.wait(10))
        _silence(self._process.stdout.close)

    def _load(self, variation: Variation, gold: bool) -> None:
        wrong = self.call("load", *variation, gold)
        if wrong:
            raise TaskError(f"ScienceWorld cannot set up {variation}: {wrong}")

    def _failed(self) -> bool:
        """True if the simulator caught an exception of its own: then it says -1, lost or not."""
        return bool(self._asked(lambda: self._world.agentInterface().get().isInErrorState()))

    def _asked(self, ask: Callable[[], Any]) -> Any:
        from reagent_env.families.sci_world_client import Py4JError, first_line

        try:
            return ask()
        except (Py4JError, OSError) as error:
            self.broken = True
            raise ToolBackendError(
                f"ScienceWorld's Java process failed: {type(error).__name__}: {first_line(error)}"
            ) from error


class WorldPool:
    """Java processes to be used in turn; as many as are out at the same time."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self.idle_seconds = idle_seconds
        self.started = 0
        """Processes started so far."""
        self._idle: list[tuple[float, World]] = []
        self._lock = threading.Lock()

    def acquire(self, variation: Variation | None = None) -> World:
        """A world for this caller alone, with a task set up in it; in an idle process if there is one.

        Raises:
            ToolBackendError: Java does not start or died.
            TaskError: the library knows no such task.
        """
        self._end_unused()
        world = self._taken(variation) or World()
        if variation is not None:
            try:
                world.load(variation)
            except Exception:
                self.release(world)
                raise
        return world

    def release(self, world: World) -> None:
        """Take a process back; a broken one is ended."""
        if world.broken:
            world.close()
            return
        with self._lock:
            self._idle.append((time.monotonic(), world))
        self._end_unused()

    def close(self) -> None:
        """End the idle processes; those that are out end when they are released and unused."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, world in idle:
            world.close()

    def _taken(self, variation: Variation | None) -> World | None:
        """The idle process that stands ready for ``variation``, else the one used last, else None."""
        with self._lock:
            if not self._idle:
                self.started += 1
                return None
            ready = [n for n, (_, world) in enumerate(self._idle) if world.untouched == variation]
            return self._idle.pop(ready[-1] if variation and ready else -1)[1]

    def _end_unused(self) -> None:
        since = time.monotonic() - self.idle_seconds
        with self._lock:
            unused = [world for when, world in self._idle if when < since]
            self._idle = [(when, world) for when, world in self._idle if when >= since]
        for world in unused:
            world.close()


shared_pool = PerProcess(WorldPool)
"""The pool that all environments of this process share."""


def _launch(java_options: Sequence[str]) -> Any:
    """Port, token and process of a new Java process that listens on the loopback device."""
    library = importlib.util.find_spec("scienceworld")
    assert library is not None
    assert library.origin is not None
    folder = Path(library.origin).parent
    return importlib.import_module("py4j.java_gateway").launch_gateway(
        classpath=str(folder / "scienceworld.jar"),
        cwd=str(folder),
        javaopts=list(java_options),
        redirect_stderr=_nowhere(),
        die_on_exit=True,
        enable_auth=True,
        return_proc=True,
    )


@functools.cache
def _nowhere() -> Any:
    """One open null device for all processes: py4j would open one for each, and close none."""
    return open(os.devnull, "w")


def _silence(act: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        act()
