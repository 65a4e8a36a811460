"""Rollouts on a Ray cluster of two workers, started here: whole, of the right weights, and lossy."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.engines.base import Sampling
from reagent_env.trainers.parts import load_for_training, training_parts
from reagent_env.trainers.players import Job
from reagent_env.trainers.progress import TrainProgress
from reagent_env.trainers.ray_players import RolloutWorkersGone, ray_players
from reagent_env.trainers.ray_worker import in_a_worker
from reagent_env.trainers.recipes import make_config
from reagent_env.trainers.run_folder import RunFolder, read_metrics
from reagent_env.trainers.train import train

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <function Popen.__del__:pytest.PytestUnraisableExceptionWarning"
    ),
]

TOYS = Path(__file__).parent.parent / "trainers"  # toy_tasks: environments from outside
WAITING = "toy_tasks:toy/Waiting-v0"
SMALL: dict[str, Any] = {
    "env": "toy_tasks:toy/Letters-v0",
    "ray": "local",
    "ray_workers": 2,
    "updates": 2,
    "groups_per_update": 2,
    "group_size": 2,
    "max_tokens": 6,
    "held_out_episodes": 0,
    "eval_every": 0,
    "threads": 1,
    "concurrency": 4,
    "policy": "tiny",
}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two CPUs' worth of Ray, whose workers find the environments of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOYS))
        before = os.environ.get("PYTHONPATH", "")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(TOYS), before])))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()
        gc.collect()  # Ray leaves its children's handles to it


def test_a_run_on_two_workers_trains_on_tokens_of_the_weights_it_says(tmp_path: Path) -> None:
    given = {**SMALL, "held_out_episodes": 4, "spare_groups": 0, "updates": 3}
    config = make_config("reagent-r", settings=given)
    with RunFolder.create(config, tmp_path / "run") as run, TrainProgress(config) as progress:
        progressed = train(config, run, progress)
    assert progressed.update == 3
    lines = read_metrics(tmp_path / "run")
    # The learner's likelihood of the sampled tokens is the workers': they had its weights each time.
    assert [line["loss/ratio"] for line in lines] == pytest.approx([1.0] * 3, abs=1e-4)
    assert max(line["sampler/k3"] for line in lines) < 1e-6
    assert [line["rollout/masked"] for line in lines] == [0, 0, 0]
    assert progressed.judged == 12
    assert progressed.before is not None
    assert progressed.before[3] == 4
    again = {**given, "updates": 4}
    with RunFolder.resume(tmp_path / "run") as run, TrainProgress(config) as progress:
        assert train(make_config("reagent-r", settings=again), run, progress).update == 4


def jobs(config: TrainConfig, count: int) -> list[Job]:
    with training_parts(in_a_worker(config), load_for_training(config)) as parts:
        tasks = parts.sources[0].tasks
    return [Job(0, n, 0, tasks[n % len(tasks)], n, Sampling(max_tokens=6)) for n in range(count)]


def test_a_worker_killed_in_mid_run_costs_its_episodes_and_nothing_else(tmp_path: Path) -> None:
    config = TrainConfig(**{**SMALL, "env": WAITING, "env_kwargs": {"folder": str(tmp_path)}})
    given = jobs(config, 8)
    with ray_players(config, load_for_training(config)) as players:
        players.publish(5)
        both_have_a_seat(players, given[0])
        futures = [players.play(job) for job in given]
        wait_for(lambda: len(list(tmp_path.glob("waits-*"))) == 8)
        pids = {int(one.name.split("-")[1]) for one in tmp_path.glob("waits-*")}
        assert len(pids) == 2
        os.kill(pids.pop(), signal.SIGKILL)
        wait_for(lambda: sum(future.done() for future in futures) == 4)
        lost = [future.result() for future in futures if future.done()]
        assert all(one.masked for one in lost)
        assert all("worker was lost" in str(one.trajectory.infrastructure_error) for one in lost)
        (tmp_path / "go").touch()
        kept = [future.result(60) for future in futures]
        assert sum(one.masked for one in kept) == 4
        again = [players.play(one).result(300) for one in given]
        assert not any(one.masked for one in again)
        versions = {v for one in again for sample in one.samples for v in sample.versions}
        assert versions == {-1, 5}  # the worker begun anew has the weights, though it missed them


def both_have_a_seat(players: Any, job: Job) -> None:
    """Wait until both workers are there: the first is enough to begin."""
    ray.get([worker.seats.remote() for worker in players._workers], timeout=300)


def wait_for(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not found() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found()


def test_workers_that_cannot_be_made_are_said_with_the_reason() -> None:
    config = TrainConfig(**{**SMALL, "env": "toy/NoSuch-v0", "ray_workers": 1})
    with (
        pytest.raises(
            RolloutWorkersGone, match=r"All 1 Ray workers are gone.*Namespace toy not found"
        ),
        ray_players(config, load_for_training(config)),
    ):
        pass
