"""One GRPO iteration here and in TRL: generation, tools and update apart, and the peak of memory.

The same model, the same environment of exactly two turns, the same prompts, groups of 8, the same
limits of tokens, gradient checkpointing on both sides, float32, one thread. Neither model has to know
how to call a tool: on both sides any completion is read as a call, and the second turn is the last.
TRL plays by its own loop (``environment_factory``), ours by the trainer's own parts; each side runs in
a process of its own, rounds interleaved, and the first iteration of each is not counted.

    python benchmarks/trl_iteration.py                  # needs TRL: scripts/make-plugin-venv trl
    python benchmarks/trl_iteration.py --policies tiny --iterations 2 --rounds 1

Bars: ours at least 3 times as fast on ``tiny``, 1.5 times on ``smollm2``; peak memory not higher. On a
busy machine the times say little; run it on an idle one.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from any_call import FOUND, AnyCall
from machine import Watch
from rows import Row, arguments, deliver, spread

from reagent_env.env import ToolUseEnv
from reagent_env.plugins.building import build_env
from reagent_env.task import Task
from reagent_env.tool_definition import tool

GROUP = 8
LONGEST = 3600
"""Seconds that one side may take, its imports included."""
TIMES_AS_FAST = {"tiny": 3.0, "smollm2": 1.5}
PARTS = ("generation", "tools", "update", "iteration")


@dataclass(frozen=True)
class Size:
    """What an iteration is made of."""

    groups: int
    """Prompts, each with 8 rollouts."""
    max_tokens: int
    """Of one completion; a rollout has two."""
    micro_batch: int
    """Rollouts in one pass of TRL's update; ours gets as many tokens."""


SIZES = {"tiny": Size(8, 96, 16), "smollm2": Size(1, 48, 4)}


@tool
def look(text: str) -> str:
    """Look something up.

    Args:
        text: What to look up.
    """
    return FOUND


def make_env(**kwargs: Any) -> ToolUseEnv:
    tasks = [
        Task(question=f"When was the harbour number {number} built?", answer="1704")
        for number in range(64)
    ]
    return ToolUseEnv(tasks=tasks, tools=[look], tool_format=AnyCall(), max_turns=2)


# --- ours -----------------------------------------------------------------------------------------


def run_ours(policy_name: str, size: Size, iterations: int) -> list[dict[str, float]]:
    from contextlib import closing

    from reagent_env.reward_models import make_reward_model
    from reagent_env.trainers.advantages import AdvantageSettings, estimate_advantages
    from reagent_env.trainers.collector import Collector, Source
    from reagent_env.trainers.config import TrainConfig
    from reagent_env.trainers.engines.base import Sampling
    from reagent_env.trainers.engines.hf import HFEngine
    from reagent_env.trainers.learner import Learner
    from reagent_env.trainers.parts import load_for_training
    from reagent_env.trainers.rendering import Renderer

    per_rollout = 2 * size.max_tokens + 200  # prompt and observation are about that long
    config = TrainConfig(
        recipe="reagent-r",
        policy=policy_name,
        judge="noise",
        groups_per_update=size.groups,
        group_size=GROUP,
        max_tokens=size.max_tokens,
        micro_batch_tokens=size.micro_batch * per_rollout,
        gradient_checkpointing=True,
        lr=1e-6,
    )
    policy = load_for_training(config)
    judge = make_reward_model("noise")
    renderer = Renderer(policy.tokenizer)
    engine = HFEngine(
        policy.model,
        stop_ids=renderer.stop_ids,
        context_length=policy.context_length,
        pad_id=int(policy.tokenizer.pad_token_id or 0),
    )
    source = Source("two-turns", lambda: build_env(make_env, judge=judge), make_env().tasks)
    learner = Learner(policy, config, fixed_length=2 * size.max_tokens)
    collector = Collector(
        [source],
        [1.0],
        engine,
        renderer,
        Sampling(max_tokens=size.max_tokens),
        seed=0,
        groups=size.groups,
        group_size=GROUP,
        spare_groups=0,
        concurrency=size.groups * GROUP,
    )
    told = []
    with closing(engine), closing(collector):
        engine.pause()
        engine.resume(0)
        for update in range(iterations):
            busy, began = engine.metrics().busy_s, time.perf_counter()
            processor = time.process_time()
            groups = collector.collect(update)
            engine.pause()
            collected = time.perf_counter()
            kept = [list(group.kept) for group in groups]
            found = estimate_advantages(
                "grpo", [[one.attempts for one in group] for group in kept], AdvantageSettings()
            ).advantages
            flat = [one for group in kept for one in group]
            learner.update(flat, [one for group in found for one in group], update=update)
            engine.resume(update + 1)
            ended = time.perf_counter()
            told.append(
                {
                    "generation": engine.metrics().busy_s - busy,
                    "tools": sum(one.trajectory.timings["tools"] for one in flat),
                    "update": ended - collected,
                    "iteration": ended - began,
                    "processor": time.process_time() - processor,
                    "tokens": sum(sum(s.completion_mask) for one in flat for s in one.samples),
                    "turns": sum(len(one.trajectory.turns) for one in flat) / len(flat),
                }
            )
    return told


# --- TRL ------------------------------------------------------------------------------------------


def run_trl(policy_name: str, size: Size, iterations: int) -> list[dict[str, float]]:
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    import random

    import trl.trainer.grpo_trainer as module
    from trl import GRPOConfig, GRPOTrainer

    from reagent_env.plugins.trl import make_environment_factory
    from reagent_env.plugins.trl_template import with_tool_calls
    from reagent_env.trainers.policies import load_policy

    policy = load_policy(policy_name)
    tokenizer = with_tool_calls(
        policy.tokenizer
    )  # shows no tools: the prompt is the same here and there

    def any_call(tokenizer: Any, ids: Any, prefix: Any = None, tools: Any = None) -> dict[str, Any]:
        text = tokenizer.decode(ids, skip_special_tokens=True)
        call = {"type": "function", "function": {"name": "look", "arguments": {"text": text}}}
        return {"role": "assistant", "content": "", "tool_calls": [call]}

    module.parse_response = any_call  # as AnyCall on our side
    factory = make_environment_factory(make_env, answer="text")
    clock = {"generation": 0.0, "tools": 0.0, "tokens": 0.0, "turns": 0.0}
    told: list[dict[str, float]] = []

    class Timed(GRPOTrainer):
        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            ids, logprobs = super()._generate_single_turn(*args, **kwargs)
            clock["generation"] += time.perf_counter() - began
            clock["tokens"] += sum(len(one) for one in ids)
            clock["turns"] += len(ids)
            return ids, logprobs

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            for key in clock:
                clock[key] = 0.0
            self.began, self.processor = time.perf_counter(), time.process_time()
            batch = super()._generate_and_score_completions(inputs)
            self.generated = time.perf_counter()
            return batch

    from transformers import TrainerCallback

    class Ended(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            ended = time.perf_counter()
            told.append(
                {
                    **clock,
                    "turns": clock["turns"] / (size.groups * GROUP),
                    "update": ended - trainer.generated,
                    "iteration": ended - trainer.began,
                    "processor": time.process_time() - trainer.processor,
                }
            )

    def timed(environment: Any) -> Any:
        inner = environment._call

        def call(*args: Any) -> str:
            began = time.perf_counter()
            try:
                return str(inner(*args))
            finally:
                clock["tools"] += time.perf_counter() - began

        environment._call = call
        return environment

    accumulation = size.groups * GROUP // size.micro_batch
    with tempfile.TemporaryDirectory() as folder:
        args = GRPOConfig(
            output_dir=folder,
            max_steps=iterations,
            per_device_train_batch_size=size.micro_batch,
            gradient_accumulation_steps=accumulation,
            num_generations=GROUP,
            max_completion_length=2 * size.max_tokens + 200,
            generation_kwargs={"max_new_tokens": size.max_tokens},
            max_tool_calling_iterations=1,
            learning_rate=1e-6,
            loss_type="grpo",
            temperature=1.0,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = Timed(
            policy.model,
            environment_factory=lambda: timed(factory()),
            reward_funcs=[lambda completions, **given: [random.random() for _ in completions]],
            train_dataset=factory.dataset(min(64, size.groups * iterations)),
            processing_class=tokenizer,
            args=args,
            callbacks=[Ended()],
        )
        trainer.train()
    return told


# --- both -----------------------------------------------------------------------------------------

SIDES: dict[str, Callable[[str, Size, int], list[dict[str, float]]]] = {
    "ours": run_ours,
    "trl": run_trl,
}


def one_side(side: str, policy: str, iterations: int) -> None:
    """In a process of its own: print what each iteration took, the first left out, and the peak."""
    import torch

    torch.set_num_threads(1)
    told = SIDES[side](policy, SIZES[policy], iterations + 1)[1:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("RESULT " + json.dumps({"iterations": told, "peak_mib": peak}))


def in_a_process(side: str, policy: str, iterations: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--policies", policy]
    try:
        run = subprocess.run(
            [*command, "--iterations", str(iterations)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(
            f"{side} on {policy} was stopped after {LONGEST} s: a busy machine; fewer --iterations?"
        ) from None
    lines = [line for line in run.stdout.splitlines() if line.startswith("RESULT ")]
    if run.returncode or not lines:
        code = f"exit code {run.returncode}"
        if run.returncode < 0:
            code = f"{signal.Signals(-run.returncode).name}; `dmesg` tells whether memory ran out"
        raise SystemExit(f"{side} on {policy} failed ({code}):\n{run.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
    return found


Seen = dict[str, list[dict[str, float]]]
"""By side: what each counted iteration took."""


def compare(policy: str, iterations: int, rounds: int) -> tuple[dict[str, dict[str, float]], Seen]:
    seen: Seen = {side: [] for side in SIDES}
    peaks: dict[str, float] = dict.fromkeys(SIDES, 0.0)
    for _ in range(rounds):
        for side in SIDES:
            found = in_a_process(side, policy, iterations)
            seen[side] += found["iterations"]
            peaks[side] = max(peaks[side], found["peak_mib"])
    table = {}
    for side, told in seen.items():
        table[side] = {key: statistics.median(one[key] for one in told) for key in told[0]}
        table[side]["peak MiB"] = peaks[side]
    return table, seen


def rows_of(policy: str, table: dict[str, dict[str, float]], seen: Seen) -> list[Row]:
    """Against the bars; the parts of an iteration and the speed a token are told."""
    size = SIZES[policy]
    ratio, quartiles = spread(
        [
            theirs["iteration"] / mine["iteration"]
            for theirs, mine in zip(seen["trl"], seen["ours"], strict=True)
        ]
    )
    rate = {side: one["iteration"] / one["tokens"] for side, one in table.items()}
    processor = {side: one["processor"] for side, one in table.items()}
    peaks = {side: one["peak MiB"] for side, one in table.items()}
    rows = [
        Row(
            name=f"GRPO iteration, {policy}",
            compares=f"TRL's time / ours, {size.groups} x {GROUP} rollouts of 2 turns",
            measured=ratio,
            quartiles=quartiles,
            bar=TIMES_AS_FAST[policy],
            ours=table["ours"]["iteration"],
            other=table["trl"]["iteration"],
            unit="s",
            note=f"a sampled token: {rate['trl'] / rate['ours']:.2f} ×; by processor time, which "
            f"a busy machine distorts less: {processor['trl'] / processor['ours']:.2f} ×",
        ),
        Row(
            name=f"GRPO peak memory, {policy}",
            compares="our process / TRL's, highest resident",
            measured=peaks["ours"] / peaks["trl"],
            bar=1.0,
            most=True,
            ours=peaks["ours"],
            other=peaks["trl"],
            unit="MiB",
        ),
    ]
    rows.append(
        Row(
            name=f"GRPO tools, {policy}",
            compares="seconds an iteration, in threads beside generation",
            measured=table["ours"]["tools"],
            of="s",
            ours=table["ours"]["tools"],
            other=table["trl"]["tools"],
            unit="s",
            note="ours: whole steps of the environment, parsed and recorded; TRL's: the tool alone",
        )
    )
    for part in ("generation", "update"):
        mine, theirs = (table[side][part] for side in ("ours", "trl"))
        rows.append(
            Row(
                name=f"GRPO {part}, {policy}",
                compares="TRL's time / ours",
                measured=theirs / mine,
                ours=mine,
                other=theirs,
                unit="s",
            )
        )
    return rows


def show(policy: str, table: dict[str, dict[str, float]]) -> None:
    size = SIZES[policy]
    print(
        f"\n{policy}: {size.groups} x {GROUP} rollouts, 2 turns of at most {size.max_tokens} tokens"
    )
    names = [*PARTS, "processor", "tokens", "turns", "peak MiB"]
    print("       " + "".join(f"{name:>12}" for name in names))
    for side, values in table.items():
        print(f"{side:7}" + "".join(f"{values[name]:12.2f}" for name in names))
    # By the token: sampled lengths differ a little from run to run.
    rate = {side: one["iteration"] / one["tokens"] for side, one in table.items()}
    print(
        f"ours is {table['trl']['iteration'] / table['ours']['iteration']:.2f} times as fast an "
        f"iteration, {rate['trl'] / rate['ours']:.2f} times as fast a sampled token"
    )


def main() -> None:
    parser = arguments(__doc__, quick="`tiny`, one round")
    parser.add_argument("--policies", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--iterations", type=int, default=5, help="counted, a round and side")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=list(SIDES), help="this side alone, in this process")
    given = parser.parse_args()
    if given.side:
        one_side(given.side, given.policies[0], given.iterations)
        return
    if given.quick:
        given.policies, given.iterations, given.rounds = ["tiny"], 1, 1
    watch, rows, details = Watch(), [], {}
    for policy in given.policies:
        table, seen = compare(policy, given.iterations, given.rounds)
        show(policy, table)
        rows += rows_of(policy, table, seen)
        details[policy] = {
            "medians": table,
            "iterations": seen,
            "trl": importlib.metadata.version("trl"),
        }
    deliver(given.json, "trl_iteration", rows, watch.machine(), details)


if __name__ == "__main__":
    main()
