"""Our ids are known to ``gym.make`` with no import of ours, in installs of every kind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def run(program: str, *flags: str, cwd: Path | None = None) -> str:
    ended = subprocess.run(
        [sys.executable, *flags, "-c", program],
        capture_output=True,
        text=True,
        cwd=cwd or Path("/"),
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_importing_gymnasium_alone_registers_our_ids() -> None:
    shown = run(
        "import sys, gymnasium as gym; print('reagent/PythonMath-v0' in gym.registry,"
        " 'reagent_env.env' in sys.modules)"
    )
    assert shown == "True False"


@pytest.mark.parametrize("order", ["gymnasium, reagent_env", "reagent_env, gymnasium"])
def test_without_the_startup_line_importing_us_registers_them(order: str) -> None:
    # -S: no site, hence no start-up line; the folders it would have added are put back by hand.
    program = (
        f"import sys; sys.path[:0] = {[*sys.path[1:], str(ROOT)]!r}; import {order};"
        " print('reagent/PythonMath-v0' in gymnasium.registry)"
    )
    assert run(program, "-S") == "True"


def test_the_startup_line_costs_programs_without_gymnasium_next_to_nothing() -> None:
    shown = run(
        "import sys; print([name for name in sys.modules"
        " if name.split('.')[0] in ('reagent_env', 'gymnasium', 'numpy', 'typing')])"
    )
    assert shown in (
        "['reagent_env', 'reagent_env.gymnasium_hook']",
        "['reagent_env.gymnasium_hook', 'reagent_env']",
    )


def test_the_wheel_carries_the_startup_line(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy: building leaves folders behind, and old ones leak in
    left_out = shutil.ignore_patterns(".*", "build", "runs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=left_out)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, source],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert archive.read("reagent_env.pth") == b"import reagent_env.gymnasium_hook\n"
        record = archive.read(next(n for n in names if n.endswith("/RECORD"))).decode()
    assert "reagent_env.pth,sha256=" in record
    assert {"reagent_env/agents/agent.py", "reagent_env/sandboxes/zygote.py"} <= set(names)
    assert not any(name.startswith(("agents/", "sandboxes/", "tests/")) for name in names)
