"""``reagent eval`` against model servers that are dead, slow, or serve another model."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reagent_env.agents.chat import PolicyUnavailable, chat_client, check_model
from reagent_env.cli import app
from reagent_env.trajectory_file import read_trajectories


class ModelServer:
    """Lists ``models`` (or fails so); answers ``answers`` chat requests, then never again."""

    def __init__(self, models: list[str] | int, answers: int = 0, status: int = 200) -> None:
        self.hanging = threading.Event()
        self.closing = threading.Event()
        self.chats = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if isinstance(models, int):
                    self.reply(models, {"error": {"message": "so it is"}})
                else:
                    listed = [{"id": name, "object": "model"} for name in models]
                    self.reply(200, {"object": "list", "data": listed})

            def do_POST(self) -> None:
                with server._lock:
                    number = server.chats
                    server.chats += 1
                if number < answers:
                    message = {"role": "assistant", "content": "no idea"}
                    failure = {"error": {"message": "no field 'top_p'"}}
                    reply = {"choices": [{"index": 0, "message": message}]}
                    self.reply(status, reply if status == 200 else failure)
                else:
                    server.hanging.set()
                    server.closing.wait()

            def reply(self, status: int, body: Any) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing on the test's output."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


Start = Callable[..., ModelServer]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[ModelServer] = []

    def make(models: list[str] | int, answers: int = 0, status: int = 200) -> ModelServer:
        running.append(ModelServer(models, answers, status))
        return running[-1]

    yield make
    for server in running:
        server.close()


def words(agent: str, out: Path, *more: str) -> list[str]:
    return ["eval", "reagent/SearchQA-v0", "--agent", agent, "--out", str(out), *more]


def run(agent: str, out: Path, *more: str) -> tuple[int, str]:
    shown = CliRunner().invoke(app, words(agent, out, *more))
    return shown.exit_code, " ".join(shown.output.replace("│", " ").split())


def test_the_first_ctrl_c_ends_it_while_the_server_is_silent(start: Start, tmp_path: Path) -> None:
    server = start(["m"], answers=3)
    command = words(f"{server.url}#m", tmp_path, "--episodes", "9", "--concurrency", "2")
    process = subprocess.Popen(
        [sys.executable, "-c", "from reagent_env.cli import main; main()", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.hanging.wait(60)
        pressed = time.monotonic()
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=30)
        waited = time.monotonic() - pressed
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, shown
    assert waited < 5  # about 1 s; a request's own time limit is 120 s, and it is tried again
    kept = len(list(read_trajectories(tmp_path / "trajectories.jsonl")))
    assert 1 <= kept <= 3
    again = (
        f"reagent eval reagent/SearchQA-v0 --agent '{server.url}#m' --episodes 9 --concurrency 2 "
        f"--out {tmp_path}"
    )
    assert f"{kept} of 9 episodes kept; go on with: {again}\n" in shown
    assert "Traceback" not in shown


def test_a_dead_server_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        status, shown = run(f"{url}#m", tmp_path / "new")
    assert status == 2
    assert f"No model server at {url}" in shown
    assert "Connection refused" in shown
    assert "reagent serve" in shown
    assert not (tmp_path / "new").exists()


def test_a_server_that_does_not_even_list_its_models_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        started = time.monotonic()
        with (
            chat_client(url) as client,
            pytest.raises(PolicyUnavailable, match=r"/models did not answer within 0\.2 s"),
        ):
            check_model(client, "m", timeout_s=0.2)
        assert time.monotonic() - started < 5


def test_a_model_the_server_lacks_is_named_with_the_nearest(start: Start, tmp_path: Path) -> None:
    server = start(["qwen3-4b", "smollm2"])
    status, shown = run(f"{server.url}#smolm2", tmp_path / "new")
    assert status == 2
    assert "has no model 'smolm2'. Did you mean 'smollm2'? It has 'qwen3-4b', 'smollm2'." in shown
    assert not (tmp_path / "new").exists()
    assert server.chats == 0


def test_a_refused_key_is_said(start: Start, tmp_path: Path) -> None:
    status, shown = run(f"{start(401).url}#m", tmp_path / "new")
    assert status == 2
    assert "set OPENAI_API_KEY" in shown


@pytest.mark.parametrize("models", [404, 501, 503, []])
def test_a_server_that_lists_no_models_is_tried_all_the_same(
    start: Start, tmp_path: Path, models: Any
) -> None:
    server = start(models, answers=99)
    status, _ = run(f"{server.url}#m", tmp_path, "--episodes", "2")
    assert status == 0
    assert server.chats == 2


def test_the_commonest_reason_of_masked_episodes_is_printed(start: Start, tmp_path: Path) -> None:
    server = start(["m"], answers=99, status=400)
    status, shown = run(f"{server.url}#m", tmp_path, "--episodes", "2")
    assert status == 1
    assert "most often (2 times): PolicyUnavailable" in shown
    assert "no field 'top_p'" in shown
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["outcome"] == {"mean": None, "interval": [None, None], "n": 0}
