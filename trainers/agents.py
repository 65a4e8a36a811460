"""Local models as agents of ``reagent eval``: what the entry point in ``reagent_env.agents`` names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from reagent_env.agents.agent import Agent
from reagent_env.agents.making import AgentRequest, UnknownAgent
from reagent_env.trainers.policies import POLICY_NAMES, UnknownPolicy, load_policy


def local_policy(request: AgentRequest, shared: contextlib.ExitStack) -> Callable[[], Agent] | None:
    """Agents of one model in this process, all their episodes in one engine.

    Example: ``--agent tiny``, ``--agent runs/20261104-120000-reagent-u`` (its latest checkpoint),
    ``--agent ./my-model``, ``--agent HuggingFaceTB/SmolLM2-360M-Instruct``.

    Args:
        request: Its ``spec`` is a policy's name, a folder or a hub id; else the answer is None.
        shared: Closes the engine.

    Raises:
        UnknownAgent: a path without a model, or the extra ``train`` is not installed.
        ModelUnavailable: the model cannot be fetched or read.
    """
    spec = request.spec
    if spec not in POLICY_NAMES and "/" not in spec and os.sep not in spec and not _is_folder(spec):
        return None
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise UnknownAgent(
            f"--agent {spec!r} is a model to run in this process, which needs torch and "
            "transformers: pip install 'reagent-env[train]'. Or serve it and give URL#model."
        )
    try:
        policy = load_policy(spec)
    except UnknownPolicy as error:
        raise UnknownAgent(f"--agent: {error}") from error

    from reagent_env.trainers.engines.base import Sampling
    from reagent_env.trainers.engines.hf import HFEngine
    from reagent_env.trainers.policy_agent import PolicyAgent
    from reagent_env.trainers.rendering import Renderer

    renderer = Renderer(policy.tokenizer)
    engine = HFEngine(
        policy.model,
        stop_ids=renderer.stop_ids,
        context_length=policy.context_length,
        max_live=request.concurrency,
    )
    shared.callback(engine.close)
    sampling = Sampling(temperature=request.temperature, max_tokens=request.max_tokens)
    return lambda: PolicyAgent(spec, engine, renderer, sampling, seed=request.seed)


def _is_folder(spec: str) -> bool:
    return Path(spec).is_dir()
