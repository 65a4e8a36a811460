"""The training loop end to end, on environments from outside the package and a tiny random policy."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("tensorboard")

import toy_tasks  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from reagent_env.errors import InfrastructureError  # noqa: E402
from reagent_env.judgement import Judgement  # noqa: E402
from reagent_env.reward_models.base import JudgeUnavailable  # noqa: E402
from reagent_env.trainers import parts  # noqa: E402
from reagent_env.trainers import train as loop  # noqa: E402
from reagent_env.trainers.config import TrainConfig  # noqa: E402
from reagent_env.trainers.progress import TrainProgress  # noqa: E402
from reagent_env.trainers.recipes import make_config  # noqa: E402
from reagent_env.trainers.run_folder import RunFolder, read_metrics  # noqa: E402
from reagent_env.trainers.train import Progressed, train  # noqa: E402
from reagent_env.trajectory_file import read_trajectories  # noqa: E402

LETTERS, SUMS = "toy_tasks:toy/Letters-v0", "toy_tasks:toy/Sums-v0"
SECONDS = 150.0
SMALL: dict[str, Any] = {
    "env": LETTERS,
    "updates": 2,
    "groups_per_update": 2,
    "group_size": 2,
    "max_tokens": 6,
    "held_out_episodes": 0,
    "eval_every": 0,
    "threads": 1,
    "concurrency": 8,
}


@pytest.fixture
def run_recipe(policy_folder: Path, tmp_path: Path) -> Callable[..., tuple[Progressed, Path]]:
    """Trains; once more into the same folder goes on."""

    def run(recipe: str, out: str = "run", **settings: Any) -> tuple[Progressed, Path]:
        path = tmp_path / out
        config = make_config(recipe, settings={**SMALL, "policy": str(policy_folder), **settings})
        made = RunFolder.resume(path) if path.exists() else RunFolder.create(config, path)
        with made as folder, TrainProgress(config) as progress:
            folder.config = config
            return train(config, folder, progress), path

    return run


def weights(run: Path, update: int | None = None) -> dict[str, Any]:
    folders = sorted((run / "checkpoints").iterdir())
    folder = folders[-1] if update is None else run / "checkpoints" / f"{update:06d}"
    [file] = folder.glob("*.safetensors")
    return load_file(file)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_leaves_summary_metrics_trajectories_and_checkpoints(run_recipe: Any) -> None:
    progressed, run = run_recipe(
        "reagent-u", held_out_episodes=3, eval_every=1, eval_episodes=2, spare_groups=0
    )
    summary = json.loads((run / "summary.json").read_text())
    assert list(summary) == [
        "recipe", "env", "policy", "judge", "seed", "updates", "train_seconds", "held_out",
        "unscored_rate",
    ]  # fmt: skip
    assert (summary["recipe"], summary["env"], summary["updates"]) == ("reagent-u", LETTERS, 2)
    assert set(summary["held_out"]) == {"before", "after", "n", "ci"}
    assert summary["held_out"]["n"] == 3
    assert summary["unscored_rate"] == 0.0
    lines = read_metrics(run)
    assert [line["update"] for line in lines] == [1, 2]
    assert {"train/outcome", "train/outcome_2", "reward/score", "loss/grad_norm"} <= set(lines[0])
    assert lines[0]["eval/n"] == 2
    assert lines[0]["loss/ratio"] == pytest.approx(1.0, abs=1e-4)
    assert lines[0]["sampler/k3"] < 1e-6
    names = sorted(file.name for file in (run / "trajectories").iterdir())
    assert names == [
        "000001.jsonl", "000002.jsonl", "held-out-000000.jsonl", "held-out-000002.jsonl",
    ]  # fmt: skip
    kept = list(read_trajectories(run / "trajectories" / "000001.jsonl"))
    assert len(kept) == 4
    assert all(len(one.attempts) == 2 and one.turns[0].completion_ids for one in kept)
    assert not same(weights(run, 1), weights(run, 2))
    assert progressed.judged == 16


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("outcome", {"env": SUMS, "max_tokens": 16}),
        ("outcome", {"env": f"{LETTERS}=0.5,{SUMS}=0.5", "schedule": "2>3@1"}),
        ("outcome", {"dynamic_sampling": True, "loss": "gspo", "kl": 0.1, "entropy": 0.01}),
        ("outcome", {"advantage": "gae", "minibatches": 2, "epochs": 2}),
        ("outcome", {"attempts": 2, "feedback": "retry", "mask_token_limit": True}),
        ("outcome", {"aggregation": "fixed_length", "reject_ratio": 2.0, "top_p": 0.9}),
        ("reagent-r", {"lora_rank": 4, "kl": 0.1, "gradient_checkpointing": True}),
        ("reagent-r", {"lora_rank": 4, "dtype": "bfloat16"}),
        ("reagent-r", {"lora_rank": 4, "dtype": "float32"}),
        ("reagent-r", {"credit": "turn", "advantage": "turn", "when": "step", "env": SUMS}),
        ("reagent-u", {"advantage": "per_stage", "improvement_bonus": 0.5, "distill": True}),
        ("reagent-u", {"feedback": "independent", "apart": True, "context_length": 256}),
    ],
)
def test_every_way_of_training_changes_the_weights(
    run_recipe: Any, recipe: str, settings: dict[str, Any]
) -> None:
    progressed, run = run_recipe(recipe, **settings)
    assert progressed.update == 2
    lines = read_metrics(run)
    assert all(line["rollout/masked"] == 0 for line in lines) or settings.get("mask_token_limit")
    if settings.get("env") == LETTERS or "env" not in settings:
        changed = weights(run)
        assert not same(weights(run, 1), changed) or settings.get("mask_token_limit")


@pytest.mark.parametrize(
    ("recipe", "attempts"), [("outcome", 1), ("reagent-r", 1), ("reagent-u", 2)]
)
def test_a_schedule_limits_every_attempt_of_every_recipe(
    run_recipe: Any, recipe: str, attempts: int
) -> None:
    _, run = run_recipe(
        recipe,
        env="toy_tasks:toy/Endless-v0",
        schedule="1>3@1",
        max_tokens=4,
        eval_every=0,
        held_out_episodes=0,
        deterministic=True,
    )
    for update, limit in ((1, 1), (2, 3)):
        kept = list(read_trajectories(run / "trajectories" / f"{update:06d}.jsonl"))
        turns = [[len(attempt.turns) for attempt in one.attempts] for one in kept]
        assert turns == [[limit] * attempts] * 4


def test_a_run_too_short_for_its_schedule_says_so(
    run_recipe: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"max_tokens": 4, "held_out_episodes": 0, "eval_every": 0, "updates": 1}
    run_recipe("outcome", env="toy_tasks:toy/Endless-v0", schedule="1>3@5", **settings)
    assert "last limit, 3, is never" in " ".join(capsys.readouterr().err.split())


def test_held_out_episodes_have_a_turn_limit_of_their_own(run_recipe: Any) -> None:
    settings = {"schedule": "fixed:1", "eval_turns": 3, "updates": 1, "max_tokens": 4}
    _, run = run_recipe(
        "outcome", env="toy_tasks:toy/Endless-v0", held_out_episodes=2, eval_every=0, **settings
    )
    trained = read_trajectories(run / "trajectories" / "000001.jsonl")
    assert {len(one.turns) for one in trained} == {1}
    held_out = list(read_trajectories(run / "trajectories" / "held-out-000001.jsonl"))
    assert [len(one.turns) for one in held_out] == [3, 3]


def test_dynamic_sampling_looks_for_other_groups(run_recipe: Any) -> None:
    _, run = run_recipe("outcome", env=SUMS, dynamic_sampling=True, updates=1)
    [line] = read_metrics(run)  # all wrong: none tells its rollouts apart
    assert line["rollout/groups_dropped"] == 2 * (1 + loop.REPLACEMENTS)


def learned(run: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    return [
        {name: value for name, value in line.items() if "second" not in name}
        for line in read_metrics(run)
    ]


def test_a_resumed_run_ends_with_the_same_bits_whatever_the_recipe(run_recipe: Any) -> None:
    settings = {"deterministic": True, "updates": 2, "concurrency": 3}
    for recipe, more in (
        ("reagent-u", {"kl": 0.1, "feedback": "independent"}),
        ("reagent-r", {"lora_rank": 4, "advantage": "gae", "credit": "turn"}),
    ):
        _, whole = run_recipe(recipe, f"{recipe}-whole", **settings, **more)
        run_recipe(recipe, f"{recipe}-cut", **{**settings, "updates": 1}, **more)
        progressed, cut = run_recipe(recipe, f"{recipe}-cut", **settings, **more)
        assert progressed.judged == (16 if recipe == "reagent-u" else 8)
        assert same(weights(whole), weights(cut))
        assert learned(cut) == learned(whole)


def test_other_settings_go_on_from_the_newest_checkpoint(run_recipe: Any) -> None:
    run_recipe("outcome", updates=1)
    progressed, run = run_recipe("outcome", updates=3)
    assert progressed.update == 3
    assert [line["update"] for line in read_metrics(run)] == [1, 2, 3]
    assert run_recipe("outcome", updates=3)[0].update == 3  # nothing left to do


def test_time_that_is_up_ends_a_run_with_a_checkpoint(run_recipe: Any) -> None:
    progressed, run = run_recipe("outcome", updates=50, max_seconds=1e-6, checkpoint_every=20)
    assert progressed.update == 1
    assert [one.name for one in (run / "checkpoints").iterdir()] == ["000001"]
    assert json.loads((run / "summary.json").read_text())["updates"] == 1


def test_a_full_disk_costs_no_finished_update(
    run_recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = loop.save_checkpoint, []

    def full(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*given, **named)

    monkeypatch.setattr(loop, "save_checkpoint", full)
    with pytest.raises(OSError, match="No space left"):
        run_recipe("outcome", deterministic=True)
    progressed, run = run_recipe("outcome", deterministic=True)
    assert progressed.update == 2
    assert [line["update"] for line in read_metrics(run)] == [1, 2]
    assert len(calls) == 3  # the first update was not made again


class Silent:
    """Scores nothing from its ``after``-th judgement on."""

    def __init__(self, after: int) -> None:
        self.left = after

    def judge(self, trajectories: Any, /) -> list[Judgement]:
        found = []
        for _ in trajectories:
            self.left -= 1
            told = Judgement(critique="Again.", score=0.5)
            found.append(told if self.left >= 0 else Judgement(unscored="transport: no answer"))
        return found


def test_a_judge_that_fails_too_often_stops_training_and_the_run_goes_on_later(
    run_recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "make_reward_model", lambda name: Silent(after=32))
    settings = {"groups_per_update": 8, "group_size": 4, "max_tokens": 2, "spare_groups": 0}
    with pytest.raises(JudgeUnavailable, match="transport"):
        run_recipe("reagent-r", updates=5, **settings)
    monkeypatch.setattr(parts, "make_reward_model", lambda name: Silent(after=999))
    progressed, run = run_recipe("reagent-r", updates=2, **settings)
    assert [line["update"] for line in read_metrics(run)] == [1, 2]
    assert (progressed.judged, progressed.unscored) == (64, 0)


def test_second_attempts_without_a_judge_are_not_counted_as_unscored(run_recipe: Any) -> None:
    settings = {"groups_per_update": 4, "group_size": 4, "attempts": 2, "feedback": "retry"}
    progressed, _ = run_recipe("outcome", updates=2, **settings)
    assert (progressed.update, progressed.judged) == (2, 0)


def test_a_run_without_a_judge_speaks_of_no_unscored_attempts(run_recipe: Any) -> None:
    _, run = run_recipe("outcome", updates=1)
    assert not [name for name in read_metrics(run)[0] if name.startswith("unscored")]


def test_an_update_of_which_nothing_could_be_played_is_none(run_recipe: Any) -> None:
    with pytest.raises(InfrastructureError, match=r"Not one of the 4 rollouts of update 1.*down"):
        run_recipe("outcome", env="toy_tasks:toy/Down-v0", retries=0)


def test_a_split_without_tasks_is_found_before_training(run_recipe: Any) -> None:
    with pytest.raises(ValueError, match="no task in split 'test'"):
        run_recipe("outcome", env="toy_tasks:toy/Few-v0", held_out_episodes=2)


def test_a_policy_learns_what_is_rewarded_and_unlearns_what_is_not(run_recipe: Any) -> None:
    _, run = run_recipe(
        "outcome", updates=25, groups_per_update=4, group_size=8, lr=0.01, spare_groups=0,
        save_trajectories=False, checkpoint_every=25,
    )  # fmt: skip
    curve = [line["train/outcome"] for line in read_metrics(run)]
    first, last = sum(curve[:3]) / 3, sum(curve[-3:]) / 3
    assert first < 0.1
    assert last > first + 0.3


def reagent(*words: str) -> Any:
    """A process that runs ``reagent …``, forked from one that has loaded everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toy_tasks", "reagent_env.trainers.train", "reagent_env.cli"])
    process = context.Process(target=toy_tasks.reagent, args=words)
    process.start()
    return process


def ended(process: Any) -> int:
    process.join(SECONDS)
    assert process.exitcode is not None
    return int(process.exitcode)


def wait_for(found: Callable[[], bool], process: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not found() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)


def words(out: Path, policy: Path) -> list[str]:
    given = {**SMALL, "updates": 6, "policy": policy, "out": out, "concurrency": 3}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    return ["train", "reagent-u", "--deterministic", *flags]


def lines(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.timeout(400)
def test_a_run_killed_again_and_again_ends_with_the_bits_of_one_that_was_not(
    policy_folder: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert ended(reagent(*words(whole, policy_folder))) == 0
    process = reagent(*words(cut, policy_folder))
    chance = random.Random(os.urandom(8))
    for least in (1, 3, 4):
        wait_for(lambda least=least: lines(cut) >= least, process)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        ended(process)
        process = reagent("train", "--resume", str(cut))
    assert ended(process) == 0
    assert same(weights(whole), weights(cut))
    assert lines(cut) == 6


@pytest.mark.timeout(400)
def test_ctrl_c_ends_a_run_cleanly_and_it_goes_on(policy_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = reagent(*words(run, policy_folder), "--updates=3")
    wait_for(lambda: lines(run) >= 1, process)
    os.kill(process.pid, signal.SIGINT)
    assert ended(process) == 130
    assert "Not finished" in (run / "report.md").read_text()
    assert not (run / "summary.json").exists()
    assert ended(reagent("train", "--resume", str(run))) == 0
    assert json.loads((run / "summary.json").read_text())["updates"] == 3


def test_settings_are_those_of_the_config(policy_folder: Path) -> None:
    config = TrainConfig(**{**SMALL, "policy": str(policy_folder), "context_length": 100})
    assert parts.load_for_training(config).context_length == 100
    several = TrainConfig(**{**SMALL, "policy": str(policy_folder), "gradient_checkpointing": True})
    model: Any = parts.load_for_training(several).model
    assert any(getattr(one, "gradient_checkpointing", False) for one in model.modules())


@pytest.mark.parametrize(
    ("settings", "native", "base"),
    [
        ({}, True, "float32"),  # what is trained
        ({"lora_rank": 2}, True, "bfloat16"),
        ({"lora_rank": 2}, False, "float32"),
        ({"lora_rank": 2}, None, "float32"),  # a torch that does not say
        ({"lora_rank": 2, "dtype": "float32"}, True, "float32"),
        (
            {"lora_rank": 2, "engine": "vllm", "engine_url": "http://127.0.0.1:1/v1"},
            True,
            "float32",
        ),
        ({"dtype": "bfloat16"}, False, "bfloat16"),
    ],
)
def test_frozen_weights_are_bfloat16_where_a_cpu_multiplies_it(
    settings: dict[str, Any],
    native: bool | None,
    base: str,
    policy_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if native is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        can = {"avx512_bf16": native}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    config = TrainConfig(**{**SMALL, "policy": str(policy_folder), **settings})
    weights = dict(parts.load_for_training(config).model.named_parameters())
    frozen = {str(one.dtype) for name, one in weights.items() if "lora" not in name}
    assert frozen == {f"torch.{base}"}
    adapters = {one.dtype for name, one in weights.items() if "lora" in name}
    assert adapters == ({torch.float32} if config.lora_rank else set())
