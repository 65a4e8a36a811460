"""What ``--agent`` names, made into agents: those of this layer, and those an entry point adds.

An entry point in the group ``reagent_env.agents`` names a function of :func:`agent_maker`'s shape
that returns None for a name that is not its own. So local models come from the layer above.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass

from reagent_env.agents.agent import Agent

ENTRY_POINTS = "reagent_env.agents"
KNOWN = ("expert", "random", "tiny", "smollm2")
"""Names without a URL or a path, for whoever mistypes one."""


@dataclass(frozen=True)
class AgentRequest:
    """Which agent is wanted, and how it is to act, e.g. ``AgentRequest("tiny", "reagent/MiniMix-v0")``."""

    spec: str
    """``expert``, ``random``, ``URL#model``, or what an entry point knows: a policy's name or folder."""
    env_id: str
    """The environment it will act in; an expert is one for a task set."""
    tool_format: str = "hermes"
    """How that environment reads tool calls."""
    temperature: float = 0.7
    """Of a model; 0 is greedy."""
    max_tokens: int = 1024
    """Of a model, a turn."""
    concurrency: int = 4
    """Episodes at once."""
    seed: int = 0
    """Of what a local model samples."""


Maker = Callable[[AgentRequest, contextlib.ExitStack], Callable[[], Agent] | None]


class UnknownAgent(ValueError):
    """Nobody knows the name, or it cannot be reached; the message says what may be written."""


def agent_maker(request: AgentRequest, shared: contextlib.ExitStack) -> Callable[[], Agent]:
    """A function that makes one agent a call; a served model is asked for once, here.

    Example::

        with contextlib.ExitStack() as shared:
            make_agent = agent_maker(AgentRequest("random", "reagent/PythonMath-v0"), shared)

    Args:
        request: Which, and how.
        shared: Closes what the agents share: a client, an engine.

    Raises:
        UnknownAgent: no such agent, or its server has no such model.
    """
    for make in (_scripted, _served, *_added()):
        made = make(request, shared)
        if made is not None:
            return made
    near = difflib.get_close_matches(request.spec, KNOWN, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownAgent(
        f"--agent {request.spec!r} is none of expert, random, tiny, smollm2, URL#model, the folder "
        f"of a model or of a run.{hint}"
    )


def _added() -> list[Maker]:
    entries = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return [entry.load() for entry in sorted(entries, key=lambda one: one.name)]


def _scripted(request: AgentRequest, shared: contextlib.ExitStack) -> Callable[[], Agent] | None:
    if request.spec == "expert":
        from reagent_env.agents.expert import ExpertAgent, solver_of

        solver = solver_of(request.env_id)
        return lambda: ExpertAgent(solver, request.tool_format)
    if request.spec == "random":
        from reagent_env.agents.expert import ExpertAgent, wanderer_of
        from reagent_env.agents.random_agent import RandomAgent

        wanderer = wanderer_of(request.env_id)
        if wanderer is not None:
            return lambda: ExpertAgent(wanderer, request.tool_format, "random")
        return lambda: RandomAgent(request.tool_format)
    return None


def _served(request: AgentRequest, shared: contextlib.ExitStack) -> Callable[[], Agent] | None:
    if not request.spec.startswith(("http://", "https://")):
        return None
    from reagent_env.agents.chat import (
        ChatAgent,
        PolicyUnavailable,
        Sampling,
        chat_client,
        check_model,
    )

    url, _, model = request.spec.partition("#")
    if not model:
        raise UnknownAgent(f"--agent {request.spec!r} names no model; write {url}#MODEL.")
    client = shared.enter_context(chat_client(url))
    try:
        check_model(client, model)
    except PolicyUnavailable as error:
        raise UnknownAgent(str(error)) from error
    sampling = Sampling(temperature=request.temperature, max_tokens=request.max_tokens)
    return lambda: ChatAgent(url, model, sampling=sampling, client=client)
