"""Eight pages at once in one Chromium: memory of all its processes, and actions a second.

    .venv/bin/python benchmarks/web_pages.py [--pages 8] [--quick]

Memory is the proportional set size (PSS), which counts what processes share once, of everything
below this Python: Chromium with its renderers, and Playwright's driver. Its highest of samples taken
while experts play. The bar: 4 GiB for eight pages.
"""

from __future__ import annotations

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
from machine import Watch
from rows import Row, arguments, deliver

from reagent_env.families.web_nav import web_nav
from reagent_env.families.web_nav_solver import solve
from reagent_env.testing.simulator_contract import play

EPISODES_A_PAGE = 5
BAR_MIB = 4096


def descendants(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found, waiting = [], [root]
    while waiting:
        waiting += (children := parents.get(waiting.pop(), []))
        found += children
    return found


def shared_mib() -> float:
    total = 0
    for process in [os.getpid(), *descendants(os.getpid())]:
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)
        total += int(found[1]) if found else 0
    return total / 1024


def main() -> None:
    parser = arguments(__doc__, quick="an episode a page")
    parser.add_argument("--pages", type=int, default=8, help="at once")
    given = parser.parse_args()
    timing = Watch()
    at_once, episodes = given.pages, 1 if given.quick else EPISODES_A_PAGE
    tasks = web_nav("test")
    samples, ended = [shared_mib()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            samples.append(shared_mib())

    def player(number: int) -> tuple[int, float]:
        env = gym.make("reagent/WebNav-v0", tasks=tasks, disable_env_checker=True)
        mine = range(number, at_once * episodes, at_once)
        steps = [list(play(env, solve, task=task)) for task in mine]
        env.close()
        return sum(map(len, steps)), sum(float(one[-1][1]) for one in steps)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.monotonic()
    with ThreadPoolExecutor(at_once) as workers:
        played = list(workers.map(player, range(at_once)))
    seconds = time.monotonic() - start
    ended.set()
    watcher.join()
    actions = sum(count for count, _ in played)
    print(f"{at_once} pages at once, {at_once * episodes} episodes, {actions} actions")
    print(f"solved: {sum(solved for _, solved in played):.0f}")
    print(f"actions a second, starts and loads included: {actions / seconds:.1f}")
    print(f"memory: {samples[0]:.0f} MiB before, {max(samples):.0f} MiB at most")
    rows = [
        Row(
            name=f"{at_once} web pages, memory",
            compares="proportional set size of Chromium, its driver and this Python, at most",
            measured=max(samples),
            of="MiB",
            bar=BAR_MIB,
            most=True,
        ),
        Row(
            name=f"{at_once} web pages, actions",
            compares="actions a second, starts and loads included",
            measured=actions / seconds,
            of="/s",
        ),
    ]
    deliver(given.json, "web_pages", rows, timing.machine())


if __name__ == "__main__":
    main()
