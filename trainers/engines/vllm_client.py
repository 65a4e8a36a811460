"""Requests to a vLLM server from one event loop in one thread: retries, and errors with a meaning.

Not here: which requests, and when they must wait (``vllm.py``).
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import openai

from reagent_env.agents.serve import ServerFailed, VLLMServer
from reagent_env.reward_models.served import fast_http_client
from reagent_env.trainers.engines.base import ContextFull, EngineFailed
from reagent_env.trainers.engines.vllm_wire import says_too_long

_Answer = TypeVar("_Answer")


class NotThere(EngineFailed):
    """An endpoint, or a model, that the server does not have (404)."""


class VLLMClient:
    """JSON over HTTP to one server; its coroutines run in its own loop, by :meth:`run`.

    Attributes:
        base_url: As an OpenAI client takes it, e.g. ``http://127.0.0.1:8000/v1``.
        root: Without ``/v1``, where vLLM's own endpoints are.
    """

    def __init__(
        self,
        base_url: str,
        *,
        retries: int = 4,
        timeout_s: float = 600.0,
        server: VLLMServer | None = None,
    ) -> None:
        """Start the thread; nothing is sent.

        Args:
            base_url: As above.
            retries: Of a request that met no connection, 408, 409, 429 or 5xx; pauses grow to 8 s.
            timeout_s: For one try.
            server: The server behind the URL where this process started it: an error that finds it
                dead says how its log ends.
        """
        self.base_url = base_url.rstrip("/")
        self.root = self.base_url.removesuffix("/v1")
        self._server = server
        self._closed = False
        self._closing = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._client = openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=os.environ.get("OPENAI_API_KEY", "none"),
            max_retries=retries,
            timeout=timeout_s,
            http_client=fast_http_client(),
        )
        self._impatient = self._client.with_options(max_retries=0)
        self._thread = threading.Thread(target=self._serve, name="vLLM client", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop: what is under way raises :class:`EngineFailed`. The server goes on. Twice is fine."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(10)

    def run(self, work: Callable[[], Coroutine[Any, Any, _Answer]]) -> Future[_Answer]:
        """Start ``work()`` in the loop's thread; a closed client fails it."""
        with self._closing:
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(self._failing_when_closed(work), self._loop)
        refused: Future[_Answer] = Future()
        refused.set_exception(EngineFailed("The engine is closed."))
        return refused

    def call(self, work: Callable[[], None]) -> None:
        """Call ``work()`` in the loop's thread, some time; RuntimeError where that has ended."""
        self._loop.call_soon_threadsafe(work)

    async def get(self, url: str) -> Any:
        """What ``url`` answers; see :meth:`post`."""
        return await self._ask("GET", url)

    async def post(self, url: str, body: dict[str, Any], *, retried: bool = True) -> Any:
        """The reply's JSON; its text where it is none, as vLLM answers some commands.

        Args:
            url: In full.
            body: Sent as JSON.
            retried: False for what must not be done twice.

        Raises:
            NotThere: status 404.
            ContextFull: the server says the conversation is too long.
            EngineFailed: it refused, or did not answer after retries.
        """
        return await self._ask("POST", url, body, retried=retried)

    async def _failing_when_closed(
        self, work: Callable[[], Coroutine[Any, Any, _Answer]]
    ) -> _Answer:
        try:
            return await work()
        except asyncio.CancelledError:
            if self._closed:
                raise EngineFailed("The engine was closed while a request was under way.") from None
            raise

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(asyncio.sleep(0))  # all have begun: all can say why
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._client.close())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _ask(
        self, method: str, url: str, body: dict[str, Any] | None = None, *, retried: bool = True
    ) -> Any:
        client = self._client if retried else self._impatient
        try:
            if method == "GET":
                reply = await client.get(url, cast_to=str)
            else:
                reply = await client.post(url, body=body, cast_to=str)
        except openai.NotFoundError as error:
            raise NotThere(f"{url} is not there: {error.message}") from error
        except openai.BadRequestError as error:
            if says_too_long(f"{error.message} {error.body}"):
                raise ContextFull(error.message) from error
            raise EngineFailed(f"{url} refused the request: {error.message}") from error
        except openai.OpenAIError as error:
            raise EngineFailed(f"{url} did not answer: {error}{self._log()}") from error
        try:
            return json.loads(reply)
        except ValueError:
            return reply

    def _log(self) -> str:
        """Why a server of ours is dead, if it is."""
        try:
            if self._server is not None:
                self._server.raise_if_dead()
        except ServerFailed as error:
            return f"\n{error}"
        return ""
