"""Environments of a run, made by id; and those of others, which know less than ours."""

from __future__ import annotations

from typing import Any

import gymnasium
import pytest

pytest.importorskip("torch")

import toy_tasks

from reagent_env.env import ToolUseEnv
from reagent_env.testing import addition_tasks
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.environments import has_splits, make_env, with_rewards
from reagent_env.trainers.recipes import make_config
from reagent_env.wrappers import CritiqueRefine, ProcessReward
from reagent_env.wrappers.judging import stack


def inner(env: Any) -> Any:
    return env.unwrapped


def test_an_environment_of_ones_own_need_know_neither_split_nor_sandbox() -> None:
    env = make_env("toy_tasks:toy/Sums-v0", split="test", sandbox="docker", tool_format="react")
    assert isinstance(inner(env), toy_tasks.Sums)
    assert inner(env).tool_format.name == "compact"  # its own
    assert not has_splits("toy_tasks:toy/Sums-v0")


def test_one_that_takes_any_keyword_gets_split_sandbox_and_format() -> None:
    assert has_splits("toy_tasks:toy/Letters-v0")
    sizes = {}
    for split in ("train", "validation", "test"):
        env = make_env("toy/Letters-v0", split=split, tool_format="react")
        assert inner(env).tool_format.name == "react"
        sizes[split] = {task.id for task in inner(env).tasks}
    assert sum(map(len, sizes.values())) == 40
    assert not sizes["train"] & sizes["test"]


def test_what_the_user_says_wins_over_the_run_and_what_is_registered_over_auto() -> None:
    def env(sandbox: Any = None, tool_format: str = "hermes", split: Any = None) -> ToolUseEnv:
        made = ToolUseEnv(addition_tasks(30), tool_format=tool_format, split=split)
        made.metadata = {"sandbox": sandbox}
        return made

    gymnasium.register("toy/Told-v0", entry_point=env, kwargs={"sandbox": "mine"})
    try:
        told = inner(make_env("toy/Told-v0", split="train", tool_format="compact"))
        assert (told.metadata["sandbox"], told.tool_format.name) == ("mine", "compact")
        told = inner(make_env("toy/Told-v0", split="train", sandbox="docker"))
        assert told.metadata["sandbox"] == "docker"
        given = {"tool_format": "react", "split": "all"}
        told = inner(make_env("toy/Told-v0", split="train", tool_format="compact", kwargs=given))
        assert (told.tool_format.name, len(told.tasks)) == ("react", 30)
    finally:
        del gymnasium.registry["toy/Told-v0"]


def test_what_is_no_tool_use_environment_is_refused() -> None:
    with pytest.raises(ValueError, match="CartPoleEnv, not a ToolUseEnv"):
        make_env("CartPole-v1", split="train")
    with pytest.raises(gymnasium.error.Error):
        make_env("reagent/Nothing-v0", split="train")


@pytest.mark.parametrize(
    ("settings", "wrappers"),
    [
        ({"recipe": "outcome"}, []),
        ({"recipe": "reagent-r"}, [ProcessReward]),
        ({"recipe": "reagent-u"}, [CritiqueRefine, ProcessReward]),
        ({"recipe": "outcome", "attempts": 2, "feedback": "retry"}, [CritiqueRefine]),
    ],
)
def test_a_recipe_wraps_what_its_rewards_ask_for(settings: Any, wrappers: list[Any]) -> None:
    from reagent_env.reward_models import make_reward_model

    given = dict(settings)
    config: TrainConfig = make_config(given.pop("recipe"), settings=given)
    judge = make_reward_model("rubric") if config.needs_judge else None
    env = with_rewards(make_env("toy_tasks:toy/Sums-v0", split="train"), config, judge)
    ours = [type(one) for one in stack(env) if isinstance(one, ProcessReward | CritiqueRefine)]
    assert ours == wrappers
