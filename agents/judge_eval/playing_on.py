"""An agent plays on from the middle of a recorded attempt, or after its end and a critique.

The recorded completions are given to the environment again, which has to answer as it did; the
agent then reads the whole conversation and goes on by itself. What the outcomes come to is not
here (``natural.py``; ``trainers/judge/utility.py``).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium

from reagent_env.agents.agent import Agent
from reagent_env.agents.chat import ContextOverflow
from reagent_env.agents.workers import Stopped, Workers
from reagent_env.env import ToolUseEnv
from reagent_env.errors import INFRASTRUCTURE_ERRORS
from reagent_env.judgement import Judgement
from reagent_env.trajectory import StopReason, Trajectory
from reagent_env.wrappers import CritiqueRefine

MakeEnv = Callable[[], gymnasium.Env[str, str]]
Messages = list[dict[str, str]]


class AnsweredOtherwise(Exception):
    """The environment did not answer the recorded completions as it did: there is no such state."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """One way to go on, e.g. ``Continuation(rollout, turns=2, number=5)``."""

    trajectory: Trajectory
    """Whose first attempt is played again."""
    turns: int
    """How many of its turns; the agent makes those after them."""
    number: int = 0
    """Tells continuations of one state apart: an agent samples each anew."""
    critique: str | None = None
    """Played to its end, then a second attempt after this critique; its outcome is what counts."""


def outcomes(
    continuations: Sequence[Continuation],
    make_env: MakeEnv,
    make_agent: Callable[[], Agent],
    *,
    concurrency: int = 8,
    on_outcome: Callable[[], None] = lambda: None,
) -> list[float]:
    """The outcome of each, in order; NaN where infrastructure failed or the replay differs.

    Args:
        continuations: What to play.
        make_env: Makes one environment a worker.
        make_agent: Makes one agent a worker.
        concurrency: Continuations at once.
        on_outcome: Called after each.
    """
    if not continuations:
        return []
    with _workers(make_env, make_agent, min(concurrency, len(continuations))) as workers:
        running = [workers.play(one) for one in continuations]
        for future in running:
            future.add_done_callback(lambda _: on_outcome())
        try:
            wait(running)
        except BaseException:
            workers.stop()
            raise
        return [future.result() for future in running]


def play_on(
    env: gymnasium.Env[str, str],
    agent: Agent,
    continuation: Continuation,
    stopping: threading.Event | None = None,
) -> float:
    """The outcome of one continuation, NaN where infrastructure failed or the replay differs.

    Raises:
        Stopped: ``stopping`` was set meanwhile.
    """
    inner = env.unwrapped
    assert isinstance(inner, ToolUseEnv)
    if continuation.critique is not None:
        env = CritiqueRefine(env, _Says(continuation.critique))
    try:
        messages, info = _replayed(env, continuation)
    except AnsweredOtherwise:
        return math.nan
    # Number 1 was the rollout: agents that sample by attempt would repeat it.
    agent.begin({**info, "messages": messages, "attempt": continuation.number + 2})
    observation = messages[-1]["content"]
    over = False
    while not over:
        if stopping is not None and stopping.is_set():
            raise Stopped
        try:
            completion = agent.act(observation, info)
        except ContextOverflow:
            return 0.0
        except INFRASTRUCTURE_ERRORS:
            return math.nan
        observation, _, terminated, truncated, info = env.step(completion)
        over = terminated or truncated
    last = inner.trajectory.attempts[-1]
    failed = last.stop_reason == StopReason.INFRASTRUCTURE_FAILURE or last.outcome is None
    return math.nan if failed else float(last.outcome or 0.0)


def _replayed(
    env: gymnasium.Env[str, str], continuation: Continuation
) -> tuple[Messages, dict[str, Any]]:
    """The conversation so far and what ``reset`` said, the environment being where it ends.

    Raises:
        AnsweredOtherwise: an observation differs from the recorded one, or the attempt ended.
    """
    recorded = continuation.trajectory.attempts[0].turns[: continuation.turns]
    _, info = env.reset(options={"task": continuation.trajectory.task})
    messages = [dict(message) for message in info["messages"]]
    goes_on = False
    for turn in recorded:
        observation, _, terminated, truncated, after = env.step(turn.completion)
        goes_on = bool(after.get("attempt_ended"))
        if terminated or truncated or (observation != turn.observation and not goes_on):
            raise AnsweredOtherwise
        messages.append({"role": "assistant", "content": turn.completion})
        messages.append({"role": "user", "content": observation})
    if continuation.critique is not None and not goes_on:
        raise AnsweredOtherwise  # the attempt has no end here
    return messages, info


@dataclass(frozen=True)
class _Says:
    """A judge whose critique is given."""

    critique: str

    def judge(self, trajectories: Sequence[Trajectory]) -> list[Judgement]:
        return [Judgement(critique=self.critique, score=0.5) for _ in trajectories]


@contextmanager
def _workers(
    make_env: MakeEnv, make_agent: Callable[[], Agent], concurrency: int
) -> Iterator[Workers[Continuation, float]]:
    """Threads with an environment and an agent each, the sandboxes set aside for them."""

    @contextmanager
    def seat(stopping: threading.Event) -> Iterator[Callable[[Continuation], float]]:
        with closing(make_env()) as env:
            agent = make_agent()
            try:
                yield lambda one: play_on(env, agent, one, stopping)
            finally:
                getattr(agent, "close", lambda: None)()

    with closing(make_env()) as first:
        inner = first.unwrapped
        assert isinstance(inner, ToolUseEnv)
        pool = inner.sandbox_pool
        if pool is not None:
            pool.reserve(concurrency)
        try:
            with closing(Workers[Continuation, float](seat, concurrency)) as workers:
                yield workers
        finally:
            if pool is not None:
                pool.unreserve(concurrency)
