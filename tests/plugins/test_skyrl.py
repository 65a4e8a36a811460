"""SkyRL-gym: the same episodes, turn rewards, environments used again, spoiled ones left out."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import skyrl_gym

from reagent_env.plugins.conformance import ConformanceSuite, Driver, Record, Script, Seen
from reagent_env.plugins.conformance_env import LEDGER, ScriptedJudge
from reagent_env.plugins.skyrl import (
    SkyRLEnv,
    close_idle,
    dataset_rows,
    leave_spoiled_out,
    register_skyrl,
)

sys.path.insert(0, str(Path(__file__).parent))

from outside_scripts import OutsideSuite


def _register(name: str, source: Any, **build: Any) -> None:
    skyrl_gym.envs.registration.registry.pop(name, None)
    register_skyrl(name, source, **build)


@pytest.fixture(autouse=True)
def nothing_left_idle() -> Iterator[None]:
    yield
    close_idle()


class SkyRLDriver:
    name = "skyrl"
    unseen: frozenset[str] = frozenset({"turn_shares"})  # shares are paid by when="step" instead
    loss_sees = "each step; attempts are summed"

    def can_play(self, script: Script) -> bool:
        return True

    def play(self, script: Script) -> Seen:
        name = f"scripted-{hash(str((script.source, script.env_kwargs, script.reward)))}"
        _register(name, script.source, **script.reward, **script.env_kwargs)
        env = skyrl_gym.make(name, env_config={}, extras=script.options)
        messages, _ = env.init([])
        record = Record("\n\n".join(message["content"] for message in messages))
        for completion in script.completions:
            step = env.step(completion)
            text = "".join(message["content"] for message in step["observations"])
            assert step["metadata"]["left_out"] == math.isnan(step["reward"])
            record.add(completion, text, step["reward"], step["done"], step["metadata"])
            if step["done"]:
                env.close()
                return record.seen()
        raise AssertionError("the script ran out")


class TestSkyRL(ConformanceSuite):
    def driver(self) -> Driver:
        return SkyRLDriver()


class TestSkyRLOutside(OutsideSuite):
    def driver(self) -> Driver:
        return SkyRLDriver()


def test_skyrls_turn_limit_is_the_environments_for_one_trajectory() -> None:
    _register("ledger", LEDGER)
    env = skyrl_gym.make("ledger", extras={"seed": 1, "max_turns": 2})
    env.init([])
    call = '<tool_call>{"name": "balance", "arguments": {"owner": "Bo"}}</tool_call>'
    assert not env.step(call)["done"]
    assert env.step(call)["metadata"]["stop_reason"] == "max_turns"
    env.close()
    assert skyrl_gym.make("ledger", extras={}).env.unwrapped.max_turns == 5


def test_an_environment_is_used_again_by_the_next_trajectory() -> None:
    _register("ledger", LEDGER)
    first = skyrl_gym.make("ledger", extras={"task": 0})
    inner = first.env
    first.close()
    first.close()
    second, third = (skyrl_gym.make("ledger", extras={"task": 1}) for _ in range(2))
    assert second.env is inner
    assert third.env is not inner
    assert close_idle() == 0


def test_rows_of_a_data_set_choose_their_tasks() -> None:
    _register("ledger", LEDGER)
    rows = list(dataset_rows("ledger", LEDGER, split=None))
    assert len(rows) == 20
    env = skyrl_gym.make("ledger", extras=rows[7])
    messages, info = env.init(rows[7]["prompt"])
    assert messages == rows[7]["prompt"]
    assert info["task_id"] == rows[7]["task"]


def test_metrics_name_outcome_and_process_and_no_return_of_a_spoiled_episode() -> None:
    _register("judged", LEDGER, judge=ScriptedJudge(), weight=0.5)
    env = skyrl_gym.make("judged", extras={"task": 0})
    env.init([])
    env.step(r"\boxed{165}")
    metrics = env.get_metrics()
    assert metrics["turns"] == 1
    assert metrics["reward_outcome"] == 1.0
    assert metrics["return"] == pytest.approx(1.0 + metrics.get("reward_process", 0.0))
    env.init([])
    env.step('<tool_call>{"name": "audit", "arguments": {"year": 1}}</tool_call>')
    assert env.get_metrics() == {"turns": 1, "left_out": 1.0}
    assert SkyRLEnv.aggregate_metrics([metrics, env.get_metrics()])["return"] == metrics["return"]


def test_spoiled_trajectories_train_nothing_and_leave_the_groups_mean_alone() -> None:
    nan = math.nan
    output = {
        "rewards": [[0.0, 0.0, 1.0], [0.0, nan], [0.0, 0.5], [nan]],
        "loss_masks": [[1, 0, 1], [1, 1], [1, 1], [1]],
        "response_ids": [[1, 2, 3], [4, 5], [6, 7], [8]],
    }
    masked = leave_spoiled_out(output, ["a", "a", "a", "b"])
    assert masked["rewards"] == [[0.0, 0.0, 1.0], [0.0, 0.75], [0.0, 0.5], [0.0]]
    assert masked["loss_masks"] == [[1, 0, 1], [0, 0], [1, 1], [0]]
    assert output["loss_masks"][1] == [1, 1]  # the given output is not changed
    whole = leave_spoiled_out({"rewards": [1.0, nan, 0.0], "loss_masks": [[1], [1], [1]]})
    assert whole["rewards"] == [1.0, 0.5, 0.0]
