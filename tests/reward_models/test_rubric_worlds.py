"""The rubric on commands to a world and on SQL: what it finds, and what it leaves in peace."""

from __future__ import annotations

import ast
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import gymnasium
import pytest

import reagent_env.reward_models
from reagent_env import Task, ToolUseEnv
from reagent_env.agents.evaluate import run_episode
from reagent_env.agents.expert import ExpertAgent, solver_of, wanderer_of
from reagent_env.reward_models.rubric import RubricJudge
from reagent_env.reward_models.rubric_view import view_of
from reagent_env.trajectory import Attempt, ToolCall, ToolResult, Trajectory, Turn

JUDGE = RubricJudge()
WORLDS = ("reagent/TextCraft-v0", "reagent/BabyAI-v0")
SLAB = ("get 1 jungle logs", "craft 4 jungle planks using 1 jungle logs")
LAST = "craft 6 jungle slab using 3 jungle planks"


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[str, ToolUseEnv]]:
    made = {env_id: gymnasium.make(env_id, disable_env_checker=True) for env_id in WORLDS}
    inner = {env_id: one.unwrapped for env_id, one in made.items()}
    yield {env_id: env for env_id, env in inner.items() if isinstance(env, ToolUseEnv)}
    for one in made.values():
        one.close()


def call(command: str) -> str:
    text = json.dumps({"name": "act", "arguments": {"command": command}})
    return f"<tool_call>\n{text}\n</tool_call>"


def played(env: ToolUseEnv, task: Task, steps: Sequence[str]) -> Trajectory:
    """Commands, and texts that are none: those with a bracket are said as they are."""
    env.reset(options={"task": task})
    for step in steps:
        env.step(step if "<" in step or "\\" in step else call(step))
    return env.trajectory


def slab(worlds: dict[str, ToolUseEnv], *steps: str) -> Trajectory:
    env = worlds["reagent/TextCraft-v0"]
    task = next(t for t in env.tasks if t.metadata["goal"] == "minecraft:jungle_slab")
    return played(env, task, steps)


def found(trajectory: Trajectory) -> list[tuple[str, int]]:
    return [(finding.kind, finding.turn) for finding in JUDGE.findings(trajectory)]


def score(trajectory: Trajectory) -> float:
    judged = JUDGE.judge([trajectory])[0].score
    assert judged is not None
    return judged


@pytest.mark.parametrize("env_id", WORLDS)
def test_nothing_is_found_in_what_experts_do(env_id: str, worlds: dict[str, ToolUseEnv]) -> None:
    env = worlds[env_id]
    for number in range(12):
        task = env.tasks[number * 11]
        trajectory = run_episode(env, ExpertAgent(solver_of(env_id)), task)
        assert trajectory.stop_reason == "finished"
        assert found(trajectory) == []
        assert score(trajectory) == pytest.approx(0.95)


@pytest.mark.parametrize("env_id", WORLDS)
def test_wandering_about_is_far_worse_than_what_experts_do(
    env_id: str, worlds: dict[str, ToolUseEnv]
) -> None:
    env, wander = worlds[env_id], wanderer_of(env_id)
    assert wander is not None
    for number in range(4):
        trajectory = run_episode(env, ExpertAgent(wander), env.tasks[number * 11])
        if trajectory.stop_reason != "finished":
            assert score(trajectory) < 0.4


def test_a_look_between_steps_is_no_flaw_and_a_second_one_with_nothing_done_is(
    worlds: dict[str, ToolUseEnv],
) -> None:
    assert found(slab(worlds, "inventory", SLAB[0], "inventory", SLAB[1], LAST)) == []
    again = slab(worlds, SLAB[0], "inventory", "inventory", SLAB[1], LAST)
    assert found(again) == [("repeated_call", 2)]


def test_making_the_same_twice_is_no_repeat_where_both_are_used(
    worlds: dict[str, ToolUseEnv],
) -> None:
    env = worlds["reagent/TextCraft-v0"]
    task = next(t for t in env.tasks if t.metadata["goal"] == "minecraft:lime_bed")
    trajectory = run_episode(env, ExpertAgent(solver_of("reagent/TextCraft-v0")), task)
    commands = [str(turn.calls[0].arguments["command"]) for turn in trajectory.turns]
    assert commands.count("craft 1 white wool using 4 string") == 3
    assert found(trajectory) == []


@pytest.mark.parametrize("idle", ["get 1 jungle logs", "get 5 jungle logs"])
def test_what_is_fetched_for_nothing_is_found_once_the_goal_is_reached(
    worlds: dict[str, ToolUseEnv], idle: str
) -> None:
    trajectory = slab(worlds, SLAB[0], SLAB[1], idle, LAST)
    assert trajectory.outcome == 1.0
    assert found(trajectory) == [("needless_call", 2)]
    assert score(trajectory) < 0.9


def test_a_batch_too_many_is_found_and_the_rest_of_a_batch_is_not(
    worlds: dict[str, ToolUseEnv],
) -> None:
    twice = slab(worlds, "get 2 jungle logs", SLAB[1], SLAB[1], LAST)
    assert found(twice) == [("needless_call", 2)]  # of the first batch one plank is left as well


def test_a_step_before_its_time_is_found_and_the_same_refusal_again_is_worse(
    worlds: dict[str, ToolUseEnv],
) -> None:
    once = slab(worlds, SLAB[0], LAST, SLAB[1], LAST)
    assert ("too_early", 1) in found(once)
    twice = slab(worlds, SLAB[0], LAST, LAST, SLAB[1], LAST)
    assert ("repeated_failure", 2) in found(twice)
    assert score(twice) < score(once) < 0.8


def test_trying_again_after_what_was_missing_came_is_no_repeat(
    worlds: dict[str, ToolUseEnv],
) -> None:
    kinds = {kind for kind, _ in found(slab(worlds, SLAB[0], LAST, SLAB[1], LAST))}
    assert not kinds & {"repeated_failure", "repeated_call"}


def test_a_thing_that_nobody_named_is_found(worlds: dict[str, ToolUseEnv]) -> None:
    trajectory = slab(worlds, SLAB[0], "get 3 unicorns", SLAB[1], LAST)
    assert ("made_up_thing", 1) in found(trajectory)


def test_stopping_before_the_goal_is_grave(worlds: dict[str, ToolUseEnv]) -> None:
    trajectory = slab(worlds, *SLAB, r"\boxed{done}")
    assert found(trajectory) == [("premature_answer", 2)]
    assert score(trajectory) < 0.4


def test_a_report_that_the_world_did_not_give_is_found_and_a_true_one_is_not(
    worlds: dict[str, ToolUseEnv],
) -> None:
    made = "<think>Crafted 4 minecraft:jungle_planks. On with it.</think>\n"
    true = slab(worlds, *SLAB, made + call(LAST))
    assert found(true) == []
    invented = slab(worlds, SLAB[0], made + call(LAST), SLAB[1], LAST)
    assert ("claimed_result", 1) in found(invented)


def test_in_a_grid_turning_away_and_back_is_found_where_the_goal_was_before_one(
    worlds: dict[str, ToolUseEnv],
) -> None:
    env = worlds["reagent/BabyAI-v0"]
    task = next(t for t in env.tasks if t.metadata["kind"] == "GoToObjS6-v1")
    expert = run_episode(env, ExpertAgent(solver_of("reagent/BabyAI-v0")), task)
    commands = [str(turn.calls[0].arguments["command"]) for turn in expert.turns]
    turning = played(env, task, [*commands[:-1], "turn left", "turn right", commands[-1]])
    assert turning.stop_reason == "finished"
    assert found(turning) == [("detour", len(commands) - 1)]
    strange = played(env, task, [*commands[:-1], "pickup grey box 7", commands[-1]])
    assert ("made_up_thing", len(commands) - 1) in found(strange)


def test_a_prefix_is_worth_less_than_the_whole_and_the_turns_end_in_the_score(
    worlds: dict[str, ToolUseEnv],
) -> None:
    whole = slab(worlds, *SLAB, LAST)
    for causal in (False, True):
        judged = RubricJudge(causal=causal).judge([whole])[0]
        assert judged.turn_scores is not None
        assert list(judged.turn_scores) == sorted(judged.turn_scores)
        assert judged.turn_scores[-1] == judged.score == pytest.approx(0.95)


@pytest.mark.parametrize("env_id", WORLDS)
def test_neither_metadata_nor_what_the_world_paid_is_read(
    env_id: str, worlds: dict[str, ToolUseEnv]
) -> None:
    env = worlds[env_id]
    trajectory = run_episode(env, ExpertAgent(solver_of(env_id)), env.tasks[5])
    attempt = trajectory.attempts[-1]
    turns = tuple(dataclasses.replace(turn, reward=-5.0) for turn in attempt.turns)
    other = dataclasses.replace(
        trajectory,
        task=dataclasses.replace(trajectory.task, metadata={"goal": "CANARY"}, answer="CANARY"),
        attempts=(dataclasses.replace(attempt, turns=turns, outcome=0.0),),
    )
    one, two = JUDGE.judge([trajectory, other])
    assert dataclasses.replace(one, latency_s=0.0) == dataclasses.replace(two, latency_s=0.0)


def test_a_shell_is_no_world() -> None:
    shell = {"name": "shell", "parameters": {"properties": {"command": {"type": "string"}}}}
    act = {"name": "act", "parameters": {"properties": {"command": {"type": "string"}}}}
    task = Task("Count the files.", "3")
    assert not view_of(Trajectory(task, "", (shell,), (Attempt(),))).world
    assert view_of(Trajectory(task, "", (act,), (Attempt(),))).world


def test_long_commands_and_views_take_time_in_proportion() -> None:
    act = {"name": "act", "parameters": {"properties": {"command": {"type": "string"}}}}
    texts = (
        "craft 1 a using " + "1 b, " * 30_000,
        "go to " + "a " * 60_000,
        "get 1 " + "a" * 90_000,
    )
    views = ("available actions [" * 8_000, "There is a ball. " * 8_000, "goal: " * 20_000)
    turns = tuple(
        Turn(
            f"There is a key {number}. " + text[:5_000],
            (ToolCall("act", {"command": text if number % 2 else f"go to ball {number}"}),),
            (ToolResult("act", view),),
        )
        for number in range(5)
        for text, view in zip(texts, views, strict=True)
    )
    trajectory = Trajectory(Task("Goal: go.", None, "simulator"), "", (act,), (Attempt(turns),))
    began = time.perf_counter()
    JUDGE.judge([trajectory])
    assert time.perf_counter() - began < 20.0  # some 3 s on an idle core


# SQL ----------------------------------------------------------------------------------------------

SCHEMA = (
    "name | sql\n"
    "products | CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, category TEXT, price INTEGER)\n"
    "orders | CREATE TABLE orders (id INTEGER PRIMARY KEY, product_id INTEGER, quantity INTEGER)\n"
    "(2 rows)"
)
TABLES = "A database has the tables products and orders.\n"
ASKED = f"{TABLES}What is the total price over all products whose category is toys?"
RANKED = f"{TABLES}Which of the products has the largest total quantity over all orders?"
RIGHT = "SELECT SUM(price) FROM products WHERE category = 'toys'"
RANKING = (
    "SELECT t.name, SUM(e.quantity) AS total FROM orders e JOIN products t ON t.id = e.product_id "
    "GROUP BY t.id ORDER BY total DESC LIMIT 2"
)


def asked(question: str, answer: str, *queries: tuple[str, str]) -> Trajectory:
    """An attempt at a question: queries with what they gave, after a look at the tables."""
    schema = {"name": "sql", "parameters": {"properties": {"query": {"type": "string"}}}}
    every = [("SELECT name, sql FROM sqlite_master", SCHEMA), *queries]
    turns = [
        Turn(
            "",
            (ToolCall("sql", {"query": query}),),
            (ToolResult("sql", given, "tool_error" if given.startswith("Error") else None),),
        )
        for query, given in every
    ]
    attempt = Attempt((*turns, Turn(f"\\boxed{{{answer}}}")), answer, 1.0, "answered")
    return Trajectory(Task(question, answer), question, (schema,), (attempt,))


def test_a_look_at_the_tables_and_the_right_query_are_clean() -> None:
    whole = asked(ASKED, "4210", (RIGHT, "SUM(price)\n4210\n(1 rows)"))
    assert found(whole) == []
    ranked = asked(RANKED, "Kol", (RANKING, "name | total\nKol | 93\nMir | 71\n(2 rows)"))
    assert found(ranked) == []


@pytest.mark.parametrize(
    ("kind", "query", "given", "answer"),
    [
        ("part_ignored", "SELECT SUM(price) FROM products", "SUM(price)\n9017\n(1 rows)", "9017"),
        (
            "unit_slip",
            RIGHT.replace(")", ") / 100.0", 1),
            "SUM(price) / 100.0\n42.1\n(1 rows)",
            "42.1",
        ),
        ("wrong_kind", RIGHT.replace("SUM(price)", "COUNT(*)"), "COUNT(*)\n14\n(1 rows)", "14"),
        ("wrong_kind", RIGHT.replace("SUM(price)", "id"), "id\n17\n(1 rows)", "17"),
    ],
)
def test_a_query_for_something_else_is_found(
    kind: str, query: str, given: str, answer: str
) -> None:
    assert kind in {name for name, _ in found(asked(ASKED, answer, (query, given)))}


def test_the_second_row_is_not_the_answer() -> None:
    trajectory = asked(RANKED, "Mir", (RANKING, "name | total\nKol | 93\nMir | 71\n(2 rows)"))
    assert found(trajectory) == [("wrong_kind", 2)]


def test_a_column_that_is_not_there_and_one_nobody_asked_about_are_found() -> None:
    right = (RIGHT, "SUM(price)\n4210\n(1 rows)")
    strange = ("SELECT SUM(price_net) FROM products", "Error: no such column: price_net")
    assert ("made_up_name", 1) in found(asked(ASKED, "4210", strange, right))
    beside = ("SELECT AVG(quantity) FROM orders", "AVG(quantity)\n28.5\n(1 rows)")
    assert found(asked(ASKED, "4210", right, beside)) == [("off_topic", 2)]


def test_the_same_query_again_is_found_and_a_count_of_the_same_rows_is_not() -> None:
    right = (RIGHT, "SUM(price)\n4210\n(1 rows)")
    count = (RIGHT.replace("SUM(price)", "COUNT(*)"), "COUNT(*)\n14\n(1 rows)")
    assert found(asked(ASKED, "4210", right, count)) == []
    assert ("repeated_call", 3) in found(asked(ASKED, "4210", right, count, right))


# Two things apart ---------------------------------------------------------------------------------


def _imported(folder: Path, pattern: str) -> set[str]:
    names: set[str] = set()
    for path in folder.glob(pattern):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
            elif isinstance(node, ast.Import):
                names |= {one.name for one in node.names}
    return names


def test_the_rubric_and_the_planter_share_no_code() -> None:
    import reagent_env.agents.judge_data as planter

    rubric = _imported(Path(reagent_env.reward_models.__path__[0]), "*.py")
    assert not any(
        name.startswith(("reagent_env.agents", "reagent_env.families")) for name in rubric
    )
    planting = _imported(Path(planter.__path__[0]), "*.py")
    assert not any(name.startswith("reagent_env.reward_models.rubric") for name in planting)
