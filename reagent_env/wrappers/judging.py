"""What the wrappers that ask a reward model share: asking once, and refusing senseless stacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from reagent_env.env import ToolUseEnv
from reagent_env.judgement import Judgement
from reagent_env.reward_models.base import RewardModel
from reagent_env.trajectory import StopReason


class JudgingWrapper(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs):
    """A wrapper around a tool-use environment that asks a reward model about its attempts."""

    inside: tuple[str, ...] = ()
    """Names of wrappers that may not be inside this one."""
    why: str = ""
    """The reason, for the error."""

    def __init__(self, env: gymnasium.Env[str, str], judge: RewardModel, **arguments: Any) -> None:
        """Refuse what cannot work; record the ``arguments`` for ``env.spec``.

        Raises:
            TypeError: the environment is no ``ToolUseEnv``, or the judge cannot judge.
            ValueError: a wrapper is inside that has to be outside.
        """
        # Not copied: two wrappers share judgements by being given the same judge.
        RecordConstructorArgs.__init__(self, judge=judge, **arguments, _disable_deepcopy=True)
        gymnasium.Wrapper.__init__(self, env)
        name = type(self).__name__
        if not isinstance(env.unwrapped, ToolUseEnv):
            raise TypeError(
                f"{name} needs a tool-use environment, which records trajectories; "
                f"got {env.unwrapped!r}."
            )
        if not callable(getattr(judge, "judge", None)):
            raise TypeError(
                f"{name} needs a reward model with judge(trajectories), got {judge!r}; "
                "make one with reagent_env.reward_models.make_reward_model(name)."
            )
        for wrapper in stack(env):
            if type(wrapper).__name__ in self.inside:
                raise ValueError(f"{name} cannot go around {type(wrapper).__name__}: {self.why}")
        self.judge = judge

    @property
    def inner(self) -> ToolUseEnv:
        """The environment itself."""
        unwrapped = self.env.unwrapped
        assert isinstance(unwrapped, ToolUseEnv)
        return unwrapped

    def judgement(self) -> Judgement:
        """The judge's word on the current attempt as it stands, asked for at most once."""
        kept = self.inner.judgement_by(self.judge)
        if kept is None:
            (kept,) = self.judge.judge([self.inner.trajectory])
            self.inner.keep_judgement(self.judge, kept)
        return kept


def stack(env: gymnasium.Env[Any, Any]) -> list[gymnasium.Env[Any, Any]]:
    """The wrappers around an environment, outermost first."""
    found: list[gymnasium.Env[Any, Any]] = []
    while isinstance(env, gymnasium.Wrapper):
        found.append(env)
        env = env.env
    return found


def attempt_ended(terminated: bool, truncated: bool, info: Mapping[str, Any]) -> bool:
    """Whether a step closed an attempt that counts; one that infrastructure spoiled does not."""
    return (terminated or truncated) and (
        info.get("stop_reason") != StopReason.INFRASTRUCTURE_FAILURE
    )


def shown(judgement: Judgement) -> dict[str, Any]:
    """A judgement for ``info``: without times and costs, which differ from run to run."""
    record = dataclasses.asdict(judgement)
    del record["latency_s"], record["tokens"]
    return record
