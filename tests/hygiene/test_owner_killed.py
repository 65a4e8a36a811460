"""A host process that is killed leaves nothing behind, and its neighbours lose nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reagent_env.sandboxes.embedded import BubblewrapSandbox, embedded_problem
from reagent_env.sandboxes.engine import connect
from reagent_env.sandboxes.sweep import sweep

OWNER = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
from reagent_env.sandboxes.{module} import {name} as Kind
sys.stdin.readline()
def make():
    sandbox = Kind(preload=())
    kept.append(sandbox)
    sandbox.shell("setsid sleep 1000 & sleep 1000 &")
    print("made", flush=True)
    {then}
kept = []
threads = [threading.Thread(target=make) for _ in range({count})]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.stdin.read()
"""
KINDS = {"docker": ("docker", "DockerSandbox"), "embedded": ("embedded", "BubblewrapSandbox")}


@contextlib.contextmanager
def owner(kind: str, count: int, then: str = "pass") -> Iterator[subprocess.Popen[str]]:
    """A process that makes ``count`` sandboxes at once, after a line on its standard input."""
    module, name = KINDS[kind]
    program = OWNER.format(module=module, name=name, count=count, then=then)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            with contextlib.suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()


def await_made(process: subprocess.Popen[str], count: int) -> None:
    assert process.stdout is not None
    for _ in range(count):
        assert process.stdout.readline() == "made\n"


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def containers(pid: int) -> list[str]:
    """Return the containers whose label names ``pid`` as their owner."""
    labels = [f"reagent_env.owner_pid={pid}"]
    return [found["Id"] for found in connect().containers(all=True, filters={"label": labels})]


@pytest.fixture
def orphans() -> Iterator[Callable[[], list[int]]]:
    """Tells which orphans of killed owners live: they become this process's children."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
    before = set(children())

    def alive() -> list[int]:
        found = []
        for pid in set(children()) - before:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    found.append(pid)
        return found

    yield alive
    alive()  # reaps
    libc.prctl(36, 0, 0, 0, 0)


def children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def kill_owners_of_containers(times: int) -> None:
    with owner("docker", 1) as neighbour:
        await_made(neighbour, 1)
        kept = containers(neighbour.pid)
        assert len(kept) == 1
        for time_ in range(times):
            # Idle at one time, in the middle of a step at the next.
            then = "sandbox.python('while True: pass', 300)" if time_ % 2 else "pass"
            with owner("docker", 2, then) as killed:
                await_made(killed, 2)
                assert len(containers(killed.pid)) == 2
                killed.kill()
                killed.wait(10)
                assert wait_until(lambda pid=killed.pid: not containers(pid), 2.0)  # type: ignore[misc]
            assert containers(neighbour.pid) == kept


def kill_owners_in_mid_create(times: int) -> None:
    """What is left of a container being made when its owner died goes with the next sweep."""
    chance = random.Random(7)
    with owner("docker", 1) as neighbour:
        await_made(neighbour, 1)
        kept = containers(neighbour.pid)
        for _ in range(times):
            with owner("docker", 2) as killed:
                assert wait_until(lambda pid=killed.pid: bool(containers(pid)), 15.0)  # type: ignore[misc]
                time.sleep(chance.uniform(0, 0.4))
                killed.kill()
                killed.wait(10)
                time.sleep(0.3)  # the engine may still be at a request it was sent
                sweep()
                assert wait_until(lambda pid=killed.pid: not containers(pid), 2.0)  # type: ignore[misc]
            assert containers(neighbour.pid) == kept


def kill_owners_of_bubblewrap(times: int, orphans: Callable[[], list[int]]) -> None:
    chance = random.Random(7)
    for time_ in range(times):
        then = "sandbox.python('while True: pass', 300)" if time_ % 2 else "pass"
        with owner("embedded", 2, then) as killed:
            if time_ % 3 == 2:
                time.sleep(chance.uniform(0.1, 1.0))  # somewhere in the middle of making them
            else:
                await_made(killed, 2)
            killed.kill()
            killed.wait(10)
            assert wait_until(lambda: orphans() == [], 2.0), orphans()
        # The next sandbox made here removes the groups of the dead.
        BubblewrapSandbox(libraries=()).close()
        assert list(Path("/sys/fs/cgroup").glob(f"**/reagent/{killed.pid}-*")) == []


needs_bubblewrap = pytest.mark.skipif(
    embedded_problem() is not None, reason=str(embedded_problem())
)


@pytest.mark.docker
@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.attacks)])
def test_a_killed_owner_leaves_no_container(docker: None, times: int) -> None:
    kill_owners_of_containers(times)


@pytest.mark.docker
@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.attacks)])
def test_an_owner_killed_while_making_one_leaves_none_after_a_sweep(
    docker: None, times: int
) -> None:
    kill_owners_in_mid_create(times)


@needs_bubblewrap
@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.attacks)])
def test_a_killed_owner_leaves_no_process(orphans: Callable[[], list[int]], times: int) -> None:
    kill_owners_of_bubblewrap(times, orphans)


def test_an_end_by_signal_or_by_exception_leaves_nothing_either(
    docker: None, orphans: Callable[[], list[int]]
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with owner("docker", 1) as ended:
            await_made(ended, 1)
            ended.send_signal(number)
            ended.wait(10)
            assert wait_until(lambda pid=ended.pid: not containers(pid), 2.0)  # type: ignore[misc]
        with owner("embedded", 1) as ended:
            await_made(ended, 1)
            ended.send_signal(number)
            ended.wait(10)
            assert wait_until(lambda: orphans() == [], 2.0)
