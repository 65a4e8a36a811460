"""One update by one process and by two, as ``accelerate launch`` would begin them: the same."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toy_tasks

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
pytest.importorskip("peft")

from reagent_env import Task, Trajectory  # noqa: E402
from reagent_env.trainers.config import TrainConfig  # noqa: E402
from reagent_env.trainers.learner import Learner  # noqa: E402
from reagent_env.trainers.learner_processes import Processes, launched_processes  # noqa: E402
from reagent_env.trainers.policies import load_policy  # noqa: E402
from reagent_env.trainers.sample import AttemptReturn, Rollout, Sample  # noqa: E402

SECONDS = 150
pytestmark = pytest.mark.timeout(400)


def rollouts(count: int) -> tuple[list[Rollout], list[list[list[float]]]]:
    """Random tokens of unlike lengths, advantages of either sign."""
    chance = random.Random(3)
    found, advantages = [], []
    for number in range(count):
        made = Sample()
        for turn in range(1 + number % 3):
            made.read([chance.randrange(280) for _ in range(chance.randrange(3, 30))])
            ids = [chance.randrange(280) for _ in range(chance.randrange(2, 12))]
            made.write(ids, [-chance.random() * 6 for _ in ids], turn, 0)
        turns = 1 + number % 3
        attempt = AttemptReturn(float(number % 2), (0.5,) * turns)
        record = Trajectory(Task("What is 2 + 3?", "5"), "")
        found.append(Rollout(0, number, (made,), (attempt,), record))
        advantages.append([[chance.uniform(-1, 1) for _ in range(turns)]])
    return found, advantages


def learn(policy: str, settings: dict[str, Any], out: Path, count: int) -> None:
    """Two updates; the first process leaves weights and metrics in ``out``."""
    torch.set_num_threads(1)
    config = TrainConfig(group_size=count, groups_per_update=1, lr=1e-3, **settings)
    processes = launched_processes()
    learner = Learner(load_policy(policy), config, fixed_length=20, processes=processes)
    if processes.index > 0:
        learner.follow()
        return
    told = []
    batch = rollouts(count)
    for update in range(2):
        values = learner.values(batch[0]) if config.advantage == "gae" else None
        told.append(learner.update(*batch, update=update, values=values))
    learner.end()
    with open(out, "wb") as file:
        pickle.dump((told, learner.policy.model.state_dict()), file)


def launch(function: Any, *given: Any, count: int = 2) -> None:
    """Call it in ``count`` processes, as ``accelerate launch`` would."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["toy_tasks", "reagent_env.trainers.train", "reagent_env.cli", "accelerate", "peft"]
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        context.Process(target=as_launched, args=(index, count, port, function, *given))
        for index in range(count)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join(SECONDS)
        if one.is_alive():
            one.kill()
    assert [one.exitcode for one in both] == [0] * count


def as_launched(index: int, count: int, port: int, function: Any, *given: Any) -> None:
    """What ``accelerate launch --multi_gpu --num_processes COUNT`` sets for each process."""
    os.environ |= {
        "RANK": str(index),
        "LOCAL_RANK": str(index),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }
    function(*given)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"micro_batch_tokens": 100, "kl": 0.1}, 6),
        ({"micro_batch_tokens": 60, "lora_rank": 0, "loss": "gspo"}, 5),
        ({"advantage": "gae", "minibatches": 2, "epochs": 2, "entropy": 0.01}, 6),
        ({"reject_ratio": 50.0, "aggregation": "token_mean"}, 1),
    ],
    ids=["kl", "odd-gspo", "gae-minibatches", "one-sample"],
)
def test_two_processes_make_the_update_of_one(
    policy_folder: Path, tmp_path: Path, settings: dict[str, Any], count: int
) -> None:
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    learn(str(policy_folder), settings, alone, count)
    launch(learn, str(policy_folder), settings, spread, count)
    (told, weights), (tell, others) = (pickle.loads(file.read_bytes()) for file in (alone, spread))
    start = load_policy(policy_folder).model.state_dict()
    for name, one in weights.items():
        assert (one - others[name]).abs().max() < 1e-5, name
    assert max((one - start[name]).abs().max() for name, one in weights.items()) > 1e-4
    for first, second in zip(told, tell, strict=True):
        for name in set(first) - {"seconds/update"}:
            assert second[name] == pytest.approx(first[name], rel=1e-3, abs=1e-5), name


def test_a_run_of_two_processes_is_that_of_one_and_goes_on(
    policy_folder: Path, tmp_path: Path
) -> None:
    words = (
        "train reagent-r --env toy_tasks:toy/Letters-v0 --groups-per-update 2 --group-size 3 "
        "--max-tokens 6 --held-out-episodes 0 --eval-every 0 --threads 1 --concurrency 4 "
        f"--deterministic --policy {policy_folder} --updates 1 --out"
    ).split()
    launch(toy_tasks.reagent, *words, str(tmp_path / "spread"))
    launch(toy_tasks.reagent, *words, str(tmp_path / "alone"), count=1)
    assert difference(tmp_path / "alone", tmp_path / "spread") < 1e-5
    resumed = ("train", "--resume", str(tmp_path / "spread"), "--updates", "2")
    launch(toy_tasks.reagent, *resumed)
    launch(
        toy_tasks.reagent, "train", "--resume", str(tmp_path / "alone"), "--updates", "2", count=1
    )
    assert difference(tmp_path / "alone", tmp_path / "spread") < 1e-5


def difference(one: Path, other: Path) -> float:
    """The largest, over all weights of two runs' newest checkpoints."""
    first, second = (load_policy(run).model.state_dict() for run in (one, other))
    return float(max((first[name] - second[name]).abs().max() for name in first))


@pytest.mark.parametrize("trees", [False, True])
def test_samples_are_dealt_out_once_and_every_process_has_as_many_passes(trees: bool) -> None:
    sequences = [one.samples[0].ids for one in rollouts(7)[0]]

    class Pretended(Processes):
        def __init__(self, index: int) -> None:
            super().__init__()
            self.count, self.index = 3, index

    dealt = [
        list(Pretended(index).shares(sequences, range(7), 60, trees=trees)) for index in range(3)
    ]
    assert len({len(one) for one in dealt}) == 1
    counted = sorted(row for one in dealt for rows, counts in one if counts for row in rows)
    assert counted == [0, 1, 2, 3, 4, 5, 6]


def accelerate_launch(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line itself, on a script that says how many there are."""
    says = "from reagent_env.trainers.learner_processes import launched_processes as p; print(p().count)"
    launch = [sys.executable, "-m", "accelerate.commands.launch", *words, "--no_python"]
    return subprocess.run(
        [*launch, sys.executable, "-c", says],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_accelerates_own_command_starts_two_processes_without_a_gpu() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    done = accelerate_launch("--multi_gpu", "--num_processes", "2", "--main_process_port", port)
    assert "".join(done.stdout.split()) == "22", done.stderr[-2000:]  # both say so, maybe on a line


def test_accelerates_cpu_flag_which_starts_one_process_of_two_is_refused() -> None:
    done = accelerate_launch("--cpu", "--num_processes", "2")
    assert done.returncode != 0
    assert "starts one process" in done.stderr
