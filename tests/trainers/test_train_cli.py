from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from reagent_env.trainers import cli
from reagent_env.trainers import metric_names as names
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.config_fields import annotations_of
from reagent_env.trainers.dry_run import dry_run
from reagent_env.trainers.memory_plan import KNOWN, memory_plan
from reagent_env.trainers.progress import TrainProgress, duration
from reagent_env.trainers.recipes import make_config
from reagent_env.trainers.run_folder import RunFolder, read_config

app = typer.Typer(rich_markup_mode=None)
app.command("train")(cli.train)

Runner = Callable[[TrainConfig, RunFolder, TrainProgress], None]


def reagent_train(*words: str) -> Any:
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainConfig, RunFolder]]:
    """The runs that a recipe was asked to do; each makes one update."""
    calls: list[tuple[TrainConfig, RunFolder]] = []

    def runner(config: TrainConfig, run: RunFolder, progress: TrainProgress) -> None:
        calls.append((config, run))
        line = {"update": len(calls), names.SUCCESS: 0.5, names.SECONDS: 1.0}
        with open(run.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        progress.update(len(calls), line)

    monkeypatch.setattr(cli, "_runner", lambda recipe: runner)
    return calls


def test_help_teaches_by_examples() -> None:
    text = reagent_train("--help").stdout
    assert "reagent train reagent-u" in text
    assert "--resume runs/" in text
    assert "--group-size" in text
    assert "--std-floor" not in text  # a flag all the same
    for line in cli._EXAMPLES.splitlines():
        assert len(line) <= 76, line  # a terminal of 80 columns breaks longer ones


def test_the_settings_are_listed_with_defaults_choices_and_what_they_are_for() -> None:
    text = reagent_train("--settings").stdout
    assert "--std-floor 0.1\n    Smallest std" in text
    assert "--loss 'ppo_clip'  (gspo | ppo_clip)" in text
    assert text.count("\n--") + 1 == len(annotations_of(TrainConfig))


def test_a_run_is_made_trained_and_reported(
    tmp_path: Path, ran: list[tuple[TrainConfig, RunFolder]]
) -> None:
    out = tmp_path / "run"
    done = reagent_train("reagent-r", "--updates", "3", "--std-floor", "0.2", "--out", str(out))
    assert done.exit_code == 0, done.stderr
    [(config, run)] = ran
    assert (config.recipe, config.updates, config.std_floor) == ("reagent-r", 3, 0.2)
    assert run.path == out
    assert (out / "report.md").exists()
    assert "success 0.50" in done.stderr


def test_every_setting_can_be_set_by_a_flag_and_by_set(
    tmp_path: Path, ran: list[tuple[TrainConfig, RunFolder]]
) -> None:
    words = "outcome --env-arg max_turns=4 --env-arg tool_format=react --deterministic "
    words += "--no-save-trajectories --set group-size=3 --set betas=[0.8,0.9] --lr 1e-4"
    assert reagent_train(*words.split(), "--out", str(tmp_path / "run")).exit_code == 0
    config = ran[0][0]
    assert config.env_kwargs == {"max_turns": 4, "tool_format": "react"}
    assert (config.deterministic, config.save_trajectories) == (True, False)
    assert (config.group_size, config.betas, config.lr) == (3, (0.8, 0.9), 1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "Which recipe?"),
        ("reagent-y", "Did you mean 'reagent-u'?"),
        ("outcome --group-sise 4", "--group-size"),
        ("outcome --set group_sise=4", "Did you mean 'group_size'?"),
        ("outcome --set recipe=reagent-u", "There is no setting 'recipe'"),
        ("outcome --set lr", "--set takes key=value"),
        ("outcome --lr fast", "lr must be a number"),
        ("outcome --advantage grop", "Did you mean 'grpo'?"),
        ("outcome --ray local --deterministic", "deterministic is of one process"),
        ("outcome --config none.toml", "There is no file none.toml"),
        ("reagent-u-8b", "--dry-run prints the commands"),
    ],
)
def test_a_mistake_is_answered_with_what_would_be_right(words: str, said: str) -> None:
    done = reagent_train(*words.split())
    assert done.exit_code == 2
    assert said in done.stderr


def test_reagent_c_is_answered_with_its_evaluation() -> None:
    done = reagent_train("reagent-c", "--env", "reagent/SearchQA-v0", "--policy", "smollm2")
    assert done.exit_code == 0
    assert (
        "reagent eval reagent/SearchQA-v0 --agent smollm2 --refine critique --judge tiny-rrm"
        in done.stdout
    )


def test_judge_sft_has_settings_of_its_own() -> None:
    words = ("judge-sft", "--dry-run", "--seed", "3", "--set", "epochs=2", "--lr", "1e-3")
    done = reagent_train(*words)
    assert done.exit_code == 0, done.stderr
    assert "epochs=2" in done.stdout
    assert "seed=3" in done.stdout
    assert "Did you mean 'epochs'" in reagent_train(*words, "--set", "epoch=2").stderr
    assert "no setting 'group_size'" in reagent_train(*words, "--group-size", "4").stderr


def test_judge_rl_has_settings_of_its_own_and_says_which() -> None:
    done = reagent_train("judge-rl", "--dry-run", "--judge", "runs/j", "--policy", "smollm2")
    assert done.exit_code == 0, done.stderr
    assert "judge='runs/j'" in done.stdout
    assert "policy='smollm2'" in done.stdout
    assert "out='runs/<time>-judge-rl'" in done.stdout
    listed = reagent_train("judge-rl", "--settings").stdout
    assert "--group-size 8" in listed
    assert "--set tries= 4" in listed
    assert "whether a critique helps" in listed
    help_text = " ".join(reagent_train("--help").stdout.split())
    assert "reagent train judge-rl --judge runs/judge/judge" in help_text


def test_a_resumed_run_goes_on_with_its_own_settings(
    tmp_path: Path, ran: list[tuple[TrainConfig, RunFolder]]
) -> None:
    out = str(tmp_path / "run")
    reagent_train("reagent-r", "--updates", "1", "--seed", "7", "--out", out)
    done = reagent_train("--resume", out, "--updates", "2")
    assert done.exit_code == 0, done.stderr
    assert (ran[1][0].recipe, ran[1][0].seed, ran[1][0].updates) == ("reagent-r", 7, 2)
    assert read_config(tmp_path / "run").updates == 2


@pytest.mark.parametrize("words", ["--lr 1e-4", "outcome", "--env-arg max_turns=3", "--out other"])
def test_a_resumed_run_keeps_what_decides_what_is_learned(
    tmp_path: Path, ran: list[tuple[TrainConfig, RunFolder]], words: str
) -> None:
    out = str(tmp_path / "run")
    reagent_train("reagent-r", "--out", out)
    done = reagent_train("--resume", out, *words.split())
    assert done.exit_code == 2
    assert "A resumed run keeps its settings" in done.stderr
    assert len(ran) == 1


def test_ctrl_c_ends_with_a_report_and_the_command_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(config: TrainConfig, run: RunFolder, progress: TrainProgress) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_runner", lambda recipe: interrupted)
    out = tmp_path / "run"
    done = reagent_train("outcome", "--out", str(out))
    assert done.exit_code == 130
    assert f"reagent train --resume {out}" in done.stderr.replace("\n", "")
    assert (out / "report.md").exists()
    RunFolder.resume(out).close()  # nobody holds it


def test_a_full_disk_ends_the_run_with_the_command_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(config: TrainConfig, run: RunFolder, progress: TrainProgress) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(run.checkpoints / "000002"))

    monkeypatch.setattr(cli, "_runner", lambda recipe: full)
    out = tmp_path / "run"
    done = reagent_train("outcome", "--out", str(out))
    assert isinstance(done.exception, OSError)  # which `reagent` shows as one line
    assert "checkpoints/000002" in str(done.exception)
    assert f"reagent train --resume {out}" in done.stderr.replace("\n", "")


def test_a_dry_run_says_what_would_happen_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = reagent_train("reagent-u", "--dry-run", "--schedule", "4>6>8@20")
    assert done.exit_code == 0, done.stderr
    assert "reagent/MiniMix-v0  100% of the groups; tasks: 16," in done.stdout
    assert "4 from update 1, 6 from update 21, 8 from update 41" in done.stdout
    assert "60 updates × 8 tasks × 8 rollouts = 3,840 episodes of 2 attempt(s)" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_dry_run_of_the_8b_file_has_data_memory_and_commands() -> None:
    text = dry_run(make_config("reagent-u-8b"), "reagent train reagent-u-8b")
    assert "reagent/PythonMath-v0  30% of the groups" in text
    assert "8,190.7 M weights" in text
    assert "Not run here: it takes 8 GPUs and 4 for the judge." in text
    assert "CUDA_VISIBLE_DEVICES=8,9,10,11 vllm serve" in text
    assert "accelerate launch --num_processes 8" in text
    assert text.rstrip().endswith("train reagent-u-8b")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"judge": "rubrik"}, "Did you mean 'rubric'"),
        ({"policy": "tinny"}, "Did you mean 'tiny'"),
        ({"env": "reagent/MiniMax-v0"}, "MiniMix"),
        ({"policy": "Qwen/Qwen3-8B", "gpus": 1}, "does not fit"),
    ],
)
def test_a_dry_run_refuses_what_could_not_run(settings: dict[str, Any], said: str) -> None:
    config = make_config("reagent-r", settings=settings)
    with pytest.raises(Exception, match=said):
        dry_run(config)


def test_the_weights_of_a_model_are_counted_from_its_shape() -> None:
    assert round(KNOWN["Qwen/Qwen3-8B"].parameters / 1e9, 2) == 8.19
    assert round(KNOWN["smollm2"].parameters / 1e6, 1) == 134.5


def test_the_memory_plan_counts_sixteen_bytes_a_trained_weight() -> None:
    shape = KNOWN["tiny"]
    full = memory_plan(make_config("outcome"), shape)
    always = ("weights", "gradients", "Adam's moments")
    assert sum(full.parts[name] for name in always) == 16 * shape.parameters
    lora = memory_plan(make_config("outcome", settings={"lora_rank": 4}), shape)
    assert lora.trained == shape.adapter_parameters(4) < shape.parameters / 10
    spread = memory_plan(make_config("outcome", settings={"gpus": 4}), shape)
    assert spread.parts["gradients"] == full.parts["gradients"] / 4


def test_progress_off_a_terminal_is_a_line_an_update() -> None:
    shown = io.StringIO()
    config = make_config("reagent-u", settings={"updates": 4})
    with TrainProgress(config, Console(file=shown, width=200)) as progress:
        for update in (1, 2):
            progress.rollout()
            progress.update(
                update,
                {
                    names.SECONDS: 30.0 * update,
                    names.SUCCESS: 0.44,
                    names.SECOND: 0.58,
                    names.UNSCORED: 0.012,
                    names.SPEED: 2310.4,
                    "more": 1.0,
                },
            )
    assert shown.getvalue().splitlines() == [
        "update    1/4  success 0.44  second 0.58  unscored 1.2%  tok/s 2,310",
        "update    2/4  success 0.44  second 0.58  unscored 1.2%  tok/s 2,310  1 min 00 s left",
    ]


def test_the_time_left_respects_the_limit_of_time() -> None:
    config = make_config("outcome", settings={"updates": 100, "max_seconds": 90.0})
    with TrainProgress(config, Console(file=io.StringIO())) as progress:
        progress.update(1, {names.SECONDS: 30.0})
        assert progress.line(2, {names.SECONDS: 60.0}) == "30 s left"
    assert [duration(one) for one in (59.4, 200, 7500)] == ["59 s", "3 min 20 s", "2 h 05 min"]
