from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from reagent_env.task import Task
from reagent_env.testing import example_trajectory
from reagent_env.trainers import metric_names as names
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.curves import draw_curves, points, smoothed
from reagent_env.trainers.recipes import make_config
from reagent_env.trainers.report import report_text, write_report
from reagent_env.trainers.run_folder import NotARun, RunFolder
from reagent_env.trajectory import Trajectory

TASKS = [
    Task(
        question=f"How many people live in Velmora {place}?",
        answer=str(place),
        grader="number",
        metadata={"kind": "one hop" if place < 5 else "sum"},
    )
    for place in range(10)
]


def episode(task: Task, outcome: float | None) -> Trajectory:
    one = example_trajectory()
    last = dataclasses.replace(one.attempts[-1], outcome=outcome)
    error = "SandboxError: gone" if outcome is None else None
    attempts = (*one.attempts[:-1], last)
    return dataclasses.replace(one, task=task, attempts=attempts, infrastructure_error=error)


def trained_run(folder: Path, updates: int = 20, asked: int = 20) -> RunFolder:
    """A run that went from 2 of 10 to 8 of 9, with one masked afterwards."""
    with RunFolder.create(make_config("reagent-u", settings={"updates": asked}), folder) as run:
        run.save_trajectories(
            0, [episode(task, float(place < 2)) for place, task in enumerate(TASKS)], "held-out"
        )
        after: list[float | None] = [*[1.0] * 8, 0.0, None]
        run.save_trajectories(updates, map(episode, TASKS, after), "held-out")
        lines = []
        for update in range(1, updates + 1):
            line: dict[str, float] = {
                names.SECONDS: 6.0 * update,
                names.SUCCESS: update / 40,
                names.SECOND: update / 30,
                names.SCORE: 0.5,
                names.UNSCORED: 0.02,
                "unscored/kind/unparsed": 1,
                names.MASKED: 1 if update == 3 else 0,
                "rollout/masked/kind/SandboxError": 1 if update == 3 else 0,
                names.TOKENS_TOTAL: 9000 * update,
            }
            if update % 10 == 0:
                line[names.HELD_OUT] = 0.75
            lines.append({"update": update, **line})
        # Not by run.log, which would load torch for TensorBoard's events.
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (run.path / "metrics.jsonl").write_text(text)
        if updates == asked:
            run.write_summary(
                updates=updates,
                train_seconds=125.0,
                before=0.2,
                after=0.889,
                n=10,
                ci=(0.56, 0.98),
                unscored_rate=0.02,
            )
    return run


def test_the_report_shows_held_out_success_with_intervals_and_kinds(tmp_path: Path) -> None:
    text = report_text(trained_run(tmp_path / "run").path)
    assert "20 updates in 2 min 05 s of training, 180,000 tokens sampled." in text
    assert "| before | 0.200 [0.057, 0.510] | 10 | 0 |" in text
    assert "| after | 0.889 [0.565, 0.980] | 9 | 1 |" in text
    assert "| one hop | 0.400 [0.118, 0.769] | 1.000 [0.566, 1.000] |" in text
    assert "6 became right and 0 wrong: McNemar's exact p = 0.031." in text  # 2 · 2⁻⁶
    assert "Not finished" not in text


def test_the_report_counts_what_was_left_out_by_kind(tmp_path: Path) -> None:
    text = report_text(trained_run(tmp_path / "run").path)
    assert "Masked rollouts (infrastructure failed): 1 (SandboxError 1)" in text
    assert "Judgements without a score: 2.00% (unparsed 20)" in text


def test_the_report_shows_the_same_task_before_and_after(tmp_path: Path) -> None:
    text = report_text(trained_run(tmp_path / "run").path)
    learned = text.split("### ")[1]
    assert learned.startswith("How many people live in Velmora 2?")
    assert learned.index("Before: outcome 0") < learned.index("After: outcome 1")
    assert "### How many people live in Velmora 8?" in text  # one it still fails


def test_the_report_of_a_run_that_was_cut_short_says_so(tmp_path: Path) -> None:
    run = trained_run(tmp_path / "run", updates=5, asked=20)
    text = report_text(run.path)
    assert "5 updates in 30 s" in text
    assert "**Not finished**: 20 updates were asked for." in text
    assert f"reagent train --resume {run.path}" in text


def test_a_run_without_a_single_update_has_a_report_too(tmp_path: Path) -> None:
    with RunFolder.create(TrainConfig(), tmp_path / "run") as run:
        text = write_report(run.path).read_text("utf-8")
    assert "0 updates" in text
    assert "Nothing was measured yet." in text
    assert not (run.path / "curves.png").exists()


def test_what_no_run_is_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(NotARun):
        write_report(tmp_path)


def test_the_picture_is_drawn_and_replaced_whole(tmp_path: Path) -> None:
    run = trained_run(tmp_path / "run")
    (run.path / "curves.png").write_bytes(b"old")
    write_report(run.path)
    assert (run.path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run.path.glob(".curves*"))


def test_a_picture_of_numbers_it_does_not_know_is_not_drawn(tmp_path: Path) -> None:
    assert not draw_curves(tmp_path / "curves.png", [{"update": 1, "mine": 2.0}], "mine")


def test_points_leave_out_what_was_not_measured() -> None:
    lines = [
        {"update": 1, "kl": 0.5},
        {"update": 2, "kl": None},
        {"update": 3},
        {"update": 4, "kl": 1},
    ]
    assert points(lines, "kl") == ([1, 4], [0.5, 1.0])
    assert smoothed([0.0, 1.0, 1.0, 0.0], window=2) == [0.0, 0.5, 1.0, 0.5]
