"""The environment that a plug-in hands to its library: an id or an environment, and reward wrappers.

Every plug-in takes the same keyword arguments, so that swapping the reward is one line in each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium

from reagent_env.reward_models.base import RewardModel
from reagent_env.wrappers import CritiqueRefine, ProcessReward

TextEnv = gymnasium.Env[str, str]
EnvSource = str | TextEnv | Callable[..., TextEnv]
"""A registered id (``module:id`` too), an environment, or a function that makes one."""


def build_env(
    source: EnvSource,
    *,
    judge: RewardModel | str | None = None,
    weight: float = 0.3,
    credit: str = "trajectory",
    when: str = "end",
    attempts: int = 1,
    **env_kwargs: Any,
) -> TextEnv:
    """Make the environment, with ``ProcessReward`` where there is a judge, and refinement if asked.

    Example::

        env = build_env("reagent/SearchQA-v0", judge="rubric", weight=0.3, attempts=2)

    Args:
        source: What to make it from; an environment given is wrapped, not copied.
        judge: A reward model or its name for ``make_reward_model``; None pays the outcome alone.
        weight: λ of ``ProcessReward``; 0 judges and pays nothing.
        credit: ``trajectory`` or ``turn``.
        when: ``end`` or ``step``.
        attempts: More than 1 needs a judge, whose critique opens the next attempt.
        **env_kwargs: Given to ``gym.make`` or to the function.

    Raises:
        ValueError: attempts without a judge, or arguments for an environment already made.
        TypeError: ``source`` is none of the three, or makes no environment of texts.
    """
    if isinstance(source, str):
        env: Any = gymnasium.make(source, **env_kwargs)
    elif isinstance(source, gymnasium.Env):
        if env_kwargs:
            raise ValueError(
                f"The environment is made already; it cannot take {sorted(env_kwargs)}. "
                "Give an id or a function instead."
            )
        env = source
    elif callable(source):
        env = source(**env_kwargs)
    else:
        raise TypeError(f"Expected an id, an environment or a function, got {source!r}.")
    if not isinstance(env, gymnasium.Env):
        raise TypeError(f"{source!r} made no gymnasium.Env, but {type(env).__name__}.")
    if judge is None:
        if attempts != 1:
            raise ValueError(
                f"attempts={attempts} needs a judge, whose critique opens the next attempt; "
                "pass judge='rubric' or another reward model."
            )
        return env
    if isinstance(judge, str):
        from reagent_env.reward_models import make_reward_model

        judge = make_reward_model(judge)
    env = ProcessReward(env, judge, weight=weight, credit=credit, when=when)
    return CritiqueRefine(env, judge, attempts=attempts) if attempts > 1 else env
