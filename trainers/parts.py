"""What a run is made of, put together from its settings: policy, engine, environments, judge."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import torch

from reagent_env.agents.refine import ShuffledCritiques
from reagent_env.env import ToolUseEnv
from reagent_env.reward_models import make_reward_model
from reagent_env.reward_models.base import RewardModel
from reagent_env.reward_models.batched import BatchedJudge
from reagent_env.trainers.collector import Source
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.engines.base import Engine, Sampling
from reagent_env.trainers.environments import make_env, with_rewards
from reagent_env.trainers.players import Players
from reagent_env.trainers.policies import load_policy
from reagent_env.trainers.policies.policy import Policy
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.schedules import parse_mixture

SMALL_CONTEXT = 2048
"""Tokens of context up to which a policy gets prompts of the compact kind."""

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter: the engine asks for it after every operation."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a run holds while it runs."""

    policy: Policy
    """What is trained."""
    renderer: Renderer
    """Of its chat template."""
    engine: Engine
    """Samples from it."""
    publish: Callable[[int], None]
    """Lets the paused engine go on with the policy's weights as they are now, under a version."""
    sources: tuple[Source, ...]
    """Training environments, rewards included."""
    weights: tuple[float, ...]
    """Their shares."""
    judge: RewardModel | None
    """Shared by all episodes."""
    concurrency: int
    """Episodes at once that the sandboxes allow."""
    tool_format: str | None
    """For environments that say none themselves."""
    players: Players | None = None
    """Who plays episodes, where it is not threads of this process."""


@contextmanager
def training_parts(config: TrainConfig, policy: Policy) -> Iterator[Parts]:
    """Make the parts of a run around a policy, and end them.

    Raises:
        ValueError: something in the settings cannot be; says what.
        SandboxUnavailable: no sandbox can be had.
    """
    with ExitStack() as open_parts:
        open_parts.enter_context(_torch_settings(config))
        judge = None
        if config.needs_judge:
            judge = open_parts.enter_context(_judge(config))
        mixture = parse_mixture(config.env)
        tool_format = fitting_tool_format(policy)
        sources = []
        concurrency = config.concurrency
        exchange = ShuffledCritiques()
        for env_id in mixture.ids:
            make = functools.partial(_with_rewards, config, judge, env_id, tool_format, exchange)
            first = open_parts.enter_context(_closing(make()))
            inner = first.unwrapped
            assert isinstance(inner, ToolUseEnv)
            sources.append(Source(env_id, make, inner.tasks))
            concurrency = min(concurrency, _room(inner, concurrency))
        renderer = Renderer(policy.tokenizer)
        engine, publish = open_parts.enter_context(_engine(config, policy, renderer))
        players = None
        if config.ray:
            from reagent_env.trainers.ray_players import ray_players

            players = open_parts.enter_context(ray_players(config, policy))
            publish = _spread(publish, engine, players)
        yield Parts(
            policy,
            renderer,
            engine,
            publish,
            tuple(sources),
            tuple(mixture.shares),
            judge,
            concurrency,
            tool_format,
            players,
        )


def plain_env(
    config: TrainConfig, env_id: str, split: str, tool_format: str | None
) -> gymnasium.Env[str, str]:
    """An environment of the run without rewards of ours."""
    return make_env(
        env_id,
        split=split,
        sandbox=config.sandbox,
        tool_format=tool_format,
        kwargs=config.env_kwargs,
    )


def fitting_tool_format(policy: Policy) -> str | None:
    """``compact`` for a policy with a small context, such as ``tiny``; else the environment's own."""
    return "compact" if policy.context_length <= SMALL_CONTEXT else None


def training_sampling(config: TrainConfig) -> Sampling:
    """How training rollouts are drawn."""
    return Sampling(config.temperature, config.top_p, config.max_tokens)


def evaluation_sampling(config: TrainConfig) -> Sampling:
    """How held-out episodes are drawn."""
    return Sampling(config.eval_temperature, 1.0, config.max_tokens)


def load_for_training(config: TrainConfig, checkpoint: Path | None = None) -> Policy:
    """The policy of a run: a checkpoint's, or the one that its settings name, with new adapters."""
    dtype = _dtype(config)
    if checkpoint is not None:
        policy = dataclasses.replace(load_policy(checkpoint, dtype=dtype), name=config.policy)
    else:
        policy = load_policy(config.policy, dtype=dtype)
    if config.lora_rank:
        from reagent_env.trainers.policies.lora import apply_lora, has_adapter

        if not has_adapter(policy.model):
            alpha = config.lora_alpha or 2 * config.lora_rank
            adapted = apply_lora(policy.model, config.lora_rank, alpha, seed=config.seed)
            policy = dataclasses.replace(policy, model=adapted)
    if config.gradient_checkpointing:
        model: Any = policy.model
        enable = getattr(model, "activation_checkpointing_enable", None)  # its name from v5.20 on
        enable = enable or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if config.context_length:
        room = min(config.context_length, policy.context_length)
        policy = dataclasses.replace(policy, context_length=room)
    return policy


def _dtype(config: TrainConfig) -> str:
    """``auto`` made out: frozen weights in bfloat16 where this CPU multiplies it natively.

    Weights that are trained stay in float32 there: small updates vanish in eight bits of mantissa.
    So do those that a vLLM server samples from in float32.
    """
    if config.dtype != "auto" or torch.cuda.is_available() or not config.lora_rank:
        return config.dtype
    if config.engine == "vllm":
        return "float32"
    can: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # from 2.11 on
    return "bfloat16" if can.get("avx512_bf16") or can.get("amx_bf16") else "float32"


@contextmanager
def _judge(config: TrainConfig) -> Iterator[RewardModel]:
    """The run's judge, asked about many episodes at once; a server does that by itself.

    Under ``deterministic`` one episode at a time: who is asked about together would be up to chance,
    and numbers computed together differ in their last bits.
    """
    judge: Any = make_reward_model(config.judge)
    if not config.judge.startswith(("http://", "https://")):
        judge = BatchedJudge(judge, **({"max_batch": 1} if config.deterministic else {}))
    try:
        yield judge
    finally:
        getattr(judge, "close", lambda: None)()


def _with_rewards(
    config: TrainConfig,
    judge: RewardModel | None,
    env_id: str,
    tool_format: str | None,
    exchange: ShuffledCritiques,
) -> gymnasium.Env[str, str]:
    return with_rewards(plain_env(config, env_id, "train", tool_format), config, judge, exchange)


def _spread(publish: Callable[[int], None], engine: Engine, players: Any) -> Callable[[int], None]:
    """Publish a version here and at the workers: by the server that all of them ask, or to each."""
    from reagent_env.trainers.engines.vllm import VLLMEngine

    def everywhere(version: int) -> None:
        if isinstance(engine, VLLMEngine):
            players.hold()
            publish(version)
            players.publish(version, engine.served_as)
        else:
            publish(version)
            players.publish(version)

    return everywhere


def _room(env: ToolUseEnv, wanted: int) -> int:
    """How many episodes can each hold a sandbox: as many as the pool, where one is needed at all."""
    pool = env.sandbox_pool
    return wanted if pool is None else min(wanted, pool.max_size)


@contextmanager
def _engine(
    config: TrainConfig, policy: Policy, renderer: Renderer
) -> Iterator[tuple[Engine, Callable[[int], None]]]:
    if config.engine == "vllm":
        from reagent_env.trainers.engines.vllm_server import served_policy

        with served_policy(config.engine_url, policy, renderer.stop_ids) as served:
            yield served
        return
    from reagent_env.trainers.engines.hf import HFEngine

    engine = HFEngine(
        policy.model,
        stop_ids=renderer.stop_ids,
        context_length=policy.context_length,
        max_live=config.concurrency,
        deterministic=config.deterministic,
        pad_id=int(policy.tokenizer.pad_token_id or 0),
    )
    try:
        yield engine, engine.resume
    finally:
        engine.close()


@contextmanager
def _torch_settings(config: TrainConfig) -> Iterator[None]:
    """Threads as the settings say, and short turns at the interpreter; put back at the end."""
    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    wanted = config.threads or (1 if config.deterministic else len(os.sched_getaffinity(0)))
    torch.set_num_threads(wanted)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        sys.setswitchinterval(interval)


@contextmanager
def _closing(env: Any) -> Iterator[Any]:
    try:
        yield env
    finally:
        env.close()
