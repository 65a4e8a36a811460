"""64 members of a vector environment with a 100 ms tool: how near to all of them at once?

The ideal rate is num_envs / 100 ms. Prints ours and, in the same run, Gymnasium's SyncVectorEnv
(members one after another) on fewer steps.

    .venv/bin/python benchmarks/vector_env.py [--quick]

Bar: ours at least 0.8 of the ideal.
"""

from __future__ import annotations

import statistics
import time

from gymnasium.vector import SyncVectorEnv
from machine import Watch
from rows import Row, arguments, deliver, spread

from reagent_env import ToolUseEnv, ToolUseVectorEnv, tool
from reagent_env.testing import addition_tasks

MEMBERS, STEPS, SECONDS = 64, 20, 0.1
BAR = 0.8
CALL = '<tool_call>{"name": "wait", "arguments": {}}</tool_call>'


@tool
def wait() -> str:
    """Take 100 ms."""
    time.sleep(SECONDS)
    return "done"


@tool(name="wait", timeout_s=None)
def wait_inline() -> str:
    """Take 100 ms, without a time limit of the environment's."""
    time.sleep(SECONDS)
    return "done"


def main() -> None:
    parser = arguments(__doc__, quick="four steps")
    given = parser.parse_args()
    watch, steps = Watch(), 4 if given.quick else STEPS
    ideal = MEMBERS / SECONDS
    print(f"{MEMBERS} members, {SECONDS * 1e3:.0f} ms tool; ideal {ideal:.0f} steps/s")
    rates_of = {}
    for label, one in (("default time limit", wait), ("no time limit", wait_inline)):
        envs = ToolUseVectorEnv(MEMBERS, tasks=addition_tasks(), tools=[one], max_turns=STEPS + 2)
        envs.reset(seed=0)
        envs.step([CALL] * MEMBERS)
        rates = []
        for _ in range(steps):
            start = time.perf_counter()
            envs.step([CALL] * MEMBERS)
            rates.append(MEMBERS / (time.perf_counter() - start))
        envs.close()
        low, middle, high = statistics.quantiles(rates, n=4)
        rates_of[label] = rates
        print(
            f"ours, {label:20} {middle:7.1f} steps/s (quartiles {low:.1f} – {high:.1f}), "
            f"{middle / ideal:.3f} of ideal"
        )
    serial = SyncVectorEnv([lambda: ToolUseEnv(addition_tasks(), [wait], max_turns=9)] * MEMBERS)
    serial.reset(seed=0)
    start = time.perf_counter()
    serial.step((CALL,) * MEMBERS)
    rate = MEMBERS / (time.perf_counter() - start)
    serial.close()
    print(f"SyncVectorEnv             {rate:7.1f} steps/s, {rate / ideal:.3f} of ideal")
    rows = []
    for label, rates in rates_of.items():
        share, quartiles = spread([one / ideal for one in rates])
        rows.append(
            Row(
                name=f"64 members, {label}",
                compares="steps a second of 64 members with a 100 ms tool / all of them at once",
                measured=share,
                quartiles=quartiles,
                bar=BAR,
                ours=statistics.median(rates),
                other=ideal,
                unit="steps/s",
                note=f"SyncVectorEnv: {rate:.1f} steps/s",
            )
        )
    deliver(given.json, "vector_env", rows, watch.machine())


if __name__ == "__main__":
    main()
