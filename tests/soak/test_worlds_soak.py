"""Two thousand episodes of the families that live in other processes: memory there stays flat as well.

``make soak`` runs it. What is counted is this process and everything below it: Java, Chromium,
Playwright's driver.
"""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from reagent_env.testing.simulator_contract import play, solver_named

EPISODES, EVERY = 2000, 100


def sci_world() -> tuple[Any, list[str]]:
    from reagent_env.families.sci_world import sci_world as tasks

    wander = "reagent_env.families.sci_world_solver:wander"
    return gym.make(
        "reagent/SciWorld-v0", tasks=tasks("train"), max_turns=5, disable_env_checker=True
    ), [wander]


def web_nav() -> tuple[Any, list[str]]:
    from reagent_env.families.web_nav import web_nav as tasks

    players = [f"reagent_env.families.web_nav_solver:{name}" for name in ("solve", "wander")]
    return gym.make(
        "reagent/WebNav-v0", tasks=tasks("train"), max_turns=10, disable_env_checker=True
    ), players


def below(root: int) -> Iterator[int]:
    """The ids of all processes below one."""
    for folder in Path(f"/proc/{root}/task").glob("*"):
        try:
            children = (folder / "children").read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            yield child
            yield from below(child)


def held() -> tuple[int, int, int, int]:
    """(MiB of all processes, shared pages counted once; MiB of this one; its open files; processes)."""
    gc.collect()
    sizes = []
    for process in (os.getpid(), *below(os.getpid())):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)
        sizes.append(int(found[1]) // 1024 if found else 0)
    return sum(sizes), sizes[0], len(os.listdir("/proc/self/fd")), len(sizes)


@pytest.mark.soak
@pytest.mark.timeout(8 * 3600)  # a page takes 1.2 s, on a full machine several times that
@pytest.mark.parametrize("family", [sci_world, web_nav])
def test_two_thousand_episodes_of_a_world_stay_flat(
    family: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    env, names = family()
    players = [solver_named(name) for name in names]
    samples = []
    began = time.monotonic()
    with capfd.disabled():
        for number in range(EPISODES):
            *_, last = play(env, players[number % len(players)], number)
            assert 0.0 <= last[1] <= 1.0, (number, last[4].get("infrastructure_error"))
            if (number + 1) % EVERY == 0:
                samples.append(held())
                everything, here, files, processes = samples[-1]
                print(
                    f"{family.__name__} {number + 1:5d} episodes {time.monotonic() - began:6.0f} s: "
                    f"{everything} MiB in {processes} processes, {here} MiB here, {files} files",
                    flush=True,
                )
    env.close()
    everything, here, files, processes = zip(*samples[1:], strict=True)
    # A browser that is replaced every 400 pages, and a Java heap that is filled before it is swept,
    # go up and down: the second half may not lie above the first.
    half = len(everything) // 2
    assert max(everything[half:]) <= 1.15 * max(everything[:half])
    assert here[-1] <= 1.10 * here[0]
    assert files[-1] <= files[0] + 4
    assert processes[-1] <= processes[0] + 4
