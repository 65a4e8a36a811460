"""Whole episodes through the trainer's collector, beside the same requests at the engine alone.

Tokens sampled a second. Both sides ask the same engine for the same completions (same prompts, seeds
and lengths), as many at once; theirs does nothing else, ours also has environments, threads, prompts to
encode and records to keep. Rounds take turns. Once without tools: an episode is one completion; and
once with four turns of a tool that answers at once, which is only told. By the clock, as the bar is,
and by processor time, which other programs disturb less.

    python benchmarks/rollout_rate.py [--quick] [--policies tiny]

Bar: ours ≥ 0.9 of the engine alone, without tools.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from fixed_turns import (
    Play,
    by_collector,
    by_engine,
    collector_of,
    engine_of,
    requests_of,
    short_turns_at_the_interpreter,
)
from machine import Watch
from rows import Row, arguments, deliver, spread

from reagent_env.trainers.engines.hf import HFEngine
from reagent_env.trainers.policies import load_policy
from reagent_env.trainers.policies.policy import Policy

BAR = 0.9
PLAYS = {
    "tiny": {
        "no tools": Play(turns=1, groups=16, group_size=8, at_once=64, max_tokens=64),
        "4 turns": Play(turns=4, groups=16, group_size=8, at_once=64, max_tokens=32),
    },
    "smollm2": {"no tools": Play(turns=1, groups=4, group_size=8, at_once=16, max_tokens=48)},
}
ROUNDS = {"tiny": 12, "smollm2": 5}
QUICK = {"tiny": 3, "smollm2": 1}


def timed(engine: HFEngine, work: Callable[[], int]) -> dict[str, float]:
    """Tokens, the engine's passes for them, and the seconds by the clock and of the process."""
    before, thread = engine.metrics(), engine_thread_seconds()
    began, used = time.perf_counter(), time.process_time()
    tokens = work()
    clock, processor = time.perf_counter(), time.process_time()
    after = engine.metrics()
    return {
        "tokens": tokens,
        "clock": clock - began,
        "processor": processor - used,
        "thread": engine_thread_seconds() - thread,
        "passes": after.steps - before.steps,
        "read": after.prefilled - before.prefilled,
    }


def engine_thread_seconds() -> float:
    """Processor seconds so far of the thread that computes; the rest of the process's is around it."""
    (one,) = (one for one in threading.enumerate() if one.name == "hf-engine")
    assert one.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(one.ident))


def measure(policy: Policy, play: Play, rounds: int) -> list[dict[str, dict[str, float]]]:
    """Each round's two sides; the first, which warms up, left out."""
    seen = []
    with engine_of(policy, play) as engine, collector_of(policy, play, engine) as collector:
        for number in range(rounds + 1):
            asked = requests_of(policy, play, number)
            sides: dict[str, Callable[[], int]] = {
                "ours": lambda number=number: by_collector(collector, number),  # type: ignore[misc]
                "engine": lambda asked=asked: by_engine(engine, asked, play),  # type: ignore[misc]
            }
            order = list(sides) if number % 2 else list(reversed(sides))
            seen.append({side: timed(engine, sides[side]) for side in order})
            print(f"  round {number}: " + told(seen[-1]), flush=True)
    return seen[1:]


def told(sides: dict[str, dict[str, float]]) -> str:
    shown = [
        f"{side} {one['tokens'] / one['clock']:,.0f} tokens/s, {one['tokens'] / one['passes']:.1f} a "
        f"pass, {one['processor']:.2f} s, the engine's thread {one['thread']:.2f}"
        for side, one in sides.items()
    ]
    return ", ".join(shown)


def rows_of(
    name: str, policy: str, play: Play, seen: list[dict[str, dict[str, float]]]
) -> list[Row]:
    rows = []
    for by in ("clock", "processor"):
        rates = {
            side: [one[side]["tokens"] / one[side][by] for one in seen]
            for side in ("ours", "engine")
        }
        ratio, quartiles = spread(
            [a / b for a, b in zip(rates["ours"], rates["engine"], strict=True)]
        )
        rows.append(
            Row(
                name=f"rollout, {name}, {policy}, {'by the clock' if by == 'clock' else 'processor time'}",
                compares=f"whole episodes by the collector / the engine alone, {play.at_once} at once, "
                f"{play.turns} x {play.max_tokens} tokens",
                measured=ratio,
                quartiles=quartiles,
                bar=BAR if play.turns == 1 else None,
                ours=statistics.median(rates["ours"]),
                other=statistics.median(rates["engine"]),
                unit="tokens/s",
            )
        )
    return rows


def main() -> None:
    parser = arguments(__doc__, quick="few rounds")
    parser.add_argument("--policies", nargs="+", default=list(PLAYS), choices=list(PLAYS))
    parser.add_argument("--rounds", type=int, help="of each; by default 12 for tiny, 5 for smollm2")
    given = parser.parse_args()
    torch.set_num_threads(1)
    watch = Watch()
    rows: list[Row] = []
    details: dict[str, Any] = {}
    with short_turns_at_the_interpreter():
        for policy in given.policies:
            loaded = load_policy(policy)
            for name, play in PLAYS[policy].items():
                print(f"{policy}, {name}: {play}")
                rounds = given.rounds or (QUICK if given.quick else ROUNDS)[policy]
                seen = measure(loaded, play, rounds)
                rows += rows_of(name, policy, play, seen)
                details[f"{policy}, {name}"] = seen
    deliver(given.json, "rollout_rate", rows, watch.machine(), details)


if __name__ == "__main__":
    main()
