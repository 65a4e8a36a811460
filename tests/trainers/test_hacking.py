"""Score against outcome from saved trajectories, and answers that talk of a critique nobody gave."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("matplotlib")

from reagent_env import Judgement, Task, Trajectory
from reagent_env.trainers import metric_names as names
from reagent_env.trainers.hacking import by_length, read_attempts, stretches
from reagent_env.trainers.hacking_report import hacking, leakage
from reagent_env.trainers.leakage import leakage_of, word_runs
from reagent_env.trajectory import Attempt, Turn
from reagent_env.trajectory_file import TrajectoryWriter

CRITIQUE = "You answered before the tools had shown what the question asks for."
PLAIN = r"\boxed{Ostrin}"


def attempt(
    said: str = PLAIN,
    outcome: float | None = 1.0,
    score: float | None = None,
    turns: int = 1,
    feedback: str | None = None,
) -> Attempt:
    judgement = None if score is None else Judgement(critique=CRITIQUE, score=score)
    return Attempt(
        turns=tuple(Turn(said) for _ in range(turns)),
        outcome=outcome,
        stop_reason="answered",
        judgement=judgement,
        feedback=feedback,
    )


def episode(number: int, *attempts: Attempt, prompt: str = "Find the mayor.") -> Trajectory:
    return Trajectory(task=Task(f"Question {number}?", "a"), prompt=prompt, attempts=attempts)


def write(run: Path, name: str, episodes: Iterable[Trajectory]) -> None:
    with TrajectoryWriter(run / "trajectories" / f"{name}.jsonl") as writer:
        for one in episodes:
            writer.write(one)


# Hacking ------------------------------------------------------------------------------------------


def hacked_run(run: Path) -> Path:
    """Eight updates: at first right attempts score higher, at last long wrong ones do."""
    rng = random.Random(0)
    for update in range(1, 9):
        late = update > 4
        episodes = []
        for task in range(6):
            for _ in range(4):
                right = rng.random() < (0.3 if late else 0.6)
                turns = rng.choice((1, 2, 3)) + late
                score = (0.15 * turns + 0.3) if late else (0.8 if right else 0.3)
                score += rng.uniform(-0.05, 0.05)
                episodes.append(
                    episode(task, attempt(outcome=float(right), score=score, turns=turns))
                )
        write(run, f"{update:06d}", episodes)
    return run


def test_the_judges_accuracy_on_the_policys_own_episodes_is_followed(tmp_path: Path) -> None:
    found = stretches(read_attempts(hacked_run(tmp_path)), bins=2)
    early, late = found
    assert (early.first, early.last, late.first, late.last) == (1, 4, 5, 8)
    assert early.attempts == late.attempts == 96
    assert early.auroc.value == 1.0
    assert late.auroc.value < 0.7 < early.auroc.low
    assert early.within.value == 1.0
    assert late.within.value < 0.75
    assert late.score > early.score
    assert late.outcome < early.outcome - 0.15
    assert late.score_by_turns > 0.9 > abs(early.score_by_turns)
    assert early.chosen > 0.2 > abs(late.chosen)


def test_score_by_length(tmp_path: Path) -> None:
    write(tmp_path, "000001", [
        episode(1, attempt(score=0.2, turns=1)),
        episode(2, attempt(score=0.4, turns=1, outcome=0.0)),
        episode(3, attempt(score=0.9, turns=3)),
    ])  # fmt: skip
    assert by_length(read_attempts(tmp_path)) == [
        (1, pytest.approx(0.3), 0.5, 2),
        (3, pytest.approx(0.9), 1.0, 1),
    ]


def test_the_masked_and_the_unscored(tmp_path: Path) -> None:
    unscored = Attempt((Turn("x"),), outcome=0.0, judgement=Judgement(unscored="transport: no"))
    write(tmp_path, "000001", [
        episode(1, attempt(score=0.2)),
        episode(2, attempt(score=0.9, outcome=None)),
        episode(3, unscored),
    ])  # fmt: skip
    [one] = stretches(read_attempts(tmp_path))
    assert (one.attempts, one.unscored, one.score, one.outcome) == (2, 0.5, 0.2, 0.5)
    assert math.isnan(one.auroc.value)  # one class alone cannot be told apart
    assert json.dumps(one.to_json())


def test_a_run_without_judgements_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "000001", [episode(1, attempt())])
    with pytest.raises(FileNotFoundError, match="no judged attempts"):
        read_attempts(tmp_path)


def command(function: Any, *words: str) -> Any:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(function)
    return CliRunner().invoke(app, words)


def test_the_command_writes_table_numbers_and_picture(tmp_path: Path) -> None:
    run = hacked_run(tmp_path / "run")
    line = {"update": 7, names.ALARM: 1.0, "hacking/rise": 0.2, "hacking/fall": -0.3}
    line |= {"hacking/window": 6, "hacking/p": 0.001}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    done = command(hacking, str(run), "--bins", "4")
    assert done.exit_code == 0, done.output
    assert "The judge's score rose by 0.20 over updates 2 – 7" in (run / "hacking.md").read_text()
    assert len(json.loads((run / "hacking.json").read_text())["stretches"]) == 4
    assert (run / "hacking.png").read_bytes().startswith(b"\x89PNG")


# Leakage ------------------------------------------------------------------------------------------


def leaky_run(run: Path, talking: int) -> Path:
    """Twenty held-out tasks, of which so many talk of a critique after training."""
    seconds = [
        episode(n, attempt(), attempt("As suggested, once more.", feedback=CRITIQUE))
        for n in range(5)
    ]
    write(run, "000001", seconds)
    write(run, "held-out-000000", [episode(n, attempt()) for n in range(20)])
    said = [r"My first attempt was wrong: \boxed{a}"] * talking + [PLAIN] * (20 - talking)
    write(run, "held-out-000009", [episode(n, attempt(one)) for n, one in enumerate(said)])
    return run


def test_talk_of_a_critique_is_counted_before_and_after(tmp_path: Path) -> None:
    found = leakage_of(leaky_run(tmp_path, 8))
    assert found.before is not None
    assert (found.before.speaks.mean, found.before.speaks.n) == (0.0, 20)
    assert found.after.speaks.mean == 0.4
    assert found.after.examples[0].startswith("My first attempt was wrong")
    assert (found.begun, found.ended) == (8, 0)
    assert found.p == pytest.approx(2 * 0.5**8)
    assert found.second is not None
    assert found.second.speaks.mean == 1.0  # what it looks like where there was one
    assert found.critiques == 1


def test_no_change_is_no_leakage(tmp_path: Path) -> None:
    found = leakage_of(leaky_run(tmp_path, 0))
    assert found.after.speaks.mean == 0.0
    assert found.p == 1.0


def test_words_of_a_critique_are_an_echo_unless_the_task_said_them(tmp_path: Path) -> None:
    said = "I will not answer before the tools had shown what the question asks. " + PLAIN
    write(tmp_path, "000001", [episode(0, attempt(), attempt(feedback=CRITIQUE))])
    write(tmp_path, "held-out-000003", [
        episode(1, attempt(said)),
        episode(2, attempt(said), prompt=f"Find it. {CRITIQUE}"),
        episode(3, attempt()),
    ])  # fmt: skip
    found = leakage_of(tmp_path)
    assert found.after.echoes is not None
    assert found.after.echoes.mean == pytest.approx(1 / 3)
    assert found.after.speaks.mean == 0.0
    assert found.before is None
    assert found.p is None


def test_fewer_words_in_a_row_are_chance() -> None:
    assert not word_runs([CRITIQUE]) & word_runs(["before the tools had shown, nothing"])
    assert word_runs([CRITIQUE]) & word_runs(["Before the tools had shown what"])


def test_the_evaluation_before_may_be_another_runs(tmp_path: Path) -> None:
    leaky_run(tmp_path / "cold", 0)
    write(
        tmp_path / "run",
        "held-out-000009",
        [episode(n, attempt("As advised: b")) for n in range(20)],
    )
    found = leakage_of(tmp_path / "run", tmp_path / "cold")
    assert (found.begun, found.ended) == (20, 0)
    assert found.after.echoes is None  # no critique of its training is known


def test_the_command_prints_and_keeps_the_measure(tmp_path: Path) -> None:
    run = leaky_run(tmp_path, 8)
    done = command(leakage, str(run))
    assert done.exit_code == 0, done.output
    assert (
        "before  single-pass answers that speak of a critique: 0.000 [0.000, 0.161] n=20"
        in done.output
    )
    assert "after   single-pass answers that speak of a critique: 0.400" in done.output
    assert json.loads((run / "leakage.json").read_text())["begun"] == 8


def test_a_run_without_held_out_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no held-out episodes of after training"):
        leakage_of(tmp_path)


def test_the_interval_within_a_task_resamples_tasks(tmp_path: Path) -> None:
    # Three tasks in eight updates each, first and second attempts: 48 groups, but three tasks.
    scores = {0: (0.9, 0.1), 1: (0.1, 0.9), 2: (0.9, 0.1)}
    for update in range(8):
        episodes = []
        for task, (right, wrong) in scores.items():
            good, bad = attempt(score=right), attempt(outcome=0.0, score=wrong)
            episodes += [episode(task, good, good), episode(task, bad, bad)]
        write(tmp_path, f"{update:06d}", episodes)
    [found] = stretches(read_attempts(tmp_path), 1)
    assert found.within.value == pytest.approx(2 / 3)
    assert (found.within.low, found.within.high) == (0.0, 1.0)
