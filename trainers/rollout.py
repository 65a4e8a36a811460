"""One episode, token in, token out: the environment on one side, an engine's conversation on the other.

Plain sequential code; hundreds of them run at once, each in a thread of its own, and wait for
tools, judges and tokens independently. Not here: which episodes (``collector.py``).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium

from reagent_env.agents.workers import Stopped
from reagent_env.env import ToolUseEnv
from reagent_env.errors import INFRASTRUCTURE_ERRORS, TaskError
from reagent_env.task import Task
from reagent_env.trainers.engines.base import ContextFull, Conversation, Engine, Sampling
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.sample import AttemptReturn, Rollout, Sample
from reagent_env.trajectory import Attempt, StopReason, Trajectory


@dataclass
class _Episode:
    """What has been sampled so far."""

    samples: list[Sample] = field(default_factory=list)
    attempts: list[AttemptReturn] = field(default_factory=list)
    turn_ids: list[tuple[int, ...]] = field(default_factory=list)
    """Per turn of the episode, the ids as sampled."""
    returned: float = 0.0
    """Sum of the attempt's rewards."""
    prefix_scores: list[float | None] = field(default_factory=list)
    """Per turn of the attempt, the judged prefix's φ where the judge is asked at every step."""
    by_step: bool = False
    """Whether the judge is: then φ of an earlier turn is never said in hindsight."""


def rollout(
    env: gymnasium.Env[str, str],
    engine: Engine,
    renderer: Renderer,
    task: Task,
    sampling: Sampling,
    *,
    seed: int,
    group: int = 0,
    member: int = 0,
    stopping: threading.Event | None = None,
) -> Rollout:
    """Play one episode on ``task`` and keep its tokens.

    Args:
        env: A tool-use environment, with or without reward wrappers.
        engine: Samples; its conversation is closed at the end.
        renderer: Turns messages and observations into ids.
        task: What the episode is about.
        sampling: How tokens are drawn.
        seed: Of the environment and of the conversation's random numbers.
        group: Written into the rollout.
        member: Written into the rollout.
        stopping: An event; when set, the episode is given up at its next turn.

    Returns:
        The rollout; masked, with the reason in its trajectory, where infrastructure failed.

    Raises:
        Stopped: ``stopping`` was set.
    """
    inner = env.unwrapped
    assert isinstance(inner, ToolUseEnv)
    episode = _Episode()
    trajectory = Trajectory(task=task, prompt="", seed=seed)  # should there never be another
    conversation: Conversation | None = None
    stopped: StopReason | None = None
    failure: str | None = None
    try:
        observation, info = env.reset(seed=seed, options={"task": task})
        trajectory = inner.trajectory
        over = False
        while not over:
            if stopping is not None and stopping.is_set():
                raise Stopped
            if "messages" in info:  # from the prompt alone: the start, or an independent attempt
                if conversation is not None:
                    conversation.close()
                conversation = engine.open(seed + len(episode.samples))
                episode.samples.append(Sample())
                new_ids = renderer.opening_ids(info["messages"])
            else:
                closed = episode.turn_ids[-1][-1] in renderer.stop_ids
                new_ids = renderer.reply_ids(observation, closed=closed)
            assert conversation is not None
            generation = conversation.generate(new_ids, sampling).result()
            sample = episode.samples[-1]
            sample.read(list(new_ids))
            sample.write(
                list(generation.ids),
                list(generation.logprobs),
                len(episode.turn_ids),
                generation.version,
            )
            episode.turn_ids.append(generation.ids)
            completion = renderer.completion_text(generation.ids)
            observation, reward, terminated, truncated, info = env.step(completion)
            over = terminated or truncated
            _take_turn(episode, float(reward), over, info)
            if over and info.get("stop_reason") == StopReason.INFRASTRUCTURE_FAILURE:
                failure = str(info.get("infrastructure_error", "infrastructure failure"))
            elif math.isnan(episode.returned):
                raise TaskError("the environment returned a reward of NaN")
    except ContextFull:
        stopped = StopReason.CONTEXT_LENGTH
    except INFRASTRUCTURE_ERRORS as error:
        stopped = StopReason.INFRASTRUCTURE_FAILURE
        failure = f"{type(error).__name__}: {error}"
    finally:
        if conversation is not None:
            conversation.close()
    if stopped is StopReason.CONTEXT_LENGTH and episode.prefix_scores:
        # The attempt under way counts as wrong; what was judged of it so far is not its score.
        episode.attempts.append(AttemptReturn(0.0, (None,) * len(episode.prefix_scores)))
    if trajectory.attempts:
        trajectory = inner.trajectory
    trajectory = _record(trajectory, episode, stopped, failure)
    attempts = () if failure is not None else tuple(episode.attempts)
    return Rollout(group, member, tuple(episode.samples), attempts, trajectory)


def up_to_token_limit(rollout: Rollout, stop_ids: Sequence[int]) -> Rollout:
    """The rollout without the first attempt that a token limit cut, and what followed it.

    Cut is an attempt that outgrew the context, or whose last completion has no end of turn. Where
    nothing is left, the rollout is masked.
    """
    for number, attempt in enumerate(rollout.trajectory.attempts[: len(rollout.attempts)]):
        ids = attempt.turns[-1].completion_ids if attempt.turns else None
        cut = attempt.stop_reason == StopReason.CONTEXT_LENGTH
        if cut or (ids and ids[-1] not in stop_ids):
            return replace(rollout, attempts=rollout.attempts[:number])
    return rollout


def _take_turn(episode: _Episode, reward: float, over: bool, info: Mapping[str, Any]) -> None:
    """Count a turn; where it ended an attempt, what the attempt came to."""
    judgement = info.get("judgement") or {}
    episode.returned += reward
    episode.prefix_scores.append(judgement.get("score"))
    if not (over or info.get("attempt_ended")):
        episode.by_step = episode.by_step or bool(judgement)
        return
    if math.isnan(episode.returned):
        return  # spoiled by infrastructure: the whole rollout is masked
    turns = len(episode.prefix_scores)
    outcome = episode.returned - (info.get("reward/process") or 0.0)
    said = info.get("reward/outcome")
    if said is not None and math.isclose(outcome, said, abs_tol=1e-6):
        outcome = float(said)  # as it was graded, without what adding and subtracting left
    scores = list(episode.prefix_scores[:-1])
    if not episode.by_step:
        hindsight = list(judgement.get("turn_scores") or ())[: turns - 1]
        scores = [*hindsight, *[None] * (turns - 1 - len(hindsight))]
    episode.attempts.append(AttemptReturn(outcome, (*scores, judgement.get("score"))))
    episode.returned = 0.0
    episode.prefix_scores = []


def _record(
    trajectory: Trajectory, episode: _Episode, stopped: StopReason | None, failure: str | None
) -> Trajectory:
    """The environment's record with the ids as sampled, and why the policy could not go on."""
    ids = iter(episode.turn_ids)
    attempts: list[Attempt] = []
    for attempt in trajectory.attempts:
        turns = tuple(replace(turn, completion_ids=next(ids, None)) for turn in attempt.turns)
        attempts.append(replace(attempt, turns=turns))
    if stopped is not None and attempts:
        outcome = None if failure is not None else 0.0
        attempts[-1] = replace(attempts[-1], stop_reason=str(stopped), outcome=outcome)
    return replace(
        trajectory,
        attempts=tuple(attempts),
        infrastructure_error=failure or trajectory.infrastructure_error,
    )
