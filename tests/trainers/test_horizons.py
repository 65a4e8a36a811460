"""Turn limits compared: which runs there are, and what made-up ones come to."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

pytest.importorskip("matplotlib")

from reagent_env.testing import example_trajectory
from reagent_env.trainers import metric_names as names
from reagent_env.trainers.ablation.horizons import (
    COLD_START,
    FAMILIES,
    STATED,
    compare_horizons,
    plan_of,
    small,
)
from reagent_env.trainers.ablation.horizons_report import (
    read_family,
    results_json,
    table_text,
    write_results,
)
from reagent_env.trainers.ablation.plan import Plan, PlannedRun, keep_plan
from reagent_env.trainers.schedules import get_schedule
from reagent_env.trajectory_file import TrajectoryWriter


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    for family in FAMILIES:
        model = tmp_path / family / COLD_START / "checkpoints" / "000001"
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(b"weights")
    return plan_of(FAMILIES["mini-mix"], tmp_path, seeds=3)


COMMITTED = Path(__file__).parents[2] / "docs" / "families" / "scaling-inter" / "results.json"


@pytest.mark.parametrize("name", FAMILIES)
def test_the_runs_are_still_those_of_the_committed_results(name: str, plan: Plan) -> None:
    found = plan_of(FAMILIES[name], plan.root.parent, seeds=3).to_json()
    there = json.loads(COMMITTED.read_text())["families"][name]["plan"]
    assert found["common"] == there["common"]
    assert {arm: said["settings"] for arm, said in found["arms"].items()} == {
        arm: said["settings"] for arm, said in there["arms"].items()
    }


def finish(run: PlannedRun, success: float) -> None:
    """A run's folder as training leaves it, with three updates and two held-out episodes."""
    (run.path / "trajectories").mkdir(parents=True)
    held_out = {"before": None, "after": success, "n": 200, "ci": [0.0, 1.0]}
    summary = {"held_out": held_out, "updates": 3, "train_seconds": 90.0, "unscored_rate": 0.0}
    (run.path / "summary.json").write_text(json.dumps(summary))
    lines = [
        {
            "update": update,
            names.SUCCESS: success * update / 3,
            names.TURNS: 5.0,
            names.TURNS_MADE: 400.0,
            names.TOKENS: 10.0,
            names.TOKENS_TOTAL: 10.0 * update,
            names.SECONDS: 30.0 * update,
        }
        for update in (1, 2, 3)
    ]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with TrajectoryWriter(run.path / "trajectories" / "held-out-000003.jsonl") as writer:
        for outcome in (1.0, 0.0):
            played = example_trajectory()
            attempt = dataclasses.replace(played.attempts[-1], outcome=outcome)
            writer.write(dataclasses.replace(played, attempts=(*played.attempts[:-1], attempt)))


def fill(plan: Plan, success: Callable[[PlannedRun], float]) -> None:
    for run in [*plan.measurements()]:
        finish(run, 0.25)
    for run in plan.runs():
        finish(run, success(run))


def test_arms_differ_in_the_turn_limit_and_all_else_is_alike(plan: Plan) -> None:
    runs = {run.arm: run.config.to_json() for run in plan.runs() if run.seed == 0}
    assert list(runs) == ["growing", "short", "long", "judged"]
    growing = get_schedule(runs["growing"]["schedule"]).turns
    assert runs["short"].pop("schedule") == f"fixed:{growing[0]}"
    assert runs["long"].pop("schedule") == f"fixed:{growing[-1]}"
    del runs["growing"]["schedule"]
    assert runs["growing"] == runs["short"] == runs["long"]
    assert runs["growing"]["max_interactions"] > 0
    assert {one["eval_turns"] for one in runs.values()} == {growing[-1]}
    assert runs["judged"]["recipe"] == "reagent-r"


def test_every_stated_comparison_is_of_arms_that_are_there(plan: Plan) -> None:
    arms = {arm.name for arm in plan.arms}
    assert {name for one in STATED for name in one.weights} == arms


def test_results_name_runs_intervals_and_verdicts(plan: Plan, tmp_path: Path) -> None:
    wave = [0.01, -0.01, 0.005]
    fill(plan, lambda run: 0.5 + wave[run.seed] * len(run.arm) / 9 + 0.2 * (run.arm == "growing"))
    found = read_family(plan)
    text = table_text([found])
    assert "| *before* |  | 0.250 (n = 200) |" in text
    assert "| `growing` | 3 → 5 → 8 | 0.70" in text
    assert "growing − short: better: +20" in text
    assert "long − short: inconclusive" in text or "long − short: no difference" in text
    record = results_json([found], "scripts/scaling-inter")["families"]["mini-mix"]
    assert len(record["runs"]) == 12
    assert {run["interactions"] for run in record["runs"]} == {1200}
    assert {run["held_out_ended_well"] for run in record["runs"]} == {0.5}
    write_results(tmp_path / "out", [found], "scripts/scaling-inter")
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["families"]


def test_one_seed_is_no_verdict(plan: Plan) -> None:
    for run in plan.runs():
        if run.seed == 0:
            finish(run, 0.5)
    found = read_family(plan)
    assert all(math.isnan(difference.p) for _, difference in found.compared)
    assert "not measured: an interval needs two seeds, and there is one" in table_text([found])


def test_a_trial_is_small_and_keeps_apart_from_runs_in_full(plan: Plan, tmp_path: Path) -> None:
    trial = plan_of(small(FAMILIES["mini-mix"]), tmp_path, seeds=2)
    assert [len(list(trial.runs())), len(list(plan.runs()))] == [8, 12]
    assert {run.config.max_interactions for run in trial.runs()} == {120}
    assert {run.config.held_out_episodes for run in trial.runs()} == {8}
    keep_plan(plan)
    with pytest.raises(ValueError, match=r"made with another common: .*max_interactions"):
        keep_plan(trial)


def scaling_inter(folder: Path, *words: str) -> str:
    """What the script would run, in place of which its words are printed."""
    script = Path(__file__).parents[2] / "scripts" / "scaling-inter"
    environment = {"PATH": os.environ["PATH"], "REAGENT": "echo", "PYTHON": "echo"}
    done = subprocess.run(
        [script, *words],
        env={**environment, "FOLDER": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_scripts_trial_starts_small_and_writes_nothing_into_docs(tmp_path: Path) -> None:
    trial = scaling_inter(tmp_path, "--small")
    assert f"train --config baby-ai-tiny.toml --out {tmp_path}/baby-ai/cold-start --set" in trial
    assert (
        f"--seeds 2 --families text-craft,baby-ai,mini-mix --arms  --evidence {tmp_path} --small"
        in trial
    )
    assert "docs/" not in trial
    assert "--seeds 3 --families baby-ai --arms  --evidence docs/families" in scaling_inter(
        tmp_path, "baby-ai"
    )


def test_a_table_of_nothing_overwrites_nothing(plan: Plan, tmp_path: Path) -> None:
    kept = tmp_path / "evidence" / "results.json"
    kept.parent.mkdir()
    kept.write_text("kept")
    with pytest.raises(typer.BadParameter, match="no finished run in"):
        compare_horizons(table=True, out=tmp_path, evidence=kept.parent)
    assert kept.read_text() == "kept"
