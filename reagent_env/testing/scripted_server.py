"""An OpenAI-shaped chat server on loopback whose replies are a function: for tests, faults included.

Not a model server, and not for anything but tests: it reads the HTTP that clients of this shape
write, and nothing else.

Example::

    with ScriptedChatServer(lambda request: ChatReply("<think>…")) as server:
        judge = make_reward_model(f"{server.base_url}#any")
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request as it came, e.g. ``ChatRequest(3, {"model": "m", "messages": [...]}, {...})``."""

    number: int
    """Requests before it."""
    body: Mapping[str, Any]
    """The JSON body."""
    headers: Mapping[str, str]
    """Header names in lower case."""

    @property
    def user(self) -> str:
        """The last message's text."""
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What to answer, e.g. ``ChatReply("hello")`` or ``ChatReply(status=503)``."""

    content: str = ""
    """The assistant's text; the error's message for a status of 400 and above."""
    status: int = 200
    """The HTTP status."""
    reasoning: str | None = None
    """Sent as ``reasoning_content``, as servers do that split it off."""
    finish_reason: str = "stop"
    """``stop`` or ``length``."""
    completion_tokens: int = 7
    """Reported in ``usage``."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers, e.g. ``{"retry-after": "0.01"}``."""
    raw: bytes | None = None
    """Sent as the body instead of the JSON of a chat completion."""
    hangs: bool = False
    """Never answer; the connection stays open."""
    hangs_up: bool = False
    """Close the connection without an answer."""


Script = Callable[[ChatRequest], ChatReply]


class ScriptedChatServer:
    """Serves ``script`` in a thread of its own, inside ``with``.

    Attributes:
        requests: Every request, in order of arrival.
        peak: Most requests that were being answered at once.
    """

    def __init__(self, script: Script, *, latency_s: float = 0.0, slots: int | None = None) -> None:
        """Prepare; nothing listens before ``with``.

        Args:
            script: From a request to its reply.
            latency_s: Seconds each reply takes.
            slots: Requests answered at once; others wait. None: all.
        """
        self.requests: list[ChatRequest] = []
        self.peak = 0
        self.port = 0
        self._script = script
        self._latency_s = latency_s
        self._slots = slots
        self._busy = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    @property
    def base_url(self) -> str:
        """What an OpenAI client is given."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        listening = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listening)), name="scripted server", daemon=True
        )
        self._thread.start()
        if not listening.wait(10):
            raise RuntimeError("The scripted server did not begin to listen within 10 s.")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    async def _serve(self, listening: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        slots = asyncio.Semaphore(self._slots) if self._slots else None
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await self._talk(reader, writer, slots)
            except asyncio.CancelledError:
                pass  # the server is closing
            finally:
                connections.discard(task)
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        listening.set()
        await self._stop.wait()
        server.close()
        open_ones = list(connections)
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)

    async def _talk(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        slots: asyncio.Semaphore | None,
    ) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {
                    name.strip().lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = ChatRequest(len(self.requests), json.loads(body or b"{}"), headers)
                self.requests.append(request)
                async with slots or contextlib.nullcontext():
                    reply = await self._answer(request)
                if reply.hangs_up:
                    return
                writer.write(_on_the_wire(reply, request))
                await writer.drain()

    async def _answer(self, request: ChatRequest) -> ChatReply:
        self._busy += 1
        self.peak = max(self.peak, self._busy)
        try:
            reply = self._script(request)
            if reply.hangs:
                await asyncio.Event().wait()
            if self._latency_s:
                await asyncio.sleep(self._latency_s)
            return reply
        finally:
            self._busy -= 1


def _on_the_wire(reply: ChatReply, request: ChatRequest) -> bytes:
    body = json.dumps(_body(reply, request)).encode() if reply.raw is None else reply.raw
    head = [
        f"HTTP/1.1 {reply.status} scripted",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
    ]
    if "content-type" not in reply.headers:
        head.append("content-type: application/json")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _body(reply: ChatReply, request: ChatRequest) -> dict[str, Any]:
    if reply.status >= 400:
        return {"error": {"message": reply.content, "type": "scripted", "code": reply.status}}
    message: dict[str, Any] = {"role": "assistant", "content": reply.content}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    prompt_tokens = sum(len(each["content"]) for each in request.body["messages"]) // 4
    return {
        "id": f"chatcmpl-{request.number}",
        "object": "chat.completion",
        "created": 0,
        "model": request.body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "total_tokens": prompt_tokens + reply.completion_tokens,
        },
    }
