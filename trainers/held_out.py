"""A run's held-out evaluations: before, while and after training, in all of its environments.

Not here: playing the episodes (``evaluation.py``).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from reagent_env.agents.summary import summarise
from reagent_env.trainers import metric_names as names
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.environments import has_splits
from reagent_env.trainers.evaluation import HeldOut, evaluate_policy
from reagent_env.trainers.parts import Parts, evaluation_sampling, plain_env
from reagent_env.trainers.progress import TrainProgress
from reagent_env.trainers.report import HELD_OUT
from reagent_env.trainers.run_folder import RunFolder


def check_splits(config: TrainConfig, parts: Parts, progress: TrainProgress) -> None:
    """Find out before training whether there is something to evaluate on.

    Raises:
        ValueError: a split of an environment has no task; says which, and what to do.
    """
    wanted = [config.held_out_split] if config.held_out_episodes else []
    wanted += [config.eval_split] if 0 < config.eval_every < config.updates else []
    for source in parts.sources:
        for split in dict.fromkeys(wanted):
            plain_env(config, source.env_id, split, parts.tool_format).close()
        if wanted and not has_splits(source.env_id):
            progress.say(
                f"{source.env_id} takes no split=: the tasks that it is evaluated on are those that "
                "it is trained on. Nothing is held out."
            )


def held_out(
    config: TrainConfig, run: RunFolder, parts: Parts, progress: TrainProgress, *, update: int
) -> list[float]:
    """Success before or after training on the held-out split: mean, bounds, episodes."""
    found = _evaluate(config, parts, config.held_out_split, config.held_out_episodes, config.seed)
    run.save_trajectories(update, found.trajectories, kind=HELD_OUT)
    when = "before" if update == 0 else "after"
    progress.say(f"held out, {when} training: {found.success} (one pass, no judge)")
    low, high = found.success.interval
    return [found.success.mean, low, high, float(found.success.n)]


def evaluate_while_training(config: TrainConfig, parts: Parts) -> dict[str, float]:
    """The numbers of one evaluation between updates, for the log."""
    found = _evaluate(config, parts, config.eval_split, config.eval_episodes, config.seed)
    return {
        names.HELD_OUT: found.success.mean,
        names.HELD_OUT_N: found.success.n,
        names.CRITIQUE_TALK: found.critique_talk,
    }


def _evaluate(config: TrainConfig, parts: Parts, split: str, episodes: int, seed: int) -> HeldOut:
    """Over the environments of the run; several share the episodes by weight."""
    trajectories: list[Any] = []
    found: list[HeldOut] = []
    for index, (source, weight) in enumerate(zip(parts.sources, parts.weights, strict=True)):
        count = max(1, round(episodes * weight))
        found.append(
            evaluate_policy(
                functools.partial(plain_env, config, source.env_id, split, parts.tool_format),
                parts.engine,
                parts.renderer,
                evaluation_sampling(config),
                episodes=count,
                seed=seed,
                concurrency=parts.concurrency,
                retries=config.retries,
                players=parts.players,
                source=index,
                split=split,
                max_turns=config.eval_turns or None,
            )
        )
        trajectories += found[-1].trajectories
    if len(found) == 1:
        return found[0]
    talk = float(np.mean([one.critique_talk for one in found]))
    return HeldOut(summarise(trajectories), talk, tuple(trajectories))


def held_out_fields(before: list[float] | None, after: list[float] | None) -> dict[str, Any]:
    """What :meth:`RunFolder.write_summary` takes of two results of :func:`held_out`."""
    return {
        "before": None if before is None else before[0],
        "after": None if after is None else after[0],
        "n": 0 if after is None else int(after[3]),
        "ci": None if after is None else (after[1], after[2]),
    }
