"""SQL: databases and questions that split by content, a tool that only reads, answers by result."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import pytest

from reagent_env.families.sql import SCRIPT, solve, sql_questions
from reagent_env.families.sql_kinds import KINDS, THEMES, expert_query
from reagent_env.task import SPLITS
from reagent_env.task_sets.baselines import measure_baselines
from reagent_env.testing import EnvContract
from reagent_env.testing.simulator_contract import play
from reagent_env.trajectory import ToolCall

ENV_ID = "reagent/SQL-v0"


class TestContract(EnvContract):
    def make_env(self, **kwargs: Any) -> gym.Env[str, str]:
        return gym.make(ENV_ID, **{"sandbox": "embedded", "disable_env_checker": True, **kwargs})


@pytest.fixture(scope="module")
def shared() -> Iterator[Any]:
    env = gym.make(ENV_ID, split="test", sandbox="embedded", max_turns=40, disable_env_checker=True)
    yield env
    env.close()


@pytest.fixture
def ask(shared: Any) -> Any:
    """Ask queries of the first test task's database; what the policy reads."""
    shared.reset(options={"task": 0})

    def asked(query: str) -> str:
        call = ToolCall("sql", {"query": query})
        info = shared.step(shared.unwrapped.tool_format.render_calls([call]))[4]
        return str(info["tool_results"][0]["content"])

    return asked


# The tool -----------------------------------------------------------------------------------------


def test_a_query_shows_names_rows_and_how_many(ask: Any) -> None:
    assert ask("SELECT 1 AS one, NULL AS two UNION ALL SELECT 2, 'x'") == (
        "one | two\n1 | NULL\n2 | x\n(2 rows)"
    )
    many = ask("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n")
    assert many.endswith("\n50\n(50 rows, and more)")


def test_the_tables_are_those_of_the_task(ask: Any, shared: Any) -> None:
    shown = ask("SELECT name FROM sqlite_master")
    for table in shared.unwrapped.trajectory.task.question.split("\n")[0][24:-1].split(" and "):
        assert table.split(", ")[-1] in shown


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELEKT 1", "Error: near"),
        ("SELECT no_such", "Error: no such column"),
        ("SELECT 1; SELECT 2", "Error: You can only execute one statement"),
        ("CREATE TABLE mine (x)", "Error: attempt to write a readonly database"),
        ("", "Error: a query has 1 to 4000 characters"),
        ("SELECT '\ud800'", "Error:"),
        ("SELECT '\x00'", "Error:"),
    ],
)
def test_what_a_query_cannot_do_is_explained(ask: Any, query: str, told: str) -> None:
    assert ask(query).startswith(told)
    assert ask("SELECT 7 AS x").startswith("x\n7")


def test_a_query_without_end_is_interrupted(shared: Any) -> None:
    from reagent_env.sandboxes.contract import Limits

    env = gym.make(
        ENV_ID, sandbox="embedded", sandbox_limits=Limits(timeout_s=0.5), disable_env_checker=True
    )
    env.reset(seed=0)
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )
    call = ToolCall("sql", {"query": endless})
    info = env.step(env.unwrapped.tool_format.render_calls([call]))[4]
    env.close()
    assert info["tool_results"][0]["error"] == "timeout"


# The tasks ----------------------------------------------------------------------------------------


def test_every_question_has_the_answer_of_its_query_and_the_expert_reads_it() -> None:
    for split in SPLITS:
        for task in sql_questions(split, sizes={split: 40}):
            database = sqlite3.connect(":memory:")
            database.executescript(task.files[SCRIPT].decode())
            query = expert_query(task.question)
            assert query is not None, task.question
            assert database.execute(query).fetchone()[0] == task.answer
            database.close()
            assert task.split == split


def test_kinds_levels_and_themes_are_all_there() -> None:
    tasks = sql_questions("train", sizes={"train": 64})
    assert {task.metadata["kind"] for task in tasks} == set(KINDS)
    assert {task.metadata["level"] for task in tasks} == {1, 2, 3, 4}
    assert {task.metadata["theme"] for task in tasks} == {theme.name for theme in THEMES}
    assert {task.metadata["level"] for task in sql_questions("test", levels=(4,))[:8]} == {4}
    with pytest.raises(ValueError, match=r"Unknown or no levels \[5\]"):
        sql_questions(levels=(5,))


def test_the_set_pickles() -> None:
    tasks = sql_questions("test")
    assert pickle.loads(pickle.dumps(tasks))[5].id == tasks[5].id


def test_no_blind_guess_earns_more_than_one_in_fifty() -> None:
    sizes = {"train": 160, "test": 80}
    train, test = (list(sql_questions(split, sizes=sizes)) for split in ("train", "test"))
    for baseline in measure_baselines("sql", train, test):
        assert baseline.mean_score <= 0.02, baseline


def test_the_expert_answers_through_the_tool(shared: Any) -> None:
    rewards = [list(play(shared, solve, task=number))[-1][1] for number in range(8)]
    assert rewards == [1.0] * 8


def test_a_question_of_another_sort_is_left_alone() -> None:
    assert list(solve("Why is the sky blue?")) == []
