"""SkyRL-gym on our environments: a ``BaseTextEnv`` over any id, and masks for spoiled episodes.

SkyRL makes an environment a trajectory; made ones are kept here and used again. Its generator puts
each step's reward on that turn's last token, so process rewards reach the loss turn by turn
(``when="step"``).
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reagent_env.env import ToolUseEnv
from reagent_env.plugins.building import EnvSource, TextEnv, build_env

try:
    import skyrl_gym
    from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "skyrl-gym is not installed: pip install 'reagent-env[skyrl]'."
    ) from error

Messages = list[dict[str, str]]
MAX_IDLE = 256
"""Made environments kept for later trajectories, a registered name."""

_idle: defaultdict[tuple[str, int], list[TextEnv]] = defaultdict(list)
_registrations = itertools.count()
_lock = threading.Lock()


def register_skyrl(name: str, source: EnvSource, **build: Any) -> None:
    """Register an environment with SkyRL-gym; call it inside the Ray task, as SkyRL asks.

    Example::

        register_skyrl("searchqa", "reagent/SearchQA-v0", judge="rubric", when="step")
        env = skyrl_gym.make("searchqa", extras={"task": 3, "max_turns": 8})

    Args:
        name: SkyRL's ``env_class``.
        source: A registered id, or a function that makes an environment.
        **build: As in :func:`~reagent_env.plugins.building.build_env`.
    """
    skyrl_gym.register(
        name,
        SkyRLEnv,
        kwargs={"key": (name, next(_registrations)), "source": source, "build": build},
    )


def dataset_rows(
    name: str, source: EnvSource, split: str | None = "train", **env_kwargs: Any
) -> Iterable[dict[str, Any]]:
    """One row a task, as SkyRL's ``PromptDataset`` reads them: write them to a parquet file.

    Example: ``{"prompt": [{"role": "user", "content": …}], "env_class": "searchqa", "task": "6f0c…"}``.
    """
    if split is not None:
        env_kwargs["split"] = split
    env = build_env(source, **env_kwargs)
    inner = env.unwrapped
    if not isinstance(inner, ToolUseEnv):
        raise TypeError(f"Only a ToolUseEnv lists its tasks; got {inner!r}. Give rows of your own.")
    for task in inner.tasks:
        yield {
            "prompt": inner.opening(task)["messages"],
            "env_class": name,
            "task": task.id,
        }
    env.close()


class SkyRLEnv(BaseTextEnv):  # type: ignore[misc]
    """One trajectory: ``init`` resets, ``step`` takes a completion, ``close`` gives the environment back.

    ``extras`` is the data set's row: ``task`` (an id, an index or a ``Task``) or ``seed`` chooses
    the task, ``max_turns`` (SkyRL's ``generator.max_turns``) bounds the turns of an attempt.
    ``metadata`` of a step is the environment's ``info``, with ``left_out`` True for an episode that
    infrastructure spoiled, whose reward is NaN: see :func:`leave_spoiled_out`.
    """

    def __init__(
        self,
        env_config: Any = None,
        extras: Mapping[str, Any] | None = None,
        *,
        key: tuple[str, int],
        source: EnvSource,
        build: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.extras = dict(extras or {})
        self._key = key
        with _lock:
            idle = _idle[key].pop() if _idle[key] else None
        self.env = build_env(source, **build) if idle is None else idle
        self._open = True
        self._own_limit = getattr(self.env.unwrapped, "max_turns", None)
        if self.extras.get("max_turns") and isinstance(self.env.unwrapped, ToolUseEnv):
            self.env.unwrapped.max_turns = int(self.extras["max_turns"])
        self.max_turns = getattr(self.env.unwrapped, "max_turns", 1)
        self._return = 0.0
        self._last: dict[str, Any] = {}

    def init(self, prompt: Messages | None = None) -> tuple[Messages, dict[str, Any]]:
        """The task as chat messages (the environment's own, in place of ``prompt``), and ``info``."""
        task = self.extras.get("task")
        observation, info = self.env.reset(
            seed=self.extras.get("seed"), options=None if task is None else {"task": task}
        )
        self._return, self._last, self.turns = 0.0, {}, 0
        messages: Messages = info.get("messages") or [{"role": "user", "content": observation}]
        return messages, info

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """One completion: what follows as a user's message, that turn's reward, whether it is over."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        paid = float(reward)
        done = terminated or truncated
        self.turns += 1
        self._return += paid
        self._last = info
        return BaseTextEnvStepOutput(
            observations=[] if done else [{"role": "user", "content": observation}],
            reward=paid,
            done=done,
            metadata={**info, "left_out": math.isnan(paid)},
        )

    def get_metrics(self) -> dict[str, Any]:
        """Numbers that SkyRL averages over episodes; a spoiled one has no return or outcome."""
        metrics: dict[str, Any] = {"turns": self.turns, "left_out": float(math.isnan(self._return))}
        if not math.isnan(self._return):
            metrics["return"] = self._return
            for key in ("reward/outcome", "reward/process"):
                if self._last.get(key) is not None:
                    metrics[key.replace("/", "_")] = float(self._last[key])
        return metrics

    def close(self) -> None:
        """Give the environment back for the next trajectory. Twice is fine."""
        if not self._open:
            return
        self._open = False
        if isinstance(self.env.unwrapped, ToolUseEnv):
            self.env.unwrapped.max_turns = self._own_limit or self.max_turns
        with _lock:
            if len(_idle[self._key]) < MAX_IDLE:
                _idle[self._key].append(self.env)
                return
        self.env.close()


def close_idle(name: str | None = None) -> int:
    """Close environments that wait for a trajectory, of one name or all; how many there were."""
    with _lock:
        keys = [key for key in _idle if name in (None, key[0])]
        waiting = [env for key in keys for env in _idle.pop(key)]
    for env in waiting:
        env.close()
    return len(waiting)


def leave_spoiled_out(
    output: dict[str, Any], groups: Sequence[str] | None = None
) -> dict[str, Any]:
    """A generator's output in which spoiled trajectories (a NaN among the rewards) train nothing.

    Their loss masks become 0, and their reward the mean return of their group's others (on the last
    token), so that the group's mean is what it is without them. Wrap ``generate`` with it::

        class Generator(SkyRLGymGenerator):
            async def generate(self, batch, disable_tqdm=False):
                output = await super().generate(batch, disable_tqdm)
                return leave_spoiled_out(output, [t.instance_id for t in batch["trajectory_ids"]])

    Args:
        output: SkyRL's ``GeneratorOutput``: ``rewards`` (a number, or a list a token, for each
            trajectory) and ``loss_masks``.
        groups: The group of each trajectory; one group by default.
    """
    rewards = list(output["rewards"])
    returns = [math.fsum(one) if isinstance(one, Sequence) else float(one) for one in rewards]
    masks = [list(mask) for mask in output["loss_masks"]]
    names = list(groups) if groups is not None else ["all"] * len(rewards)
    sound: defaultdict[str, list[float]] = defaultdict(list)
    for group, value in zip(names, returns, strict=True):
        if not math.isnan(value):
            sound[group].append(value)
    for place, (group, value) in enumerate(zip(names, returns, strict=True)):
        if math.isnan(value):
            others = sound[group]
            neutral = math.fsum(others) / len(others) if others else 0.0
            one = rewards[place]
            in_place = isinstance(one, Sequence)
            rewards[place] = [0.0] * (len(one) - 1) + [neutral] if in_place else neutral
            masks[place] = [0] * len(masks[place])
    return {**output, "rewards": rewards, "loss_masks": masks}
