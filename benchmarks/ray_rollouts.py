"""Rollouts a second on one Ray worker and on two, where tools wait; both in one run.

    scripts/make-plugin-venv ray
    .venv-plugin-ray/bin/python benchmarks/ray_rollouts.py --json benchmarks/ray_rollouts.json

Each worker plays whole episodes of MiniMix with an engine of its own, ``--seats`` at once; every turn
that calls a tool waits ``--wait`` seconds more. A worker has one core at most, so that with many
seats it is the core and not the tools that an episode waits for: two leave the waiting to the tools.
Rounds on one and on two take turns, so that other load meets both alike; starting is not counted. The
bar: two workers ≥ 1.7 × one.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import statistics
import time
from pathlib import Path
from typing import Any

import gymnasium
from machine import Watch
from rows import Row, arguments, deliver

BAR = 1.7
ID = "ray_rollouts:bench/WaitingTools-v0"


class WaitingTools(gymnasium.Wrapper):  # type: ignore[type-arg]
    """Tools that take as long as an instance of it says."""

    def __init__(self, env: Any, wait: float) -> None:
        super().__init__(env)
        self.wait = wait

    def step(self, action: str) -> Any:
        if self.env.unwrapped.tool_format.parse(action).calls:
            time.sleep(self.wait)
        return self.env.step(action)


def waiting_env(wait: float = 0.2, **kwargs: Any) -> Any:
    return WaitingTools(gymnasium.make("reagent/MiniMix-v0", **kwargs), wait)


if "bench/WaitingTools-v0" not in gymnasium.registry:  # this file is the program, and a module
    gymnasium.register("bench/WaitingTools-v0", entry_point=waiting_env, disable_env_checker=True)


def measure(given: argparse.Namespace) -> list[dict[str, float]]:
    """Rounds in turn on one worker and on two, as many episodes a seat; starting is not counted."""
    import ray

    from reagent_env.trainers.config import TrainConfig
    from reagent_env.trainers.engines.base import Sampling
    from reagent_env.trainers.parts import load_for_training, training_parts
    from reagent_env.trainers.players import Job
    from reagent_env.trainers.ray_players import ray_players
    from reagent_env.trainers.ray_worker import in_a_worker

    config = TrainConfig(
        env=ID,
        env_kwargs={"wait": given.wait},
        ray="local",
        ray_workers=1,
        concurrency=given.seats,
        threads=1,
        sandbox=given.sandbox,
    )
    policy = load_for_training(config)
    with training_parts(in_a_worker(config), policy) as parts:
        tasks = parts.sources[0].tasks
    jobs = [
        Job(0, number, 0, tasks[number % len(tasks)], number, Sampling(max_tokens=128))
        for number in range(2 * given.episodes)
    ]
    rounds = []
    with (
        ray_players(config, policy) as one,
        ray_players(dataclasses.replace(config, ray_workers=2), policy) as two,
    ):
        for players in (one, two):
            players.publish(0)
            ray.get([worker.seats.remote() for worker in players._workers])
            play(players, jobs[: 4 * given.seats])
        for _ in range(given.rounds):
            before = play(players=one, jobs=jobs[: given.episodes])
            both = play(players=two, jobs=jobs)
            rounds.append({"one": before, "two": both})
        rounds.append({"one": play(players=one, jobs=jobs[: given.episodes])})
    return rounds


def play(players: Any, jobs: list[Any]) -> float:
    """Rollouts a second."""
    began = time.perf_counter()
    rollouts = [future.result() for future in [players.play(job) for job in jobs]]
    assert not any(one.masked for one in rollouts)
    return len(jobs) / (time.perf_counter() - began)


def main() -> None:
    parser = arguments(__doc__, quick="two rounds")
    parser.add_argument("--episodes", type=int, default=24, help="of a round, for each worker")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seats", type=int, default=2)
    parser.add_argument("--wait", type=float, default=0.2)
    parser.add_argument("--sandbox", default="process")
    given = parser.parse_args()
    if given.quick:
        given.episodes, given.rounds = 8, 2
    os.environ |= {"RAY_worker_niceness": "0"}
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    import ray

    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    watch = Watch()
    rounds = measure(given)
    ray.shutdown()
    ratios = [
        now["two"] / statistics.fmean([now["one"], after["one"]])
        for now, after in itertools.pairwise(rounds)
    ]
    for now, ratio in zip(rounds, ratios, strict=False):
        print(
            f"one {now['one']:.2f}/s, two {now['two']:.2f}/s, ratio to the rounds beside {ratio:.2f}"
        )
    low, ratio, high = statistics.quantiles(ratios, n=4)
    row = Row(
        name="Ray, two workers / one",
        compares="rollouts a second of two workers / of one, in the rounds beside it",
        measured=ratio,
        quartiles=(low, high),
        bar=BAR,
        ours=statistics.median(now["two"] for now in rounds[:-1]),
        other=statistics.median(now["one"] for now in rounds),
        unit="rollouts/s",
        note=f"every tool waits {given.wait:g} s, {given.seats} seats a worker",
    )
    settings = {"wait_s": given.wait, "seats": given.seats, "episodes": given.episodes}
    details = {**settings, "ratios": ratios, "rollouts_per_s": rounds}
    deliver(given.json, "ray_rollouts", [row], watch.machine(), details)


if __name__ == "__main__":
    main()
