"""A few real updates with heavy-tailed tools: what the learner waits for, and tokens nobody learns from.

MiniMix by `tiny`, 8 groups of 8; every turn that calls a tool takes 0.2 s more in the median and 4 s
in the 99th percentile. The same training twice, as it is by default and in lock-step
(``deterministic``). Wasted are sampled tokens of rollouts that infrastructure spoiled (masked) and of
groups whose weights became too old (stale, dropped); episodes under way when the run ends were not
wasted by training, and are told apart.

    python benchmarks/training_waste.py [--quick] [--wait 0.2]

Bar: at most 5 % of the sampled tokens wasted. The learner's idle share has none: it is told beside
that of lock-step.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import Watch
from rows import Row, arguments, deliver, spread

from reagent_env.trainers import metric_names as names
from reagent_env.trainers import train as training
from reagent_env.trainers.parts import Parts
from reagent_env.trainers.progress import TrainProgress
from reagent_env.trainers.recipes import make_config
from reagent_env.trainers.run_folder import RunFolder

BAR = 0.05
ENV = "fixed_turns:bench/HeavyTailedMiniMix-v0"


def measure(updates: int, wait: float, *, lockstep: bool, sandbox: str) -> dict[str, Any]:
    """The lines of the run's log, and the tokens that its engine sampled in all."""
    config = make_config(
        "outcome",
        settings={
            "env": ENV,
            "env_kwargs": {"wait": wait},
            "sandbox": sandbox,
            "updates": updates,
            "deterministic": lockstep,
            "held_out_episodes": 0,
            "eval_every": 0,
            "checkpoint_every": updates,
            "max_tokens": 96,
            "threads": 1,
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(config, Path(folder) / "run")
        with run, TrainProgress(config) as progress, parts_seen() as seen:
            training.train(config, run, progress)
            sampled = sum(parts.engine.metrics().sampled for parts in seen)  # type: ignore[attr-defined]
        return {"lines": run.metrics(), "sampled": sampled}


@contextmanager
def parts_seen() -> Iterator[list[Parts]]:
    """The parts of every run that is made meanwhile."""
    made, seen = training.training_parts, []

    @contextmanager
    def noticed(*args: Any) -> Iterator[Parts]:
        with made(*args) as parts:
            seen.append(parts)
            yield parts

    training.training_parts = noticed  # type: ignore[attr-defined]
    try:
        yield seen
    finally:
        training.training_parts = made  # type: ignore[attr-defined]


def waste(run: dict[str, Any]) -> dict[str, float]:
    """Tokens learned from, wasted, and under way at the end."""
    last = run["lines"][-1]
    wasted = float(last["rollout/wasted_tokens"])
    learned = sum(line["loss/tokens"] for line in run["lines"])
    return {
        "learned from": learned,
        "wasted": wasted,
        "under way at the end": max(0.0, run["sampled"] - learned - wasted),
        "stale groups": float(last["rollout/stale_groups"]),
        "masked": sum(line[names.MASKED] for line in run["lines"]),
        "dropped groups": sum(line["rollout/groups_dropped"] for line in run["lines"]),
    }


def idle_shares(lines: list[dict[str, Any]]) -> list[float]:
    """Of each update but the first: the share of its time in which the learner learned nothing."""
    ends = [line[names.SECONDS] for line in lines]
    return [
        1 - line["seconds/update"] / (end - before)
        for before, end, line in zip(ends, ends[1:], lines[1:], strict=False)
    ]


def update_seconds(lines: list[dict[str, Any]]) -> float:
    ends = [line[names.SECONDS] for line in lines]
    return (ends[-1] - ends[0]) / max(1, len(ends) - 1)


def rows_of(ours: dict[str, Any], lockstep: dict[str, Any], wait: float) -> list[Row]:
    tokens = waste(ours)
    idle, quartiles = spread(idle_shares(ours["lines"]))
    waited = f"tools' median {wait:g} s, p99 {20 * wait:g} s"
    return [
        Row(
            name="training, tokens wasted",
            compares="tokens masked, stale or dropped / these and those learned from",
            measured=tokens["wasted"] / (tokens["learned from"] + tokens["wasted"]),
            of="share",
            bar=BAR,
            most=True,
            ours=tokens["wasted"],
            other=tokens["learned from"] + tokens["wasted"],
            unit="tokens",
            note=f"{len(ours['lines'])} updates, {tokens['stale groups']:.0f} groups stale, "
            f"{tokens['masked']:.0f} rollouts masked; {waited}",
        ),
        Row(
            name="training, learner idle",
            compares="share of an update's time without learning, ours and lock-step's",
            measured=idle,
            of="share",
            quartiles=quartiles,
            ours=idle,
            other=statistics.median(idle_shares(lockstep["lines"])),
            note="rollout and learner share one machine, and the engine rests while weights change",
        ),
        Row(
            name="training, an update",
            compares="a lock-step update's time / ours",
            measured=update_seconds(lockstep["lines"]) / update_seconds(ours["lines"]),
            ours=update_seconds(ours["lines"]),
            other=update_seconds(lockstep["lines"]),
            unit="s",
        ),
    ]


def main() -> None:
    parser = arguments(__doc__, quick="three updates")
    parser.add_argument("--updates", type=int, help="of each of the two runs; by default 8")
    parser.add_argument("--wait", type=float, default=0.2, help="median seconds of a tool")
    parser.add_argument("--sandbox", default="process")
    given = parser.parse_args()
    updates = given.updates or (3 if given.quick else 8)
    watch = Watch()
    ours, lockstep = (
        measure(updates, given.wait, lockstep=lockstep, sandbox=given.sandbox)
        for lockstep in (False, True)
    )
    details = {"ours": waste(ours), "lock-step": waste(lockstep)}
    for side, told in details.items():
        print(f"{side}: " + ", ".join(f"{name} {count:,.0f}" for name, count in told.items()))
    rows = rows_of(ours, lockstep, given.wait)
    deliver(given.json, "training_waste", rows, watch.machine(), details)


if __name__ == "__main__":
    main()
