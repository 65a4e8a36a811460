"""One of a costly thing for a process."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from reagent_env.per_process import PerProcess

PROGRAM = """
import os
from reagent_env.per_process import PerProcess

class Pool:
    def __init__(self):
        self.owner = os.getpid()
    def close(self):
        print("closed", self.owner == os.getpid(), flush=True)

shared = PerProcess(Pool)
mine = shared()
child = os.fork()
if child == 0:
    print("its own", shared() is not mine, flush=True)
    shared().close()
    os._exit(0)
os.waitpid(child, 0)
print("still the parent's", shared() is mine, flush=True)
"""


class Thing:
    """Counts how many were made."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1

    def close(self) -> None:
        pass


def test_a_forked_child_has_its_own_and_the_parent_keeps_its_one_to_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "its own True",
        "closed True",
        "still the parent's True",
        "closed True",
    ]


def test_threads_that_ask_at_once_get_the_same_one() -> None:
    Thing.made = 0
    begin = threading.Barrier(8)
    shared = PerProcess(Thing)

    def ask(_: int) -> Thing:
        begin.wait(10)
        return shared()

    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(ask, range(8)))
    assert len(found) == 1
    assert Thing.made == 1


def test_after_a_failure_the_next_one_who_asks_tries_again() -> None:
    answers = iter([OSError("no room"), Thing()])

    def make() -> Thing:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    shared = PerProcess(make)
    with pytest.raises(OSError, match="no room"):
        shared()
    assert shared() is shared()
