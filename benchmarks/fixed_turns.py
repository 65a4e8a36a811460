"""Episodes of so many turns and tokens, whatever is sampled; by the collector, and by the engine alone.

Any completion is read as a call of a tool that always says the same, and goes on to its limit of tokens,
so a policy need not know how to call one, and both sides of a comparison sample as many tokens from
the same prompts. With one turn there is no tool: the completion is the answer. A tool may wait as long
as a heavy-tailed service does. Not here: what is measured (``rollout_rate.py``, ``slow_tools.py``, …).
"""

from __future__ import annotations

import itertools
import math
import queue
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from any_call import FOUND, AnyCall

from reagent_env.env import ToolUseEnv
from reagent_env.task import Task
from reagent_env.tool_definition import Tool, tool
from reagent_env.tool_formats.base import ParsedTurn
from reagent_env.trainers.collector import Collector, Source, assignment, episode_seed
from reagent_env.trainers.engines.base import Sampling
from reagent_env.trainers.engines.hf import HFEngine
from reagent_env.trainers.parts import SWITCH_SECONDS
from reagent_env.trainers.policies.policy import Policy
from reagent_env.trainers.rendering import Renderer
from reagent_env.trajectory import ToolResult

SEED = 0
TAIL = math.log(20.0) / 2.3263479
"""σ of a log-normal distribution whose 99th percentile is 20 times its median."""


@tool(timeout_s=None)
def look(text: str) -> str:
    """Look something up.

    Args:
        text: What to look up.
    """
    return FOUND


class NoCall(AnyCall):
    """Whatever a completion says is the answer."""

    name = "no-call"

    def system_prompt(self, tools: Sequence[Tool]) -> str:
        return "Answer the question."

    def parse(self, completion: str) -> ParsedTurn:
        return ParsedTurn((), completion)


class HeavyTail(gymnasium.Wrapper):  # type: ignore[type-arg]
    """Every turn that calls a tool waits: log-normal, p99 = 20 × median, drawn by the episode's seed."""

    def __init__(self, env: Any, median: float) -> None:
        super().__init__(env)
        self.median = median
        self._waits: Iterator[float] = iter(())

    def reset(self, **given: Any) -> Any:
        self._waits = waits(self.median, given.get("seed") or 0)
        return self.env.reset(**given)

    def step(self, action: str) -> Any:
        if self.env.unwrapped.tool_format.parse(action).calls:
            time.sleep(next(self._waits))
        return self.env.step(action)


def waits(median: float, seed: int) -> Iterator[float]:
    """Seconds that the tools of an episode take, one after another, without end."""
    random = np.random.default_rng((seed, 11))
    while True:
        yield median * math.exp(TAIL * random.standard_normal())


def make_env(turns: int, wait: float = 0.0) -> gymnasium.Env[str, str]:
    """Episodes of ``turns`` turns, of whose tools each takes ``wait`` seconds in the median."""
    tasks = [
        Task(question=f"When was the harbour number {number} built?", answer="1704")
        for number in range(512)
    ]
    env: Any = ToolUseEnv(
        tasks=tasks,
        tools=[look] if turns > 1 else [],
        tool_format=AnyCall() if turns > 1 else NoCall(),
        max_turns=turns,
    )
    return HeavyTail(env, wait) if wait else env


def heavy_tailed_mini_mix(wait: float, **given: Any) -> gymnasium.Env[str, str]:
    """MiniMix, of whose tools each takes ``wait`` seconds more in the median."""
    return HeavyTail(gymnasium.make("reagent/MiniMix-v0", **given), wait)


def fixed_turns(turns: int) -> gymnasium.Env[str, str]:
    """As :func:`make_env`, for ``gymnasium.make``."""
    return make_env(turns)


for _name, _entry in (
    ("bench/HeavyTailedMiniMix-v0", heavy_tailed_mini_mix),
    ("bench/FixedTurns-v0", fixed_turns),
):
    gymnasium.register(_name, entry_point=_entry, disable_env_checker=True)


@dataclass(frozen=True)
class Play:
    """What is played: ``Play(turns=4, groups=8, group_size=8, at_once=64, max_tokens=32)``."""

    turns: int
    groups: int
    """A round."""
    group_size: int
    at_once: int
    """Episodes."""
    max_tokens: int
    """A turn."""
    wait: float = 0.0
    """Median seconds of a tool."""

    @property
    def sampling(self) -> Sampling:
        return Sampling(max_tokens=self.max_tokens)


@contextmanager
def short_turns_at_the_interpreter() -> Iterator[None]:
    """As in training."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def engine_of(policy: Policy, play: Play, *, lockstep: bool = False) -> Iterator[HFEngine]:
    """The engine as ``reagent train`` makes it, but that no token ends a completion."""
    with HFEngine(
        policy.model,
        stop_ids=[],
        context_length=policy.context_length,
        max_live=play.at_once,
        deterministic=lockstep,
        pad_id=int(policy.tokenizer.pad_token_id or 0),
    ) as engine:
        yield engine


@contextmanager
def collector_of(policy: Policy, play: Play, engine: HFEngine) -> Iterator[Collector]:
    """The trainer's collector; its round n plays the groups n · groups … (n + 1) · groups − 1."""
    collector = Collector(
        [Source("fixed-turns", lambda: make_env(play.turns, play.wait), tasks_of(play))],
        [1.0],
        engine,
        Renderer(policy.tokenizer),
        play.sampling,
        seed=SEED,
        groups=play.groups,
        group_size=play.group_size,
        spare_groups=0,
        concurrency=play.at_once,
    )
    with closing(collector):
        yield collector


@dataclass(frozen=True)
class Requests:
    """What the engine is asked in a round, without anybody who asks."""

    openings: tuple[tuple[int, list[int]], ...]
    """(seed, prompt) of each episode."""
    replies: tuple[list[int], list[int]]
    """What is read after a completion: where its turn is not closed, and where it is."""
    stop_ids: frozenset[int]


def requests_of(policy: Policy, play: Play, number: int) -> Requests:
    """Those that the collector's round ``number`` makes, encoded beforehand."""
    renderer = Renderer(policy.tokenizer)
    tasks = tasks_of(play)
    env: Any = make_env(play.turns)
    openings = []
    for group in range(number * play.groups, (number + 1) * play.groups):
        task = tasks[assignment(SEED, group, [(1.0, len(tasks))]).task]
        ids = renderer.opening_ids(env.unwrapped.opening(task)["messages"])
        openings += [(episode_seed(SEED, group, one), list(ids)) for one in range(play.group_size)]
    text = AnyCall().render_results([ToolResult("look", FOUND)])
    unclosed, closed = (list(renderer.reply_ids(text, closed=one)) for one in (False, True))
    return Requests(tuple(openings), (unclosed, closed), frozenset(renderer.stop_ids))


def by_collector(collector: Collector, number: int) -> int:
    """Play the round; the tokens that were sampled."""
    groups = collector.collect(number)
    assert not any(one.masked for group in groups for one in group.rollouts)
    samples = [s for group in groups for one in group.rollouts for s in one.samples]
    return sum(turn >= 0 for sample in samples for turn in sample.turn_of)


def by_engine(engine: HFEngine, asked: Requests, play: Play) -> int:
    """The same requests and nothing else, as many at once; the tokens that were sampled."""
    answered: queue.SimpleQueue[tuple[Any, int, Any]] = queue.SimpleQueue()
    coming = iter(asked.openings)
    tokens = under_way = 0

    def ask(conversation: Any, ids: list[int], turn: int) -> None:
        future = conversation.generate(ids, play.sampling)
        future.add_done_callback(lambda done: answered.put((conversation, turn, done)))

    for seed, ids in itertools.islice(coming, play.at_once):
        ask(engine.open(seed), ids, 1)
        under_way += 1
    while under_way:
        conversation, turn, done = answered.get()
        sampled = done.result().ids
        tokens += len(sampled)
        if turn < play.turns:
            ask(conversation, asked.replies[sampled[-1] in asked.stop_ids], turn + 1)
            continue
        conversation.close()
        following = next(coming, None)
        if following is None:
            under_way -= 1
        else:
            ask(engine.open(following[0]), following[1], 1)
    return tokens


def tasks_of(play: Play) -> Sequence[Task]:
    env: Any = make_env(play.turns)
    tasks: Sequence[Task] = env.unwrapped.tasks
    return tasks
