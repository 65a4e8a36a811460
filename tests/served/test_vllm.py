"""A real vLLM server with SmolLM2 plays PythonMath. It solves next to nothing: structure is tested.

Run by ``make test-vllm``. Other tests put scripted servers in the model's place.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from reagent_env.agents.chat import ChatAgent, ContextOverflow, Sampling
from reagent_env.agents.evaluate import evaluate
from reagent_env.agents.serve import ServerFailed, VLLMServer, vllm_python
from reagent_env.testing import addition_env
from reagent_env.trajectory import Trajectory
from reagent_env.trajectory_file import read_trajectories

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

ENV = "reagent/PythonMath-v0"
# SmolLM2 does not call tools by itself. Held to this pattern it must, and the numbers are its own.
ALWAYS_CALLS = {
    "structured_outputs": {
        "regex": r'<tool_call>\{"name": "python", "arguments": '
        r'\{"code": "print\([1-9][0-9]{0,3} [+*-] [1-9][0-9]{0,3}\)"\}\}</tool_call>'
    }
}


def reagent(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("reagent")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def check(trajectory: Trajectory) -> None:
    """What holds of every trajectory that nothing spoiled."""
    assert trajectory.infrastructure_error is None
    assert trajectory.stop_reason in {"answered", "max_turns", "context_length"}
    assert trajectory.outcome is not None
    assert 0.0 <= trajectory.outcome <= 1.0
    assert trajectory.turns
    for turn in trajectory.turns:
        assert len(turn.results) == len(turn.calls)


@pytest.mark.parametrize("sandbox", ["embedded", "docker"])
def test_reagent_eval_plays_served_episodes(
    smollm2_server: VLLMServer, tmp_path: Path, sandbox: str, request: Any
) -> None:
    if sandbox == "docker":
        request.getfixturevalue("docker")
    ended = reagent(
        *("eval", ENV, "--agent", f"{smollm2_server.base_url}#smollm2", "--sandbox", sandbox),
        *("--episodes", "4", "--max-tokens", "64", "--max-turns", "3", "--out", str(tmp_path)),
    )
    assert ended.returncode == 0, ended.stderr
    assert "masked 0" in ended.stdout
    trajectories = list(read_trajectories(tmp_path / "trajectories.jsonl"))
    assert len({one.task.id for one in trajectories}) == 4
    for trajectory in trajectories:
        check(trajectory)
        assert trajectory.turns[0].completion, "it wrote something"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["outcome"]["n"], summary["masked"]) == (4, 0)


@pytest.mark.parametrize("sandbox", ["embedded", "docker"])
def test_calls_that_the_model_writes_run_in_the_sandbox(
    smollm2_server: VLLMServer, tmp_path: Path, sandbox: str, request: Any
) -> None:
    if sandbox == "docker":
        request.getfixturevalue("docker")
    trajectories = evaluate(
        lambda: gymnasium.make(ENV, disable_env_checker=True, sandbox=sandbox, max_turns=3),
        lambda: ChatAgent(
            smollm2_server.base_url, "smollm2", sampling=Sampling(max_tokens=96, extra=ALWAYS_CALLS)
        ),
        4,
        out=tmp_path,
        concurrency=4,
    )
    for trajectory in trajectories:
        check(trajectory)
        assert (trajectory.stop_reason, len(trajectory.turns)) == ("max_turns", 3)
        for turn in trajectory.turns:
            [call], [answer] = turn.calls, turn.results
            assert answer.error is None
            written = re.fullmatch(r"print\((\d+) ([+*-]) (\d+)\)", call.arguments["code"])
            assert written is not None
            a, sign, b = int(written[1]), written[2], int(written[3])
            computed = {"+": a + b, "-": a - b, "*": a * b}[sign]
            assert str(computed) in answer.content


def test_an_evaluation_cut_short_goes_on_where_it_stopped(
    smollm2_server: VLLMServer, tmp_path: Path
) -> None:
    command = (
        *("eval", ENV, "--agent", f"{smollm2_server.base_url}#smollm2", "--sandbox", "embedded"),
        *("--episodes", "4", "--max-tokens", "32", "--max-turns", "2", "--out", str(tmp_path)),
    )
    assert reagent(*command).returncode == 0
    path = tmp_path / "trajectories.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    torn = whole[: -len(lines[-1]) // 2]
    path.write_bytes(torn)
    again = reagent(*command)
    assert again.returncode == 0, again.stderr
    assert path.read_bytes().startswith(b"".join(lines[:-1])), "what was finished is not run again"
    tasks = [one.task.id for one in read_trajectories(path)]
    assert len(tasks) == len(set(tasks)) == 4
    settled = path.read_bytes()
    assert reagent(*command).returncode == 0
    assert path.read_bytes() == settled, "nothing was left to do"


def test_the_servers_word_for_too_long_is_understood(smollm2_server: VLLMServer) -> None:
    observation, info = addition_env().reset(seed=0)
    agent = ChatAgent(smollm2_server.base_url, "smollm2", sampling=Sampling(max_tokens=8))
    for words in (6_000, 300_000):  # above the context in tokens; above what it will tokenise
        agent.begin({**info, "messages": [{"role": "user", "content": "word " * words}]})
        with pytest.raises(ContextOverflow, match="maximum context length is 4096"):
            agent.act(observation, info)


def test_surrogates_and_nul_reach_the_server(smollm2_server: VLLMServer) -> None:
    observation, info = addition_env().reset(seed=0)
    agent = ChatAgent(smollm2_server.base_url, "smollm2", sampling=Sampling(max_tokens=4))
    agent.begin({**info, "messages": [{"role": "user", "content": "a\ud800b\0c"}]})
    assert isinstance(agent.act(observation, info), str)


def test_smollm2_answers_a_simple_question(smollm2_server: VLLMServer) -> None:
    observation, info = addition_env().reset(seed=0)
    sampling = Sampling(temperature=0.0, max_tokens=16)
    agent = ChatAgent(smollm2_server.base_url, "smollm2", sampling=sampling)
    question = "What is the capital of France?"
    agent.begin({**info, "messages": [{"role": "user", "content": question}]})
    assert "Paris" in agent.act(observation, info)


def test_each_digit_is_a_token_and_spaces_before_it_stay_together(
    smollm2_server: VLLMServer,
) -> None:
    root = smollm2_server.base_url.removesuffix("/v1")
    asked = {"model": "smollm2", "prompt": "a  12", "return_token_strs": True}
    request = urllib.request.Request(
        f"{root}/tokenize", json.dumps(asked).encode(), {"content-type": "application/json"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        tokens = json.load(answer)["token_strs"]
    assert tokens == ["a", "ĠĠ", "1", "2"]


def test_the_converted_model_is_plain(smollm2_server: VLLMServer) -> None:
    folder = Path(smollm2_server.model)
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert (config["dtype"], config["tie_word_embeddings"]) == ("float32", True)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["padding_side"] == "left"
    assert (folder / "model.safetensors").stat().st_size > 500_000_000
    assert (folder / "LICENSE").exists()
    assert not list(folder.parent.glob(".unfinished-*"))


def test_a_folder_that_is_no_model_fails_with_the_log(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no such model"}')
    server = VLLMServer(tmp_path, served_name="broken", deadline_s=300)
    with pytest.raises(ServerFailed, match="no such model"):
        server.start()
    assert not server.alive
    assert server.log_path is not None
    assert server.log_path.exists(), "the log of a failure stays"
    server.log_path.unlink()


def test_ending_a_server_ends_its_processes() -> None:
    """Ended while it starts: it has children by then, and none outlives it."""
    assert vllm_python().exists()
    from reagent_env.agents.smollm2 import smollm2_folder

    server = VLLMServer(smollm2_folder(), served_name="smollm2", deadline_s=25)
    with pytest.raises(ServerFailed, match="did not answer within 25 s"):
        server.start()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            assert f"--port\0{server.port}\0".encode() not in command
    if server.log_path is not None:
        server.log_path.unlink()
