"""A rollout whose tools are heavy-tailed, beside what no rollout can beat and a lock-step one.

64 episodes of ten turns at once (where the published schedule for search ends), a tool in each turn;
tools take log-normal times whose 99th percentile is 20 times the median, the same in every side of a
round. The bound is the longer of
the slowest episode (its tools' seconds and its own completions, sampled alone) and all completions
sampled by the engine with no tool at all. The lock-step rollout is the collector over an engine that
waits until all episodes have a request (``deterministic``). Rounds take turns; times are by the
clock, since waiting is what this is about. Tools' median is a twelfth of the time that all
completions take on this machine as busy as it is, so that a slow one compares the same mixture.

    python benchmarks/slow_tools.py [--quick] [--wait 0.1]

Bars: ours ≥ 0.85 of the bound's speed, ≥ 2 × the lock-step rollout's.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from fixed_turns import (
    Play,
    Requests,
    by_collector,
    by_engine,
    collector_of,
    engine_of,
    requests_of,
    short_turns_at_the_interpreter,
    waits,
)
from machine import Watch
from rows import Row, arguments, deliver, spread

from reagent_env.trainers.policies import load_policy
from reagent_env.trainers.policies.policy import Policy

OF_BOUND, OF_LOCKSTEP = 0.85, 2.0
SHORTEST, LONGEST = 0.05, 0.6
"""Of tools' median seconds."""
PLAY = Play(turns=10, groups=8, group_size=8, at_once=64, max_tokens=12)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def slowest(asked: Requests, play: Play) -> tuple[float, Requests]:
    """The seconds of tools of the episode that waits longest, and its requests."""
    told = [
        (sum(itertools.islice(waits(play.wait, opening[0]), play.turns)), opening)
        for opening in asked.openings
    ]
    waiting, opening = max(told)
    return waiting, dataclasses.replace(asked, openings=(opening,))


def lockstep_waits(asked: Requests, play: Play) -> float:
    """Seconds that a lock-step rollout waits for tools, whoever does it: each turn's slowest."""
    drawn = [
        list(itertools.islice(waits(play.wait, seed), play.turns)) for seed, _ in asked.openings
    ]
    return sum(max(turn) for turn in zip(*drawn, strict=True))


def fitting_wait(policy: Policy) -> float:
    """A median of tools' times in proportion to what sampling takes now."""
    with engine_of(policy, PLAY) as engine:
        by_engine(engine, requests_of(policy, PLAY, 0), PLAY)  # the first passes are slow
        generation = seconds(lambda: by_engine(engine, requests_of(policy, PLAY, 1), PLAY))
    return max(SHORTEST, min(LONGEST, generation / 12))


def measure(policy: Policy, play: Play, rounds: int) -> list[dict[str, float]]:
    seen = []
    with (
        engine_of(policy, play) as engine,
        engine_of(policy, play, lockstep=True) as in_step,
        collector_of(policy, play, engine) as collector,
        collector_of(policy, play, in_step) as lockstep,
    ):
        for number in range(rounds):
            asked = requests_of(policy, play, number)
            waiting, longest = slowest(asked, play)
            one = {
                "generation": seconds(lambda: by_engine(engine, asked, play)),  # noqa: B023
                "slowest": waiting + seconds(lambda: by_engine(engine, longest, play)),  # noqa: B023
                "ours": seconds(lambda: by_collector(collector, number)),  # noqa: B023
                "generation after": seconds(lambda: by_engine(engine, asked, play)),  # noqa: B023
                "lock-step": seconds(lambda: by_collector(lockstep, number)),  # noqa: B023
                "lock-step, tools alone": lockstep_waits(asked, play),
            }
            seen.append(one)
            print(
                f"  round {number}: " + ", ".join(f"{name} {s:.2f} s" for name, s in one.items()),
                flush=True,
            )
    return seen


def generation(one: dict[str, float]) -> float:
    """Seconds of all completions without tools: the mean of those before and after ours."""
    return (one["generation"] + one["generation after"]) / 2


def bound(one: dict[str, float]) -> float:
    return max(one["slowest"], generation(one))


def rows_of(play: Play, seen: list[dict[str, float]]) -> list[Row]:
    ours = statistics.median(one["ours"] for one in seen)
    share, share_quartiles = spread([bound(one) / one["ours"] for one in seen])
    times, times_quartiles = spread([one["lock-step"] / one["ours"] for one in seen])
    return [
        Row(
            name="slow tools, share of the bound",
            compares="max(slowest episode, all generation) / our rollout's time",
            measured=share,
            quartiles=share_quartiles,
            bar=OF_BOUND,
            ours=ours,
            other=statistics.median(map(bound, seen)),
            unit="s",
            note=f"{play.turns} turns, tools' median {play.wait:.2g} s, p99 {20 * play.wait:.2g} s; all "
            f"generation {statistics.median(map(generation, seen)):.2g} s",
        ),
        Row(
            name="slow tools, against lock-step",
            compares="a lock-step rollout's time / ours",
            measured=times,
            quartiles=times_quartiles,
            bar=OF_LOCKSTEP,
            ours=ours,
            other=statistics.median(one["lock-step"] for one in seen),
            unit="s",
            note="of lock-step's seconds, "
            f"{statistics.median(one['lock-step, tools alone'] for one in seen):.1f} are tools",
        ),
    ]


def main() -> None:
    parser = arguments(__doc__, quick="two rounds")
    parser.add_argument("--rounds", type=int, help="by default 6")
    parser.add_argument("--wait", type=float, help="median seconds of a tool; by default it fits")
    given = parser.parse_args()
    torch.set_num_threads(1)
    watch = Watch()
    with short_turns_at_the_interpreter():
        policy = load_policy("tiny")
        play = dataclasses.replace(PLAY, wait=given.wait or fitting_wait(policy))
        print(play)
        seen = measure(policy, play, given.rounds or (2 if given.quick else 6))
    deliver(given.json, "slow_tools", rows_of(play, seen), watch.machine(), {"rounds": seen})


if __name__ == "__main__":
    main()
