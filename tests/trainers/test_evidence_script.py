"""``scripts/evidence``: which ablations, from which cold starts, in which order."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "evidence"
FAKE = """#!/bin/sh
# Stands for `reagent`: notes what it is asked for.
echo "$*" >>"$LOG"
"""


def asked(folder: Path, *parts: str, **environment: str) -> list[str]:
    fake, log = folder / "reagent", folder / "log"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    env = {**os.environ, "REAGENT": str(fake), "LOG": str(log), **environment}
    ended = subprocess.run([SCRIPT, *parts], env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return log.read_text().splitlines()


def test_sweeps_first_since_they_choose_then_both_tasks_then_controls(tmp_path: Path) -> None:
    lines = asked(tmp_path, COLD_STARTS="tiny,runs/other", SANDBOX="process")
    start = "ablate --cold-start tiny,runs/other --sandbox process --evidence docs/evidence/"
    assert all(line.startswith(start) for line in lines)
    assert [line.removeprefix(start) for line in lines] == [
        "sweep-lambda --sweep lambda --seeds 3",
        "sweep-credit --sweep credit --seeds 3",
        "sweep-pooling --sweep pooling --seeds 3",
        "sweep-apart --sweep apart --seeds 3",
        "sweep-std-floor --sweep std-floor --seeds 3",
        "sweep-judge --sweep judge --seeds 3",
        "default --rewards core --seeds 10",
        "sparse --rewards core --task sparse --seeds 10",
        "default --rewards headline --seeds 10",
        "sparse --rewards headline --task sparse --seeds 10",
    ]


def test_one_part_with_other_seeds(tmp_path: Path) -> None:
    lines = asked(tmp_path, "core", COLD_STARTS="tiny", SEEDS="12")
    assert len(lines) == 2
    assert all(line.endswith("--seeds 12") for line in lines)


def test_an_unknown_part_is_refused() -> None:
    ended = subprocess.run(
        [SCRIPT, "everything"],
        env={**os.environ, "COLD_STARTS": "tiny"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "sweeps, core or controls" in ended.stderr
