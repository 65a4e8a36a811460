"""Runs in processes: so many at once, the finished ones passed over, failures and ends contained."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from reagent_env.trainers import metric_names as names
from reagent_env.trainers.ablation import processes
from reagent_env.trainers.ablation.arms import ARMS, arm_config
from reagent_env.trainers.ablation.cli import ablate
from reagent_env.trainers.ablation.plan import COMMON, PlannedRun
from reagent_env.trainers.ablation.processes import Ended, is_finished, log_of, make_all
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.progress import TrainProgress

WORKER = """
import json, os, sys, threading, time
from pathlib import Path
order = json.loads(sys.stdin.readline())
path = Path(order["path"])
path.mkdir(parents=True, exist_ok=True)
seed = order["config"]["seed"]
print("threads", os.environ["OMP_NUM_THREADS"], flush=True)
(path / "began").write_text(str(os.getpid()))
if seed == 66:
    raise SystemExit("this seed cannot be")
if seed == 77:  # until whoever started it is gone
    sys.stdin.read()
    (path / "told").touch()
    raise SystemExit(1)
if seed >= 90:
    while len(list(path.parent.glob("*/began"))) < 2:  # until another one runs, too
        time.sleep(0.02)
(path / "summary.json").write_text("{}")
"""


@pytest.fixture(autouse=True)
def _worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-I", str(script)))


def planned(root: Path, *seeds: int) -> list[PlannedRun]:
    return [
        PlannedRun("outcome", "tiny", seed, root / f"seed-{seed:03d}", TrainConfig(seed=seed))
        for seed in seeds
    ]


def make(runs: list[PlannedRun], at_once: int = 1, limit: float = 60.0) -> Any:
    ended: list[Ended] = []
    failed = make_all(runs, at_once=at_once, limit_seconds=limit, on_end=ended.append)
    return [one.run.seed for one in ended], failed


def test_missing_runs_are_made_and_finished_ones_passed_over(tmp_path: Path) -> None:
    runs = planned(tmp_path / "runs", 0, 1, 2)
    assert make(runs[:1]) == ([0], [])
    assert make(runs) == ([1, 2], [])
    assert make(runs) == ([], [])
    assert all(map(is_finished, runs))
    assert log_of(runs[0]).read_text() == "threads 1\n"


def test_two_run_at_once(tmp_path: Path) -> None:
    order, failed = make(planned(tmp_path / "runs", 90, 91), at_once=2)
    assert sorted(order) == [90, 91]  # each of them waits for the other to begin
    assert failed == []


def test_a_failed_run_spoils_no_other_and_says_why(tmp_path: Path) -> None:
    order, failed = make(planned(tmp_path / "runs", 0, 66, 1))
    assert order == [0, 66, 1]
    [ended] = failed
    assert ended.run.seed == 66
    assert "exit 1" in ended.failure
    assert "this seed cannot be" in ended.failure
    assert processes.failure_of(ended.run) == ended.failure  # for tables that are made later


def test_a_failure_is_forgotten_once_the_run_is_made(tmp_path: Path) -> None:
    [run] = planned(tmp_path / "runs", 66)
    make([run])
    assert processes.failure_of(run) is not None
    make([dataclasses.replace(run, config=TrainConfig(seed=0))])
    assert is_finished(run)
    assert processes.failure_of(run) is None


def test_after_three_failures_in_a_row_it_gives_up(tmp_path: Path) -> None:
    runs = [
        PlannedRun("outcome", "tiny", 66, tmp_path / "runs" / str(n), TrainConfig(seed=66))
        for n in range(6)
    ]
    order, failed = make(runs)
    assert len(order) == len(failed) == processes.GIVE_UP_AFTER


def test_a_run_that_hangs_is_ended(tmp_path: Path) -> None:
    runs = planned(tmp_path / "runs", 77)
    _, [ended] = make(runs, limit=3.0)
    assert "not finished after" in ended.failure
    assert (runs[0].path / "told").exists()


def test_ctrl_c_ends_the_processes(tmp_path: Path) -> None:
    runs = planned(tmp_path / "runs", 77)

    def interrupt() -> None:
        began = runs[0].path / "began"
        deadline = time.monotonic() + 60
        while not began.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        make(runs)
    pid = int((runs[0].path / "began").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_run_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """kill -9 leaves nobody behind: the run's standard input ends with whoever wrote to it."""
    program = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from reagent_env.trainers.ablation import processes
        from reagent_env.trainers.ablation.plan import PlannedRun
        from reagent_env.trainers.config import TrainConfig
        processes.COMMAND = {processes.COMMAND!r}
        run = PlannedRun("outcome", "tiny", 77, Path({str(tmp_path / "run")!r}), TrainConfig(seed=77))
        processes.make_all([run], at_once=1, limit_seconds=60, on_end=print)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    told, began = tmp_path / "run" / "told", tmp_path / "run" / "began"
    try:
        deadline = time.monotonic() + 60
        while not began.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert began.exists()
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 30
    while not told.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert told.exists()


def test_the_time_left_goes_by_the_budget() -> None:
    config = TrainConfig(updates=100_000, max_policy_tokens=1000)
    with TrainProgress(config, Console(file=io.StringIO())) as progress:
        progress.line(1, {names.SECONDS: 30.0, names.TOKENS_TOTAL: 250})
        line = progress.line(2, {names.SECONDS: 60.0, names.TOKENS_TOTAL: 500})
    assert line == "1 min 00 s left"


app = typer.Typer(rich_markup_mode=None)
app.command("ablate")(ablate)


def reagent_ablate(*words: str) -> Any:
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


def test_the_dry_run_prints_arms_comparisons_budgets_and_time(tmp_path: Path) -> None:
    out = tmp_path / "ablation"
    words = "--seeds 10 --cold-start tiny --policy-tokens 50000 --sandbox process --dry-run --out"
    done = reagent_ablate(*words.split(), str(out))
    assert done.exit_code == 0, done.stderr
    assert "outcome               8 × 16 × 1 attempts" in done.stdout
    assert "reagent-u             8 × 8 × 2 attempts" in done.stdout
    assert "a run: 50,000 policy tokens, then 1000 held-out tasks of test" in done.stdout
    assert "31 runs (seeds 0 – 9, 1 cold starts" in done.stdout
    assert "2 at a time: 1 h 02 min" in done.stdout
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--rewards reagent-y", "Did you mean 'reagent-u'?"),
        ("--rewards core --sweep lambda", "two experiments"),
        ("--base reagent-r", "there is no --sweep"),
        ("--task easy", "There is no task 'easy'"),
        ("--set seed=3", "seed differs between runs"),
        ("--set group_sise=3", "Did you mean 'group_size'?"),
        ("--sweep lambda=-1,1", "weight must be at least 0"),
        ("--table --out nowhere", "There is no nowhere"),
        ("--table --rewards outcome,retry", "leave out --rewards"),
    ],
)
def test_a_mistake_is_answered_with_what_would_be_right(words: str, said: str) -> None:
    done = reagent_ablate(*words.split())
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_sweep_is_judged_on_the_validation_split(tmp_path: Path) -> None:
    words = "--sweep std-floor --sandbox process --dry-run --out"
    done = reagent_ablate(*words.split(), str(tmp_path / "ablation"))
    assert "500 held-out tasks of validation" in done.stdout
    assert "std-floor=0.25" in done.stdout


def test_the_judge_that_is_named_is_the_one_that_arms_ask(tmp_path: Path) -> None:
    words = "--rewards outcome,reagent-u --sandbox process --dry-run --out"
    for flags, judge in ([], "tiny-rrm"), (["--judge", "rubric"], "rubric"):
        done = reagent_ablate(*words.split(), str(tmp_path / "ablation"), *flags)
        assert f"judge {judge}\n" in done.stdout
        common = {**COMMON, **({"judge": judge} if flags else {})}
        assert arm_config(ARMS["reagent-u"], common).judge == judge
