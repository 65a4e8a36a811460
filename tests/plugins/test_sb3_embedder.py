"""The sentence embedder as a featuriser: vectors that know synonyms, kept for texts seen before."""

from __future__ import annotations

import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env

from reagent_env.plugins.conformance_env import LEDGER
from reagent_env.plugins.sb3 import make_sb3_env
from reagent_env.plugins.text_features import MiniLM

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings(
        "ignore:.*The reward is a NaN value.*", "ignore:found nan in rewards"
    ),
]


def test_nearer_in_meaning_is_nearer_in_space() -> None:
    encode = MiniLM()
    asked, near, far = map(
        encode, ("Where does the river rise?", "The stream springs from a hill.", "6 * 7 is 42.")
    )
    assert asked.shape == (384,)
    assert np.linalg.norm(asked) == pytest.approx(1.0, abs=1e-4)
    assert asked @ near > asked @ far + 0.2
    assert encode("Where does the river rise?") is asked
    assert np.isfinite(encode("\ud800 lone surrogate")).all()


def test_an_environment_of_embedded_texts_passes_sb3s_checker() -> None:
    env = make_sb3_env(LEDGER, encoder="minilm", size=4)
    check_env(env)
    assert env.observation_space.shape == (2 * 384 + 1 + 4 * 4,)
