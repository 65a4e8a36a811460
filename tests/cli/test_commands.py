"""The command line as a person meets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest
from typer.testing import CliRunner

from reagent_env.cli import app, main
from reagent_env.cli.envs import missing
from reagent_env.cli.play import play_episode
from reagent_env.needs import NeedMissing
from reagent_env.testing import addition_env

runner = CliRunner()


def test_every_command_teaches_itself() -> None:
    top = runner.invoke(app, ["--help"])
    assert top.exit_code == 0
    for command in ("envs", "doctor", "play", "eval", "sandbox"):
        assert command in top.output
        shown = runner.invoke(app, [command, "--help"])
        assert shown.exit_code == 0
        assert len(shown.output) > 100


def test_envs_lists_what_can_be_made() -> None:
    shown = runner.invoke(app, ["envs"])
    assert shown.exit_code == 0
    assert "reagent/PythonMath-v0" in shown.output
    assert "not registered" not in shown.output
    assert (
        "Tools: click, type, select, scroll, press, wait." in shown.output
    )  # as a model calls them


def test_doctor_finds_a_sandbox_here_and_speaks_json() -> None:
    shown = runner.invoke(app, ["doctor", "--json"])
    findings = {finding["what"]: finding for finding in json.loads(shown.output)}
    assert findings["gymnasium"]["works"]
    assert findings["sandbox=embedded"]["works"]
    assert findings["sandbox=auto"]["works"]
    assert shown.exit_code == 0


def test_doctor_names_the_remedy_where_nothing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reagent_env.sandboxes.engine.docker_problem", lambda: "no: sudo mend it")
    monkeypatch.setattr("reagent_env.sandboxes.embedded.embedded_problem", lambda: "no: apt it")
    shown = runner.invoke(app, ["doctor"])
    assert "sudo mend it" in shown.output
    assert "apt it" in shown.output
    assert shown.exit_code == 1


def play(*lines: str) -> tuple[float | None, str]:
    """Play the first addition task by typing ``lines``."""
    typed: Iterator[str] = iter(lines)
    shown: list[str] = []

    def ask() -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    env = addition_env(tasks=addition_env().tasks[3:4])
    return play_episode(env, 0, shown.append, ask), "\n".join(shown)


def test_a_person_can_call_tools_and_answer() -> None:
    reward, shown = play("help", "tools", 'add {"a": 3, "b": 4}', "answer 7")
    assert reward == 1.0
    assert "7.0" in shown
    assert "Over (answered)" in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("subtract 1 2", "There is no tool 'subtract'"),
        ("add 1 2", "takes a JSON object with a, b"),
        ('add {"a": 1}', "missing argument 'b'"),
        ("raw <tool_call>{", "malformed tool call"),
    ],
)
def test_what_a_person_gets_wrong_is_explained(line: str, said: str) -> None:
    reward, shown = play(line)
    assert reward is None
    assert said in shown


def test_in_a_world_with_one_tool_a_line_is_a_move() -> None:
    shown: list[str] = []
    typed = iter(["inventory", "get 1 oak logs", "act inventory", "answer done"])
    env = gym.make("reagent/TextCraft-v0", disable_env_checker=True)
    assert play_episode(env, 0, shown.append, lambda: next(typed)) == 0.0
    told = "\n".join(shown)
    assert "Tools: act.\n" in told  # no word of a sandbox that nothing needs
    assert "Any other line is for act." in told
    assert "You are not carrying anything." in told
    assert "Got 1 oak logs" in told
    assert "[oak logs] (1)" in told
    assert shown[-1] == "Over (answered). Reward 0."  # nor of an answer that there is not
    env.close()


def test_a_tool_of_one_text_takes_it_bare_or_over_several_lines() -> None:
    from reagent_env import ToolUseEnv, tool
    from reagent_env.testing import addition_tasks

    @tool
    def shout(text: str) -> str:
        """Shout.

        Args:
            text: What.
        """
        return text.upper()

    shown: list[str] = []
    typed = iter(["shout hello", "shout <<", "two", "lines", ".", "quit"])
    assert (
        play_episode(ToolUseEnv(addition_tasks(), [shout]), 0, shown.append, lambda: next(typed))
        is None
    )
    assert any("HELLO" in text for text in shown)
    assert any("TWO\nLINES" in text for text in shown)


def test_eval_refuses_an_agent_it_does_not_know() -> None:
    shown = runner.invoke(app, ["eval", "reagent/PythonMath-v0", "--agent", "expret"])
    assert shown.exit_code == 2
    assert "none of expert, random" in shown.output
    shown = runner.invoke(
        app, ["eval", "reagent/PythonMath-v0", "--agent", "http://127.0.0.1:1/v1"]
    )
    assert "names no model" in shown.output


def test_eval_gives_the_environment_its_arguments(tmp_path: Path) -> None:
    words = ["eval", "reagent/PythonMath-v0", "--agent", "random", "--episodes", "2"]
    words += ["--sandbox", "process", "--out", str(tmp_path / "one")]
    shown = runner.invoke(app, [*words, "--env-arg", "max_turns=1", "--env-arg", "split=train"])
    assert shown.exit_code == 0, shown.output
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert config["env_args"] == {"max_turns": 1, "split": "train"}
    kept = (tmp_path / "one" / "trajectories.jsonl").read_text().splitlines()
    assert {len(json.loads(line)["attempts"][0]["turns"]) for line in kept} == {1}
    assert "takes key=value" in runner.invoke(app, [*words, "--env-arg", "max_turns"]).output
    suite = ["eval", "--suite", "reagent-12", "--env-arg", "max_turns=1"]
    assert "nor --env-arg" in runner.invoke(app, suite).output


def test_what_an_environment_lacks_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lacking() -> None:
        raise NeedMissing("reagent/SciWorld-v0 needs the program java: apt-get install it")

    monkeypatch.setattr("reagent_env.cli.app", lacking)
    with pytest.raises(SystemExit, match="needs the program java"):
        main()


def test_a_benchmark_that_searches_says_that_it_needs_documents() -> None:
    told = missing("reagent/Bamboogle-v0")
    assert any("documents to search in: corpus=" in line for line in told)
    assert not any("documents to search" in line for line in missing("reagent/HotpotQA-v0"))
