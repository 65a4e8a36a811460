r"""Scripted demonstrations for the cold start: an expert's episodes, and episodes with chosen flaws.

A policy first imitates clean play until it can copy; then a mixture whose flaws are choices, made
in mid-episode, that reinforcement learning can weigh anew. A mixture's success rate is the share of
its right strategies, for every kind of question. Not here: the strategies
(``demonstrations_strategies.py``), rendering to tokens and training on them (the ``sft`` recipe).

Example::

    policy = ScriptedPolicy(solver_of(env_id), quality=MIXED, knowledge=knowledge_of(env_id))
    trajectory = demonstrate(env, policy, task, seed=3)
"""

from __future__ import annotations

import importlib
import math
import random
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import gymnasium

from reagent_env.agents.agent import Agent
from reagent_env.env import ToolUseEnv
from reagent_env.task import Task
from reagent_env.task_sets.solving import Solver
from reagent_env.tool_formats import ToolFormat, get_tool_format
from reagent_env.trainers.demonstrations_strategies import (
    BROKEN,
    RIGHT,
    STRATEGIES,
    Misreading,
    Play,
    Strategy,
    misread,
    misreading_strategy,
)
from reagent_env.trajectory import ToolCall, Trajectory
from reagent_env.wrappers.critique_refine import NEUTRAL

CLEAN: Mapping[str, float] = MappingProxyType({"clean": 1.0})
MIXED: Mapping[str, float] = MappingProxyType(
    {
        "clean": 0.20,
        "repeated": 0.05,
        "malformed": 0.03,
        "guess": 0.05,
        "premature": 0.53,
        "wrong_turn": 0.05,
        "skipped_hop": 0.04,
        "in_head": 0.03,
        "misread": 0.02,
    }
)
"""Strategy → probability; 28 % of its episodes succeed, of every kind of question.

The likeliest one is wrong: a policy that learned the mixture cannot do well by sharpening alone.
"""


# What a task set adds -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Knowledge:
    """What is known of an environment's questions, e.g. ``Knowledge({"skipped_hop": without_a_hop})``."""

    misreadings: Mapping[str, Misreading] = field(default_factory=dict)
    """Further strategies, each from a question to an easier one."""
    fitting: Callable[[str], Collection[str]] | None = None
    """From a question to the wrong strategies for which it has an occasion; None: any may have."""
    strategies: Mapping[str, Strategy] = field(default_factory=dict)
    """Further strategies."""
    mixed: Mapping[str, float] = field(default_factory=lambda: MIXED)
    """Strategy → probability, of demonstrations of mixed quality."""
    frames: Callable[[], tuple[str, ...]] = tuple
    """Texts that a tokenizer made for it keeps whole, so that an episode fits a small context."""
    drill: Callable[[Any, random.Random], Any] | None = None
    """From a renderer and random numbers to a drill (``drills.py``); None: those of MiniMix's worlds."""


_KNOWLEDGE = {
    "reagent/MiniMix-v0": "reagent_env.trainers.demonstrations_mini_mix:KNOWLEDGE",
    "reagent/TextCraft-v0": "reagent_env.trainers.demonstrations_worlds:TEXT_CRAFT",
    "reagent/BabyAI-v0": "reagent_env.trainers.demonstrations_worlds:BABY_AI",
}


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
        known |= knowledge.strategies
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
        self.messages: tuple[dict[str, str], ...] = ()
        """What the episode began with: a world's opening view can be had only then."""
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
            self.messages = tuple(info["messages"])
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
