"""Makes what the natural test rests on: a named agent plays, then plays on from every prefix."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reagent_env.agents.judge_eval.natural import ValuedRollout, is_usable, valued

if TYPE_CHECKING:
    from rich.console import Console

MAX_TOKENS = 512
"""Of a turn."""


def valued_rollouts(
    agent: str,
    env_id: str,
    rollouts: int,
    *,
    continuations: int,
    console: Console,
    split: str = "test",
    seed: int = 0,
    sandbox: str = "auto",
    temperature: float = 1.0,
    concurrency: int = 16,
) -> list[ValuedRollout]:
    """Real rollouts with the value of each prefix; shows progress.

    Args:
        agent: As ``reagent eval --agent``: ``tiny``, a model's or run's folder, ``URL#model``.
        env_id: Where it plays.
        rollouts: Different tasks.
        continuations: Of each prefix.
        console: For the progress.
        split: ``train``, ``validation`` or ``test``.
        seed: Draws the tasks and what a local model samples.
        sandbox: For environments that run programs.
        temperature: Of rollouts and continuations alike.
        concurrency: Episodes at once.

    Raises:
        UnknownAgent: no such agent, or one that cannot go on from another's beginning.
    """
    import gymnasium

    from reagent_env.agents.evaluate import evaluate
    from reagent_env.agents.making import AgentRequest, UnknownAgent, agent_maker
    from reagent_env.cli.progress import progress_bar
    from reagent_env.env import ToolUseEnv

    if agent == "expert":
        raise UnknownAgent(
            "--agent expert plays by a script and is always right; name a policy: tiny, a folder, "
            "URL#model."
        )

    def make_env() -> Any:
        return gymnasium.make(env_id, disable_env_checker=True, split=split, sandbox=sandbox)

    with contextlib.closing(make_env()) as made:
        inner = made.unwrapped
        assert isinstance(inner, ToolUseEnv)
        tool_format = inner.tool_format.name
    request = AgentRequest(agent, env_id, tool_format, temperature, MAX_TOKENS, concurrency, seed)
    with contextlib.ExitStack() as shared, tempfile.TemporaryDirectory() as folder:
        make_agent = agent_maker(request, shared)
        with progress_bar(console, f"{agent} plays", rollouts) as advance:
            played = evaluate(
                make_env,
                make_agent,
                rollouts,
                out=Path(folder),
                concurrency=concurrency,
                seed=seed,
                on_episode=lambda trajectory: advance(trajectory.outcome),
            )
        states = sum(len(one.attempts[0].turns) for one in played if is_usable(one))
        with progress_bar(console, f"{agent} plays on", states * continuations) as advance:
            return valued(
                played,
                make_env,
                make_agent,
                continuations=continuations,
                concurrency=concurrency,
                on_outcome=lambda: advance(None),
            )
