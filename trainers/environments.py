"""The environments of a run: made by id, with the wrappers that its rewards ask for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium

from reagent_env.agents.refine import ShuffledCritiques
from reagent_env.env import ToolUseEnv
from reagent_env.reward_models.base import RewardModel
from reagent_env.trainers.config import TrainConfig
from reagent_env.wrappers import CritiqueRefine, ProcessReward
from reagent_env.wrappers.critique_refine import Feedback


def make_env(
    env_id: str,
    *,
    split: str,
    sandbox: str = "auto",
    tool_format: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> gymnasium.Env[str, str]:
    """The environment of that id (or ``module:id``) on one split.

    ``split`` and ``sandbox`` are passed on where the environment's constructor takes them, so that
    an environment of one's own need not know them; ``auto`` does not replace a registered sandbox.

    Args:
        env_id: As ``gymnasium.make`` takes it.
        split: ``train``, ``validation``, ``test`` or ``all``.
        sandbox: ``auto``, ``docker``, ``embedded`` or ``process``.
        tool_format: Where neither the registration nor ``kwargs`` says one.
        kwargs: Keyword arguments of the environment; they win.

    Raises:
        ValueError: it is no tool-use environment.
        gymnasium.error.Error: no such id.
    """
    given = dict(kwargs or {})
    registered, accepted = _registration(env_id)
    wanted = {"split": split, "sandbox": sandbox}
    if sandbox == "auto" and "sandbox" in registered:
        del wanted["sandbox"]
    if tool_format is not None and "tool_format" not in registered:
        wanted["tool_format"] = tool_format
    for name, value in wanted.items():
        if accepted is None or name in accepted:
            given.setdefault(name, value)
    env = gymnasium.make(env_id, disable_env_checker=True, **given)
    if not isinstance(env.unwrapped, ToolUseEnv):
        env.close()
        raise ValueError(
            f"{env_id} is a {type(env.unwrapped).__name__}, not a ToolUseEnv: a policy that writes "
            "tool calls cannot act in it."
        )
    return env


def with_rewards(
    env: gymnasium.Env[str, str],
    config: TrainConfig,
    judge: RewardModel | None,
    exchange: Feedback | None = None,
) -> gymnasium.Env[str, str]:
    """``env`` with the rewards that the configuration asks for: its process, and further attempts.

    Args:
        env: Without any.
        config: Says which.
        judge: Scores and criticises.
        exchange: Where critiques are exchanged (``feedback="shuffled"``): the same for every
            environment of the run.
    """
    if judge is not None:
        env = ProcessReward(
            env, judge, weight=config.weight, credit=config.credit, when=config.when
        )
    if config.attempts > 1:
        feedback: str | Feedback = config.feedback
        if feedback == "shuffled":
            feedback = exchange or ShuffledCritiques()
        env = CritiqueRefine(env, judge or NoJudge(), attempts=config.attempts, feedback=feedback)
    return env


class NoJudge:
    """Stands where a wrapper wants a judge whose word is not used: after neutral feedback."""

    def judge(self, trajectories: Any, /) -> list[Any]:
        """Say that nobody judged."""
        from reagent_env.judgement import Judgement

        return [Judgement(unscored="other: no judge in this run") for _ in trajectories]


def has_splits(env_id: str) -> bool:
    """Whether the environment of that id can be made on one split: else all its tasks are one."""
    accepted = _registration(env_id)[1]
    return accepted is None or "split" in accepted


def _registration(env_id: str) -> tuple[frozenset[str], frozenset[str] | None]:
    """Names that the registration sets, and those the constructor takes (None: any)."""
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    spec = gymnasium.spec(name)
    entry: Any = spec.entry_point
    if isinstance(entry, str):
        entry = gymnasium.envs.registration.load_env_creator(entry)
    parameters = inspect.signature(entry).parameters if entry is not None else {}
    anything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    return frozenset(spec.kwargs), None if anything else frozenset(parameters)
