"""What the trainer itself costs: of an iteration's processor time, all but model, tools and judge.

Real updates of Reagent-U, both attempts, in an environment of a fixed number of turns (and MiniMix,
with `tiny`), checkpoints and logs included. While it runs, what computes for the model (its forward
passes, softmax and drawing, log-probabilities, gradients, the optimiser), for tools and for the judge
is timed where it is called, in processor time of its own thread; what is left of the process's time is
the trainer's own: threads, environments, rendering, the engine's book-keeping, batches, advantages,
losses, logs, checkpoints. Processor time, so that a busy machine changes little; one thread of torch.

    python benchmarks/trainer_overhead.py [--quick] [--only tiny]

Bar: at most 5 % of an iteration on `smollm2` (LoRA of rank 16). For `tiny`, whose model costs next to
nothing, it is told.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from machine import Watch
from rows import Row, arguments, deliver, spread
from transformers import PreTrainedModel

from reagent_env import env as environment
from reagent_env.trainers import learner, train
from reagent_env.trainers.engines import hf, hf_batch
from reagent_env.trainers.parts import Parts
from reagent_env.trainers.progress import TrainProgress
from reagent_env.trainers.recipes import make_config
from reagent_env.trainers.run_folder import RunFolder

BAR = 0.05
MODEL = ("forward", "probabilities", "backward", "optimiser")
OTHERS = (*MODEL, "tools", "judge")
FIXED = {"env": "fixed_turns:bench/FixedTurns-v0"}
RUNS: dict[str, dict[str, Any]] = {
    "tiny, MiniMix": {"policy": "tiny", "max_tokens": 96},
    "tiny": {
        "policy": "tiny",
        **FIXED,
        "env_kwargs": {"turns": 3},
        "max_tokens": 32,
        "groups_per_update": 4,
    },
    "smollm2": {
        "policy": "smollm2",
        **FIXED,
        "env_kwargs": {"turns": 2},
        "max_tokens": 32,
        "groups_per_update": 1,
        "group_size": 4,
        "concurrency": 8,
        "spare_groups": 0,
        "lora_rank": 16,
        "gradient_checkpointing": True,
        "lr": 5e-5,
    },
}
UPDATES = {"tiny, MiniMix": 6, "tiny": 6, "smollm2": 4}


class Meter:
    """Processor seconds of threads by what they did; what stands within another is taken from it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._here = threading.local()
        self._adding = threading.Lock()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, its seconds counted as ``name``."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            within: list[float] = self._here.__dict__.setdefault("within", [])
            within.append(0.0)
            began = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.thread_time() - began
                inner = within.pop()
                if within:
                    within[-1] += seconds
                with self._adding:
                    self.seconds[name] += seconds - inner
                    self.calls[name] += 1

        return call


@contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """Training under a meter."""
    places: list[tuple[Any, str, str]] = [
        (hf_batch, "draw", "probabilities"),
        (learner, "likelihood", "probabilities"),
        (torch.Tensor, "backward", "backward"),
        (learner, "optimiser_step", "optimiser"),
        (environment, "run_calls", "tools"),
        # What follows is the trainer's own, told apart.
        (hf.HFEngine, "_advance", "own: engine"),
        (learner.Learner, "update", "own: learner"),
        (train, "save_checkpoint", "own: checkpoints"),
        (RunFolder, "save_trajectories", "own: records and logs"),
        (RunFolder, "log", "own: records and logs"),
        (train, "estimate_advantages", "own: advantages"),
    ]
    made = train.training_parts

    @contextmanager
    def with_meter(*args: Any) -> Iterator[Parts]:
        with made(*args) as parts:
            model: Any = parts.policy.model
            modules = {id(one): one for one in model.modules() if isinstance(one, PreTrainedModel)}
            modules |= {id(one): one for one in (model, model.get_output_embeddings())}
            for module in modules.values():
                module.forward = meter.timed("forward", module.forward)
            judge: Any = getattr(parts.judge, "inner", parts.judge)
            if judge is not None:
                judge.judge = meter.timed("judge", judge.judge)
            yield parts

    with ExitStack() as stack:
        for owner, attribute, name in places:
            replacement = meter.timed(name, getattr(owner, attribute))
            stack.enter_context(mock.patch.object(owner, attribute, replacement))
        stack.enter_context(mock.patch.object(train, "training_parts", with_meter))
        yield


def measure(name: str, updates: int, sandbox: str) -> list[dict[str, float]]:
    """Seconds of each update by what they were spent on, the first update left out."""
    config = make_config(
        "reagent-u",
        settings={
            **RUNS[name],
            "judge": "rubric",
            "sandbox": sandbox,
            "updates": updates + 1,
            "held_out_episodes": 0,
            "eval_every": 0,
            "threads": 1,
        },
    )
    meter = Meter()
    marks: list[dict[str, float]] = []

    class Marked(TrainProgress):
        def update(self, update: int, metrics: Mapping[str, Any]) -> None:
            super().update(update, metrics)
            marks.append(
                {**meter.seconds, "all": time.process_time(), "clock": time.perf_counter()}
            )

    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(config, Path(folder) / "run")
        with run, Marked(config) as progress, metered(meter):
            train.train(config, run, progress)
    for part in ("forward", "probabilities", "backward", "optimiser", "judge"):
        assert meter.calls[part], f"nothing was timed as {part}: has its place in the code moved?"
    return [
        {key: after[key] - before.get(key, 0.0) for key in after}
        for before, after in itertools.pairwise(marks)
    ]


def own(update: dict[str, float]) -> float:
    """Seconds that are neither model, tools nor judge."""
    return update["all"] - sum(update.get(part, 0.0) for part in OTHERS)


def breakdown(seen: list[dict[str, float]]) -> dict[str, float]:
    """Median shares of an iteration's processor time by part; ``own: episodes`` is the rest."""
    parts = sorted({part for update in seen for part in update} - {"all", "clock"})
    shares = {
        part: statistics.median(update.get(part, 0.0) / update["all"] for update in seen)
        for part in parts
    }
    shares["own: episodes and the rest"] = statistics.median(
        (update["all"] - sum(update.get(part, 0.0) for part in parts)) / update["all"]
        for update in seen
    )
    return shares


def row_of(name: str, seen: list[dict[str, float]]) -> Row:
    share, quartiles = spread([own(update) / update["all"] for update in seen])
    return Row(
        name=f"trainer's own, {name}",
        compares="processor time that is not model, tools or judge / all of an iteration",
        measured=share,
        of="share",
        quartiles=quartiles,
        bar=BAR if name == "smollm2" else None,
        most=True,
        ours=statistics.median(map(own, seen)),
        other=statistics.median(update["all"] for update in seen),
        unit="s",
    )


def main() -> None:
    parser = arguments(__doc__, quick="two updates")
    parser.add_argument("--only", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--updates", type=int, help="of each; by default 6, and 4 of smollm2")
    parser.add_argument("--sandbox", default="process")
    given = parser.parse_args()
    watch = Watch()
    rows, details = [], {}
    for name in given.only:
        seen = measure(name, given.updates or (2 if given.quick else UPDATES[name]), given.sandbox)
        rows.append(row_of(name, seen))
        details[name] = {"shares": breakdown(seen), "updates": seen}
        print(
            f"{name}: an iteration of {statistics.median(u['all'] for u in seen):.2f} processor s"
        )
        for part, share in sorted(details[name]["shares"].items(), key=lambda item: -item[1]):
            print(f"  {share:6.1%}  {part}")
    deliver(given.json, "trainer_overhead", rows, watch.machine(), details)


if __name__ == "__main__":
    main()
