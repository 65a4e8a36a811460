from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reagent_env.trainers.config import TrainConfig, config_from
from reagent_env.trainers.config_fields import annotations_of, docstrings_of, read_value
from reagent_env.trainers.losses import loss_names
from reagent_env.trainers.recipes import RECIPES, SHIPPED, make_config


def test_every_setting_says_what_it_is_for() -> None:
    assert docstrings_of(TrainConfig).keys() == annotations_of(TrainConfig).keys()
    assert docstrings_of(TrainConfig)["std_floor"].startswith("Smallest std")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_configuration_comes_back_from_json(recipe: str) -> None:
    config = make_config(recipe, settings={"env_kwargs": {"max_turns": 4}, "betas": [0.9, 0.95]})
    assert config_from(json.loads(json.dumps(config.to_json()))) == config
    assert config.betas == (0.9, 0.95)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"updates": 0}, "updates must be at least 1, got 0"),
        ({"updates": 1.5}, "updates must be an integer, got 1.5"),
        ({"updates": True}, "updates must be an integer, got True"),
        ({"lr": 0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0, got nan"),
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1"),
        ({"attempts": 3}, "at least 1 and at most 2, got 3"),
        ({"apart": 1}, "apart must be true or false, got 1"),
        ({"judge": 5}, "judge must be a text, got 5"),
        ({"env_kwargs": [1]}, "env_kwargs must be a table"),
        ({"betas": [0.9]}, "betas must be 2 numbers"),
        ({"betas": [0.9, 1.0]}, r"betas must lie in \[0, 1\)"),
        ({"learning_rate": 1}, "no setting 'learning_rate'"),
        ({"grup_size": 4}, "Did you mean 'group_size'"),
        ({"group-size": 4}, "Did you mean 'group_size'"),
        ({"recipe": "reagent_u"}, "Did you mean 'reagent-u'"),
        ({"advantage": "gpro"}, "Did you mean 'grpo'"),
        ({"loss": "gsop"}, "Did you mean 'gspo'"),
        ({"sandbox": "doker"}, "Did you mean 'docker'"),
        ({"schedule": "scaling-inter:serchqa"}, "Did you mean 'scaling-inter:searchqa'"),
        ({"env": "a=0.5,b=x"}, "weight of 'b'"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_be_right(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        config_from(settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"credit": "turn"}, "would do nothing with the estimator 'grpo'"),
        ({"advantage": "turn", "judge": "rubric"}, "say credit='turn' too"),
        ({"advantage": "turn", "credit": "turn"}, "judge='none'"),
        ({"advantage": "pooled"}, "attempts=1"),
        ({"attempts": 2}, "needs a judge"),
        ({"improvement_bonus": 0.1}, "improvement_bonus would do nothing"),
        ({"advantage": "rloo", "apart": True}, "apart would do nothing"),
        ({"distill": True}, "attempts=2"),
        ({"lora_alpha": 8.0}, "lora_rank=0"),
        ({"schedule": "fixed:4", "env_kwargs": {"max_turns": 8}}, "both set the turn limit"),
        ({"engine": "vllm"}, "engine_url"),
        (
            {"engine": "vllm", "engine_url": "http://x/v1", "deterministic": True},
            "needs engine='hf'",
        ),
        ({"minibatches": 65}, "64 rollouts"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        config_from(settings)


def test_losses_can_be_named_without_loading_them() -> None:
    for name in loss_names():
        assert TrainConfig(loss=name).loss == name
    code = "import sys, reagent_env.trainers.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_deterministic_run_has_no_spare_groups() -> None:
    assert TrainConfig(groups_per_update=8, spare_groups=2).groups_in_flight == 10
    assert (
        TrainConfig(groups_per_update=8, spare_groups=2, deterministic=True).groups_in_flight == 8
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lr", "3e-4", 3e-4),
        ("lr", "1", 1.0),
        ("updates", "20", 20),
        ("wandb", "true", True),
        ("betas", "[0.9, 0.95]", (0.9, 0.95)),
        ("env", "a=0.5", "a=0.5"),
        ("judge", "1", "1"),
        ("credit", "turn", "turn"),
        (
            "env_kwargs",
            '{max_turns = 4, tool_format = "react"}',
            {"max_turns": 4, "tool_format": "react"},
        ),
    ],
)
def test_text_of_a_command_line_is_read_by_the_settings_type(
    name: str, text: str, value: object
) -> None:
    found = read_value(text, annotations_of(TrainConfig)[name])
    assert (found, type(found)) == (value, type(value))


def test_the_command_line_wins_over_the_file_and_the_file_over_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(
        'recipe = "reagent-u"\nupdates = 7\nadvantage = "per_stage"\nlr = 1e-4\n'
        "[env_kwargs]\nmax_turns = 5\n"
    )
    settings = {"lr": 1e-5, "env_kwargs": {"tool_format": "react"}}
    config = make_config(file=file, settings=settings)
    assert (config.recipe, config.attempts) == ("reagent-u", 2)
    assert (config.updates, config.advantage) == (7, "per_stage")
    assert config.lr == 1e-5
    assert config.env_kwargs == {"max_turns": 5, "tool_format": "react"}


def test_a_file_for_another_recipe_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('recipe = "reagent-u"\n')
    with pytest.raises(ValueError, match="for the recipe 'reagent-u'"):
        make_config("outcome", file)


def test_a_file_that_is_not_there_or_not_toml_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"reagent-u-8b\.toml"):
        make_config(file=tmp_path / "none.toml")
    (tmp_path / "my.toml").write_text("updates: 5\n")
    with pytest.raises(ValueError, match=r"my\.toml is not TOML"):
        make_config(file=tmp_path / "my.toml")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("reagent-x", "Did you mean 'reagent-"),
        ("outcom", "Did you mean 'outcome'"),
        ("reagent-c", "reagent eval"),
        (None, "Which recipe"),
    ],
)
def test_a_recipe_that_does_not_exist_names_the_nearest(recipe: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_config(recipe)


def test_the_recipes_are_what_the_paper_says() -> None:
    outcome, r, u = (make_config(name) for name in ("outcome", "reagent-r", "reagent-u"))
    assert (outcome.needs_judge, outcome.attempts) == (False, 1)
    assert (r.needs_judge, r.attempts, r.weight) == (True, 1, 0.3)
    assert (u.needs_judge, u.attempts, u.advantage) == (True, 2, "pooled")


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda file: file.stem)
def test_every_shipped_file_is_valid_and_can_be_named_like_a_recipe(file: Path) -> None:
    assert make_config(file.stem) == make_config(file=Path(file.name)) == make_config(file=file)


def test_the_8b_file_has_the_published_numbers() -> None:
    config = make_config("reagent-u-8b")
    assert config.policy == "Qwen/Qwen3-8B"
    assert (config.lr, config.group_size, config.updates) == (5e-7, 8, 300)
    assert config.groups_per_update // config.minibatches == 16  # mini-batches of 16 prompts
    assert (config.temperature, config.top_p, config.context_length) == (0.7, 0.95, 27_384)
    assert (config.gpus, config.judge_gpus) == (8, 4)
