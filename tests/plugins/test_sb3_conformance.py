"""Stable-Baselines3 sees what the bare environment says, through DummyVecEnv and Monitor."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from reagent_env.plugins.conformance import ConformanceSuite, Driver, Record, Script, Seen
from reagent_env.plugins.sb3 import make_sb3_env

sys.path.insert(0, str(Path(__file__).parent))

from outside_scripts import OutsideSuite

DIM = 32


class Sb3Driver:
    name = "sb3"
    unseen: frozenset[str] = frozenset({"turn_shares"})  # shares are paid by when="step" instead
    loss_sees = "each step; an attempt is an episode"

    def can_play(self, script: Script) -> bool:
        return True

    def play(self, script: Script) -> Seen:
        completions = script.completions
        env = make_sb3_env(
            script.source,
            menu=completions,
            size=len(completions) + 2,
            dim=DIM,
            limit_is_end=False,
            **script.reward,
            **script.env_kwargs,
        )
        vector = DummyVecEnv([lambda: Monitor(env)])
        vector.set_options(script.options)
        box = vector.reset()
        record = Record(vector.reset_infos[0]["text"])
        try:
            for slot, written in enumerate(completions):
                [mask] = vector.env_method("action_masks")
                assert mask.tolist() == [True] * len(completions) + [False] * 2
                box, rewards, dones, infos = vector.step(np.array([slot]))
                info: dict[str, Any] = infos[0]
                assert info["completion"] == written
                read = info["terminal_observation"] if dones[0] else box[0]
                assert np.array_equal(read[DIM : 2 * DIM], env.encoder(info["text"]))
                assert info["left_out"] == math.isnan(rewards[0])
                goes_on = dones[0] and vector.reset_infos[0].get("attempt", 1) > 1
                text = vector.reset_infos[0]["text"] if goes_on else info["text"]
                over = bool(dones[0]) and not goes_on
                record.add(info["completion"], text, float(rewards[0]), over, info)
                if over:
                    return record.seen()
            raise AssertionError("the script ran out")
        finally:
            vector.close()


class TestSb3(ConformanceSuite):
    def driver(self) -> Driver:
        return Sb3Driver()


class TestSb3Outside(OutsideSuite):
    def driver(self) -> Driver:
        return Sb3Driver()
