"""RLlib on environments of texts: registered by name, PPO on a local Ray, spoiled episodes dropped."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from reagent_env import ToolUseEnv, tool
from reagent_env.errors import ToolBackendError
from reagent_env.plugins.conformance import ConformanceSuite, Driver, Record, Script, Seen
from reagent_env.plugins.rllib import (
    EpisodeSpoiled,
    LeaveSpoiledOut,
    make_rllib_env,
    register_rllib,
)
from reagent_env.testing.fakes import addition_env, addition_tasks

sys.path.insert(0, str(Path(__file__).parent))

from outside_scripts import OutsideSuite

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
MENU = [
    r"\boxed{1}",
    r"\boxed{-5}",
    '<tool_call>{"name": "broken", "arguments": {"a": 1}}</tool_call>',
]


@tool
def broken(a: int) -> str:
    """Ask a service that is down.

    Args:
        a: Anything.
    """
    broken_calls.append(a)
    if len(broken_calls) > OUTAGE:
        return "up again"
    raise ToolBackendError("the service is down")


OUTAGE = 2
"""Calls that find the service down; RLlib samples anew after each, so a lasting outage stops it."""
broken_calls: list[int] = []


def one_sum() -> ToolUseEnv:
    """Slot 0 right, slot 1 wrong, slot 2 a call that infrastructure fails."""
    return ToolUseEnv(tasks=addition_tasks(1), tools=[broken], max_turns=3)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def ppo(name: str, **config: Any) -> PPOConfig:
    """Small, in this process."""
    return (
        PPOConfig()
        .environment(name, env_config=config)
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .training(train_batch_size_per_learner=128, minibatch_size=64, num_epochs=4, lr=3e-3)
        .fault_tolerance(restart_failed_sub_environments=True)
        .debugging(seed=0)
    )


def test_ppo_learns_which_slot_is_right() -> None:
    register_rllib("right-or-wrong", one_sum, menu=MENU[:2], size=2, dim=8)
    algorithm = ppo("right-or-wrong").build_algo()
    returns = [algorithm.train()["env_runners"]["episode_return_mean"] for _ in range(6)]
    algorithm.stop()
    assert returns[0] < 0.75
    assert returns[-1] > 0.9


def test_without_the_callback_a_spoiled_episode_drops_its_whole_sample_and_reaches_no_weight() -> (
    None
):
    broken_calls.clear()
    register_rllib("sometimes-broken", one_sum, menu=MENU, size=3, dim=8)
    algorithm = ppo("sometimes-broken").build_algo()
    for _ in range(2):
        result = algorithm.train()
        assert 0.0 <= result["env_runners"]["episode_return_mean"] <= 1.0
    assert len(broken_calls) > OUTAGE
    weights = algorithm.get_module().parameters()
    assert all(torch.isfinite(weight).all() for weight in weights)
    algorithm.stop()


class Slots(TorchRLModule):
    """Takes the slots of ``order``, over and over."""

    order = (0, 2, 1)
    place = 0

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        Slots.place += 1
        return {Columns.ACTIONS: torch.tensor([self.order[(Slots.place - 1) % len(self.order)]])}


def sampled(batch_mode: str, **sample: int) -> tuple[list[Any], dict[str, Any]]:
    """What RLlib's runner hands to the learner when every third episode is spoiled, and its metrics."""
    broken_calls.clear()
    Slots.place = 0
    register_rllib("every-third", one_sum, menu=MENU, size=3, dim=8)
    config = (
        ppo("every-third")
        .callbacks(LeaveSpoiledOut)
        .env_runners(num_env_runners=0, batch_mode=batch_mode)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=Slots))
    )
    runner = SingleAgentEnvRunner(config=config)
    episodes = runner.sample(**sample)
    metrics = runner.get_metrics()
    runner.stop()
    return episodes, metrics


def test_one_spoiled_episode_is_taken_out_and_its_neighbours_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(globals(), "OUTAGE", 10**9)
    episodes, metrics = sampled("complete_episodes", num_episodes=6)
    assert [one.get_return() for one in episodes] == [
        1.0,
        0.0,
        1.0,
        0.0,
    ]  # the second, the fifth: out
    assert float(metrics["spoiled_episodes"]) == 2
    assert float(metrics["episode_return_mean"]) == 0.5
    assert len(broken_calls) == 2


def test_a_lasting_outage_leaves_an_empty_sample_and_no_nan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(globals(), "OUTAGE", 10**9)
    monkeypatch.setattr(Slots, "order", (2,))
    episodes, metrics = sampled("truncate_episodes", num_timesteps=5)
    assert episodes == []
    assert float(metrics["spoiled_episodes"]) == 5
    assert "episode_return_mean" not in metrics


def test_ppo_learns_although_every_call_of_one_slot_is_spoiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With whole samples dropped it would gather nothing at all."""
    monkeypatch.setitem(globals(), "OUTAGE", 10**9)
    register_rllib("always-broken", one_sum, menu=MENU, size=3, dim=8)
    config = ppo("always-broken").callbacks(LeaveSpoiledOut)
    algorithm = config.fault_tolerance(restart_failed_sub_environments=False).build_algo()
    seen = [algorithm.train()["env_runners"] for _ in range(6)]
    algorithm.stop()
    assert seen[0]["spoiled_episodes"] > 20  # of 128, at random
    assert seen[-1]["episode_return_mean"] > 0.9  # of those that count: right against wrong
    assert all(torch.isfinite(weight).all() for weight in algorithm.get_module().parameters())


def test_a_spoiled_episode_raises_unless_the_callback_lets_its_nan_through() -> None:
    broken_calls.clear()
    env = make_rllib_env(one_sum, menu=MENU, size=3)
    env.reset(seed=0)
    with pytest.raises(EpisodeSpoiled, match="the service is down"):
        env.step(2)
    members = gym.vector.SyncVectorEnv([lambda: make_rllib_env(one_sum, menu=MENU, size=3)])
    LeaveSpoiledOut().on_environment_created(env=members)
    members.reset(seed=0)
    assert math.isnan(float(members.step(np.array([2]))[1][0]))
    members.close()


def test_env_config_overrides_what_was_registered() -> None:
    register_rllib("sums", addition_env, size=4, dim=8)
    runner = SingleAgentEnvRunner(config=ppo("sums", size=6))
    assert runner.env.single_action_space == gym.spaces.Discrete(6)
    assert runner.env.single_observation_space.shape == (2 * 8 + 1 + 4 * 6,)
    runner.stop()


class ScriptedModule(TorchRLModule):
    """Takes the slots of the menu in order: the script's actions."""

    def setup(self) -> None:
        self.place = 0

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        Scripted.place += 1
        return {Columns.ACTIONS: torch.tensor([Scripted.place - 1])}


class Scripted(gym.Wrapper[Any, Any, Any, Any]):
    """Every reset is the script's task; keeps the texts, which RLlib sees as features."""

    place = 0
    script: Script | None = None

    def reset(self, **kwargs: Any) -> Any:
        assert self.script is not None
        kwargs["options"] = self.script.options if Scripted.place == 0 else None
        kwargs["seed"] = None
        return self.env.reset(**kwargs)


class LetThrough(LeaveSpoiledOut):
    """Lets the NaN through and takes nothing out, to see what would be."""

    def on_sample_end(self, **kwargs: Any) -> None:
        """Leave it."""


class RLlibDriver:
    name = "rllib"
    unseen: frozenset[str] = frozenset({"turn_shares"})  # shares are paid by when="step" instead
    loss_sees = "each step; an attempt is an episode"

    def can_play(self, script: Script) -> bool:
        return True

    def play(self, script: Script) -> Seen:
        """Sampled by RLlib's own environment runner; an attempt is an episode to it."""
        Scripted.place, Scripted.script = 0, script
        completions = script.completions

        def create(_: Any) -> gym.Env[Any, Any]:
            return Scripted(
                make_rllib_env(
                    script.source,
                    menu=completions,
                    size=16,
                    limit_is_end=False,
                    **script.reward,
                    **script.env_kwargs,
                )
            )

        ray.tune.registry.register_env("scripted", create)
        config = (
            PPOConfig()
            .environment("scripted")
            .callbacks(LetThrough)
            .env_runners(num_env_runners=0)
            .rl_module(rl_module_spec=RLModuleSpec(module_class=ScriptedModule))
        )
        runner = SingleAgentEnvRunner(config=config)
        record = None
        while True:
            [episode] = runner.sample(num_episodes=1)
            infos, rewards = episode.get_infos(), episode.get_rewards()
            if record is None:
                record = Record(infos[0]["text"])
            else:
                record.observations.append(infos[0]["text"])
                record.starts.append(len(record.rewards))
            boxes = episode.get_observations()
            for turn, (info, reward) in enumerate(zip(infos[1:], rewards, strict=True)):
                last = turn == len(rewards) - 1
                assert boxes[turn + 1].shape == (2 * 64 + 1 + 4 * 16,)
                assert np.abs(boxes[turn + 1]).max() <= 1.0
                record.add(info["completion"], info["text"], float(reward), last, info)
            if not infos[-1].get("attempt_ended") or "attempts" in infos[-1]:
                runner.stop()
                return record.seen()


class TestRLlib(ConformanceSuite):
    def driver(self) -> Driver:
        return RLlibDriver()


class TestRLlibOutside(OutsideSuite):
    def driver(self) -> Driver:
        return RLlibDriver()
