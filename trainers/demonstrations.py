r"""Scripted demonstrations for the cold start: an expert's episodes, and episodes with chosen flaws.

A policy first imitates clean play until it can copy; then a mixture whose flaws are choices, made
in mid-episode, that reinforcement learning can weigh anew. Strategies are small functions side by
side over any solver; each sees the question and tools' results only. Those in :data:`WRONG` end in
a wrong answer whatever the question, so a mixture's success rate is the share of the others. Not
here: rendering to tokens, and training on them (the ``sft`` recipe).

Example::

    policy = ScriptedPolicy(solver_of(env_id), quality=MIXED, knowledge=knowledge_of(env_id))
    trajectory = demonstrate(env, policy, task, seed=3)
"""

from __future__ import annotations

import importlib
import json
import math
import random
import re
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import gymnasium

from reagent_env.agents.agent import Agent
from reagent_env.env import ToolUseEnv
from reagent_env.task import Task
from reagent_env.task_sets.solving import Calls, Solver
from reagent_env.tool_formats import ToolFormat, get_tool_format
from reagent_env.trajectory import ToolCall, Trajectory
from reagent_env.wrappers.critique_refine import NEUTRAL

Play = Generator[Calls, list[str], str]
"""What a solver is, and a strategy over one: yields a turn's calls, returns the final answer."""
Strategy = Callable[[Solver, str, random.Random], Play]
"""From a solver, a question and random numbers to a play."""
Misreading = Callable[[str, random.Random], str | None]
"""From a question to an easier one that a hasty reader takes it for; None where there is none."""

BROKEN = "broken call"
"""Stands in a play's calls for a tool's name: the call beside it is written without its last brace."""

_VALUE = re.compile(r"(?<![\w.])(?:[A-Z][a-z]{2,}|\d{2,})(?![\w.]*\w)")


# Strategies ---------------------------------------------------------------------------------------


def clean(solver: Solver, question: str, rng: random.Random) -> Play:
    """The solver's own play."""
    return (yield from solver(question))


def repeated(solver: Solver, question: str, rng: random.Random) -> Play:
    """One call is made twice, at the latest the last; the answer is right."""
    play = _Replay(solver, question)
    calls: Calls = []
    while play.calls is not None:
        calls = play.calls
        results = yield calls
        if not play.flawed and rng.random() < 0.5:
            play.flawed = True
            results = yield calls
        play.send(results)
    if not play.flawed and calls:
        yield calls
    return play.answer


def malformed(solver: Solver, question: str, rng: random.Random) -> Play:
    """The first or the second call, if there is one, lacks its last brace and is made again.

    The answer is right.
    """
    play = _Replay(solver, question)
    while (calls := play.calls) is not None:
        if not play.flawed and (play.turn >= 1 or rng.random() < 0.5):
            play.flawed = True
            yield [(BROKEN, {"name": calls[0][0], "arguments": calls[0][1]})]
        play.send((yield calls))
    return play.answer


def guess(solver: Solver, question: str, rng: random.Random) -> Play:
    """Answers at once, with a name of the question or a number out of the air."""
    named = [word for word in values_in(question) if not word.isdigit()][1:]
    numeric = re.match(r"(?:How much|How many|Compute|State)\b", question) or not named
    return _random_number(rng, 4) if numeric else rng.choice(named)
    yield []


def premature(solver: Solver, question: str, rng: random.Random) -> Play:
    """Answers with a value on the way: the one that the next call would have gone on from."""
    play = _Replay(solver, question)
    while (calls := play.calls) is not None:
        results = yield calls
        play.send(results)
        if play.calls is not None and rng.random() < 0.75:
            used = [one for one in values_in("\n".join(results)) if one in _written(play.calls)]
            return rng.choice(used or values_in("\n".join(results)) or ["unknown"])
    return play.misread(rng)


def wrong_turn(solver: Solver, question: str, rng: random.Random) -> Play:
    """Takes another value of the last result than the question asks for, and goes on with it."""
    play = _Replay(solver, question)
    results: list[str] = []
    while (calls := play.calls) is not None:
        exchanged = _with_another_value(calls, results, question, rng)
        if exchanged is not None and not play.flawed and rng.random() < 0.75:
            play.flawed = True
            calls = exchanged
        results = yield calls
        play.send(results)
    return play.answer if play.flawed and play.answer else play.misread(rng)


def in_head(solver: Solver, question: str, rng: random.Random) -> Play:
    """Answers with a made-up number where the computation in ``python`` should come."""
    play = _Replay(solver, question)
    while (calls := play.calls) is not None:
        if calls[0][0] == "python":
            longest = max((len(n) for n in re.findall(r"\d+", _written(calls))), default=3)
            return _random_number(rng, longest + ("*" in _written(calls)))
        play.send((yield calls))
    return play.misread(rng)


def misread(solver: Solver, question: str, rng: random.Random) -> Play:
    """Looks up all it needs, then answers with another value of the last result."""
    play = _Replay(solver, question)
    while (calls := play.calls) is not None:
        play.send((yield calls))
    return play.misread(rng)


def misreading_strategy(misreading: Misreading) -> Strategy:
    """Solves an easier question in place of the one asked; :func:`misread` where there is none."""

    def strategy(solver: Solver, question: str, rng: random.Random) -> Play:
        easier = misreading(question, rng)
        play = _Replay(solver, question if easier is None else easier)
        while (calls := play.calls) is not None:
            play.send((yield calls))
        return play.answer if easier is not None and play.answer else play.misread(rng)

    return strategy


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "clean": clean,
        "repeated": repeated,
        "malformed": malformed,
        "guess": guess,
        "premature": premature,
        "wrong_turn": wrong_turn,
        "in_head": in_head,
        "misread": misread,
    }
)
"""Strategies over any solver, by name."""

RIGHT = frozenset({"clean", "repeated", "malformed"})
"""Strategies that end in the solver's answer; all others end in another."""

CLEAN: Mapping[str, float] = MappingProxyType({"clean": 1.0})
MIXED: Mapping[str, float] = MappingProxyType(
    {
        "clean": 0.30,
        "repeated": 0.06,
        "malformed": 0.04,
        "guess": 0.09,
        "premature": 0.18,
        "wrong_turn": 0.12,
        "skipped_hop": 0.10,
        "in_head": 0.08,
        "misread": 0.03,
    }
)
"""Strategy → probability; 40 % of its episodes succeed, of every kind of question."""


class _Replay:
    """A solver under way: its next calls, or its answer."""

    def __init__(self, solver: Solver, question: str) -> None:
        self._steps = solver(question)
        self._seen: list[str] = []
        self.answer = ""
        self.calls: Calls | None = None
        """What it calls next; None where it has its answer."""
        self.turn = 0
        self.flawed = False
        """Whether the strategy has done what it is for."""
        self._advance(None)

    def send(self, results: list[str]) -> None:
        """Hand over the results of :attr:`calls`."""
        self.turn += 1
        self._seen.append("\n".join(results))
        self._advance(results)

    def misread(self, rng: random.Random) -> str:
        """A value that was seen late and is not the answer; a number for a number."""
        others: list[str] = []
        for text in reversed(self._seen):
            found = [value for value in values_in(text) if value != self.answer]
            others = [v for v in found if v.isdigit() == self.answer.isdigit()] or others or found
            if others and others[0].isdigit() == self.answer.isdigit():
                break
        return rng.choice(others) if others else _random_number(rng, 3)

    def _advance(self, results: list[str] | None) -> None:
        try:
            self.calls = next(self._steps) if results is None else self._steps.send(results)
        except StopIteration as stop:
            self.calls, self.answer = None, str(stop.value)


def values_in(text: str) -> list[str]:
    """The capitalised words and the numbers of two digits up, each once, in order."""
    return list(dict.fromkeys(_VALUE.findall(text)))


def _written(calls: Calls) -> str:
    return json.dumps([arguments for _, arguments in calls])


def _with_another_value(
    calls: Calls, results: list[str], question: str, rng: random.Random
) -> Calls | None:
    """The calls with a value from the last results exchanged for another new one of its sort."""
    seen = values_in("\n".join(results))
    written = _written(calls)
    for value in values_in(written):
        others = [v for v in seen if v != value and v.isdigit() == value.isdigit()]
        others = [v for v in others if v not in written and v not in question]
        if value in seen and others:
            other = rng.choice(others)
            changed = json.loads(re.sub(rf"\b{re.escape(value)}\b", other, written))
            return [(name, arguments) for (name, _), arguments in zip(calls, changed, strict=True)]
    return None


def _random_number(rng: random.Random, digits: int) -> str:
    return str(rng.randrange(10 ** (digits - 1), 10**digits))


# What a task set adds -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Knowledge:
    """What is known of an environment's questions, e.g. ``Knowledge({"skipped_hop": without_a_hop})``."""

    misreadings: Mapping[str, Misreading] = field(default_factory=dict)
    """Further strategies, each from a question to an easier one."""
    fitting: Callable[[str], Collection[str]] | None = None
    """From a question to the wrong strategies for which it has an occasion; None: any may have."""


_KNOWLEDGE = {"reagent/MiniMix-v0": "reagent_env.trainers.demonstrations_mini_mix:KNOWLEDGE"}


def knowledge_of(env_id: str) -> Knowledge:
    """What is known of an environment's questions; nothing of most."""
    if env_id not in _KNOWLEDGE:
        return Knowledge()
    module, _, name = _KNOWLEDGE[env_id].partition(":")
    known: Knowledge = getattr(importlib.import_module(module), name)
    return known


# The policy ---------------------------------------------------------------------------------------


class ScriptedPolicy(Agent):
    """Plays a strategy drawn anew for each attempt.

    A second attempt reads the critique: with probability ``heeds`` it is clean where
    ``critique_helps`` says that the critique names what was wrong; else it is drawn like the first.

    Example: ``ScriptedPolicy(solve, quality={"clean": 0.4, "premature": 0.6}, seed=7)``.
    """

    name = "scripted"

    def __init__(
        self,
        solver: Solver,
        tool_format: str | ToolFormat = "compact",
        *,
        quality: Mapping[str, float] = CLEAN,
        knowledge: Knowledge | None = None,
        heeds: float = 0.9,
        critique_helps: Callable[[str, str], bool] | None = None,
        seed: int = 0,
    ) -> None:
        """Make the policy.

        Args:
            solver: Solves the tasks; sees questions and results only.
            tool_format: How calls and answers are written.
            quality: Strategy → probability, of :data:`STRATEGIES` and misreadings; their sum is 1.
                Where a question has no occasion for a wrong one, its share goes to the others.
            knowledge: Of the questions (:func:`knowledge_of`); a ``skipped_hop`` without any is a
                ``misread``.
            heeds: Probability that a helpful critique makes the next attempt clean.
            critique_helps: From a critique and the name of the strategy that it criticises to
                whether it helps; :func:`names_the_flaw` by default.
            seed: With the task and the attempt it settles every choice.

        Raises:
            ValueError: an unknown strategy, or probabilities that do not add up to 1.
        """
        knowledge = knowledge or Knowledge()
        known = {**STRATEGIES, "skipped_hop": misread}
        known |= {name: misreading_strategy(m) for name, m in knowledge.misreadings.items()}
        for name, share in quality.items():
            if name not in known:
                raise ValueError(f"Unknown strategy {name!r}; known: {', '.join(known)}.")
            if not share >= 0:
                raise ValueError(f"The probability of {name!r} must be 0 or more, got {share!r}.")
        if not math.isclose(sum(quality.values()), 1.0, abs_tol=1e-6):
            raise ValueError(
                f"The probabilities of quality must add up to 1, got {sum(quality.values())!r}."
            )
        self.solver = solver
        self.tool_format = get_tool_format(tool_format)
        self.quality = dict(quality)
        self.heeds = heeds
        self.critique_helps = critique_helps or names_the_flaw
        self.seed = seed
        self.strategies: list[str] = []
        """The strategy of each attempt of the episode so far, for records and tests."""
        self._known = known
        self._fitting = knowledge.fitting
        self._question = self._task_id = ""
        self._play: Play | None = None

    def begin(self, info: Mapping[str, Any]) -> None:
        """Start an episode, or an independent attempt."""
        self._question = info["messages"][-1]["content"]
        self._task_id = info["task_id"]
        if info["attempt"] == 1:
            self.strategies = []
        self._play = None

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        """The next completion of the strategy."""
        critique = observation if info.get("attempt_ended") else None
        results: list[str] | None = None
        if self._play is None or critique is not None:
            self._start(critique)
        else:
            results = [one["content"] for one in info["tool_results"]]
        assert self._play is not None
        try:
            calls = next(self._play) if results is None else self._play.send(results)
        except StopIteration as stop:
            return self.tool_format.render_answer(str(stop.value) or "unknown")
        if calls[0][0] == BROKEN:
            call = ToolCall(calls[0][1]["name"], calls[0][1]["arguments"])
            return _without_last_brace(self.tool_format.render_calls([call]))
        return self.tool_format.render_calls([ToolCall(name, given) for name, given in calls])

    def _start(self, critique: str | None) -> None:
        attempt = len(self.strategies)
        rng = random.Random(f"{self.seed}/{self._task_id}/{attempt}")
        shares = self._shares()
        name = rng.choices(list(shares), list(shares.values()))[0]
        if (
            critique is not None
            and self.strategies
            and self.critique_helps(critique, self.strategies[-1])
            and rng.random() < self.heeds
        ):
            name = "clean"
        self.strategies.append(name)
        self._play = self._known[name](self.solver, self._question, rng)

    def _shares(self) -> dict[str, float]:
        """``quality`` for this question: the right ones as given, the fitting wrong ones scaled up."""
        if self._fitting is None:
            return self.quality
        fitting = RIGHT | set(self._fitting(self._question))
        kept = {name: share for name, share in self.quality.items() if name in fitting}
        wrong = sum(share for name, share in kept.items() if name not in RIGHT)
        if not wrong:
            return self.quality
        scale = (wrong + sum(self.quality.values()) - sum(kept.values())) / wrong
        return {name: p if name in RIGHT else p * scale for name, p in kept.items()}


def _without_last_brace(text: str) -> str:
    before, brace, after = text.rpartition("}")
    return before + after if brace else text


def names_the_flaw(critique: str, strategy: str) -> bool:
    """Whether a critique, framed or bare, says what a strategy did wrong; always true of ``clean``.

    Praise and the neutral words of :data:`~reagent_env.wrappers.critique_refine.NEUTRAL` name none.

    Example: ``names_the_flaw("Turn 1: Use the tools before you answer.", "guess")``.
    """
    framed = re.search(r"wrote:\n(.*)\n\n", critique, re.DOTALL)
    words = framed[1] if framed else critique
    if strategy == "clean":
        return True
    if words.strip() == NEUTRAL or re.match(r"\s*(?:no flaw|nothing wrong)", words, re.IGNORECASE):
        return False
    return re.search(_NAMED[strategy], words, re.IGNORECASE) is not None


_UNFOUNDED = (
    r"\b(?:look|search|browse|tools?|link|steps?|chain|evidence|establish|rests?|follow|skip|"
    r"question|what you need|on the way|too early|premature)"
)
_NAMED: Mapping[str, str] = {
    "repeated": r"\b(?:repeat|again|twice|same call|already)",
    "malformed": r"\b(?:malformed|JSON|brace|broken|valid|well[- ]formed|format)",
    "guess": rf"\bguess|{_UNFOUNDED}",
    "premature": _UNFOUNDED,
    "wrong_turn": rf"\b(?:wrong|other|different|asked)|{_UNFOUNDED}",
    "skipped_hop": _UNFOUNDED,
    "in_head": r"\b(?:python|code|comput|calculat|in (?:your|the) head)",
    "misread": rf"\b(?:misread|line|value|asked|check)|{_UNFOUNDED}",
}
"""Wrong or clumsy strategy → how critiques name it."""


# Playing ------------------------------------------------------------------------------------------


def demonstrate(
    env: gymnasium.Env[str, str], policy: Agent, task: Task, *, seed: int = 0
) -> Trajectory:
    """Play one episode, all attempts of it, and return its record.

    Args:
        env: A tool-use environment, wrapped or not; with ``CritiqueRefine`` around it the record
            holds a critique and a second attempt.
        policy: Acts.
        task: What the episode is about.
        seed: Of the environment.
    """
    inner = env.unwrapped
    assert isinstance(inner, ToolUseEnv)
    observation, info = env.reset(seed=seed, options={"task": task})
    policy.begin(info)
    over = False
    while not over:
        observation, _, terminated, truncated, info = env.step(policy.act(observation, info))
        over = terminated or truncated
        if not over and info.get("attempt_ended") and "messages" in info:
            policy.begin(info)
    return inner.trajectory


def completions(trajectory: Trajectory) -> Sequence[str]:
    """What the policy wrote, turn by turn over all attempts."""
    return [turn.completion for attempt in trajectory.attempts for turn in attempt.turns]
