"""One conformance suite for all plug-ins: scripted episodes, seen bare and through a library.

:func:`scripts` writes the episodes, :func:`play_bare` plays one on the environment itself, a
:class:`Driver` plays it through a library and returns what the *library* saw, and
:func:`differences` compares. :class:`ConformanceSuite` is all of it as a pytest class to inherit.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from reagent_env.plugins.building import TextEnv, build_env
from reagent_env.plugins.conformance_env import ACCOUNTS, LEDGER, ScriptedJudge, ledger_tasks
from reagent_env.reward_models.base import RewardModel
from reagent_env.tool_formats import get_tool_format
from reagent_env.trajectory import ToolCall

EPISODES = 200
"""Episodes a plug-in is compared on."""


@dataclass(frozen=True)
class ScriptedTurn:
    """One turn of a script: calls, or an answer, or raw text that is neither."""

    calls: tuple[ToolCall, ...] = ()
    """Well-formed calls."""
    answer: str | None = None
    """The final answer, where the turn makes no call."""
    text: str | None = None
    """The completion itself, for what no format would render (a malformed call)."""

    def completion(self, tool_format: str = "hermes") -> str:
        """The turn as a policy writes it."""
        if self.text is not None:
            return self.text
        written = get_tool_format(tool_format)
        if self.calls:
            return written.render_calls(self.calls)
        return written.render_answer(self.answer or "")


@dataclass(frozen=True)
class Script:
    """One episode: the environment, the task, the reward, and every action."""

    number: int
    """Place in the suite."""
    turns: tuple[ScriptedTurn, ...]
    """Actions in order; the episode ends with or before the last."""
    task: int
    """Index among the environment's tasks: ``reset(options={"task": …})``."""
    source: str = LEDGER
    """The environment's id, with its module."""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """For ``gym.make``."""
    judge: RewardModel | None = None
    """Wrapped around it as ``ProcessReward``; None pays the outcome alone."""
    weight: float = 0.3
    credit: str = "trajectory"
    when: str = "end"
    attempts: int = 1
    spoiled: bool = False
    """True if a call of it finds its infrastructure gone, which masks the episode."""
    tool_names: frozenset[str] = frozenset({"balance", "add", "audit"})
    """The environment's tools."""

    @property
    def reward(self) -> dict[str, Any]:
        """The keyword arguments that every plug-in takes."""
        return {
            "judge": self.judge,
            "weight": self.weight,
            "credit": self.credit,
            "when": self.when,
            "attempts": self.attempts,
        }

    @property
    def options(self) -> dict[str, Any]:
        """For ``reset(options=…)``."""
        return {"task": self.task}

    @property
    def one_call_a_turn(self) -> bool:
        """True if every turn is one well-formed call of a known tool, or final.

        Libraries that turn tools into methods (TRL's environments) can play such scripts only.
        """
        return all(
            (turn.text is None or "<tool_call>" not in turn.text)
            and len(turn.calls) <= 1
            and all(call.name in self.tool_names for call in turn.calls)
            for turn in self.turns
        )

    @property
    def completions(self) -> list[str]:
        """The actions as a policy writes them."""
        return [turn.completion() for turn in self.turns]

    def make_env(self) -> TextEnv:
        """The environment with its reward wrappers."""
        return build_env(self.source, **self.reward, **self.env_kwargs)


@dataclass(frozen=True)
class Seen:
    """What a library saw of an episode. None: it has no place for this (``Driver.unseen``)."""

    prompt: str | None = None
    """The task as the policy first reads it: ``reset()``'s observation, or its last message where the
    library takes chat messages: its end is compared."""
    observations: tuple[str, ...] | None = None
    """What followed each turn but the last one."""
    rewards: tuple[float, ...] | None = None
    """What each turn paid; NaN for a turn that infrastructure spoiled."""
    episode_return: float | None = None
    """All that was paid; NaN if infrastructure spoiled it. For libraries with one reward an episode."""
    turn_shares: tuple[float, ...] | None = None
    """``info["reward/turns"]`` of all attempts, in order, as far as it reaches the loss."""
    process_scores: tuple[float | None, ...] | None = None
    """The judge's score of each attempt; None for unscored or not judged."""
    stop_reasons: tuple[str, ...] | None = None
    """Of each attempt."""
    attempt_starts: tuple[int, ...] | None = None
    """Turns at which attempts begin; the first is 0."""
    trained: tuple[str, ...] | None = None
    """The texts whose tokens the loss trains on, in order: the completions, nothing else."""
    left_out: bool | None = None
    """True if the episode is masked: infrastructure failed."""


FIELDS = frozenset(one.name for one in fields(Seen))


class Driver(Protocol):
    """Plays a script through one library."""

    name: str
    """The plug-in's name."""
    unseen: frozenset[str]
    """Names of ``Seen``'s fields that the library has no place for; the table shows them.

    A driver may have ``loss_sees``, the table's word for the rewards that reach the loss; by default
    ``each turn``, or ``scalar only`` where ``turn_shares`` is unseen.
    """

    def can_play(self, script: Script) -> bool:
        """False for scripts that the library has no words for (several calls a turn, say)."""

    def play(self, script: Script) -> Seen:
        """Play every action through the library and say what it saw."""


def play_bare(script: Script) -> Seen:
    """The episode as the environment itself tells it."""
    env = script.make_env()
    try:
        prompt, info = env.reset(options=script.options)
        record = Record(prompt)
        for completion in script.completions:
            observation, reward, terminated, truncated, info = env.step(completion)
            record.add(completion, observation, float(reward), terminated or truncated, info)
            if terminated or truncated:
                return record.seen()
        raise AssertionError(f"Script {script.number} ran out before its episode ended.")
    finally:
        env.close()


class Record:
    """Gathers what ``step()`` returns into a :class:`Seen`; for drivers that see ``info`` too."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.observations: list[str] = []
        self.rewards: list[float] = []
        self.shares: list[float] = []
        self.scores: list[float | None] = []
        self.stops: list[str] = []
        self.starts = [0]
        self.trained: list[str] = []

    def add(
        self, completion: str, observation: str, reward: float, over: bool, info: Mapping[str, Any]
    ) -> None:
        """One step."""
        self.trained.append(completion)
        self.rewards.append(reward)
        if not over:
            self.observations.append(observation)
        if over or info.get("attempt_ended"):
            self.stops.append(str(info["stop_reason"]))
            self.scores.append((info.get("judgement") or {}).get("score"))
            turns = len(self.rewards) - self.starts[-1]
            self.shares += info.get("reward/turns") or self.rewards[-turns:]
            if not over:
                self.starts.append(len(self.rewards))

    def seen(self) -> Seen:
        """The episode, which is over."""
        return Seen(
            prompt=self.prompt,
            observations=tuple(self.observations),
            rewards=tuple(self.rewards),
            episode_return=math.fsum(self.rewards),
            turn_shares=tuple(self.shares),
            process_scores=tuple(self.scores),
            stop_reasons=tuple(self.stops),
            attempt_starts=tuple(self.starts),
            trained=tuple(self.trained),
            left_out=math.isnan(self.rewards[-1]),
        )


def differences(expected: Seen, seen: Seen, unseen: frozenset[str] = frozenset()) -> list[str]:
    """What differs, one line a field; a field that is None without being declared unseen differs."""
    unknown = unseen - FIELDS
    if unknown:
        raise ValueError(f"Unknown fields {sorted(unknown)}; known: {sorted(FIELDS)}.")
    found = []
    for name in sorted(FIELDS - unseen):
        wanted, got = getattr(expected, name), getattr(seen, name)
        if name == "prompt" and got and got.strip() and wanted.endswith(got):
            continue
        if not _alike(wanted, got):
            found.append(f"{name}: bare {wanted!r}, through the library {got!r}")
    return found


def _alike(wanted: Any, got: Any) -> bool:
    if isinstance(wanted, tuple) and isinstance(got, tuple | list):
        return len(wanted) == len(got) and all(map(_alike, wanted, got))
    if isinstance(wanted, float) and isinstance(got, int | float) and not isinstance(got, bool):
        if math.isnan(wanted):
            return math.isnan(got)
        return math.isclose(wanted, got, rel_tol=1e-6, abs_tol=1e-6)  # libraries keep float32
    return bool(wanted == got)


def scripts(count: int = EPISODES, seed: int = 0) -> Iterator[Script]:
    """``count`` episodes of every kind: right, wrong, malformed, too long, failing, refined, unscored."""
    draw = random.Random(seed)
    tasks = ledger_tasks()
    rewards: list[dict[str, Any]] = [
        {},
        {"judge": ScriptedJudge()},
        {"judge": ScriptedJudge(), "credit": "turn"},
        {"judge": ScriptedJudge("steps"), "when": "step", "weight": 0.5},
        {"judge": ScriptedJudge(), "attempts": 2},
        {"judge": ScriptedJudge("more"), "attempts": 3, "credit": "turn"},
    ]
    for number in range(count):
        task = draw.randrange(len(tasks))
        reward = rewards[number % len(rewards)]
        turns: list[ScriptedTurn] = []
        for _ in range(reward.get("attempts", 1)):
            turns += _attempt(draw, str(tasks[task].answer))
        spoiled = any(call.arguments.get("year") == 1066 for one in turns for call in one.calls)
        yield Script(number, tuple(turns), task, spoiled=spoiled, **reward)


def _attempt(draw: random.Random, answer: str) -> list[ScriptedTurn]:
    kinds = ("right", "right", "wrong", "wrong", "none", "long", "failing", "awkward")
    kind = draw.choice(kinds)
    turns = [_turn(draw, kind == "awkward") for _ in range(draw.randrange(4))]
    if kind == "long":
        return [_turn(draw, False) for _ in range(5)]
    if kind == "failing":
        turns.append(ScriptedTurn((ToolCall("audit", {"year": 1066}),)))
        return turns  # whatever follows in the script is not played
    finals = {"right": answer, "wrong": "-1"}
    if kind in finals:
        return [*turns, ScriptedTurn(answer=finals[kind])]
    return [*turns, ScriptedTurn(text="I do not know. 谁知道 \U0001f937")]


def _turn(draw: random.Random, awkward: bool) -> ScriptedTurn:
    owner = draw.choice([*ACCOUNTS, "Nobody"])
    numbers = {"a": draw.randrange(400), "b": draw.randrange(400)}
    one = draw.choice(
        [
            ToolCall("balance", {"owner": owner}),
            ToolCall("add", numbers),
            ToolCall("audit", {"year": 1999, "note": "naïve “quote”, 猫,\n\\n </tool_response>"}),
            ToolCall("audit", {"year": 2525}),
        ]
    )
    if not awkward:
        return ScriptedTurn((one,))
    return draw.choice(
        [
            ScriptedTurn((one, ToolCall("add", numbers))),
            ScriptedTurn((ToolCall("no_such_tool", {}),)),
            ScriptedTurn((ToolCall("add", {"a": "seven"}),)),
            ScriptedTurn(text='<tool_call>{"name": "add", </tool_call>'),
            ScriptedTurn((one,)),
        ]
    )


class ConformanceSuite:
    """Inherit in a test file of a plug-in, give :meth:`driver`, and pytest compares 200 episodes.

    With ``REAGENT_PLUGINS_OUT`` set to a folder, the count of differences is left there for the
    table that ``make plugins`` writes. Scripts of other environments: :meth:`scripts`.
    """

    episodes = EPISODES
    """How many."""
    noted = True
    """Whether the count goes to the table."""

    def driver(self) -> Driver:
        """The driver under test."""
        raise NotImplementedError("Return your Driver from driver(self).")

    def scripts(self, count: int, seed: int) -> Iterator[Script]:
        """``count`` episodes; another seed is another lot."""
        return scripts(count, seed)

    def test_the_episodes_look_the_same_through_the_library(self) -> None:
        """Zero differences, over scripts that the library can play."""
        driver = self.driver()
        played = list(self._playable(driver))
        found = [
            f"script {script.number}: {line}"
            for script in played
            for line in differences(play_bare(script), driver.play(script), driver.unseen)
        ]
        if self.noted:
            _note(driver, len(played), len(found))
        assert len(played) == self.episodes
        assert not found, "\n".join(found[:20])

    def _playable(self, driver: Driver) -> Iterator[Script]:
        found, batch = 0, 0
        while found < self.episodes and batch < 50:
            for script in self.scripts(self.episodes, batch):
                if found < self.episodes and driver.can_play(script):
                    found += 1
                    yield script
            batch += 1


def _note(driver: Driver, played: int, found: int) -> None:
    folder = os.environ.get("REAGENT_PLUGINS_OUT")
    if folder:
        line = {
            "plugin": driver.name,
            "episodes": played,
            "differences": found,
            "unseen": sorted(driver.unseen),
            "loss": getattr(driver, "loss_sees", None)
            or ("*scalar only*" if "turn_shares" in driver.unseen else "each turn"),
        }
        path = Path(folder) / f"conformance-{driver.name.replace('/', '-')}.json"
        path.write_text(json.dumps(line) + "\n", encoding="utf-8")
