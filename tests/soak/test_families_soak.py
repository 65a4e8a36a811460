"""Thousands of episodes of each family, well played and badly, and memory stays flat.

``make soak`` runs the long version; the short one is an ordinary test.
"""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import gymnasium as gym
import pytest

from reagent_env.testing.simulator_contract import play, solver_named

FAMILIES = {
    "reagent/TextCraft-v0": (
        "reagent_env.families.text_craft_solver:solve",
        "reagent_env.families.text_craft_solver:wander",
    ),
    "reagent/BabyAI-v0": (
        "reagent_env.families.baby_ai_solver:solve",
        "reagent_env.families.baby_ai_solver:wander",
    ),
    "reagent/SearchQA-v0": (
        "reagent_env.task_sets.search_qa:solve",
        "reagent_env.task_sets.search_qa:solve",
    ),
    "reagent/SQL-v0": ("reagent_env.families.sql:solve", "reagent_env.families.sql:solve"),
}
"""Family → its expert and its random moves, which take turns."""


def resident_kib() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def soak(env_id: str, episodes: int, every: int) -> list[tuple[int, int, int]]:
    """Play the episodes; after every so many, (resident KiB, open files, threads)."""
    players = [solver_named(name) for name in FAMILIES[env_id]]
    sandbox = {"sandbox": "embedded"} if env_id == "reagent/SQL-v0" else {}
    env = gym.make(env_id, disable_env_checker=True, **sandbox)
    samples = []
    for number in range(episodes):
        *_, last = play(env, players[number % 2], number)
        assert 0.0 <= last[1] <= 1.0, last
        assert last[4]["stop_reason"] in ("finished", "answered", "max_turns")
        if (number + 1) % every == 0:
            files = len(os.listdir("/proc/self/fd"))
            samples.append((resident_kib(), files, threading.active_count()))
            print(f"{env_id} {number + 1:6d} episodes {samples[-1]}", flush=True)
    env.close()
    return samples


def assert_flat(samples: list[tuple[int, int, int]], growth: float) -> None:
    first, last = samples[0], samples[-1]
    assert last[0] <= first[0] * (1 + growth)
    assert last[1] <= first[1] + 2
    assert last[2] <= first[2] + 2


@pytest.mark.parametrize("env_id", ["reagent/TextCraft-v0", "reagent/BabyAI-v0"])
def test_a_hundred_episodes_leave_nothing_behind(env_id: str) -> None:
    assert_flat(soak(env_id, 100, 25), growth=0.10)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("env_id", FAMILIES)
def test_two_thousand_episodes_of_a_family_stay_flat(
    env_id: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with capfd.disabled():
        samples = soak(env_id, 2000, 200)
    assert_flat(samples[1:], growth=0.05)
