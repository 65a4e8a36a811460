"""verl (0.9.1): any environment as an agent loop, with turns and attempts in the rewards of its tokens.

Named in the file that ``actor_rollout_ref.rollout.agent.agent_loop_config_path`` points to
(``examples/verl_agent_loop.yaml``)::

    - name: reagent
      _target_: reagent_env.plugins.verl.ReagentAgentLoop
      source: reagent/SearchQA-v0
      judge: rubric
      attempts: 2

and chosen by the data set's column ``agent_name`` (``verl_dataset.py`` writes it). Importing this module
needs verl. ``ReagentAgentLoopManager`` (``agent.agent_loop_manager_class``) does nothing but have this
module imported where advantages are computed, so that verl finds ``reagent_turn`` and its siblings there.
"""

from __future__ import annotations

import asyncio
import functools
import json
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pydantic

from reagent_env.env import ToolUseEnv
from reagent_env.plugins.building import TextEnv, build_env
from reagent_env.plugins.verl_engine import VerlEngine
from reagent_env.plugins.verl_rewards import ESTIMATORS, estimator, token_rewards
from reagent_env.reward_models.base import RewardModel
from reagent_env.trainers.engines.base import Sampling
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.rollout import rollout
from reagent_env.trainers.sample import Rollout

try:
    import torch
    from omegaconf import OmegaConf
    from verl.experimental.agent_loop.agent_loop import (
        AgentLoopBase,
        AgentLoopMetrics,
        AgentLoopOutput,
        register,
    )
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, register_adv_est
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ
except ImportError as error:
    raise ImportError(
        "This plug-in needs verl 0.9.1 and what its agent loops import: pip install "
        f"'reagent-env[verl,train]' (scripts/make-plugin-venv verl). Missing: {error}"
    ) from error

__all__ = ["ReagentAgentLoop", "ReagentAgentLoopManager", "TurnOutput"]

THREADS = 256
"""Episodes of one worker process at once; each waits in a thread of its own."""

for _name in ESTIMATORS:
    if f"reagent_{_name}" not in ADV_ESTIMATOR_REGISTRY:
        register_adv_est(f"reagent_{_name}")(estimator(_name))


class TurnOutput(AgentLoopOutput):  # type: ignore[misc]
    """An output whose tokens have rewards of their own, where verl writes one at the last token."""

    token_rewards: list[float] = pydantic.Field(default_factory=list)
    """[T] of the response; see ``verl_rewards.py``."""

    def as_dict(self) -> dict[str, Any]:
        """verl's tensors, ``rm_scores`` among them."""
        fields: dict[str, Any] = super().as_dict()
        fields.pop("token_rewards", None)
        fields["rm_scores"] = torch.tensor(self.token_rewards, dtype=torch.float32)
        return fields


@register("reagent")
class ReagentAgentLoop(AgentLoopBase):  # type: ignore[misc]
    """Plays one episode: verl's servers sample, our environment answers, every attempt in one response.

    The prompt, the calls' format and the tools are the environment's own; verl's ``tools`` and
    ``multi_turn`` settings are not used.
    """

    def __init__(
        self,
        *args: Any,
        source: str = "",
        judge: RewardModel | str | None = None,
        weight: float = 0.3,
        credit: str = "trajectory",
        when: str = "end",
        attempts: int = 1,
        max_tokens: int = 1024,
        env_kwargs: dict[str, Any] | None = None,
        tools: Any = None,
        **kwargs: Any,
    ) -> None:
        """As verl's base, and:

        Args:
            *args: Of ``AgentLoopBase``.
            source: The environment's id (``module:id`` too), unless the data set's row says another.
            judge: A reward model or its name; None pays the outcome alone.
            weight: λ.
            credit: ``turn`` pays each turn its share at its tokens, ``trajectory`` all at the last.
            when: ``end`` or ``step``: whether the judge is asked at each turn.
            attempts: More than 1: the critique opens another attempt in the same response.
            max_tokens: Of one completion.
            env_kwargs: Given to ``gym.make``.
            tools: verl's, not used.
            **kwargs: Of ``AgentLoopBase``.
        """
        super().__init__(*args, **kwargs)
        self.source = source
        self.weight = float(weight)
        self.credit = credit
        self.max_tokens = int(max_tokens)
        self._reward: tuple[Any, ...] = (judge, self.weight, credit, when, int(attempts))
        self._env_kwargs = json.dumps(_plain(env_kwargs or {}), sort_keys=True)

    async def run(
        self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any
    ) -> TurnOutput:
        """Play the row's task.

        Args:
            sampling_params: Of verl's configuration.
            priority: verl's number of the sample.
            **kwargs: The data set's row; ``extra_info`` names the task.

        Returns:
            The whole episode as one response, observations and critiques masked.

        Raises:
            ValueError: the row names no task.
        """
        extra = dict(kwargs.get("extra_info") or {})
        source = str(extra.get("env_id") or self.source)
        if extra.get("task") is None or not source:
            raise ValueError(
                "The row's extra_info needs `task` (its place among the environment's tasks), and the "
                "agent loop a `source`; reagent_env.plugins.verl_dataset writes such a data set."
            )
        renderer = _renderer(self.tokenizer)
        engine = VerlEngine(
            self.server_manager,
            asyncio.get_running_loop(),
            sampling_params,
            stop_ids=renderer.stop_ids,
            prompt_length=int(self.rollout_config.prompt_length),
            response_length=int(self.rollout_config.response_length),
            request_options={"priority": int(priority)} if priority else {},
        )
        sampling = Sampling(
            temperature=float(sampling_params.get("temperature", 1.0)),
            top_p=float(sampling_params.get("top_p", 1.0)),
            max_tokens=self.max_tokens,
        )

        def play() -> Rollout:
            stock = _stock(source, self._env_kwargs, *self._reward)
            return stock.play(int(extra["task"]), engine, renderer, sampling, int(priority))

        played = await asyncio.get_running_loop().run_in_executor(_threads(), play)
        return self._output(played, engine, renderer)

    def _output(self, played: Rollout, engine: VerlEngine, renderer: Renderer) -> TurnOutput:
        sample = played.samples[0] if played.samples else None
        turn_of = [] if sample is None else sample.turn_of
        begin = next((place for place, turn in enumerate(turn_of) if turn >= 0), None)
        if sample is None or begin is None:  # it failed before a token was sampled
            prompt = list(sample.ids) if sample else [renderer.stop_ids[0]]
            return self._build(prompt, [renderer.stop_ids[0]], [-1], [0.0], played, engine)
        return self._build(
            sample.ids[:begin],
            sample.ids[begin:],
            turn_of[begin:],
            sample.sampled_logprobs[begin:],
            played,
            engine,
        )

    def _build(
        self,
        prompt: list[int],
        response: list[int],
        turn_of: list[int],
        logprobs: list[float],
        played: Rollout,
        engine: VerlEngine,
    ) -> TurnOutput:
        turns = sum(attempt.turns for attempt in played.attempts)
        returns = [a.outcome + self.weight * (a.score or 0.0) for a in played.attempts]
        record = played.trajectory
        scores = [attempt.score for attempt in played.attempts]
        return TurnOutput(
            prompt_ids=list(prompt),
            response_ids=list(response),
            response_mask=[int(0 <= turn < turns) for turn in turn_of],
            response_logprobs=list(logprobs) if engine.has_logprobs else None,
            # One number for who takes no more: the mean over attempts. 0 for a masked rollout, whose
            # tokens are masked and which reagent_* leave out of every mean.
            reward_score=sum(returns) / len(returns) if returns else 0.0,
            token_rewards=token_rewards(turn_of, played.attempts, self.weight, self.credit),
            num_turns=1 + 2 * len(record.turns),
            metrics=AgentLoopMetrics(
                generate_sequences=engine.seconds,
                tool_calls=float(record.timings.get("tools", 0.0)),
                num_preempted=engine.preempted,
            ),
            extra_fields={
                **engine.extra_fields,
                "turn_scores": [list(attempt.turn_scores) for attempt in played.attempts],
                "tool_rewards": [],
                "reward_extra_info": {
                    "outcome": sum(a.outcome for a in played.attempts) / len(returns)
                    if returns
                    else 0.0,
                    "unscored": float(sum(score is None for score in scores)),
                    "masked": float(played.masked),
                },
                "stop_reasons": [str(attempt.stop_reason) for attempt in record.attempts],
                "attempt_turns": [len(attempt.turns) for attempt in record.attempts],
            },
        )


class ReagentAgentLoopManager(AgentLoopManagerTQ):  # type: ignore[misc]
    """verl's own; naming it in the configuration has this module imported, estimators and all."""


class _Stock:
    """Environments of one kind, lent to one episode at a time."""

    def __init__(self, make: Callable[[], TextEnv]) -> None:
        self._make = make
        self._idle: queue.SimpleQueue[TextEnv] = queue.SimpleQueue()
        first = make()
        pool = _inner(first).sandbox_pool
        # An episode keeps its sandbox to its end: more of them than sandboxes would wait in vain.
        self._room = threading.BoundedSemaphore(THREADS if pool is None else pool.max_size)
        self._idle.put(first)

    def play(
        self, task: int, engine: VerlEngine, renderer: Renderer, sampling: Sampling, seed: int
    ) -> Rollout:
        """One episode."""
        with self._room:
            try:
                env = self._idle.get_nowait()
            except queue.Empty:
                env = self._make()
            try:
                chosen = _inner(env).tasks[task]
                played = rollout(env, engine, renderer, chosen, sampling, seed=seed)
            except BaseException:
                env.close()
                raise
            self._idle.put(env)
            return played


@functools.lru_cache(maxsize=16)
def _stock(
    source: str, env_kwargs: str, judge: Any, weight: float, credit: str, when: str, attempts: int
) -> _Stock:
    """This process's environments for these settings."""
    return _Stock(
        lambda: build_env(
            source,
            judge=judge,
            weight=weight,
            credit=credit,
            when=when,
            attempts=attempts,
            **json.loads(env_kwargs),
        )
    )


def _inner(env: TextEnv) -> ToolUseEnv:
    inner = env.unwrapped
    if not isinstance(inner, ToolUseEnv):
        raise TypeError(f"The agent loop plays ToolUseEnv's; got {type(inner).__name__}.")
    return inner


def _plain(given: Any) -> Any:
    """Settings from hydra as plain lists and dicts."""
    return OmegaConf.to_container(given, resolve=True) if OmegaConf.is_config(given) else given


_renderers: dict[int, tuple[Any, Renderer]] = {}
_lock = threading.Lock()
_executor: list[ThreadPoolExecutor] = []


def _renderer(tokenizer: Any) -> Renderer:
    """The tokenizer's renderer, made once."""
    with _lock:
        if id(tokenizer) not in _renderers:
            _renderers[id(tokenizer)] = (tokenizer, Renderer(tokenizer))
        return _renderers[id(tokenizer)][1]


def _threads() -> ThreadPoolExecutor:
    with _lock:
        if not _executor:
            _executor.append(ThreadPoolExecutor(THREADS, thread_name_prefix="reagent-episode"))
        return _executor[0]
