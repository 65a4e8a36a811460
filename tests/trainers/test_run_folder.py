from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reagent_env.testing import example_trajectory
from reagent_env.trainers.atomic_files import write_json
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.run_folder import NotARun, RunBusy, RunFolder, read_metrics
from reagent_env.trajectory_file import read_trajectories

CONFIG = TrainConfig(recipe="outcome", updates=5, env_kwargs={"max_turns": 4})


@contextmanager
def full_disk(at_bytes: int) -> Iterator[None]:
    """Files can grow to ``at_bytes`` and no further, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_new_run_keeps_its_settings_and_can_be_opened_again(tmp_path: Path) -> None:
    with RunFolder.create(CONFIG, tmp_path / "run") as run:
        assert (run.path / "config.json").exists()
    with RunFolder.resume(tmp_path / "run") as again:
        assert again.config == CONFIG


def test_a_run_without_a_given_folder_is_named_by_time_and_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with RunFolder.create(CONFIG) as first, RunFolder.create(CONFIG) as second:
        assert first.path.parent == Path("runs")
        assert first.path.name.endswith("-outcome")
        assert second.path != first.path


def test_a_new_run_does_not_go_into_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match="--resume"):
        RunFolder.create(CONFIG, tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mine.txt"]


def test_resuming_what_is_no_run_says_what_a_run_is(tmp_path: Path) -> None:
    with pytest.raises(NotARun, match=r"config\.json"):
        RunFolder.resume(tmp_path)


def test_the_same_process_cannot_train_twice_in_one_folder(tmp_path: Path) -> None:
    with RunFolder.create(CONFIG, tmp_path / "run") as run:
        with pytest.raises(RunBusy, match="this process"):
            RunFolder.resume(run.path)
        code = f"""
from pathlib import Path
from reagent_env.trainers.run_folder import RunBusy, RunFolder
try:
    RunFolder.resume(Path({str(run.path)!r}))
except RunBusy as error:
    print(error)
"""
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert f"process {os.getpid()}" in said.stdout, said.stderr
    RunFolder.resume(run.path).close()


def test_a_killed_process_leaves_the_folder_free(tmp_path: Path) -> None:
    code = f"""
import os, sys, time
from pathlib import Path
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.run_folder import RunFolder
run = RunFolder.create(TrainConfig(), Path({str(tmp_path / "run")!r}))
if os.fork() == 0:  # a child that outlives it, like a sandbox's
    time.sleep(30)
    os._exit(0)
print("ready", flush=True)
time.sleep(30)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(5)
        try:
            RunFolder.resume(tmp_path / "run").close()
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_metrics_are_a_line_an_update_and_events_of_tensorboard(tmp_path: Path) -> None:
    with RunFolder.create(CONFIG, tmp_path / "run") as run:
        run.log(1, {"train/outcome": 0.25, "masked": {"sandbox": 2}})
        run.log(2, {"train/outcome": 0.5, "kl": float("nan")})
        assert run.metrics() == [
            {"update": 1, "train/outcome": 0.25, "masked": {"sandbox": 2}},
            {"update": 2, "train/outcome": 0.5, "kl": None},
        ]
    assert scalars(run.path, "train/outcome") == [(1, 0.25), (2, 0.5)]


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    with RunFolder.create(CONFIG, tmp_path / "run") as run:
        for update in (1, 2, 3):
            run.log(update, {"train/outcome": update / 10})
            run.save_trajectories(update, [example_trajectory()])
        run.save_trajectories(3, [example_trajectory()], kind="held-out")
    time.sleep(1.1)  # TensorBoard names its files by the second
    with RunFolder.resume(run.path) as again:
        again.rewind(2)
        assert [line["update"] for line in again.metrics()] == [1, 2]
        assert sorted(one.name for one in again.trajectories.iterdir()) == [
            "000001.jsonl",
            "000002.jsonl",
        ]
        again.log(3, {"train/outcome": 0.75})
    assert [line["train/outcome"] for line in read_metrics(run.path)] == [0.1, 0.2, 0.75]
    assert scalars(run.path, "train/outcome") == [(1, 0.1), (2, 0.2), (3, 0.75)]


def test_a_torn_last_line_of_metrics_is_passed_over_and_then_gone(tmp_path: Path) -> None:
    with RunFolder.create(CONFIG, tmp_path / "run") as run:
        run.log(1, {"train/outcome": 0.25})
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(b'{"update": 2, "train/ou')
    with RunFolder.resume(run.path) as again:
        assert [line["update"] for line in again.metrics()] == [1]
        again.rewind(1)
        again.log(2, {"train/outcome": 0.5})
        assert [line["update"] for line in again.metrics()] == [1, 2]


def test_a_damaged_line_in_the_middle_is_an_error_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"update": 1}\nnonsense\n{"update": 3}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_metrics(tmp_path)


def test_a_full_disk_is_an_error_that_names_the_file_and_tears_no_line(tmp_path: Path) -> None:
    with RunFolder.create(CONFIG, tmp_path / "run") as run:
        run.log(1, {"train/outcome": 0.25})
        path = run.path / "metrics.jsonl"
        with (
            full_disk(path.stat().st_size + 10),
            pytest.raises(OSError, match=r"metrics\.jsonl"),
        ):
            run.log(2, {"train/outcome": 0.5})
        assert path.read_bytes().endswith(b"\n")
        assert [line["update"] for line in run.metrics()] == [1]


def test_a_full_disk_leaves_the_old_summary_whole(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"updates": 1})
    with full_disk(10), pytest.raises(OSError, match=r"summary\.json"):
        write_json(path, {"updates": 2, "more": "x" * 100})
    assert json.loads(path.read_text()) == {"updates": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["summary.json"]


def test_trajectories_of_an_update_can_be_read_back(tmp_path: Path) -> None:
    with RunFolder.create(CONFIG, tmp_path / "run") as run:
        path = run.save_trajectories(7, [example_trajectory(), example_trajectory()])
        run.save_trajectories(7, [example_trajectory()])  # made again after a resume
    assert path.name == "000007.jsonl"
    assert list(read_trajectories(path)) == [example_trajectory()]


def test_the_summary_has_the_promised_keys_and_no_other(tmp_path: Path) -> None:
    with RunFolder.create(CONFIG, tmp_path / "run") as run:
        run.write_summary(
            updates=5,
            train_seconds=61.27,
            before=0.25,
            after=0.75,
            n=500,
            ci=(0.71, 0.79),
            unscored_rate=float("nan"),
        )
    assert json.loads((run.path / "summary.json").read_text()) == {
        "recipe": "outcome",
        "env": "reagent/MiniMix-v0",
        "policy": "tiny",
        "judge": None,
        "seed": 0,
        "updates": 5,
        "train_seconds": 61.3,
        "held_out": {"before": 0.25, "after": 0.75, "n": 500, "ci": [0.71, 0.79]},
        "unscored_rate": None,
    }


def test_weights_and_biases_that_is_not_installed_is_an_error_that_says_so(tmp_path: Path) -> None:
    with (
        RunFolder.create(TrainConfig(wandb=True), tmp_path / "run") as run,
        pytest.raises(ValueError, match="pip install wandb"),
    ):
        run.log(1, {"train/outcome": 0.5})


def scalars(run: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return [(one.step, round(one.value, 6)) for one in events.Scalars(name)]
