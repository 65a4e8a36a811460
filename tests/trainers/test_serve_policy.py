"""``reagent serve-policy``: what it refuses before a server starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from reagent_env.trainers.engines.vllm_cli import serve_policy

runner = CliRunner()
app = typer.Typer()
app.command()(serve_policy)


def said(*arguments: str) -> str:
    shown = runner.invoke(app, arguments)
    assert shown.exit_code == 2
    return " ".join(shown.output.replace("│", " ").split())


@pytest.mark.parametrize("policy", ["tiny", "smolm2", "/no/such/folder", "./runs/none"])
def test_what_is_no_folder_and_no_hub_id_is_refused(policy: str) -> None:
    assert "is no folder and no hub id" in said(policy)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    assert "holds no model" in said(str(tmp_path))


def test_adapters_are_not_served_without_their_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert "serve their base model with --lora-rank" in said(str(tmp_path))
