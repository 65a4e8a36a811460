"""What the other processes of a run do: they repeat the learner's calls, and nothing else.

``accelerate launch`` starts the same command several times; the first process is the run.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.learner import Learner
from reagent_env.trainers.learner_processes import Processes, launched_processes
from reagent_env.trainers.parts import load_for_training
from reagent_env.trainers.policies.policy import Policy


def make_learner(
    config: TrainConfig,
    policy: Policy,
    checkpoint: Path | None,
    fixed_length: int,
    processes: Processes,
) -> Learner:
    """The learner of a run that begins, or goes on from ``checkpoint``; the same in every process.

    Args:
        config: The run's.
        policy: The checkpoint's, or the one that the run begins with.
        checkpoint: Its folder; every process reads it.
        fixed_length: Most tokens of an attempt.
        processes: All of them.
    """
    processes.lead(("begin", (config, checkpoint, fixed_length), {}))
    began_with = None
    if checkpoint is not None and config.kl > 0 and not config.lora_rank:
        began_with = load_for_training(config).model
    return Learner(
        policy, config, fixed_length=fixed_length, reference=began_with, processes=processes
    )


def follow() -> None:
    """Wait for the first process to begin, and compute shares of its updates until it ends."""
    processes = launched_processes()
    _, (config, checkpoint, fixed_length), _ = processes.follow()
    torch.set_num_threads(config.threads or 1)
    policy = load_for_training(config, checkpoint)
    make_learner(config, policy, checkpoint, fixed_length, processes).follow()


def is_follower() -> bool:
    """Whether this process is one of several, and not the first."""
    return int(os.environ.get("RANK", "0")) > 0 and int(os.environ.get("WORLD_SIZE", "1")) > 1
