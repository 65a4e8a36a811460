"""BabyAI: what is seen in words, what the verbs do, what a mission pays, and who can do it."""

from __future__ import annotations

import itertools
import warnings

import gymnasium as gym
import pytest

from reagent_env.errors import TaskError, ToolError
from reagent_env.families.baby_ai import BabyAI, make_level
from reagent_env.families.baby_ai_solver import parts_of, solve, wander
from reagent_env.families.baby_ai_tasks import KINDS, baby_ai, level_of
from reagent_env.families.baby_ai_view import view_of
from reagent_env.task import Task
from reagent_env.testing import SimulatorContract
from reagent_env.testing.simulator_contract import play
from reagent_env.trajectory import ToolCall

ENV_ID = "reagent/BabyAI-v0"
U, E, W = (0, 0, 0), (1, 0, 0), (2, 5, 0)
"""Unseen, empty, wall."""
BALL, BOX = (6, 0, 0), (7, 2, 0)
"""A red ball, a blue box."""


class TestContract(SimulatorContract):
    env_id = ENV_ID
    solver = "reagent_env.families.baby_ai_solver:solve"
    idle = ToolCall("act", {"command": "check available actions"})


def game_of(kind: str, seed: int = 0) -> BabyAI:
    metadata = {"level_id": f"BabyAI-{kind}", "seed": seed}
    return BabyAI(Task("Play.", None, "simulator", metadata=metadata))


def image(*rows: tuple[tuple[int, int, int], ...]) -> list[list[tuple[int, int, int]]]:
    """From rows as seen, far to near, to minigrid's columns."""
    return [list(column) for column in zip(*rows, strict=True)]


def door(color: int, state: int) -> tuple[int, int, int]:
    return (4, color, state)


# Seeing -------------------------------------------------------------------------------------------


def test_what_is_seen_is_told_from_near_to_far_by_steps_ahead_and_aside() -> None:
    view = view_of(image((W, W, W), (BALL, E, BALL), (E, E, BOX), (E, E, E)), None)
    assert view.description == (
        "In front of you in this room, you can see several objects: "
        "There is a blue box 1 1 steps in front of you and 1 steps to your right. "
        "There is a red ball 1 2 steps in front of you and 1 steps to your left. "
        "There is a red ball 2 2 steps in front of you and 1 steps to your right. "
        "The room has walls around you. You are facing a wall 3 steps away. "
        "You are not carrying anything."
    )
    assert view.verbs["go to red ball 1"] == [2, 2, 0]
    assert view.verbs["pickup blue box 1"] == [2, 1, 3]


def test_nothing_in_sight_is_said_so() -> None:
    view = view_of(image((U, U, U), (U, E, U), (U, E, U)), None)
    assert view.description.startswith("You cannot see any objects within sight.")
    assert list(view.verbs) == ["turn left", "turn right", "move forward"]


def test_a_way_round_is_found_and_none_is_said_so() -> None:
    behind = view_of(image((E, BALL, E), (E, BOX, E), (E, E, E)), None)
    assert behind.verbs["go to red ball 1"] == [0, 2, 1, 2, 2, 1]
    shut = view_of(image((W, BALL, W), (W, BOX, W), (W, E, W)), None)
    assert "go to red ball 1" not in shut.verbs
    assert shut.refused["go to red ball 1"] == "There is no free way to it in sight."


@pytest.mark.parametrize(
    ("state", "carrying", "verb"),
    [
        (0, None, "go through red open door 1"),
        (1, None, "toggle and go through red closed door 1"),
        (2, "red key", "toggle and go through red locked door 1"),
        (2, "blue key", None),
        (2, None, None),
    ],
)
def test_a_door_is_gone_through_as_its_lock_allows(
    state: int, carrying: str | None, verb: str | None
) -> None:
    view = view_of(image((W, door(0, state), W), (E, E, E), (E, E, E)), carrying)
    through = [one for one in view.verbs if "through" in one]
    assert through == ([verb] if verb else [])
    if verb is None:
        why = "It is locked, and you are not carrying a red key."
        assert view.refused["toggle and go through red locked door 1"] == why


def test_dropping_needs_a_load_and_room() -> None:
    assert "drop" in view_of(image((E, E, E), (E, E, E)), "red key").verbs
    assert "drop" not in view_of(image((E, BALL, E), (E, E, E)), "red key").verbs
    assert view_of(image((E, E, E), (E, E, E)), None).refused["drop"].startswith("You are not")


# Acting -------------------------------------------------------------------------------------------


def test_the_verbs_of_a_level_lead_where_they_say() -> None:
    game = game_of("GoToRedBallNoDists-v0", 1)
    shown = game.opening
    while "pickup red ball 1" not in shown:
        shown = game.act("turn right")
    shown = game.act("pickup red ball 1")
    assert game.over  # facing it was the mission; no step is taken after that
    assert shown.endswith("The task is completed.")
    assert 0.5 < game.score < 1.0


def test_a_mission_pays_what_minigrid_pays() -> None:
    game = game_of("GoToObjS6-v1", 3)
    level = make_level("BabyAI-GoToObjS6-v1", 3)
    for _ in range(5):
        game.act("turn left")
        level.step(0)
    steps = list(itertools.islice(_play(game, "Your goal: " + level.mission), 20))
    assert steps
    assert game.over
    assert game.score == pytest.approx(1 - 0.9 * game._level.step_count / level.max_steps)


def _play(game: BabyAI, question: str):
    moves = solve(f"{question}\n\n{game._view.text}")
    calls = next(moves)
    while True:
        yield calls
        shown = game.act(calls[0][1]["command"])
        if game.over:
            return
        calls = moves.send([shown])


@pytest.mark.parametrize("command", ["fly", "go to red ball 9", "", "toggle", "drop"])
def test_what_cannot_be_done_changes_nothing(command: str) -> None:
    game = game_of("GoToRedBallNoDists-v0", 1)
    before = game._level.step_count
    with pytest.raises(ToolError, match="Available actions"):
        game.act(command)
    assert game._level.step_count == before


def test_repeating_what_cannot_be_done_never_pays() -> None:
    env = gym.make(ENV_ID, disable_env_checker=True, max_turns=60)
    env.reset(seed=0)
    call = env.unwrapped.tool_format.render_calls([ToolCall("act", {"command": "fly"})])
    rewards = [env.step(call)[1] for _ in range(60)]
    assert rewards == [0.0] * 60


def test_a_level_that_fails_or_runs_out_of_steps_is_over_with_nothing() -> None:
    game = game_of("OpenRedDoor-v0")
    while not game.over:
        shown = game.act("turn left")
    assert shown.endswith("The task has failed.")
    assert game.score == 0.0


def test_it_can_be_seen() -> None:
    env = gym.make(ENV_ID, render_mode="rgb_array", disable_env_checker=True)
    env.reset(seed=0)
    picture = env.render()
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert picture.max() > 100


def test_making_levels_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for seed in range(20):
        make_level("BabyAI-GoToLocalS8N7-v0", seed)  # rejects many a layout
    assert capfd.readouterr().out == ""


def test_a_task_without_a_level_is_unusable() -> None:
    with pytest.raises(TaskError, match="names a level_id and a seed, got None, 3"):
        BabyAI(Task("Play.", None, "simulator", metadata={"seed": 3}))


# The tasks ----------------------------------------------------------------------------------------


def test_there_are_forty_kinds_of_level_and_each_can_be_made() -> None:
    kinds = [kind for level in KINDS for kind in KINDS[level]]
    assert len(set(kinds)) == len(kinds) == 40
    for kind in kinds:
        assert make_level(f"BabyAI-{kind}", 0).mission
    assert level_of("BossLevel-v0") == 4


def test_kinds_take_turns_and_worlds_do_not_cross_splits() -> None:
    kind = "GoToRedBallNoDists-v0"  # has the fewest different worlds
    worlds = {}
    for split in ("train", "test"):
        tasks = baby_ai(split, kinds=(kind,))
        levels = [make_level(t.metadata["level_id"], t.metadata["seed"]) for t in tasks[:60]]
        worlds[split] = {(level.mission, level.hash(64)) for level in levels}
    assert not worlds["train"] & worlds["test"]
    assert [task.metadata["kind"] for task in baby_ai("test")[:3]] == list(KINDS[1][:3])


def test_wrong_levels_and_kinds_are_named() -> None:
    with pytest.raises(ValueError, match=r"\[9\]; levels: 1 to 4"):
        baby_ai(levels=(9,))
    with pytest.raises(ValueError, match="'GoToMoon-v0'"):
        baby_ai(kinds=("GoToMoon-v0",))


# Solving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mission", "parts"),
    [
        ("go to the red ball", ["go to the red ball"]),
        ("open a door, then go to a key", ["open a door", "go to a key"]),
        ("go to a key after you open a door", ["open a door", "go to a key"]),
        (
            "go to a key and go to a ball after you open a door",
            ["open a door", "go to a key", "go to a ball"],
        ),
    ],
)
def test_a_mission_is_read_in_the_order_it_is_to_be_done(mission: str, parts: list[str]) -> None:
    assert parts_of(f"Your goal: {mission}\n\nYou cannot see …") == parts


def test_the_expert_does_what_random_moves_mostly_do_not() -> None:
    tasks = baby_ai("validation")[:34]  # two of each kind
    env = gym.make(ENV_ID, tasks=tasks, disable_env_checker=True)
    paid = {
        solver: [list(play(env, solver, task=task))[-1][1] for task in tasks]
        for solver in (solve, wander)
    }
    assert sum(reward > 0 for reward in paid[solve]) >= 32
    assert sum(paid[solve]) / 34 > 0.85
    assert sum(paid[wander]) / 34 < 0.55


@pytest.mark.parametrize("kind", ["Unlock-v0", "BlockedUnlockPickup-v0", "SynthS5R2-v0"])
def test_minigrids_own_bot_does_harder_levels_by_our_verbs(kind: str) -> None:
    from minigrid.utils.baby_ai_bot import BabyAIBot

    game = game_of(kind, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bot = BabyAIBot(game._level)
        action = None
        while not game.over:
            action = bot.replan(action)
            game.act(_verb(int(action), game))
    assert game.score > 0


def _verb(action: int, game: BabyAI) -> str:
    if action == 3:
        near = [verb for verb, steps in game._view.verbs.items() if steps == [3]]
        return near[0]
    return ("turn left", "turn right", "move forward", "", "drop", "toggle")[action]
