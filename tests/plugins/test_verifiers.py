"""The verifiers plug-in through ``vf-eval`` itself, against a scripted server on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reagent_env.plugins.conformance_env import LEDGER
from reagent_env.plugins.verifiers import ToolUseTaskset, ToolUseTasksetConfig
from reagent_env.testing import ChatReply, ScriptedChatServer

pytestmark = pytest.mark.timeout(300)

BALANCE = '<tool_call>\n{"name": "balance", "arguments": {"owner": "Ada"}}\n</tool_call>'
CLOSED = '<tool_call>\n{"name": "audit", "arguments": {"year": 1066}}\n</tool_call>'
MODULE = """
from reagent_env.plugins.verifiers import ToolUseChat, ToolUseTaskset, ToolUseVerifier

__all__ = ["ToolUseChat", "ToolUseTaskset", "ToolUseVerifier"]
"""


def evaluate(folder: Path, url: str, *words: str) -> list[dict[str, Any]]:
    """``vf-eval`` on the first task of Ledger; its traces."""
    (folder / "ledger_tasks.py").write_text(MODULE)
    command = [
        str(Path(sys.executable).parent / "vf-eval"), "ledger_tasks",
        "--env.taskset.env-id", LEDGER, "--model", "scripted",
        "--client.base-url", url, "--client.api-key-var", "SCRIPTED_KEY",
        "--select.limit", "1", "--num-rollouts", "1", "--no-push", "--no-rich",
        "--output-dir", str(folder / "out"), "--run.name", "run", *words,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(folder), "SCRIPTED_KEY": "none"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (folder / "out" / "run" / "traces.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_vf_eval_plays_an_episode_and_is_paid_outcome_and_process(tmp_path: Path) -> None:
    said = [BALANCE, r"\boxed{165}", r"\boxed{165}"]
    with ScriptedChatServer(lambda request: ChatReply(said[request.number])) as server:
        [episode] = evaluate(
            tmp_path, server.base_url, "--env.judge", "rubric", "--env.attempts", "2"
        )
        asked = [one.body["messages"] for one in server.requests]
    print(json.dumps(episode)[:3000])
    assert [len(messages) for messages in asked] == [2, 4, 6]
    assert "Ada has 120" in asked[1][-1]["content"]
    assert asked[2][-1]["content"].startswith("A reviewer read your attempt")
    [trace] = episode.get("traces", [episode])
    assert trace["rewards"]["outcome"]["score"] == 2.0
    scores = [one["score"] for one in trace["info"]["reagent"]["attempts"]]
    assert trace["rewards"]["process"]["score"] == pytest.approx(0.3 * sum(scores))
    assert trace["metrics"]["attempt_1/turns"] == 2.0
    assert trace["metrics"]["unscored"] == 0.0
    assert trace["info"]["reagent"]["attempts"][0]["critique"]


def test_what_infrastructure_spoils_fails_the_episode_and_is_no_zero(tmp_path: Path) -> None:
    with ScriptedChatServer(lambda request: ChatReply(CLOSED)) as server:
        [episode] = evaluate(tmp_path, server.base_url)
    assert episode["ok"] is False
    assert "archive does not answer" in json.dumps(episode["errors"])
    assert "outcome" not in episode["traces"][0]["rewards"]


def test_tasks_travel_without_their_answers() -> None:
    taskset = ToolUseTaskset(ToolUseTasksetConfig(id="ledger_tasks", env_id=LEDGER))
    tasks = list(taskset)
    assert len(tasks) == 20
    assert len({task.key for task in tasks}) == 20
    assert '"165"' not in tasks[0].data.model_dump_json()
    assert tasks[0].data.system_prompt
    assert asyncio.iscoroutinefunction(tasks[0].setup)
