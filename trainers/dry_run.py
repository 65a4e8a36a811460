"""``--dry-run``: everything a run would do, checked and printed, and nothing of it done.

Not here: the arithmetic of memory (``memory_plan.py``).
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from reagent_env.env import ToolUseEnv
from reagent_env.reward_models import make_reward_model
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.environments import make_env
from reagent_env.trainers.memory_plan import GIB, MemoryPlan, ModelShape, memory_plan, shape_of
from reagent_env.trainers.policies import POLICY_NAMES
from reagent_env.trainers.schedules import get_schedule, parse_mixture, turns_at, unreached

SPLITS = ("train", "validation", "test")
GPU_SHARE = 0.92
"""How much of a GPU can be used: the rest goes to CUDA itself and to fragments."""


def dry_run(config: TrainConfig, command: str = "reagent train") -> str:
    """What the run would do, as text for people; every setting is checked on the way.

    Environments are made and closed again, one a split; no sandbox starts, no model is loaded.

    Args:
        config: The run's.
        command: The command that would start it.

    Raises:
        ValueError: a judge, an environment or an argument of it does not exist, or it cannot fit.
        gymnasium.error.Error: no such environment.
    """
    sections = [
        ("Environments", _environments(config)),
        ("Judge", _judge(config)),
        ("Work", _work(config)),
        ("Memory", _memory(config)),
        ("Commands", _commands(config, command)),
    ]
    title = f"Plan of {config.recipe} with the policy {config.policy} (nothing was run)"
    text = "\n\n".join(
        f"{name}\n" + "\n".join(f"  {line}".rstrip() for line in lines) for name, lines in sections
    )
    return f"{title}\n\n{text}\n"


def _environments(config: TrainConfig) -> Iterator[str]:
    mixture = parse_mixture(config.env)
    for env_id, share in zip(mixture.ids, mixture.shares, strict=True):
        counts = []
        for split in SPLITS:
            env = make_env(env_id, split=split, sandbox=config.sandbox, kwargs=config.env_kwargs)
            inner = env.unwrapped
            assert isinstance(inner, ToolUseEnv)
            counts.append(f"{len(inner.tasks):,} {split}")
            turns, tools = inner.max_turns, ", ".join(inner.tools)
            env.close()
        yield f"{env_id}  {share:.0%} of the groups; tasks: {', '.join(counts)}"
        yield f"    tools {tools}; at most {turns} turns an attempt; sandbox {config.sandbox}"
    if config.schedule:
        schedule = get_schedule(config.schedule)
        starts = [phase * schedule.every for phase in range(len(schedule.turns))]
        limits = ", ".join(
            f"{turns_at(schedule, start)} from update {start + 1}"
            for start in starts
            if start < config.updates
        )
        yield f"turn limit by {config.schedule}: {limits}"
        if note := unreached(config.schedule, config.updates):
            yield f"    {note}"


def _judge(config: TrainConfig) -> Iterator[str]:
    if not config.needs_judge:
        yield "none: the outcome alone is rewarded"
        return
    make_reward_model(config.judge)  # a server's address is checked for its form; nobody is asked
    served = config.judge.startswith("http")
    yield f"{config.judge}, {'a server (not asked now)' if served else 'in this process'}"
    yield f"λ = {config.weight:g}, credit by {config.credit}, asked at each {_asked(config)}"


def _asked(config: TrainConfig) -> str:
    return "attempt's end" if config.when == "end" else "turn"


def _work(config: TrainConfig) -> Iterator[str]:
    if config.recipe == "sft":
        episodes = config.clean_demonstrations + config.mixed_demonstrations
        yield (
            f"{config.clean_demonstrations:,} clean and {config.mixed_demonstrations:,} mixed "
            f"demonstrations, {config.sft_epochs} pass(es), {config.sft_batch} an update: "
            f"{episodes * config.sft_epochs // config.sft_batch:,} updates"
        )
    else:
        rollouts = config.rollouts_per_update
        yield (
            f"{config.updates:,} updates × {config.groups_per_update} tasks × {config.group_size} "
            f"rollouts = {config.updates * rollouts:,} episodes of {config.attempts} attempt(s)"
        )
        if config.ray:
            workers = f"{config.ray_workers}" if config.ray_workers else "one a node:"
            yield (
                f"played by {workers} Ray worker(s), {config.ray_cpus} CPU(s) and {config.ray_gpus:g} "
                f"GPU(s) each, {config.concurrency} episodes at once on each; Ray: {config.ray}"
            )
        yield (
            f"{config.epochs * config.minibatches} optimiser step(s) an update, "
            f"{rollouts // config.minibatches} rollouts each; advantage {config.advantage}, "
            f"loss {config.loss}, {config.aggregation}"
        )
        if config.needs_judge:
            calls = config.updates * rollouts * config.attempts
            yield f"about {calls:,} judgements" + (" a turn" if config.when == "step" else "")
    if config.max_policy_tokens:
        yield f"stops at {config.max_policy_tokens:,} policy tokens at the latest"
    if config.max_interactions:
        yield f"stops at {config.max_interactions:,} turns played at the latest"
    if config.max_seconds:
        yield f"stops after {config.max_seconds:,.0f} s of training at the latest"
    yield (
        f"held out: {config.held_out_episodes} of {config.held_out_split} "
        f"{'before and after' if config.held_out_before else 'after training'}; "
        + (
            f"{config.eval_episodes} of {config.eval_split} every {config.eval_every} updates"
            if config.eval_every
            else "none in between"
        )
    )


def _memory(config: TrainConfig) -> Iterator[str]:
    shape = shape_of(config.policy)
    if shape is None and "/" not in config.policy and not Path(config.policy).is_dir():
        near = difflib.get_close_matches(config.policy, POLICY_NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"There is no policy {config.policy!r}.{hint} Known: {', '.join(POLICY_NAMES)}, a "
            "folder, a run, or a hub id such as 'Qwen/Qwen3-8B'."
        )
    if shape is None:
        yield f"unknown: the shape of {config.policy!r} is not on this machine (no config.json)"
        return
    plan = memory_plan(config, shape)
    where = f"each of {config.gpus} GPUs" if config.gpus else "this process"
    yield f"{plan.parameters / 1e6:,.1f} M weights, {plan.trained / 1e6:,.1f} M trained"
    for name, size in plan.parts.items():
        yield f"{name:<30}{size / GIB:8.2f} GiB"
    yield f"{'in all, on ' + where:<30}{plan.total / GIB:8.2f} GiB"
    if config.gpus:
        yield _room(config, plan, shape)


def _room(config: TrainConfig, plan: MemoryPlan, shape: ModelShape) -> str:
    """How many conversations the server's cache can hold in what the learner leaves."""
    left = GPU_SHARE * config.gpu_gib * GIB - plan.total
    if left <= 0:
        raise ValueError(
            f"It does not fit: {plan.total / GIB:.1f} GiB on each GPU of {config.gpu_gib:g}. "
            "Lower micro_batch_tokens, set gradient_checkpointing=true or lora_rank, or more gpus."
        )
    each = (config.context_length or 2048) * shape.kv_bytes(2)
    return (
        f"{left / GIB:.1f} GiB a GPU are left for keys and values: {config.gpus * left / each:,.0f} "
        f"conversations of full length at once on {config.gpus} GPUs"
    )


def _commands(config: TrainConfig, command: str) -> Iterator[str]:
    if not config.gpus:
        if config.engine == "vllm":
            yield f"reagent serve-policy {shlex.quote(config.policy)}   # answers at {config.engine_url}"
        yield command
        return
    yield f"# Not run here: it takes {config.gpus} GPUs" + (
        f" and {config.judge_gpus} for the judge." if config.judge_gpus else "."
    )
    learner = ",".join(map(str, range(config.gpus)))
    if config.judge_gpus and config.judge.startswith("http"):
        url, _, name = config.judge.partition("#")
        devices = ",".join(map(str, range(config.gpus, config.gpus + config.judge_gpus)))
        yield "# 1. The judge: one server, a copy of the model on each GPU."
        yield (
            f"CUDA_VISIBLE_DEVICES={devices} vllm serve FOLDER_OF_THE_JUDGE "
            f"--served-model-name {name} --data-parallel-size {config.judge_gpus} "
            f"--port {_port(url)}"
        )
    if config.engine == "vllm":
        yield "# 2. The policy's server: on each GPU a copy, beside the learner's share."
        yield (
            f"CUDA_VISIBLE_DEVICES={learner} VLLM_SERVER_DEV_MODE=1 vllm serve "
            f"{shlex.quote(config.policy)} --data-parallel-size {config.gpus} "
            f"--max-model-len {config.context_length or 2048} --gpu-memory-utilization "
            f"{_server_share(config):.2f} --port {_port(config.engine_url)}"
        )
    yield "# 3. The learner: FSDP over the same GPUs."
    yield (
        f"CUDA_VISIBLE_DEVICES={learner} accelerate launch --num_processes {config.gpus} "
        "--mixed_precision bf16 --use_fsdp --fsdp_version 2 "
        f'--fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP "$(command -v reagent)" '
        f"{command.removeprefix('reagent ')}"
    )


def _server_share(config: TrainConfig) -> float:
    """What of each GPU vLLM may take: all that the learner leaves."""
    shape = shape_of(config.policy)
    if shape is None:
        return 0.4
    plan = memory_plan(config, shape)
    learner = plan.total - plan.parts["weights of the server"]
    return max(0.1, GPU_SHARE - learner / (config.gpu_gib * GIB))


def _port(url: str) -> str:
    return str(urlsplit(url).port or 80)
