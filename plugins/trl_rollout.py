"""TRL's ``rollout_func``: our own loop plays the episodes, TRL's trainer learns from their tokens.

Many rollouts at once, each in a thread, all in one engine that samples from the trainer's model (or in
an engine of your own, a vLLM server's say). Ids and log-probabilities are those that were sampled,
calls are written in the environment's own format by the tokenizer's own chat template, which need not
know of tools. Not here: what is done with the rewards (``trl_trainer.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from reagent_env.agents.workers import Workers
from reagent_env.plugins.building import EnvSource, TextEnv, build_env
from reagent_env.plugins.trl import (
    RewardFunc,
    as_dataset,
    outcome_reward,
    process_reward,
    task_indices,
)
from reagent_env.plugins.trl_environment import inner_env, remake
from reagent_env.plugins.trl_record import Played
from reagent_env.trainers.engines.base import Engine, Sampling
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.rollout import rollout
from reagent_env.trainers.sample import Rollout

MakeEngine = Callable[[Any, Renderer], Engine]
"""From the trainer and its renderer to an engine whose weights whoever made it keeps up to date."""

_NAME = "task-"


def make_rollout_func(
    id_or_env: EnvSource,
    *,
    judge: Any = None,
    weight: float = 0.3,
    credit: str = "trajectory",
    when: str = "end",
    attempts: int = 1,
    max_tokens: int | None = None,
    concurrency: int = 32,
    engine: MakeEngine | None = None,
    **env_kwargs: Any,
) -> RolloutFunc:
    """A function for ``GRPOTrainer(rollout_func=…)``.

    Example::

        play = make_rollout_func("reagent/MiniMix-v0", judge="rubric", attempts=2)
        GRPOTrainer(model, rollout_func=play, reward_funcs=play.reward_funcs,
                    train_dataset=play.dataset(512), processing_class=tokenizer, args=…)

    Args:
        id_or_env: A registered id, a registered environment, or a function that makes one.
        judge: A reward model or its name; None pays the outcome alone.
        weight: λ of the process reward.
        credit: ``trajectory`` or ``turn``.
        when: ``end`` or ``step``.
        attempts: More than 1: the critique opens another attempt, in the same sequence.
        max_tokens: Of one completion; by default the trainer's ``max_completion_length``.
        concurrency: Episodes at once.
        engine: Makes what samples; by default the trainer's model itself, in this process.
        **env_kwargs: Given to ``gym.make``, e.g. ``split="train"``.
    """
    reward = {
        "judge": judge,
        "weight": weight,
        "credit": credit,
        "when": when,
        "attempts": attempts,
    }
    return RolloutFunc(remake(id_or_env), reward, env_kwargs, max_tokens, concurrency, engine)


class RolloutFunc:
    """Plays a batch of prompts; made by :func:`make_rollout_func`. Close it when training is over."""

    def __init__(
        self,
        source: Any,
        reward: dict[str, Any],
        env_kwargs: dict[str, Any],
        max_tokens: int | None,
        concurrency: int,
        engine: MakeEngine | None,
    ) -> None:
        self.source = source
        self.reward = reward
        self.env_kwargs = env_kwargs
        self.max_tokens = max_tokens
        self.concurrency = concurrency
        self.rollouts: list[Rollout] = []
        """Of the last batch, with their trajectories."""
        self._make_engine = engine or model_engine
        self._engine: Engine | None = None
        self._renderer: Renderer | None = None
        self._workers: Workers[tuple[int, int, Sampling], Rollout] | None = None
        self._calls = 0

    @property
    def reward_funcs(self) -> list[RewardFunc]:
        """For ``GRPOTrainer(reward_funcs=…)``."""
        return [outcome_reward, process_reward]

    def dataset(self, count: int, *, seed: int = 0) -> Any:
        """``count`` different tasks as a ``datasets.Dataset`` whose prompts name them.

        A rollout function is given prompts and nothing else, so the user's message carries the task in
        its ``name``.
        """
        with closing(self._make()) as env:
            inner = inner_env(env)
            rows = []
            for index in task_indices(env, count, seed):
                messages = inner.opening(inner.tasks[index])["messages"]
                named = [{"name": None, **message} for message in messages[:-1]]
                rows.append(
                    {"prompt": [*named, {**messages[-1], "name": f"{_NAME}{index}"}], "task": index}
                )
        return as_dataset(rows)

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        """Play an episode for each prompt.

        Returns:
            TRL's ``prompt_ids``, ``completion_ids``, ``logprobs`` and ``env_mask``, one list a
            rollout, and ``played``: a :class:`~reagent_env.plugins.trl_record.Played` each.
        """
        tasks = [task_of(prompt) for prompt in prompts]
        was_training = trainer.model.training  # before an engine is made, which samples in eval()
        engine, workers = self._ready(trainer)
        sampling = Sampling(
            temperature=float(trainer.temperature),
            top_p=float(trainer.top_p),
            max_tokens=self.max_tokens or int(trainer.max_completion_length),
        )
        self._calls += 1
        engine.resume(self._calls)  # the weights have changed since: nothing kept of them is used
        try:
            running = [
                workers.play((task, self._seed(trainer, place), sampling))
                for place, task in enumerate(tasks)
            ]
            self.rollouts = [one.result() for one in running]
        finally:
            engine.pause()
            trainer.model.train(was_training)
        return self._fields(trainer)

    def close(self) -> None:
        """Stop the threads and the engine. Twice is fine."""
        if self._workers is not None:
            self._workers.stop()
            self._workers = None
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _make(self) -> TextEnv:
        return build_env(self.source, **self.reward, **self.env_kwargs)

    def _ready(self, trainer: Any) -> tuple[Engine, Workers[tuple[int, int, Sampling], Rollout]]:
        if self._engine is None or self._workers is None:
            tokenizer = getattr(trainer, "_tokenizer", trainer.processing_class)
            self._renderer = Renderer(tokenizer)
            self._engine = self._make_engine(trainer, self._renderer)
            with closing(self._make()) as env:
                pool = inner_env(env).sandbox_pool
            # An episode keeps its sandbox to its end: more of them than sandboxes would wait in vain.
            count = self.concurrency if pool is None else min(self.concurrency, pool.max_size)
            self._workers = Workers(self._seat, count, "trl-rollout")
        return self._engine, self._workers

    @contextmanager
    def _seat(
        self, stopping: threading.Event
    ) -> Iterator[Callable[[tuple[int, int, Sampling]], Rollout]]:
        """One thread's environment, and the function that plays an episode in it."""
        engine, renderer = self._engine, self._renderer
        assert engine is not None
        assert renderer is not None
        with closing(self._make()) as env:

            def play(job: tuple[int, int, Sampling]) -> Rollout:
                index, seed, sampling = job
                task = inner_env(env).tasks[index]
                return rollout(env, engine, renderer, task, sampling, seed=seed, stopping=stopping)

            yield play

    def _seed(self, trainer: Any, place: int) -> int:
        entropy = (
            int(trainer.args.seed),
            self._calls,
            int(trainer.accelerator.process_index),
            place,
        )
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def _fields(self, trainer: Any) -> dict[str, Any]:
        fields: dict[str, list[Any]] = {
            name: [] for name in ("prompt_ids", "completion_ids", "logprobs", "env_mask", "played")
        }
        end = int(trainer.processing_class.eos_token_id)
        for one in self.rollouts:
            for name, value in as_fields(one, float(self.reward["weight"]), end).items():
                fields[name].append(value)
        return fields


def as_fields(one: Rollout, weight: float, end: int) -> dict[str, Any]:
    """A rollout in TRL's fields: prompt up to the first sampled token, completion from there.

    A rollout that failed before it sampled anything gets one end-of-turn token, masked: TRL cannot
    take an empty completion.
    """
    sample = one.samples[0] if one.samples else None
    sampled = [] if sample is None else [place for place, t in enumerate(sample.turn_of) if t >= 0]
    reasons = tuple(str(attempt.stop_reason) for attempt in one.trajectory.attempts)
    task = one.trajectory.task.id
    if sample is None or not sampled:
        ids = [end] if sample is None or not sample.ids else list(sample.ids)
        played = Played(task, (), reasons, weight, turn_of=(-1,))
        return {
            "prompt_ids": ids,
            "completion_ids": [end],
            "logprobs": [0.0],
            "env_mask": [0],
            "played": played,
        }
    begin = sampled[0]
    turn_of = tuple(sample.turn_of[begin:])
    trained = 0 if one.masked else sum(attempt.turns for attempt in one.attempts)
    return {
        "prompt_ids": list(sample.ids[:begin]),
        "completion_ids": list(sample.ids[begin:]),
        "logprobs": list(sample.sampled_logprobs[begin:]),
        "env_mask": [int(0 <= turn < trained) for turn in turn_of],
        "played": Played(task, one.attempts, reasons, weight, turn_of=turn_of),
    }


def task_of(prompt: Any) -> int:
    """The task's place that a prompt of :meth:`RolloutFunc.dataset` names.

    Raises:
        ValueError: it names none.
    """
    name = prompt[-1].get("name") if isinstance(prompt, list) and prompt else None
    if not isinstance(name, str) or not name.removeprefix(_NAME).isdigit():
        raise ValueError(
            f"The prompt names no task: expected {_NAME!r} and a number in the `name` of its last "
            f"message, got {name!r}. Make the data set with dataset(count) of the rollout function."
        )
    return int(name.removeprefix(_NAME))


def model_engine(trainer: Any, renderer: Renderer) -> Engine:
    """Samples from the trainer's own model, in this process.

    Raises:
        ValueError: the model is spread over processes, and no one of them holds all of it.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError(
            "The model is sharded (FSDP or DeepSpeed), so this process cannot sample from it. Pass "
            "engine=, e.g. one that talks to a vLLM server (reagent_env.trainers.engines.vllm)."
        )
    from reagent_env.trainers.engines.hf import HFEngine
    from reagent_env.trainers.policies.pretrained import context_length

    model = trainer.accelerator.unwrap_model(trainer.model)
    tokenizer = getattr(trainer, "_tokenizer", trainer.processing_class)
    engine: Engine = HFEngine(
        model,
        stop_ids=renderer.stop_ids,
        context_length=context_length(model, tokenizer),
        pad_id=int(tokenizer.pad_token_id),
    )
    return engine
