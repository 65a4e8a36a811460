"""Evaluation: which tasks run, what a crash and a failing server leave, what the numbers come to."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from typer.testing import CliRunner

from reagent_env import ToolUseEnv
from reagent_env.agents.agent import Agent
from reagent_env.agents.chat import ContextOverflow, PolicyUnavailable
from reagent_env.agents.cli import _write_json
from reagent_env.agents.evaluate import evaluate
from reagent_env.agents.random_agent import RandomAgent
from reagent_env.agents.refine import compare_attempts
from reagent_env.agents.summary import rate, summarise
from reagent_env.cli import app
from reagent_env.testing import addition_env
from reagent_env.trajectory_file import read_trajectories, settled_trajectories


class Adder(Agent):
    """Calls ``add``, then answers; right for sums of an even first number, wrong for the others."""

    name = "adder"

    def __init__(self, played: list[str], fails: Mapping[str, int] | None = None) -> None:
        self.played = played
        self.fails = Counter(fails or {})
        self._question = ""

    def begin(self, info: Mapping[str, Any]) -> None:
        self._question = info["messages"][-1]["content"]
        self.played.append(self._question)

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        a, b = (int(number) for number in re.findall(r"\d+", self._question))
        if info["turn"] == 0:
            call = {"name": "add", "arguments": {"a": a, "b": b}}
            return f"<tool_call>{json.dumps(call)}</tool_call>"
        if self.fails[self._question] > 0:
            self.fails[self._question] -= 1
            raise PolicyUnavailable("the server is down")
        return rf"\boxed{{{a + b if a % 2 == 0 else 0}}}"


class Overflowing(Adder):
    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        raise ContextOverflow("too long")


def question(n: int) -> str:
    return f"What is {n} + {n + 1}?"


def test_every_task_drawn_runs_once(tmp_path: Path) -> None:
    played: list[str] = []
    trajectories = evaluate(addition_env, lambda: Adder(played), 20, out=tmp_path, concurrency=3)
    assert sorted(played) == sorted(question(n) for n in range(20))
    assert sorted(one.task.question for one in trajectories) == sorted(played)
    assert sum(one.outcome or 0 for one in trajectories) == 10
    assert {one.agent["name"] for one in trajectories} == {"adder"}


def test_the_seed_draws_the_tasks_without_repetition(tmp_path: Path) -> None:
    def drawn(seed: int, folder: str) -> list[str]:
        played: list[str] = []
        out = tmp_path / folder
        evaluate(addition_env, lambda: Adder(played), 6, out=out, concurrency=1, seed=seed)
        assert len(set(played)) == 6
        return played

    first = drawn(0, "a")
    assert drawn(0, "b") == first
    assert drawn(1, "c") != first


def test_asking_for_more_episodes_than_tasks_runs_them_all(tmp_path: Path) -> None:
    trajectories = evaluate(addition_env, lambda: Adder([]), 1_000, out=tmp_path)
    assert len(trajectories) == 20


def test_a_crash_loses_at_most_the_line_being_written(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.jsonl"
    finished: list[str] = []

    def stop_after_5(trajectory: Any) -> None:
        finished.append(trajectory.task.question)
        if len(finished) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(
            addition_env,
            lambda: Adder([]),
            12,
            out=tmp_path,
            concurrency=1,
            on_episode=stop_after_5,
        )
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    path.write_bytes(b"".join(lines)[:-40])  # the fifth line torn

    played: list[str] = []
    trajectories = evaluate(addition_env, lambda: Adder(played), 12, out=tmp_path)
    assert len(trajectories) == 12
    assert len(played) == 8, "7 that never ran, and the torn one"
    assert not set(played) & set(finished[:4])
    assert path.read_bytes().startswith(b"".join(lines[:4]))
    assert len({one.task.id for one in read_trajectories(path)}) == 12


def test_a_resumed_evaluation_reports_the_old_episodes_too(tmp_path: Path) -> None:
    evaluate(addition_env, lambda: Adder([]), 5, out=tmp_path)
    seen: list[float | None] = []
    evaluate(
        addition_env,
        lambda: Adder([]),
        5,
        out=tmp_path,
        on_episode=lambda trajectory: seen.append(trajectory.outcome),
    )
    assert len(seen) == 5


def test_an_episode_that_infrastructure_spoils_is_run_again(tmp_path: Path) -> None:
    played: list[str] = []
    agent = Adder(played, {question(4): 2})
    trajectories = evaluate(addition_env, lambda: agent, 20, out=tmp_path, concurrency=1, retries=2)
    assert Counter(played)[question(4)] == 3
    assert all(one.outcome is not None for one in trajectories)
    assert len(list(read_trajectories(tmp_path / "trajectories.jsonl"))) == 20


def test_after_the_retries_it_is_masked_and_a_resumed_evaluation_tries_again(
    tmp_path: Path,
) -> None:
    agent = Adder([], {question(4): 99})
    first = evaluate(addition_env, lambda: agent, 20, out=tmp_path, concurrency=1, retries=1)
    [masked] = [one for one in first if one.outcome is None]
    assert masked.task.question == question(4)
    assert masked.stop_reason == "infrastructure_failure"
    assert masked.infrastructure_error == "PolicyUnavailable: the server is down"
    assert agent.fails[question(4)] == 97, "two tries"
    assert summarise(first).masked == 1
    assert summarise(first).outcome.n == 19

    played: list[str] = []
    second = evaluate(addition_env, lambda: Adder(played), 20, out=tmp_path)
    assert played == [question(4)]
    assert summarise(second).masked == 0
    assert summarise(second).outcome.n == 20

    evaluate(addition_env, lambda: Adder(played), 20, out=tmp_path)
    assert played == [question(4)], "then it is finished"

    path = tmp_path / "trajectories.jsonl"
    assert len(list(read_trajectories(path))) == 21, "the masked line stays in the file"
    latest = settled_trajectories(path)
    assert len(latest) == 20
    assert all(one.outcome is not None for one in latest)


def test_a_conversation_too_long_counts_as_0_and_is_not_run_again(tmp_path: Path) -> None:
    played: list[str] = []
    [trajectory] = evaluate(addition_env, lambda: Overflowing(played), 1, out=tmp_path)
    assert (trajectory.outcome, trajectory.stop_reason) == (0.0, "context_length")
    assert len(played) == 1


def test_a_mistake_in_an_agent_is_raised_and_leaves_no_thread(tmp_path: Path) -> None:
    class Broken(Adder):
        def act(self, observation: str, info: Mapping[str, Any]) -> str:
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        evaluate(addition_env, lambda: Broken([]), 4, out=tmp_path)
    assert not [one for one in threading.enumerate() if one.name.startswith("episode")]


def test_ctrl_c_waits_for_no_agent_that_hangs_and_keeps_what_is_finished(tmp_path: Path) -> None:
    hangs, never = threading.Semaphore(0), threading.Event()

    class Hanging(Adder):
        def act(self, observation: str, info: Mapping[str, Any]) -> str:
            if self._question != question(4):
                hangs.release()
                never.wait(60)
            return super().act(observation, info)

    def interrupt(trajectory: Any) -> None:
        for _ in range(2):  # the other workers are inside, and stay there
            assert hangs.acquire(timeout=30)
        raise KeyboardInterrupt

    started = time.monotonic()
    tasks = addition_env().tasks[:5]
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            lambda: addition_env(tasks=tasks),
            lambda: Hanging([]),
            5,
            out=tmp_path,
            concurrency=3,
            on_episode=interrupt,
        )
    assert time.monotonic() - started < 10
    [kept] = read_trajectories(tmp_path / "trajectories.jsonl")
    assert kept.task.question == question(4)
    never.set()


def test_an_evaluation_that_ends_early_gives_up_episodes_at_their_next_turn(tmp_path: Path) -> None:
    turns: Counter[str] = Counter()

    class Endless(Adder):
        def act(self, observation: str, info: Mapping[str, Any]) -> str:
            turns[self._question] += 1
            if self._question == question(0):
                raise ZeroDivisionError("a bug")
            return '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 1}}</tool_call>'

    with pytest.raises(ZeroDivisionError):
        evaluate(
            lambda: addition_env(tasks=addition_env().tasks[:2], max_turns=10**9),
            lambda: Endless([]),
            2,
            out=tmp_path,
            concurrency=2,
        )
    assert not [one for one in threading.enumerate() if one.name.startswith("episode")]
    assert list(read_trajectories(tmp_path / "trajectories.jsonl")) == []


def test_environments_are_closed_at_the_end(tmp_path: Path) -> None:
    made: list[ToolUseEnv] = []

    def make() -> ToolUseEnv:
        made.append(addition_env())
        return made[-1]

    evaluate(make, lambda: Adder([]), 4, out=tmp_path, concurrency=2)
    assert made
    for env in made:
        with pytest.raises(gymnasium.error.ClosedEnvironmentError):
            env.reset(seed=0)


def test_the_random_agent_solves_hardly_anything_and_repeats_itself(tmp_path: Path) -> None:
    runs = [
        evaluate(addition_env, RandomAgent, 20, out=tmp_path / name, concurrency=1)
        for name in ("a", "b")
    ]
    completions = [[turn.completion for one in run for turn in one.turns] for run in runs]
    assert completions[0] == completions[1]
    assert summarise(runs[0]).outcome.mean < 0.3


# z = 1.959964; Wilson: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n), worked by hand.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.277533),
        (5, 10, 0.236593, 0.763407),
        (10, 10, 0.722467, 1.0),
        (0, 1, 0.0, 0.793450),
        (8, 10, 0.490162, 0.943318),
        (90, 100, 0.825634, 0.944771),
    ],
)
def test_success_has_wilsons_interval(successes: int, n: int, low: float, high: float) -> None:
    found = rate([1.0] * successes + [0.0] * (n - successes))
    assert found.n == n
    assert found.mean == pytest.approx(successes / n)
    assert found.interval == pytest.approx((low, high), abs=2e-6)


def test_graded_outcomes_have_the_normal_interval() -> None:
    found = rate([0.2, 0.4, 0.4, 0.6])  # variance 0.08/3; 1.959964 √(0.08/3/4) = 0.160030
    assert found.mean == pytest.approx(0.4)
    assert found.interval == pytest.approx((0.239970, 0.560030), abs=1e-6)


def test_one_graded_outcome_says_nothing_of_its_spread() -> None:
    assert rate([0.4]).interval == (0.0, 1.0)


def test_no_outcome_at_all_is_no_rate() -> None:
    assert str(rate([])) == "–"
    assert rate([]).n == 0


def test_a_summary_counts_tools_turns_and_stops(tmp_path: Path) -> None:
    agent = Adder([], {question(4): 99})
    summary = summarise(
        evaluate(addition_env, lambda: agent, 20, out=tmp_path, concurrency=1, retries=0)
    )
    assert summary.stop_reasons == {"answered": 19, "infrastructure_failure": 1}
    assert (summary.tools["add"]["calls"], summary.tools["add"]["errors"]) == (20, 0)
    assert summary.mean_turns == pytest.approx((19 * 2 + 1) / 20)
    assert summary.outcome.mean == pytest.approx(9 / 19)


@pytest.fixture
def addition_id() -> Iterator[str]:
    """The addition environment under an id, for the command line."""

    def make(split: str, sandbox: str, **kwargs: Any) -> ToolUseEnv:
        return addition_env(**kwargs)

    env_id = "test_evaluate/Addition-v0"
    gymnasium.register(env_id, entry_point=make)
    yield env_id
    del gymnasium.registry[env_id]


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["eval", *arguments])


def test_the_command_writes_trajectories_and_a_summary(tmp_path: Path, addition_id: str) -> None:
    shown = command(addition_id, "--agent", "random", "--episodes", "6", "--out", str(tmp_path))
    assert shown.exit_code == 0, shown.output
    assert "95 % interval" in shown.output
    assert len(list(read_trajectories(tmp_path / "trajectories.jsonl"))) == 6
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["env"], summary["agent"]) == (addition_id, "random")
    assert summary["outcome"]["n"] == 6
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0


def test_the_command_goes_on_in_the_same_folder(tmp_path: Path, addition_id: str) -> None:
    arguments = (addition_id, "--agent", "random", "--out", str(tmp_path))
    assert command(*arguments, "--episodes", "3").exit_code == 0
    before = (tmp_path / "trajectories.jsonl").read_bytes()
    assert command(*arguments, "--episodes", "5").exit_code == 0
    after = (tmp_path / "trajectories.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == 5


def test_the_command_refuses_a_folder_with_other_settings(tmp_path: Path, addition_id: str) -> None:
    arguments = (addition_id, "--agent", "random", "--episodes", "2", "--out", str(tmp_path))
    assert command(*arguments).exit_code == 0
    before = (tmp_path / "config.json").read_text()
    shown = command(*arguments, "--seed", "1")
    assert shown.exit_code == 2
    assert "seed" in shown.output
    assert (tmp_path / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("http://127.0.0.1:9/v1", "names no model"),
        ("expart", "none of expert, random"),
    ],
)
def test_the_command_says_what_is_wrong_with_an_agent(
    tmp_path: Path, addition_id: str, agent: str, said: str
) -> None:
    shown = command(addition_id, "--agent", agent, "--out", str(tmp_path / "new"))
    assert shown.exit_code == 2
    assert said in " ".join(shown.output.replace("│", " ").split())
    assert not (tmp_path / "new").exists(), "nothing is left behind"


def said(shown: Any) -> str:
    """What a command wrote, without the frame that breaks its lines."""
    return " ".join(shown.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("reagent/PythonMth-v0", ("--agent", "random"), "Did you mean 'reagent/PythonMath-v0'"),
        ("reagent/PythonMth-v0", ("--agent", "expert"), "Did you mean 'reagent/PythonMath-v0'"),
        ("PythonMath-v0", ("--agent", "expert"), "Did you mean 'reagent/PythonMath-v0'"),
        ("reagant/PythonMath-v0", (), "Did you mean 'reagent/PythonMath-v0'"),
        ("reagent/SearchQA-v0", ("--split", "tset"), "Unknown split 'tset'"),
        ("reagent/SearchQA-v0", ("--tool-format", "hermse"), "hermes"),
    ],
)
def test_what_is_wrong_with_the_environment_is_said_before_a_folder_exists(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    env_id: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = command(env_id, *options)
    assert shown.exit_code == 2, shown.output
    assert message in said(shown)
    assert list(tmp_path.iterdir()) == []


def test_the_help_names_every_split() -> None:
    assert "train | validation | test | all" in said(command("--help"))


@pytest.mark.parametrize("torn", ["", '{"env": "rea', "[]", "\x00\x00"])
def test_a_torn_config_is_named_and_left_alone(tmp_path: Path, addition_id: str, torn: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(torn)
    shown = command(addition_id, "--agent", "random", "--episodes", "2", "--out", str(tmp_path))
    assert shown.exit_code == 2
    assert "config.json" in shown.output
    assert "Remove it" in said(shown)
    assert config.read_text() == torn


def test_a_config_that_cannot_be_written_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    _write_json(path, {"seed": 1})

    def fail(*names: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        _write_json(path, {"seed": 2})
    assert json.loads(path.read_text()) == {"seed": 1}


def test_a_summary_without_an_outcome_is_still_json(tmp_path: Path) -> None:
    agent = Adder([], {question(n): 99 for n in range(20)})
    trajectories = evaluate(addition_env, lambda: agent, 3, out=tmp_path, retries=0)
    for record in (summarise(trajectories).to_json(), compare_attempts(trajectories).to_json()):
        again = json.loads(json.dumps(record, allow_nan=False))
        assert again["masked"] == 3
    assert summarise(trajectories).to_json()["outcome"]["mean"] is None
