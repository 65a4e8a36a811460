"""Stable-Baselines3 on environments of texts: spaces, menus, masks, spoiled episodes, attempts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from reagent_env import ToolUseEnv, tool
from reagent_env.errors import InfrastructureError, ToolBackendError
from reagent_env.plugins.conformance_env import LEDGER, ScriptedJudge
from reagent_env.plugins.menus import Choice, MenuView
from reagent_env.plugins.sb3 import ActionMenu, Featurize, make_sb3_env
from reagent_env.plugins.sb3_masking import (
    MaskedMaskableRolloutBuffer,
    MaskedReplayBuffer,
    MaskedRolloutBuffer,
    MaskedVecNormalize,
    spoiled_steps,
)
from reagent_env.testing.fakes import addition_env, addition_tasks

sys.path.insert(0, str(Path(__file__).parent))

from outside_envs import BAZAAR, LIFT

RIGHT_OR_WRONG = [r"\boxed{1}", r"\boxed{-5}"]
"""A menu for the task "What is 0 + 1?"."""


@tool
def broken(a: int) -> str:
    """Ask a service that is down.

    Args:
        a: Anything.
    """
    raise ToolBackendError("the service is down")


CALL_BROKEN = '<tool_call>{"name": "broken", "arguments": {"a": 1}}</tool_call>'


def sometimes_broken(**build: Any) -> Any:
    """Slot 0 right, slot 1 wrong, slot 2 a call that infrastructure fails; one task."""
    env = ToolUseEnv(tasks=addition_tasks(1), tools=[broken], max_turns=4)
    return make_sb3_env(env, menu=[*RIGHT_OR_WRONG, CALL_BROKEN], size=3, dim=8, **build)


@pytest.mark.parametrize(
    "env_id", [LEDGER, "reagent/SearchQA-v0", "reagent/MiniMix-v0", BAZAAR, LIFT]
)
@pytest.mark.filterwarnings("ignore:.*The reward is a NaN value.*", "ignore:found nan in rewards")
def test_sb3s_own_checker_passes(env_id: str) -> None:
    env = make_sb3_env(env_id, **({"sandbox": "process"} if "MiniMix" in env_id else {}))
    check_env(env)
    env.close()


def test_features_are_the_question_the_observation_the_turn_and_four_a_slot() -> None:
    env = make_sb3_env(LEDGER, size=5, dim=16)
    assert env.observation_space == gym.spaces.Box(-1.0, 1.0, (2 * 16 + 1 + 4 * 5,), np.float32)
    box, info = env.reset(options={"task": 0})
    question = "How much do Ada and Bo hold together?"
    encoder = env.get_wrapper_attr("encoder")
    assert info["text"].endswith(question)
    assert np.array_equal(box[:16], encoder(question))
    assert box[32] == 0.0
    assert info["choices"][:2] == ["balance Ada", "balance Bo"]
    assert box[33:].reshape(5, 4)[:, 0].tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    box, _, _, _, info = env.step(1)
    assert info["text"] == "<tool_response>\nBo has 45\n</tool_response>"
    assert np.array_equal(box[16:32], encoder(info["text"]))
    assert box[32] == pytest.approx(1 / 5)  # one turn of five
    env.close()


def test_an_empty_slot_costs_a_turn_and_ends_nothing() -> None:
    env = ActionMenu(addition_env(max_turns=2), [r"\boxed{1}"], size=3)
    env.reset(seed=0)
    assert env.action_masks().tolist() == [True, False, False]
    _, reward, terminated, truncated, info = env.step(2)
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["tool_results"][0]["error"] == "unknown_tool"
    assert env.step(2)[4]["stop_reason"] == "max_turns"
    with pytest.raises(ValueError, match="slots 0 to 2, got 3"):
        env.step(3)


def test_a_menu_sees_what_was_read_and_never_the_answer() -> None:
    views: list[MenuView] = []

    def menu(view: MenuView) -> list[Choice | str | None]:
        views.append(view)
        return [None, view.call("add", {"a": 1, "b": 2}), view.answer("3")]

    env = ActionMenu(addition_env(), menu, size=4)
    env.reset(options={"task": 1})
    assert env.action_masks().tolist() == [False, True, True, False]
    env.step(1)
    env.step(1)
    assert views[0].question == "What is 1 + 2?"
    assert (views[0].results, views[0].chosen, views[0].turns_left) == ((), (), 8)
    assert (views[2].results, views[2].read) == (("3.0",), ("3.0", "3.0"))
    assert views[2].turns_left == 6
    assert not any("answer" in name for name in MenuView.__slots__)


def test_maskable_ppo_never_takes_an_empty_slot() -> None:
    vector = DummyVecEnv([lambda: make_sb3_env(LEDGER, dim=8)] * 2)
    assert is_masking_supported(vector)
    taken: list[str] = []

    def note(given: dict[str, Any], _: dict[str, Any]) -> bool:
        taken.extend(info["completion"] for info in given["infos"])
        return True

    model = MaskablePPO(
        "MlpPolicy",
        vector,
        n_steps=32,
        batch_size=32,
        seed=0,
        n_epochs=1,
        rollout_buffer_class=MaskedMaskableRolloutBuffer,
    )
    model.learn(64, callback=note)
    assert len(taken) == 64
    assert not [one for one in taken if "empty_slot" in one]
    masks = get_action_masks(vector)
    assert masks.shape == (2, 3 * 6 + 8)  # three tools and the answers
    action, _ = model.predict(np.zeros((2, 121), np.float32), action_masks=masks)
    assert all(masks[row, slot] for row, slot in enumerate(action))


def test_monitor_vecnormalize_and_ppo_work_together() -> None:
    menu = [*RIGHT_OR_WRONG]

    def make() -> gym.Env[Any, Any]:
        return Monitor(
            make_sb3_env(lambda: addition_env(tasks=addition_tasks(1)), menu=menu, size=2)
        )

    vector = VecNormalize(DummyVecEnv([make, make]))
    model = PPO(
        "MlpPolicy", vector, n_steps=32, batch_size=32, n_epochs=4, learning_rate=3e-3, seed=0
    )
    model.learn(256)
    finished = [episode["r"] for episode in model.ep_info_buffer]
    assert set(finished) == {0.0, 1.0}
    assert np.mean(finished[-30:]) > 0.8  # half were right at the start


def test_a_spoiled_episode_marks_its_own_steps_and_no_others() -> None:
    nan = np.nan
    rewards = np.array([[0, 0], [nan, 1], [0, 0], [1, nan]], np.float32)
    starts = np.array([[1, 1], [0, 0], [1, 1], [0, 1]], np.float32)
    assert spoiled_steps(rewards, starts).astype(int).tolist() == [[1, 0], [1, 0], [0, 0], [0, 1]]


def test_ppo_leaves_spoiled_episodes_out_of_the_update() -> None:
    vector = DummyVecEnv([lambda: sometimes_broken()] * 2)
    model = PPO(
        "MlpPolicy",
        vector,
        n_steps=32,
        batch_size=16,
        n_epochs=4,
        learning_rate=3e-3,
        seed=0,
        rollout_buffer_class=MaskedRolloutBuffer,
    )
    model.learn(64)
    buffer: Any = model.rollout_buffer
    assert 5 < buffer.spoiled.sum() < 40
    batches = list(buffer.get(16))
    assert sum(len(batch.actions) for batch in batches) == 64 - buffer.spoiled.sum()
    assert all(torch.isfinite(batch.advantages).all() for batch in batches)
    assert not any((batch.actions == 2).any() for batch in batches)
    assert all(torch.isfinite(weight).all() for weight in model.policy.parameters())
    model.learn(256, reset_num_timesteps=False)
    action, _ = model.predict(vector.reset(), deterministic=True)
    assert action.tolist() == [0, 0]  # the right answer, neither the wrong nor the broken one


def test_without_the_masked_buffer_a_spoiled_episode_reaches_the_weights() -> None:
    model = PPO("MlpPolicy", DummyVecEnv([sometimes_broken]), n_steps=16, batch_size=16, seed=0)
    with pytest.raises(ValueError, match="nan"):
        model.learn(64)


def test_a_rollout_that_is_spoiled_whole_is_an_infrastructure_failure() -> None:
    env = make_sb3_env(
        ToolUseEnv(tasks=addition_tasks(1), tools=[broken]), menu=[CALL_BROKEN], size=1, dim=4
    )
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, rollout_buffer_class=MaskedRolloutBuffer)
    with pytest.raises(InfrastructureError, match="Every episode of this rollout"):
        model.learn(8)


def test_dqn_keeps_no_spoiled_transition() -> None:
    for members in (1, 3):
        vector = DummyVecEnv([sometimes_broken] * members)
        model = DQN(
            "MlpPolicy",
            vector,
            learning_starts=30,
            buffer_size=300,
            seed=0,
            replay_buffer_class=MaskedReplayBuffer,
        )
        model.learn(90)
        buffer: Any = model.replay_buffer
        kept = slice(0, buffer.pos)
        assert buffer.pos > 10
        assert np.isfinite(buffer.rewards[kept]).all()
        assert (buffer.actions[kept] != 2).all()
        assert all(torch.isfinite(weight).all() for weight in model.policy.parameters())


def test_statistics_of_vecnormalize_survive_a_spoiled_episode() -> None:
    for normalise, finite in ((MaskedVecNormalize, True), (VecNormalize, False)):
        vector = normalise(DummyVecEnv([sometimes_broken]))
        vector.reset()
        _, rewards, dones, _ = vector.step(np.array([2]))
        assert np.isnan(rewards[0])
        assert dones[0]
        vector.step(np.array([0]))
        assert np.isfinite(vector.ret_rms.var) == finite


def test_each_attempt_is_an_episode_to_the_library() -> None:
    env = make_sb3_env(
        addition_env(tasks=addition_tasks(1)),
        menu=RIGHT_OR_WRONG,
        size=2,
        judge=ScriptedJudge(),
        attempts=2,
    )
    _, info = env.reset(seed=0)
    prompt = info["text"]
    _, first, terminated, truncated, info = env.step(1)
    assert (terminated, truncated, info["attempt"]) == (True, False, 1)
    assert first == pytest.approx(info["reward/process"] or 0.0)
    _, info = env.reset()
    assert info["attempt"] == 2
    assert info["text"].startswith("A reviewer read your attempt and wrote:\nAttempt 1 took 1")
    _, second, terminated, _, info = env.step(0)
    assert terminated
    assert second == pytest.approx(1.0 + (info["reward/process"] or 0.0))
    assert [one["attempt"] for one in info["attempts"]] == [1, 2]
    assert env.reset()[1]["text"] == prompt
    env.step(1)
    assert env.reset(seed=1)[1]["attempt"] == 1  # a seed starts anew, whatever waits


def test_running_out_of_turns_is_an_end_that_sb3_does_not_bootstrap_over() -> None:
    for limit_is_end, flags in ((True, (True, False)), (False, (False, True))):
        env = make_sb3_env(
            addition_env(max_turns=1), size=1, menu=["<tool_call>"], limit_is_end=limit_is_end
        )
        env.reset(seed=0)
        _, reward, *over, info = env.step(0)
        assert (reward, tuple(over), info["stop_reason"]) == (0.0, flags, "max_turns")
    env = sometimes_broken()
    env.reset(seed=0)
    assert env.step(2)[2:4] == (False, True)  # spoiled: truncated, and left out


def test_the_process_reward_is_swapped_in_one_line() -> None:
    menu = RIGHT_OR_WRONG
    paid = []
    for reward in ({}, {"judge": "rubric"}, {"judge": "rubric", "weight": 1.0}):
        env = make_sb3_env(addition_env(tasks=addition_tasks(1)), menu=menu, size=2, **reward)
        env.reset(seed=0)
        paid.append(env.step(0)[1])
    assert paid[0] == 1.0
    assert paid[1] - 1.0 == pytest.approx(0.3 * (paid[2] - 1.0))
    assert paid[2] > 1.0


def test_any_environment_of_texts_can_be_featurised() -> None:
    class Echo(gym.Env[str, str]):
        observation_space = action_space = gym.spaces.Text(100)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return "say hello", {"available_actions": ["hello", "bye"]}

        def step(self, action: str) -> Any:
            return "", float(action == "hello"), True, False, {}

    env = make_sb3_env(Echo(), size=2, dim=8)
    box, info = env.reset(seed=0)
    assert info["choices"] == ["hello", "bye"]
    assert box.shape == (2 * 8 + 1 + 4 * 2,)
    assert env.step(0)[1] == 1.0
    assert isinstance(env, Featurize)


def test_a_menu_of_an_unknown_environment_has_room_for_every_tool_and_the_answers() -> None:
    env = make_sb3_env(BAZAAR, dim=8)
    assert env.action_space == gym.spaces.Discrete(4 * 6 + 1 + 8)  # today() takes no argument
    env.reset(seed=0, options={"task": 0})
    slots = env.get_wrapper_attr("choices")
    assert slots[12] is not None
    assert "today" in slots[12].completion
    _, _, terminated, _, info = env.step(12)
    assert "vendredi, le 3 août" in info["text"]
    assert not terminated
    answers = [one for one in info["choices"][-8:] if one is not None]
    assert answers  # something can be answered


def test_a_simulator_is_played_to_its_end_from_its_menu_and_its_second_attempt_too() -> None:
    env = make_sb3_env(LIFT, judge=ScriptedJudge(), attempts=2, dim=8)
    env.reset(options={"task": 0})  # the first floor
    for attempt in (1, 2):
        slots = env.get_wrapper_attr("choices")
        [up] = [n for n, one in enumerate(slots) if one and one.label == "move up"]
        assert env.step(up)[2:4] == (False, False)
        [door] = [n for n, one in enumerate(slots) if one and one.label.startswith("press_door")]
        _, _, terminated, truncated, info = env.step(door)
        assert (terminated, truncated) == (True, False)  # SB3 bootstraps over no end of the world
        assert (info["stop_reason"], info["reward/outcome"]) == ("finished", 1.0)
        assert info["attempt"] == attempt
        env.reset()
