"""TRL (1.16 and later): any environment in its ``GRPOTrainer``, by its tools or by our own loop.

::

    from reagent_env.plugins.trl import make_environment_factory

    factory = make_environment_factory("reagent/SearchQA-v0", judge="rubric", attempts=2)
    GRPOTrainer(model, environment_factory=factory, train_dataset=factory.dataset(512), args=…)

TRL's own loop parses calls and runs tools one rollout after another; :func:`make_rollout_func` gives
the loop to us: many rollouts at once, calls in the environment's own format, tokens and
log-probabilities as sampled. Both pay one number a rollout to TRL's own trainer;
``TurnCreditGRPOTrainer`` (``trl_trainer.py``) takes turns, attempts and unscored flags to the loss.
Importing this module imports neither TRL nor torch.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reagent_env.env import ToolUseEnv
from reagent_env.plugins.building import EnvSource, TextEnv, build_env
from reagent_env.plugins.trl_environment import (
    ANSWERS,
    ToolEnvironment,
    environment_class,
    inner_env,
    remake,
)
from reagent_env.plugins.trl_record import Played, parts_by_task
from reagent_env.reward_models.base import RewardModel

if TYPE_CHECKING:
    from reagent_env.plugins.trl_rollout import RolloutFunc, make_rollout_func
    from reagent_env.plugins.trl_trainer import TurnCreditGRPOTrainer

__all__ = [
    "EnvironmentFactory",
    "RolloutFunc",
    "TurnCreditGRPOTrainer",
    "make_environment_factory",
    "make_rollout_func",
    "outcome_reward",
    "process_reward",
]

_ELSEWHERE = {
    "RolloutFunc": "trl_rollout",
    "TurnCreditGRPOTrainer": "trl_trainer",
    "make_rollout_func": "trl_rollout",
}
RewardFunc = Callable[..., list[float | None]]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"reagent_env.plugins.{_ELSEWHERE[name]}")
    return getattr(module, name)


def make_environment_factory(
    id_or_env: EnvSource,
    *,
    judge: RewardModel | str | None = None,
    weight: float = 0.3,
    credit: str = "trajectory",
    when: str = "end",
    attempts: int = 1,
    answer: str = "tool",
    warm: int = 8,
    **env_kwargs: Any,
) -> EnvironmentFactory:
    """A factory for ``GRPOTrainer(environment_factory=…)`` and ``AsyncGRPOTrainer``; it can be pickled.

    Example::

        factory = make_environment_factory("reagent/PythonMath-v0", judge="rubric")
        GRPOTrainer(model, environment_factory=factory, train_dataset=factory.dataset(512), args=…)

    Each call that a completion makes is a turn of the environment, in order. With ``attempts=2`` the
    first ``submit_answer`` returns the critique, and the rollout goes on: one sequence, both attempts.

    Args:
        id_or_env: A registered id, a registered environment, or a function that makes one.
        judge: A reward model or its name; None pays the outcome alone.
        weight: λ of the process reward.
        credit: ``trajectory`` or ``turn``; TRL's own trainer takes one number a rollout, so it is
            ``TurnCreditGRPOTrainer``'s estimator that decides who is paid.
        when: ``end`` or ``step``: whether the judge is asked at each turn.
        attempts: More than 1: the critique opens another attempt.
        answer: ``tool``: the policy ends by calling ``submit_answer``, and the class has
            ``get_reward``. ``text``: the text of the last completion is the answer; pass
            ``reward_funcs=factory.reward_funcs``.
        warm: Sandboxes kept ready, where tools need one: TRL runs the tools of one rollout after
            those of another, and each would wait for its sandbox to start.
        **env_kwargs: Given to ``gym.make``, e.g. ``split="train"``, ``sandbox="docker"``.

    Raises:
        ValueError: an argument makes no sense.
        TypeError: the environment cannot be made again, or has no tools.
    """
    if answer not in ANSWERS:
        raise ValueError(f"Unknown answer {answer!r}; known: {', '.join(ANSWERS)}.")
    if answer == "text" and attempts > 1:
        raise ValueError(
            "TRL's loop ends at the first completion without a call, so an answer given as text leaves "
            "no room for a second attempt. Use answer='tool', or make_rollout_func(attempts=2)."
        )
    reward = {
        "judge": judge,
        "weight": weight,
        "credit": credit,
        "when": when,
        "attempts": attempts,
    }
    return EnvironmentFactory(remake(id_or_env), reward, env_kwargs, answer, warm)


class EnvironmentFactory:
    """Makes one environment a call, each of the same class; made by :func:`make_environment_factory`."""

    def __init__(
        self,
        source: Any,
        reward: dict[str, Any],
        env_kwargs: dict[str, Any],
        answer: str,
        warm: int,
    ) -> None:
        self.source = source
        self.reward = reward
        self.env_kwargs = env_kwargs
        self.answer = answer
        self.warm = warm
        self._class: type[ToolEnvironment] | None = None
        self._made: weakref.WeakSet[Any] = weakref.WeakSet()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without what it made: another process makes its own."""
        return EnvironmentFactory, (
            self.source,
            self.reward,
            self.env_kwargs,
            self.answer,
            self.warm,
        )

    def __call__(self) -> ToolEnvironment:
        """One more environment.

        Raises:
            SandboxUnavailable: there is no room for as many sandboxes as rollouts hold at once.
        """
        env = self._make()
        if self._class is None:
            self._class = environment_class(env, self.answer, self._name(env))
        pool = inner_env(env).sandbox_pool
        made = self._class(env, float(self.reward["weight"]), self._made)
        if pool is not None:
            pool.reserve(1)
            weakref.finalize(made, pool.unreserve, 1)
            if pool.min_idle < min(self.warm, pool.max_size):
                pool.min_idle = min(self.warm, pool.max_size)
                pool.acquire().release()  # the first use begins to keep that many ready
        return made

    @property
    def reward_funcs(self) -> list[RewardFunc]:
        """For ``GRPOTrainer(reward_funcs=…)``: empty where the environment has ``get_reward``."""
        return [] if self.answer == "tool" else [outcome_reward, process_reward]

    def dataset(self, count: int, *, seed: int = 0) -> Any:
        """``count`` different tasks as a ``datasets.Dataset`` with ``prompt`` and ``task`` columns.

        Args:
            count: Rows; no more than the environment has tasks.
            seed: Of the choice of tasks.
        """
        env = self._make()
        rows = []
        for index in task_indices(env, count, seed):
            if self.answer == "tool":  # reset() adds the question, the chat template the tools
                prompt = [*_own_words(inner_env(env)), {"role": "user", "content": ""}]
            else:
                prompt = inner_env(env).opening(inner_env(env).tasks[index])["messages"]
            rows.append({"prompt": prompt, "task": index})
        env.close()
        return as_dataset(rows)

    def _make(self) -> TextEnv:
        return build_env(self.source, **self.reward, **self.env_kwargs)

    def _name(self, env: TextEnv) -> str:
        spec = inner_env(env).spec  # a wrapper's would be a copy of all arguments
        name = spec.name if spec is not None else type(env.unwrapped).__name__
        return "".join(one for one in name if one.isalnum()) or "Environment"


def outcome_reward(
    completions: Sequence[Any] = (), environments: Sequence[Any] | None = None, **kwargs: Any
) -> list[float | None]:
    """The outcome of each rollout, the mean of its attempts'; None where infrastructure failed."""
    parts = parts_by_task(_records(completions, environments, kwargs))
    return [None if one is None else one[0] for one in parts]


def process_reward(
    completions: Sequence[Any] = (), environments: Sequence[Any] | None = None, **kwargs: Any
) -> list[float | None]:
    """λ·score of each rollout, the mean of its attempts'; unscored ones are given their group's mean."""
    parts = parts_by_task(_records(completions, environments, kwargs))
    return [None if one is None else one[1] for one in parts]


def task_indices(env: TextEnv, count: int, seed: int) -> list[int]:
    """``count`` different places in the environment's tasks.

    Raises:
        ValueError: there are not as many.
    """
    there = len(inner_env(env).tasks)
    if not 1 <= count <= there:
        raise ValueError(f"count must be from 1 to {there}, the tasks there are; got {count!r}.")
    chosen = np.random.default_rng(seed).permutation(there)[:count]
    return [int(index) for index in chosen]


def as_dataset(rows: Sequence[dict[str, Any]]) -> Any:
    """Rows as a ``datasets.Dataset``.

    Raises:
        ImportError: the extra is not installed; the message says how.
    """
    try:
        from datasets import Dataset
    except ImportError as error:
        raise ImportError("TRL's data sets need: pip install 'reagent-env[trl,train]'") from error
    return Dataset.from_list(list(rows))


def _own_words(inner: ToolUseEnv) -> list[dict[str, Any]]:
    """The environment's system prompt where it is its own: the format's would describe the tools twice."""
    usual = inner.tool_format.system_prompt(list(inner.tools.values()))
    own = inner.system_prompt.replace(usual, "").strip()
    return [{"role": "system", "content": own}] if own else []


def _records(
    completions: Sequence[Any], environments: Sequence[Any] | None, given: dict[str, Any]
) -> list[Played]:
    """The rollouts' records: from the rollout function's extra field, or from the environments."""
    if "played" in given:
        return list(given["played"])
    if environments is None:
        raise ValueError(
            "These reward functions read the rollouts of make_environment_factory(answer='text') or "
            "of make_rollout_func(); the trainer has neither."
        )
    for messages, environment in zip(completions, environments, strict=True):
        last = messages[-1] if isinstance(messages, list) and messages else {}
        if last.get("role") == "assistant" and not last.get("tool_calls"):
            environment._finish(str(last.get("content") or ""))
    return [environment._played() for environment in environments]


def total(parts: tuple[float, float] | None) -> float:
    """Outcome and process together; NaN for a masked rollout."""
    return math.nan if parts is None else sum(parts)
