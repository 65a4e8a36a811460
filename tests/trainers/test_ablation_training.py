"""Arms really trained on a toy environment: by the command in processes, and the unusual ones alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("tensorboard")

from reagent_env.trainers import metric_names as names
from reagent_env.trainers import train as loop
from reagent_env.trainers.ablation.arms import ARMS, arm_config
from reagent_env.trainers.ablation.cli import ablate
from reagent_env.trainers.ablation.plan import COMMON
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.hacking_alarm import HackingAlarm
from reagent_env.trainers.progress import TrainProgress
from reagent_env.trainers.recipes import make_config
from reagent_env.trainers.report import report_text
from reagent_env.trainers.run_folder import RunFolder, read_metrics
from reagent_env.trainers.train import train
from reagent_env.trajectory_file import read_trajectories

HERE = Path(__file__).parent
SMALL: dict[str, Any] = {
    **COMMON,
    "env": "toy_tasks:toy/Letters-v0",
    "groups_per_update": 2,
    "group_size": 2,
    "max_tokens": 6,
    "concurrency": 8,
    "held_out_episodes": 0,
    "save_trajectories": True,
    "max_policy_tokens": 1,  # one update
}


def run_of(config: TrainConfig, path: Path) -> Path:
    with RunFolder.create(config, path) as run, TrainProgress(config) as progress:
        train(config, run, progress)
    return path


@pytest.mark.parametrize("name", ["retry", "critique", "u-length-score", "u-shuffled-critique"])
def test_an_arm_makes_its_update(name: str, policy_folder: Path, tmp_path: Path) -> None:
    common = {**SMALL, "policy": str(policy_folder)}
    if name == "u-shuffled-critique":
        common["max_policy_tokens"] = 150  # more than one: critiques have to be exchanged
    run = run_of(arm_config(ARMS[name], common), tmp_path / "run")
    lines = read_metrics(run)
    assert (len(lines) > 1) == (name == "u-shuffled-critique")
    assert lines[0][names.TURNS_MADE] == 8  # 2 tasks × 2 × 2 attempts of one turn
    assert (names.JUDGED in lines[0]) == (name != "retry")
    assert lines[0].get(names.JUDGED, 8) == 8
    kept = [one for file in run.glob("trajectories/*.jsonl") for one in read_trajectories(file)]
    if name == "critique":
        assert names.PROCESS in lines[0]
        assert lines[0][names.PROCESS] == 0.0
    if name == "u-shuffled-critique":
        said = [one.attempts[1].feedback for one in kept]
        assert all(said)
        own = [one.attempts[0].judgement.critique for one in kept if one.attempts[0].judgement]
        assert any(critique not in text for critique, text in zip(own, said, strict=True) if text)


def test_the_budget_ends_a_run_at_the_nearest_update(policy_folder: Path, tmp_path: Path) -> None:
    made = {}
    for budget in (1, 60, 100):
        config = arm_config(
            ARMS["outcome"], {**SMALL, "policy": str(policy_folder), "max_policy_tokens": budget}
        )
        lines = read_metrics(run_of(config, tmp_path / str(budget)))
        made[budget] = (len(lines), lines[-1][names.TOKENS_TOTAL])
    assert made[1][0] == 1
    assert abs(made[60][1] - 60) <= 30
    assert abs(made[100][1] - 100) <= 30
    assert made[1][0] <= made[60][0] <= made[100][0]


def test_a_budget_of_turns_ends_a_run_at_the_nearest_update(
    policy_folder: Path, tmp_path: Path
) -> None:
    settings = {**SMALL, "policy": str(policy_folder), "max_policy_tokens": 0}
    made = {}
    for budget in (1, 20):
        config = make_config("outcome", settings={**settings, "max_interactions": budget})
        lines = read_metrics(run_of(config, tmp_path / str(budget)))
        assert lines[-1][names.TURNS_TOTAL] == sum(line[names.TURNS_MADE] for line in lines)
        made[budget] = [line[names.TURNS_TOTAL] for line in lines]
    assert len(made[1]) == 1
    last, one_before = made[20][-1], made[20][-2]
    assert abs(last - 20) <= abs(one_before - 20)


def test_a_score_control_changes_what_is_learned_and_not_what_is_logged(
    policy_folder: Path, tmp_path: Path
) -> None:
    logged = {}
    for control in ("none", "noise"):
        settings = {**SMALL, "policy": str(policy_folder), "score_control": control}
        run = run_of(make_config("reagent-r", settings=settings), tmp_path / control)
        [logged[control]] = read_metrics(run)
    same = (names.SCORE, names.SUCCESS, names.PROCESS)
    assert [logged["none"][name] for name in same] == [logged["noise"][name] for name in same]
    assert logged["none"]["advantage/size"] != logged["noise"]["advantage/size"]


def test_an_alarm_is_said_logged_and_reported_once(
    policy_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alarm = HackingAlarm(2, 2, 0.2, -0.3, 0.001)
    monkeypatch.setattr(
        loop, "find_alarm", lambda lines, window: alarm if len(lines) >= 2 else None
    )
    settings = {**SMALL, "policy": str(policy_folder), "max_policy_tokens": 0, "updates": 4}
    run = run_of(make_config("reagent-r", settings=settings), tmp_path / "run")
    lines = read_metrics(run)
    assert [line.get(names.ALARM) for line in lines] == [None, 1.0, None, None]
    said = capsys.readouterr().err
    assert said.count("ALARM: The judge's score rose by 0.20") == 1
    assert "the outcome fell by 0.30" in report_text(run)
    assert f"reagent hacking {run}" in report_text(run)


@pytest.mark.parametrize(("recipe", "window"), [("outcome", 30), ("reagent-r", 0)])
def test_without_a_judge_or_a_window_no_alarm_is_looked_for(
    recipe: str, window: int, policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(lines: Any, window: int) -> None:
        raise AssertionError("looked")

    monkeypatch.setattr(loop, "find_alarm", fail)
    settings = {**SMALL, "policy": str(policy_folder), "alarm_window": window}
    run_of(make_config(recipe, settings=settings), tmp_path / "run")


def test_the_command_trains_in_processes_and_goes_on(
    policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a person runs it; what is finished is not made again."""
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", paths)
    app = typer.Typer(rich_markup_mode=None)
    app.command("ablate")(ablate)
    words = ["--rewards", "outcome", "--seeds", "1", "--env", SMALL["env"], "--policy-tokens", "60"]
    words += ["--cold-start", str(policy_folder), "--out", str(tmp_path / "runs")]
    words += ["--evidence", str(tmp_path / "kept"), "--set", "held_out_episodes=3"]
    for name in ("groups_per_update", "group_size", "max_tokens", "concurrency"):
        words += ["--set", f"{name}={SMALL[name]}"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    assert "0 of 2 runs are there" in first.stderr
    assert "[2/2]" in first.stderr
    assert "before training (n = 3)" in first.stdout  # and with it what is missing or left out
    assert "## Verdicts" in first.stdout
    table = json.loads((tmp_path / "kept" / "table.json").read_text())
    assert [one["arm"] for one in table["runs"]] == ["outcome"]
    assert table["runs"][0]["talk"] == 0.0
    assert table["before"][policy_folder.name]["n"] == 3
    again = CliRunner().invoke(app, words)
    assert "2 of 2 runs are there" in again.stderr
    more = CliRunner().invoke(app, [*words, "--seeds", "2"])
    assert more.exit_code == 0, more.output
    table = json.loads((tmp_path / "kept" / "table.json").read_text())
    [second] = [one for one in [*table["runs"], *table["short"]] if one["seed"] == 1]
    assert second["talk_before"] == 0.0  # its cold start was measured before it began
    told = CliRunner().invoke(app, ["--table", "--out", str(tmp_path / "runs")])
    assert told.exit_code == 0, told.output
    assert "Seeds asked for: 1, then 2." in (tmp_path / "runs" / "table.md").read_text()
    (tmp_path / "runs/outcome" / policy_folder.name / "seed-001" / "config.json").write_text(
        json.dumps({**make_config("outcome").to_json(), "seed": 1})
    )
    told = CliRunner().invoke(app, ["--table", "--out", str(tmp_path / "runs")])
    assert told.exit_code == 1
    assert "other settings than planned" in told.stderr
    assert "[1/" not in again.stderr
