"""A small real HTTP server that plays the part of a model's server, and the real vLLM one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

from reagent_env.agents.serve import VLLMServer


@dataclass(frozen=True)
class Reply:
    """One HTTP reply, e.g. ``Reply(503, {"error": …})``."""

    status: int
    body: Any
    """Encoded as JSON; a string goes out as it is, as text/html."""
    headers: dict[str, str] = field(default_factory=dict)


def says(content: str | None) -> Reply:
    """A chat completion as vLLM words it."""
    return Reply(
        200,
        {
            "id": "chatcmpl-b555eb224ad48a07",
            "object": "chat.completion",
            "created": 1795319884,
            "model": "scripted",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": content, "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                    "stop_reason": None,
                }
            ],
            "usage": {"prompt_tokens": 37, "total_tokens": 45, "completion_tokens": 8},
        },
    )


class ScriptedServer:
    """Answers chat requests by a function of the request's JSON and its number, from 0."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Reply]) -> None:
        self.requests: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                request = json.loads(raw.decode("utf-8"))
                with server._lock:
                    number = len(server.requests)
                    server.requests.append(request)
                reply = answer(request, number)
                plain = isinstance(reply.body, str)
                body = (reply.body if plain else json.dumps(reply.body)).encode("utf-8")
                self.send_response(reply.status)
                self.send_header("content-type", "text/html" if plain else "application/json")
                self.send_header("content-length", str(len(body)))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing on the test's output."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


Serve = Callable[[Callable[[dict[str, Any], int], Reply]], ScriptedServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a :class:`ScriptedServer`; it ends with the test."""
    running: list[ScriptedServer] = []

    def start(answer: Callable[[dict[str, Any], int], Reply]) -> ScriptedServer:
        running.append(ScriptedServer(answer))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture(name="says")
def _says() -> Callable[[str | None], Reply]:
    return says


@pytest.fixture
def reply() -> type[Reply]:
    """The class, which a test module cannot import from here."""
    return Reply


@pytest.fixture
def impatient() -> Iterator[Callable[[str], openai.OpenAI]]:
    """Make clients that do not retry, for servers that never recover."""
    clients: list[openai.OpenAI] = []

    def make(base_url: str) -> openai.OpenAI:
        clients.append(openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=10))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def smollm2_server() -> Iterator[VLLMServer]:
    """vLLM serving SmolLM2, once for all tests that ask."""
    from reagent_env.agents.smollm2 import say_on_stderr, smollm2_folder

    folder = smollm2_folder()
    with VLLMServer(folder, served_name="smollm2", max_model_len=4096, say=say_on_stderr) as server:
        yield server
