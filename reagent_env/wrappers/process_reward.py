"""Pays for the process: the outcome plus λ times a reward model's score (Reagent-R, arXiv 2601.22154)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, SupportsFloat

import gymnasium

from reagent_env.judgement import Judgement
from reagent_env.reward_models.base import RewardModel
from reagent_env.wrappers.judging import JudgingWrapper, attempt_ended, shown

CREDITS = ("trajectory", "turn")
WHENS = ("end", "step")


class ProcessReward(JudgingWrapper):
    """An attempt's return is R + λ·score: its outcome R and what the judge says of its process.

    Example::

        env = ProcessReward(gym.make("reagent/SearchQA-v0"), make_reward_model("rubric"))
        # at an attempt's end: reward == info["reward/outcome"] + info["reward/process"]

    ``info`` at an attempt's end: ``reward/outcome`` (R), ``reward/process`` (λ·score, or None),
    ``reward/turns`` (each turn's share; they sum to the return) and ``judgement``. With
    ``credit="turn"`` a turn's share is λ·(φ_t − φ_{t−1}), φ_0 = 0 and φ_T = score, so that the
    shares sum to λ·score, plus R at the last; with ``credit="trajectory"`` all is the last turn's.
    The differences only spread R + λ·score over the turns; no invariance of the policy is claimed.

    A judgement without a score leaves the outcome alone: the process pays nothing in all. An
    attempt that infrastructure spoiled keeps its NaN and is not judged.
    """

    inside = ("ProcessReward", "CritiqueRefine")
    why = (
        "each attempt has to close with its own process reward, which a wrapper outside would "
        "miss or pay twice. Write CritiqueRefine(ProcessReward(env, judge), judge)."
    )

    def __init__(
        self,
        env: gymnasium.Env[str, str],
        judge: RewardModel,
        weight: float = 0.3,
        credit: str = "trajectory",
        when: str = "end",
    ) -> None:
        """Wrap ``env``.

        Args:
            env: A tool-use environment, wrapped or not.
            judge: Any reward model.
            weight: λ; the paper's 0.3.
            credit: ``trajectory`` or ``turn``: how ``info["reward/turns"]`` shares the return out.
            when: ``end``: one judgement at the attempt's end pays all. ``step``: the judge sees
                each prefix, and ``step()`` returns that turn's λ·(φ_t − φ_{t−1}) at once.

        Raises:
            ValueError: an argument or the order of wrappers makes no sense.
        """
        super().__init__(env, judge, weight=weight, credit=credit, when=when)
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight (λ) must be finite and not negative, got {weight!r}.")
        if credit not in CREDITS:
            raise ValueError(f"Unknown credit {credit!r}; known: {', '.join(CREDITS)}.")
        if when not in WHENS:
            raise ValueError(f"Unknown when {when!r}; known: {', '.join(WHENS)}.")
        self.weight = weight
        self.credit = credit
        self.when = when
        self._prefixes: list[float] = []
        """φ of each turn so far, for ``when="step"``."""

    def reset(self, **kwargs: Any) -> tuple[str, dict[str, Any]]:
        """Begin an episode."""
        self._prefixes = []
        return self.env.reset(**kwargs)

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step, and pay for the process: at the attempt's end, or at once."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if info["turn"] == 1:
            self._prefixes = []
        if attempt_ended(terminated, truncated, info):
            paid = self._close(float(reward), self.judgement(), info)
            return observation, paid, terminated, truncated, info
        if terminated or truncated or self.when == "end":
            return observation, reward, terminated, truncated, info
        judgement = self.judgement()
        info["judgement"] = shown(judgement)
        before = self._prefixes[-1] if self._prefixes else 0.0
        self._prefixes.append(before if judgement.score is None else judgement.score)
        paid = float(reward) + self.weight * (self._prefixes[-1] - before)
        return observation, paid, terminated, truncated, info

    def _close(self, outcome: float, judgement: Judgement, info: dict[str, Any]) -> float:
        """Fill ``info`` at an attempt's end and return what its last step pays."""
        turns = int(info["turn"])
        info.setdefault("reward/outcome", outcome)  # a limit around the episode sets none
        info["judgement"] = shown(judgement)
        if judgement.score is None:
            info["reward/process"] = None
            shares = [0.0] * turns
        else:
            info["reward/process"] = self.weight * judgement.score
            shares = self._shares(judgement, turns)
        shares[-1] += outcome
        info["reward/turns"] = shares
        if self.when == "end":
            return outcome + (info["reward/process"] or 0.0)
        # What earlier steps paid was an advance on λ·score; without a score it is taken back.
        advance = self.weight * (self._prefixes[-1] if self._prefixes else 0.0)
        return outcome + (info["reward/process"] or 0.0) - advance

    def _shares(self, judgement: Judgement, turns: int) -> list[float]:
        """λ·(φ_t − φ_{t−1}) of each turn; a turn without a φ of its own keeps the one before."""
        assert judgement.score is not None
        if self.credit == "trajectory":
            return [0.0] * (turns - 1) + [self.weight * judgement.score]
        if self.when == "step":
            known: list[float | None] = list(self._prefixes)
        else:
            known = list((judgement.turn_scores or ())[: turns - 1])
        known += [None] * (turns - 1 - len(known))
        levels = [0.0]
        for level in known:
            levels.append(levels[-1] if level is None else level)
        levels.append(judgement.score)
        return [self.weight * (after - before) for before, after in pairwise(levels)]
