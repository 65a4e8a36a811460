"""Advice on the way: the critique of what was done so far joins the next observation."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium

from reagent_env.reward_models.base import RewardModel
from reagent_env.wrappers.critique_refine import gives_answer_away
from reagent_env.wrappers.judging import JudgingWrapper, shown


class CritiqueObservation(JudgingWrapper):
    """Every ``every`` turns of an attempt, the judge's critique of the prefix follows the observation.

    The reward is untouched. A critique that gives the answer away is left out, and
    ``info["critique_replaced"]`` says so.

    Example::

        env = CritiqueObservation(env, make_reward_model("rubric"), every=2)
    """

    inside = ("CritiqueRefine",)
    why = "the message between two attempts would get advice too. Put CritiqueRefine outside."

    def __init__(self, env: gymnasium.Env[str, str], judge: RewardModel, every: int = 1) -> None:
        """Wrap ``env``.

        Args:
            env: A tool-use environment, wrapped or not.
            judge: Any reward model.
            every: Turns between two critiques.

        Raises:
            ValueError: an argument or the order of wrappers makes no sense.
        """
        super().__init__(env, judge, every=every)
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every!r}.")
        self.every = every

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; add the critique to an observation in mid-attempt."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated or info["turn"] % self.every:
            return observation, reward, terminated, truncated, info
        judgement = self.judgement()
        info["judgement"] = shown(judgement)
        critique = judgement.critique.strip()
        info["critique_replaced"] = bool(critique) and gives_answer_away(
            critique, self.inner.trajectory
        )
        if critique and not info["critique_replaced"]:
            observation = f"{observation}\n\n[review so far] {critique}"
        return observation, reward, terminated, truncated, info
