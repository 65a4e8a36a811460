"""Rules of the house that a reader cannot see: import direction, packaging, light imports."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import reagent_env

ROOT = Path(__file__).parent.parent
LAYERS = ["sandboxes", "reagent_env", "families", "agents", "trainers", "plugins"]
PREFIX = {
    "sandboxes": "reagent_env.sandboxes",
    "families": "reagent_env.families",
    "agents": "reagent_env.agents",
    "trainers": "reagent_env.trainers",
    "plugins": "reagent_env.plugins",
}


def layer_of(module: str) -> str | None:
    for folder, prefix in PREFIX.items():
        if module == prefix or module.startswith(prefix + "."):
            return folder
    return "reagent_env" if module.split(".")[0] == "reagent_env" else None


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_run_one_way(layer: str) -> None:
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in (ROOT / layer).rglob("*.py")
        for module in imports_of(path)
        if layer_of(module) in above
    ]
    assert not wrong


def test_every_package_on_disk_is_in_the_wheel() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    on_disk = set()
    for layer in LAYERS:
        for file in (ROOT / layer).rglob("__init__.py"):
            inner = file.parent.relative_to(ROOT / layer).parts
            on_disk.add(".".join((PREFIX.get(layer, "reagent_env"), *inner)))
    assert listed == on_disk


def test_importing_is_light() -> None:
    program = (
        "import sys, reagent_env, gymnasium;"
        "heavy = {'torch', 'docker', 'reasoning_gym', 'openai', 'sympy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_exported_exists_and_is_sorted() -> None:
    assert reagent_env.__all__ == sorted(reagent_env.__all__)
    for name in reagent_env.__all__:
        assert getattr(reagent_env, name) is not None
    assert callable(reagent_env.tool)


def test_no_companion_folder_is_a_top_level_package() -> None:
    program = "import importlib.util as u; print([u.find_spec(n) for n in ('agents', 'sandboxes')])"
    seen = subprocess.run(
        [sys.executable, "-I", "-c", program], check=True, capture_output=True, text=True, cwd="/"
    )
    assert seen.stdout.strip() == "[None, None]"
