"""``scripts/train-smollm2``: two parts, each begun once, gone on with where it stopped, never twice."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from reagent_env.trainers.recipes import make_config

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "train-smollm2"
FAKE = """#!/bin/sh
# Stands for `reagent`: notes what it is asked for; a run ends well unless a file DIE says otherwise.
echo "$*" >>"$LOG"
[ "$1" = train ] || exit 0
case "$2" in
  --resume) run=$3 ;;
  *) run=$5 ;;
esac
mkdir -p "$run/checkpoints"
echo '{}' >"$run/config.json"
if [ -f "$run/../DIE" ]; then exit 137; fi
printf '{\\n  "held_out": {\\n    "before": 0.0,\\n    "after": %s,\\n    "n": 100\\n  }\\n}\\n' \\
  "$SUCCESS" >"$run/summary.json"
"""


def run_script(
    folder: Path, success: str = "0.21", **environment: str
) -> tuple[int, list[str], str]:
    """Exit code, what `reagent` was asked for, and what was said."""
    fake, log = folder / "reagent", folder / "log"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    log.unlink(missing_ok=True)
    env = {**os.environ, "REAGENT": str(fake), "LOG": str(log), "SUCCESS": success}
    env |= environment
    ended = subprocess.run([SCRIPT, folder], env=env, capture_output=True, text=True, timeout=60)
    asked = log.read_text().splitlines() if log.exists() else []
    return ended.returncode, asked, ended.stdout + ended.stderr


def test_both_parts_then_what_they_came_to(tmp_path: Path) -> None:
    code, asked, said = run_script(tmp_path)
    sft, rl = f"{tmp_path}/smollm2-sft", f"{tmp_path}/smollm2-reagent-u"
    assert code == 0, said
    assert asked == [
        f"train --config smollm2-sft.toml --out {sft}",
        f"train --config smollm2-reagent-u.toml --out {rl} --policy {sft}",
        f"hacking {rl}",
        f"leakage {rl}",
    ]
    assert "the cold start solves 0.21 of its held-out tasks" in said


def test_what_came_of_it_is_copied_where_it_is_asked_for(tmp_path: Path) -> None:
    evidence = tmp_path / "evidence"
    code, _, said = run_script(tmp_path, EVIDENCE=str(evidence))
    assert code == 0, said
    assert [one.name for one in evidence.iterdir()] == ["summary.json"]  # all that the fake writes


def test_what_was_killed_is_gone_on_with_and_what_is_finished_is_left(tmp_path: Path) -> None:
    (tmp_path / "DIE").touch()
    code, asked, _ = run_script(tmp_path)
    assert code == 137
    assert len(asked) == 1
    (tmp_path / "DIE").unlink()
    assert run_script(tmp_path)[1][0] == f"train --resume {tmp_path}/smollm2-sft"
    again = run_script(tmp_path)
    assert not any(line.startswith("train") for line in again[1])
    assert "smollm2-reagent-u is finished" in again[2]


@pytest.mark.parametrize("success", ["0.14", "0.0", "null", "9e-05"])
def test_a_cold_start_too_weak_is_not_trained_on(tmp_path: Path, success: str) -> None:
    code, asked, said = run_script(tmp_path, success)
    assert code == 1
    assert len(asked) == 1
    assert "reinforcement needs 0.15 to begin with" in said


def test_the_parts_fit_together() -> None:
    first, second = make_config("smollm2-sft"), make_config("smollm2-reagent-u")
    assert (first.recipe, first.policy, second.recipe) == ("sft", "smollm2", "reagent-u")
    assert first.sandbox == second.sandbox == "docker"
    assert first.lora_rank == second.lora_rank == 16
    assert (first.env, first.context_length) == (second.env, second.context_length)
    assert second.max_seconds == 3300
