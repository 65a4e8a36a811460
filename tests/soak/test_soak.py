"""Thousands of episodes, well-behaved and nasty, and nothing grows: neither here nor on the host.

``make soak`` runs the long version; the short one is an ordinary test.
"""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import reagent_env  # noqa: F401  (registers the ids)
from reagent_env.sandboxes.conformance import SEND_FORGED
from reagent_env.sandboxes.contract import Limits
from reagent_env.sandboxes.engine import connect
from reagent_env.sandboxes.owner import run_id
from reagent_env.sandboxes.pool import SandboxPool
from reagent_env.sandboxes.select import get_pool

CONCURRENCY = 4
LIMITS = Limits(timeout_s=0.5)

IGNORE = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
NASTY = {
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "flood": "import os\nos.system('yes')",
    "sleep": "import time; time.sleep(60)",
    "ignores SIGINT": IGNORE,
    "exits": "import os; os._exit(1)",
    "crashes": "import ctypes; ctypes.string_at(0)",
    "holds stdout": "import subprocess; p = subprocess.Popen(['sleep', '1000'])",
    "leaves things": "import os, subprocess\nfor n in range(300): open(f'/dev/shm/{n}', 'w').close()\n"
    "for _ in range(10): subprocess.Popen(['sleep', '1000'], start_new_session=True)",
    "inode bomb": "for n in range(9000): open(f'/work/{n}', 'w').close()",
    "out of memory": "hoard = bytearray(400 << 20)",
    "forges a result": SEND_FORGED + "\nforge('0' * 32)",
}
# Of 40 episodes 13 are nasty; the two that cost a sandbox come once each.
ORDER = [
    *("fork bomb", "", "flood", "", "", "sleep", "", "", "ignores SIGINT", "", "", "exits", "", ""),
    *("crashes", "", "", "holds stdout", "", "", "leaves things", "", "", "inode bomb", "", ""),
    *("out of memory", "", "", "", "forges a result", "", "", "", "holds stdout", "", "", "exits"),
    *("", ""),
]
assert len(ORDER) == 40
assert set(NASTY) == {name for name in ORDER if name}


def call(code: str) -> str:
    return f"<tool_call>{json.dumps({'name': 'python', 'arguments': {'code': code}})}</tool_call>"


@dataclass(frozen=True)
class Sample:
    """What this process and the host hold between two batches of episodes."""

    episode: int
    descriptors: int
    threads: int
    zombies: int
    sandboxes: int
    containers: int
    children: int
    resident_kib: int

    HEAD = "episode  files  threads  zombies  sandboxes  containers  children   RSS KiB"

    def __str__(self) -> str:
        return (
            f"{self.episode:7d}{self.descriptors:7d}{self.threads:9d}{self.zombies:9d}"
            f"{self.sandboxes:11d}{self.containers:12d}{self.children:10d}{self.resident_kib:10d}"
        )


def children(states: str | None = None) -> int:
    """Count this process's direct children, of some states if given."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        count += int(fields[1]) == os.getpid() and (states is None or fields[0] in states)
    return count


def containers() -> int:
    label = f"reagent_env.run={run_id()}"
    return len(connect().containers(all=True, filters={"label": label}))


def held(kind: str) -> tuple[int, int]:
    """Return the containers and the zombies of this process."""
    return containers() if kind == "docker" else 0, children("ZX")


def sample(kind: str, pool: SandboxPool, episode: int, before: tuple[int, int]) -> Sample:
    # What was given back is wiped or replaced in the background: wait for that to be over.
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        with pool._lock:
            busy = pool._creating or len(pool._idle) < len(pool._members)
        if not busy and (kind != "docker" or containers() - before[0] == pool.size):
            break
        time.sleep(0.05)
    gc.collect()
    statm = Path("/proc/self/statm").read_text().split()
    return Sample(
        episode=episode,
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count(),
        zombies=held(kind)[1] - before[1],
        sandboxes=pool.size,
        containers=held(kind)[0] - before[0],
        children=children(),
        resident_kib=int(statm[1]) * os.sysconf("SC_PAGE_SIZE") // 1024,
    )


def run_episode(
    env: gym.Env[Any, Any], number: int, ends: Counter[str], lost: list[tuple[str, str]]
) -> None:
    """One episode: nasty or not, its outcome is the one that is right for it."""
    nasty = ORDER[number % len(ORDER)]
    env.reset(seed=number)

    def step(code: str) -> str | None:
        """Take one step; None when the sandbox was lost."""
        observation, _, _, truncated, info = env.step(call(code))
        if truncated:
            assert info["stop_reason"] == "infrastructure_failure", info
            lost.append((nasty or "well-behaved", info["infrastructure_error"]))
            return None
        return str(observation)

    ends[nasty or "well-behaved"] += 1
    if nasty == "forges a result":
        _, reward, _, truncated, info = env.step(call(NASTY[nasty]))
        assert truncated
        assert info["stop_reason"] == "infrastructure_failure"
        assert reward != reward  # NaN: left out of every mean
        return
    if nasty:
        if step(NASTY[nasty]) is None or (observation := step("6 * 7")) is None:
            return
        # A bomb's survivors share the session's CPU until the reset, and may take it all.
        assert "42" in observation or nasty == "fork bomb", (nasty, observation)
    else:
        for code, shown in (
            ("x = sum(range(1000)); print(x)", "499500"),
            ("open('kept', 'w').write(str(x + 1)); x + 1", "499501"),
            ("print(open('kept').read())", "499501"),
        ):
            if (observation := step(code)) is None:
                return
            assert shown in observation, observation
    _, _, terminated, _, info = env.step("I do not know.\n<answer>0</answer>")
    assert terminated, info


def soak(kind: str, episodes: int, every: int) -> list[Sample]:
    """Run the episodes four at a time; return a sample after every ``every`` of them."""
    before = held(kind)  # of other tests' sandboxes, in the same process
    pool = get_pool(kind, LIMITS)
    envs = [
        gym.make(
            "reagent/PythonMath-v0", sandbox=kind, sandbox_limits=LIMITS, disable_env_checker=True
        )
        for _ in range(CONCURRENCY)
    ]
    ends: Counter[str] = Counter()
    lost: list[tuple[str, str]] = []
    samples: list[Sample] = []
    began = time.monotonic()
    print(f"\n{kind}: {episodes} episodes, {CONCURRENCY} at once\n{Sample.HEAD}", flush=True)
    try:
        with ThreadPoolExecutor(CONCURRENCY) as workers:

            def work(worker: int, start: int) -> None:
                for number in range(start + worker, start + every, CONCURRENCY):
                    run_episode(envs[worker], number, ends, lost)

            for start in range(0, episodes, every):
                list(workers.map(work, range(CONCURRENCY), [start] * CONCURRENCY))
                samples.append(sample(kind, pool, start + every, before))
                print(samples[-1], flush=True)
        print(f"{time.monotonic() - began:.0f} s; {pool.counters}\n{dict(ends)}", flush=True)
        print(f"lost unasked: {lost}", flush=True)
    finally:
        for env in envs:
            env.close()
        pool.close()
    # A sandbox may be lost to an attack and replaced, but rarely: its episode is left out of the mean.
    assert len(lost) <= episodes / 200, lost
    return samples


def assert_flat(samples: list[Sample], growth: float) -> None:
    """Nothing grew from the first sample to the last."""
    first, last = samples[0], samples[-1]
    assert last.zombies <= 0
    # A pool may hold another sandbox or two by then, and each has a few descriptors; the engine's
    # client keeps a connection for each thread that asked it something at the same time.
    more = max(0, last.sandboxes - first.sandboxes)
    assert last.descriptors <= first.descriptors + 8 * more + 3 * CONCURRENCY
    assert last.threads <= first.threads + 4
    assert last.containers <= last.sandboxes <= CONCURRENCY + 1
    assert last.children <= first.children + 2 * more + 1
    assert last.resident_kib <= first.resident_kib * (1 + growth)


@pytest.mark.alone
def test_sixty_episodes_leave_nothing_behind(sandbox_kind: str) -> None:
    assert_flat(soak(sandbox_kind, 60, 20), growth=0.10)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_two_thousand_episodes_stay_flat(
    sandbox_kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with capfd.disabled():
        samples = soak(sandbox_kind, 2000, 100)
    assert_flat([s for s in samples if s.episode >= 400], growth=0.05)
