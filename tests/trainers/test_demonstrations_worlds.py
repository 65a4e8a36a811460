"""Clumsy play in worlds, and drills whose recipes cannot be learned by heart."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import gymnasium
import pytest

from reagent_env.agents.expert import solver_of
from reagent_env.env import ToolUseEnv
from reagent_env.families.baby_ai_tasks import SMALL, baby_ai_small
from reagent_env.families.text_craft import text_craft, text_craft_small
from reagent_env.families.text_craft_solver import Planner, solve
from reagent_env.trainers.demonstrations import ScriptedPolicy, demonstrate, knowledge_of
from reagent_env.trainers.drills_text_craft import imagined_question, text_craft_drill
from reagent_env.trainers.policies import tiny
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.sft_episodes import play_scripts, scripts
from reagent_env.trajectory import Trajectory

FAMILIES = {"reagent/TextCraft-v0": "text_craft_small", "reagent/BabyAI-v0": "baby_ai_small"}


def played(env_id: str, strategy: str, tasks: Sequence[int]) -> list[Trajectory]:
    env = gymnasium.make(
        env_id, disable_env_checker=True, tasks=FAMILIES[env_id], tool_format="compact"
    )
    inner = env.unwrapped
    assert isinstance(inner, ToolUseEnv)
    found = []
    for number in tasks:
        policy = ScriptedPolicy(
            solver_of(env_id),
            quality={strategy: 1.0},
            knowledge=knowledge_of(env_id),
            seed=number,
        )
        found.append(demonstrate(env, policy, inner.tasks[number], seed=number))
    env.close()
    return found


@pytest.mark.parametrize("env_id", FAMILIES)
def test_detours_cost_turns_and_at_times_the_goal(env_id: str) -> None:
    straight = played(env_id, "clean", range(12))
    clumsy = played(env_id, "detours", range(12))
    assert sum(len(one.turns) for one in clumsy) > 1.3 * sum(len(one.turns) for one in straight)
    won = [bool(one.attempts[0].outcome) for one in clumsy]
    assert 3 <= sum(won) <= 11


@pytest.mark.parametrize("env_id", FAMILIES)
def test_who_gives_up_ends_without_a_call(env_id: str) -> None:
    ended = [one.attempts[0] for one in played(env_id, "giving_up", range(12))]
    left = [one for one in ended if one.stop_reason == "answered"]
    assert len(left) >= 4
    assert all(one.outcome == 0 and not one.turns[-1].calls for one in left)


@pytest.mark.parametrize("env_id", FAMILIES)
def test_the_mixture_adds_up_and_names_its_own_strategies(env_id: str) -> None:
    known = knowledge_of(env_id)
    assert sum(known.mixed.values()) == pytest.approx(1)
    assert set(known.mixed) == {"clean", *known.strategies}


def test_a_demonstration_begins_with_what_the_world_shows_at_first() -> None:
    def make() -> gymnasium.Env[str, str]:
        return gymnasium.make("reagent/BabyAI-v0", disable_env_checker=True, tasks="baby_ai_small")

    wanted = list(scripts(baby_ai_small("train")[:2], 2, {"clean": 1.0}, seed=0))
    for one in play_scripts(make, wanted, env_id="reagent/BabyAI-v0", threads=1):
        assert "Available actions: [" in one.messages[-1]["content"]


def test_imagined_recipes_are_reachable_and_new_each_time() -> None:
    rng = random.Random(0)
    questions = [imagined_question(rng) for _ in range(50)]
    assert len(set(questions)) == 50
    assert all(Planner(question).commands() for question in questions)
    real = {line for task in text_craft("train") for line in task.question.splitlines()}
    imagined = {line for one in questions for line in one.splitlines() if " using " in line}
    assert len(imagined & real) <= 1


def drill(tokenizer: Any, *, repeated: bool) -> tuple[str, str]:
    """What the first drill of the kind reads before its first completion, and all it writes."""
    renderer, decode = Renderer(tokenizer), tokenizer.decode
    for seed in range(50):
        sample = text_craft_drill(renderer, random.Random(seed))
        begins = next(place for place, turn in enumerate(sample.turn_of) if turn >= 0)
        read, written = (
            decode(sample.ids[:begins]),
            decode([i for i, turn in zip(sample.ids, sample.turn_of, strict=True) if turn >= 0]),
        )
        if ("Goal" not in read) == repeated:
            return read, written
    raise AssertionError("no drill of that kind among fifty")


def test_a_drill_is_the_experts_commands_or_recipes_to_repeat() -> None:
    texts = [task.question for task in text_craft("train")[:200]]
    tokenizer = tiny.make_tokenizer(texts, frames=("craft ", "get "))
    read, written = drill(tokenizer, repeated=False)
    question = read[read.index("Crafting commands") : read.index("<|im_end|>")]
    for [(_, arguments)] in solve(question):
        assert arguments["command"] in written
    assert "Goal" not in written
    read, written = drill(tokenizer, repeated=True)
    lines = {line for line in read.splitlines() if " using " in line}
    assert {line.removesuffix("<|im_end|>") for line in written.strip().splitlines()} == {
        line.removesuffix("<|im_end|>") for line in lines
    }


def test_frames_are_one_token_each() -> None:
    frames = knowledge_of("reagent/BabyAI-v0").frames()
    texts = [f"{frame} red ball" for frame in frames]
    tokenizer = tiny.make_tokenizer(texts, frames=frames)
    assert all(len(tokenizer.encode(frame, add_special_tokens=False)) == 1 for frame in frames)


def test_small_task_sets_keep_to_their_split_and_size() -> None:
    tasks = text_craft_small("test")
    goals = {task.metadata["goal"] for task in tasks}
    assert (len(tasks), len(goals)) == (204, 51)
    assert {task.metadata["level"] for task in tasks} == {1, 2}
    assert not goals & {task.metadata["goal"] for task in text_craft("train")}
    assert [task.metadata["kind"] for task in baby_ai_small("test")[:4]] == list(SMALL)


def test_distractors_are_recipes_beside_those_needed() -> None:
    lengths = {
        most: sum(len(task.question) for task in text_craft("test", distractors=most))
        for most in (0, 3, 10)
    }
    assert lengths[0] < lengths[3] < lengths[10]
    with pytest.raises(ValueError, match="distractors must be 0 or more, got -1"):
        text_craft(distractors=-1)
