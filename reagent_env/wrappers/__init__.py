"""Rewards and observations from a reward model, as Gymnasium wrappers.

From the inside out: ``ProcessReward`` (pays for the process), ``CritiqueObservation`` (advice on the
way), ``CritiqueRefine`` (a second attempt after the critique of the first). They share judgements:
an attempt is judged once by a judge, however many wrappers ask.
"""

from __future__ import annotations

from reagent_env.wrappers.critique_observation import CritiqueObservation
from reagent_env.wrappers.critique_refine import CritiqueRefine
from reagent_env.wrappers.process_reward import ProcessReward

__all__ = ["CritiqueObservation", "CritiqueRefine", "ProcessReward"]
