"""From finished runs to a table: made-up run folders, then two arms of two seeds really trained."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from reagent_env.trainers import metric_names as names
from reagent_env.trainers.ablation.arms import chosen_arms
from reagent_env.trainers.ablation.comparisons import comparisons_of
from reagent_env.trainers.ablation.plan import (
    COMMON,
    ColdStart,
    Plan,
    PlannedRun,
    keep_plan,
    kept_plan,
)
from reagent_env.trainers.ablation.report import compare, table_text, write_tables
from reagent_env.trainers.ablation.results import by_seed, read_records

STARTS = ("a", "b")


def make(root: Path, rewards: tuple[str, ...] = ("outcome", "reagent-u"), seeds: int = 10) -> Plan:
    return Plan(
        root,
        "default",
        tuple(chosen_arms(rewards)),
        tuple(ColdStart(label, label, label) for label in STARTS),
        seeds,
        {**COMMON, "env": "reagent/MiniMix-v0", "max_policy_tokens": 1000},
    )


def finish(run: PlannedRun, success: float, tokens: int = 1000) -> None:
    """A run's folder as training leaves it, with a curve of four updates."""
    run.path.mkdir(parents=True)
    held_out = {"before": None, "after": success, "n": 1000, "ci": [0.0, 1.0]}
    summary = {"held_out": held_out, "updates": 4, "train_seconds": 100.0, "unscored_rate": 0.0}
    (run.path / "summary.json").write_text(json.dumps(summary))
    lines = [
        {
            "update": update,
            names.SUCCESS: success * update / 4,
            names.TOKENS: tokens / 4,
            names.TOKENS_TOTAL: tokens * update / 4,
            names.TURNS_MADE: 50.0,
            names.SECONDS: 25.0 * update,
            **({names.JUDGED: 128.0} if run.config.needs_judge else {}),
        }
        for update in range(1, 5)
    ]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def fill(plan: Plan, success: Callable[[PlannedRun], float]) -> None:
    for run in [*plan.measurements()]:
        finish(run, 0.25)
    for run in plan.runs():
        finish(run, success(run))


def jitter(run: PlannedRun) -> float:
    """A few points up and down, different for each run, the same every time."""
    return 0.02 * math.sin(37 * run.seed + 5 * len(run.arm) + 11 * ord(run.start[0]))


def test_a_real_difference_is_found_and_said(tmp_path: Path) -> None:
    plan = make(tmp_path)
    fill(plan, lambda run: 0.7 + jitter(run) + (0.1 if run.arm == "reagent-u" else 0.0))
    text = write_tables(plan, "reagent ablate").read_text()
    assert "20 of 20 runs" not in text  # two arms, two cold starts, ten seeds
    assert "40 of 40 runs are finished" in text
    assert "*Do score and critique together help?* reagent-u − outcome: **better**: +" in text
    assert "first look" not in text
    assert "Cold start `a`: 0.250 before training (n = 1000)" in text
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    table = json.loads((tmp_path / "table.json").read_text())
    [found] = table["comparisons"]
    assert found["verdict"] == "better"
    assert found["seeds"] == 10
    assert found["low"] < 0.1 < found["high"]
    assert len(table["runs"]) == 40
    assert set(found["by_cold_start"]) == {"a", "b"}


def test_noise_alone_is_not_called_a_difference(tmp_path: Path) -> None:
    plan = make(tmp_path)
    fill(plan, lambda run: 0.7 + 4 * jitter(run))
    [found] = compare(plan, read_records(plan))
    assert found.difference.p > 0.05
    text = table_text(plan, read_records(plan), [found], "reagent ablate", picture=False)
    assert "**inconclusive**" in text


def test_the_unit_is_a_seed_with_all_its_runs(tmp_path: Path) -> None:
    plan = make(tmp_path, seeds=3)
    offsets = {"a": 0.1, "b": 0.3}
    for run in plan.runs():
        if (run.arm, run.start, run.seed) == ("reagent-u", "b", 2):
            continue  # not finished yet
        finish(run, 0.5 + (offsets[run.start] if run.arm == "reagent-u" else 0.0))
    records = read_records(plan)
    [comparison] = comparisons_of(plan.arms)
    differences, starts = by_seed(records.runs, comparison, STARTS)
    assert differences == pytest.approx([0.2, 0.2])  # seed 2 lacks a run from b
    assert starts == ["a", "b"]
    assert by_seed(records.runs, comparison, ["a"])[0] == pytest.approx([0.1, 0.1, 0.1])
    assert [str(one) for one in records.missing] == ["reagent-u from b, seed 2"]


def test_a_run_that_ended_early_is_in_no_comparison(tmp_path: Path) -> None:
    plan = make(tmp_path, seeds=2)
    for run in plan.runs():
        finish(run, 0.5, tokens=500 if run.seed == 1 and run.arm == "outcome" else 1000)
    records = read_records(plan)
    assert [(one.arm, one.seed) for one in records.short] == [("outcome", 1)] * 2
    [found] = compare(plan, records)
    assert found.difference.seeds == 1
    text = table_text(plan, records, [found], "", picture=False)
    assert "2 runs made less than 90% of the budget and are left out" in text


def test_budgets_that_differ_are_said(tmp_path: Path) -> None:
    plan = make(tmp_path, seeds=1)
    for run in plan.runs():
        finish(run, 0.5, tokens=1100 if run.arm == "reagent-u" else 1000)
    records = read_records(plan)
    text = table_text(plan, records, compare(plan, records), "", picture=False)
    assert "**Budgets differ**: mean policy tokens of the arms lie between 1,000 and 1,100" in text


def test_main_effects_and_interaction_come_from_the_two_by_two(tmp_path: Path) -> None:
    plan = make(tmp_path, ("core",), seeds=4)
    success = {
        "outcome": 0.5, "reagent-r": 0.5, "retry": 0.5, "retry-score": 0.54, "critique": 0.52,
        "reagent-u": 0.66,
    }  # fmt: skip
    fill(plan, lambda run: success[run.arm] + jitter(run) / 10)
    found = {one.comparison.name: one.difference.mean for one in compare(plan, read_records(plan))}
    assert found["score (main effect)"] == pytest.approx(0.09, abs=0.005)
    assert found["critique (main effect)"] == pytest.approx(0.07, abs=0.005)
    assert found["score × critique"] == pytest.approx(0.10, abs=0.01)


def test_before_any_run_nothing_is_claimed(tmp_path: Path) -> None:
    plan = make(tmp_path)
    text = write_tables(plan, "reagent ablate").read_text()
    assert "**Not finished**: 40 runs are missing" in text
    assert "**not measured**: an interval needs two seeds, and there is none" in text
    assert "better" not in text.partition("## How to read it")[0]
    assert not (tmp_path / "curves.png").exists()


def test_a_cold_start_too_good_for_the_sparse_task_is_said(tmp_path: Path) -> None:
    model = make(tmp_path, seeds=1)
    plan = Plan(model.root, "sparse", model.arms, model.starts, 1, model.common)
    fill(plan, lambda run: 0.5)
    records = read_records(plan)
    text = table_text(plan, records, compare(plan, records), "", picture=False)
    assert "**More than 0.15**: from here the task is not the sparse one" in text


def test_two_arms_of_two_seeds_really_trained(tmp_path: Path, policy_folder: Path) -> None:
    pytest.importorskip("torch")
    from reagent_env.trainers.ablation.one_run import make_run

    common = {
        **COMMON,
        "env": "toy_tasks:toy/Letters-v0",
        "max_policy_tokens": 150,
        "groups_per_update": 2,
        "group_size": 2,
        "max_tokens": 6,
        "concurrency": 8,
        "held_out_episodes": 4,
    }
    start = ColdStart("random", str(policy_folder), "")
    plan = Plan(tmp_path, "toy", tuple(chosen_arms(["outcome", "reagent-u"])), (start,), 2, common)
    for run in plan.measurements():
        make_run(run.path, run.config, measure=True)
    for run in plan.runs():
        make_run(run.path, run.config, measure=False)
        assert not list(run.path.glob("checkpoints/*/training"))  # a finished run keeps weights
        assert list(run.path.glob("checkpoints/*/*.safetensors"))
    write_tables(plan, "reagent ablate")
    table = json.loads((tmp_path / "table.json").read_text())
    assert len(table["runs"]) == 4
    assert table["before"]["random"]["n"] == 4
    for one in table["runs"]:  # at most half an update of 48 tokens away
        assert abs(one["tokens"] - 150) <= 24, one
    [found] = table["comparisons"]
    assert found["seeds"] == 2
    assert "a first look: 2 seeds, 1 cold start" in found["words"]


def test_what_is_missing_and_what_failed_is_named(tmp_path: Path) -> None:
    plan = make(tmp_path, seeds=2)
    fill(replace(plan, seeds=1), lambda run: 0.7 + jitter(run))
    [failed, *_] = [run for run in plan.runs() if run.seed == 1]
    failed.path.parent.mkdir(parents=True, exist_ok=True)
    said = failed.path.with_name("seed-001.failed.json")
    said.write_text(json.dumps({"failure": "exit 1; the judge is gone", "seconds": 3.0}))
    text = write_tables(plan, "reagent ablate").read_text()
    assert (
        "4 runs are missing: outcome from a (1); reagent-u from a (1); outcome from b (1)" in text
    )
    assert (
        "1 of those were tried and failed, which may depend on the arm: outcome from a, seed 1"
        in text
    )
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["failed"] == {"outcome from a, seed 1": "exit 1; the judge is gone"}
    assert len(table["missing"]) == 4


def test_a_finished_run_of_other_settings_is_not_counted(tmp_path: Path) -> None:
    plan = make(tmp_path, seeds=1)
    fill(plan, lambda run: 0.7)
    run = next(plan.runs())
    (run.path / "config.json").write_text(json.dumps(run.config.to_json()))
    assert len(read_records(plan).runs) == 4
    other = {**run.config.to_json(), "std_floor": 0.7}
    (run.path / "config.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="other settings than planned: std_floor"):
        read_records(plan)


def test_a_folder_remembers_all_that_was_asked_of_it(tmp_path: Path) -> None:
    core = make(tmp_path, seeds=2)
    keep_plan(core, "reagent ablate one")
    keep_plan(make(tmp_path, ("retry",), seeds=3), "reagent ablate two")
    keep_plan(make(tmp_path, ("retry",), seeds=1))
    kept = kept_plan(tmp_path)
    assert [arm.name for arm in kept.arms] == ["outcome", "reagent-u", "retry"]
    assert (kept.seeds, kept.asked, kept.budget) == (3, (2, 3), 1000)
    assert kept.commands == ("reagent ablate one", "reagent ablate two")
    assert [run.config for run in core.runs()] == [
        run.config for run in kept.runs() if run.arm != "retry" and run.seed < 2
    ]
    fill(core, lambda run: 0.7 + jitter(run))
    text = write_tables(kept, "reagent ablate --table").read_text()
    assert "Seeds asked for: 2, then 3. More were added after some were seen." in text
    assert text.count("| headline |") == 2  # with `retry`: the family is of all that was planned
    [alone] = compare(core, read_records(core))
    [of_two, _] = compare(kept, read_records(kept))
    assert of_two.difference.p == alone.difference.p
    assert of_two.difference.detectable > alone.difference.detectable


def test_second_attempts_and_talk_before_stand_in_the_table(tmp_path: Path) -> None:
    plan = make(tmp_path, seeds=2)
    fill(plan, lambda run: 0.7)
    for run in plan.runs():
        if run.arm != "reagent-u":
            continue
        log = run.path / "metrics.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for line, value in zip(lines, (0.2, 0.1, 0.0, 0.4), strict=True):
            line[names.SECOND] = value
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
        speaks = {"before": {"speaks": {"mean": 0.0}}, "after": {"speaks": {"mean": 0.25}}}
        (run.path / "leakage.json").write_text(json.dumps(speaks))
    text = write_tables(plan, "reagent ablate").read_text()
    [row] = [line for line in text.splitlines() if line.startswith("| `reagent-u`")]
    assert "| 0.20 → 0.40 |" in row
    assert row.endswith("| 0.0% → 25.0% |")
    [other] = [line for line in text.splitlines() if line.startswith("| `outcome`")]
    assert other.endswith("| – | 0.0% | – |")
