"""Samples from a vLLM server: token ids over HTTP, and changed weights taken up by it.

The server keeps keys and values itself (prefix caching), so a turn costs it the new tokens only,
though the whole conversation is sent. Not here: the words of the protocol (``vllm_wire.py``),
retries (``vllm_client.py``), starting a server and writing weights (``vllm_server.py``), what to do
about the mismatch between its log-probabilities and the learner's (``importance.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from reagent_env.agents.serve import VLLMServer
from reagent_env.trainers.engines.base import ContextFull, EngineFailed, Generation, Sampling
from reagent_env.trainers.engines.vllm_client import NotThere, VLLMClient
from reagent_env.trainers.engines.vllm_wire import (
    completion_request,
    processes_logprobs,
    read_completion,
    turn_seed,
)

_REMEDY = (
    "start it with VLLM_SERVER_DEV_MODE=1 and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, and --enable-lora "
    "for adapters (training_server in reagent_env.trainers.engines.vllm_server does)"
)


class VLLMEngine:
    """An :class:`~reagent_env.trainers.engines.base.Engine` on the server at ``base_url``.

    Example::

        with training_server(smollm2_folder(), lora_rank=16) as server:
            with VLLMEngine(server.base_url, server.served_name, stop_ids=renderer.stop_ids) as engine:
                conversation = engine.open(seed=7)
                first = conversation.generate(renderer.opening_ids(messages), Sampling()).result()
                engine.push_lora(Path("adapters/000001"), version=1)

    Attributes:
        context_length: Tokens a conversation can hold, by the server's word.
        version: Of the weights that sample now.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        stop_ids: Sequence[int],
        version: int = 0,
        max_in_flight: int = 64,
        retries: int = 4,
        deadline_s: float = 600.0,
        server: VLLMServer | None = None,
    ) -> None:
        """Connect, and ask the server for its models.

        Args:
            base_url: As an OpenAI client takes it, e.g. ``http://127.0.0.1:8000/v1``.
            model: The name it is served under; "" is the only one there is.
            stop_ids: Tokens that end a completion, and the only ones that do.
            version: What to call the weights it has now.
            max_in_flight: Requests at once; further ones wait here.
            retries: Of a request that met no connection, 408, 409, 429 or 5xx, with growing pauses.
            deadline_s: For one completion, retries included; pauses of ours are not counted.
            server: The server behind the URL where this process started it: a request that finds it
                dead reports the end of its log.

        Raises:
            EngineFailed: nobody answers, or it has no such model.
        """
        if not stop_ids:
            raise ValueError("stop_ids is empty: no completion would end; pass Renderer.stop_ids.")
        self.version = version
        self._stop_ids = tuple(stop_ids)
        self._deadline_s = deadline_s
        self._base_model = model
        self._model = model
        self._adapters = 0
        self._broken: str | None = None
        self._in_flight = 0
        self._slots = asyncio.Semaphore(max_in_flight)
        self._running = asyncio.Event()
        self._running.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._checking: asyncio.Task[bool] | None = None
        self._client = VLLMClient(base_url, retries=retries, timeout_s=deadline_s, server=server)
        try:
            self.context_length = self._client.run(self._ask_context_length).result()
        except BaseException:
            self.close()
            raise

    def open(self, seed: int) -> VLLMConversation:
        """A new, empty conversation; each of its turns is sampled under a seed of its own."""
        return VLLMConversation(self, seed)

    def pause(self) -> None:
        """Let the requests under way end, hold back new ones, and pause the server if it can be.

        The server's pause also drops its prefix cache. Twice is fine.
        """
        self._client.run(self._pause).result()

    def resume(self, version: int) -> None:
        """Go on, calling the weights ``version``."""
        self._client.run(lambda: self._resume(version)).result()

    def push_lora(self, folder: Path, version: int) -> None:
        """Sample from the adapters in ``folder`` from now on, under a new name; unload the old ones.

        Requests under way end first, with the old weights and their version. The prefix cache is
        keyed by an adapter's name, so nothing of the old one is used again.

        Args:
            folder: ``adapter_config.json`` and ``adapter_model.safetensors``; the server reads it.
            version: What to call the weights.

        Raises:
            EngineFailed: the server refuses; the old weights go on under the old version.
        """
        self._client.run(lambda: self._push_lora(folder.resolve(), version)).result()

    def push_full(self, folder: Path, version: int) -> None:
        """Replace all weights by those of the transformers folder, in about 2 s for SmolLM2.

        The server reads the folder before this returns; it may be removed then.

        Raises:
            EngineFailed: the server refuses. Its weights may be mixed then: every later completion
                fails as well.
        """
        self._client.run(lambda: self._push_full(folder.resolve(), version)).result()

    @property
    def served_as(self) -> str:
        """The name under which the server samples from the newest weights; adapters have their own."""
        return self._model

    def hold(self) -> None:
        """Let the requests under way end and hold back new ones, leaving the server alone.

        For engines beside the one that changes the server's weights; :meth:`follow` ends it.
        """
        self._client.run(self._hold).result()

    def follow(self, version: int, served_as: str) -> None:
        """Go on with weights that another engine has pushed.

        Args:
            version: What it called them.
            served_as: Its :attr:`served_as`.
        """
        self._client.run(lambda: self._follow(version, served_as)).result()

    def close(self) -> None:
        """Stop: requests under way raise :class:`EngineFailed`. The server goes on. Twice is fine."""
        self._client.close()

    def __enter__(self) -> VLLMEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _complete(self, prompt: Sequence[int], sampling: Sampling, seed: int) -> Generation:
        room = self.context_length - len(prompt)
        if room < 1:
            raise ContextFull(
                f"The conversation has {len(prompt)} tokens, the context {self.context_length}."
            )
        stop_ids = self._stop_ids
        async with self._slots, self._counted():
            version = self.version
            body = completion_request(
                self._model, prompt, sampling, stop_ids=stop_ids, seed=seed, room=room
            )
            try:
                async with asyncio.timeout(self._deadline_s):
                    if sampling.top_p < 1 or sampling.temperature not in (0, 1):
                        await self._check_logprobs(prompt)
                    reply = await self._client.post(f"{self._client.base_url}/completions", body)
            except TimeoutError:
                raise EngineFailed(
                    f"{self._client.base_url} gave no completion within {self._deadline_s:g} s; "
                    "raise deadline_s, or lower max_in_flight or max_tokens."
                ) from None
            return read_completion(reply, sampling, stop_ids=stop_ids, room=room, version=version)

    @contextlib.asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        """Wait until the engine is not paused; be waited for by the next pause."""
        await self._running.wait()
        if self._broken is not None:
            raise EngineFailed(self._broken)
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()

    async def _check_logprobs(self, prompt: Sequence[int]) -> None:
        """Refuse a server whose log-probabilities leave temperature and top-p out; asked once."""
        if self._checking is None or (self._checking.done() and self._checking.exception()):
            self._checking = asyncio.ensure_future(self._ask_whether_processed(prompt[-1:]))
        if not await asyncio.shield(self._checking):
            raise EngineFailed(
                "The server returns log-probabilities of the distribution before temperature and "
                "top_p; start it with --logprobs-mode processed_logprobs, or sample at 1 and 1."
            )

    async def _ask_whether_processed(self, prompt: Sequence[int]) -> bool:
        body = {"model": self._model, "prompt": list(prompt), "max_tokens": 1, "logprobs": 1}
        url = f"{self._client.base_url}/completions"
        sharp = await self._client.post(url, {**body, "temperature": 0.5, "seed": 0})
        plain = await self._client.post(url, {**body, "temperature": 1.0, "seed": 0})
        return processes_logprobs(sharp, plain)

    async def _ask_context_length(self) -> int:
        url = f"{self._client.base_url}/models"
        found = await self._client.get(url)
        try:
            bases = [one for one in found["data"] if not one.get("parent")]  # adapters have one
            lengths = {one["id"]: one.get("max_model_len") for one in bases}
        except (AttributeError, KeyError, TypeError):
            raise EngineFailed(
                f"{url} answered {str(found)[:200]!r}, no list of models; does the URL end in /v1?"
            ) from None
        if not self._base_model and len(lengths) == 1:
            self._base_model = self._model = next(iter(lengths))
        length = lengths.get(self._base_model)
        if self._base_model not in lengths:
            names = ", ".join(map(repr, lengths)) or "none"
            raise EngineFailed(f"{url} has no model {self._base_model!r}; it has {names}.")
        if not isinstance(length, int):
            raise EngineFailed(f"{url} gives no max_model_len: this is no vLLM server.")
        return length

    async def _hold(self) -> None:
        self._running.clear()
        await self._idle.wait()

    async def _follow(self, version: int, served_as: str) -> None:
        self.version, self._model = version, served_as
        self._running.set()

    async def _pause(self) -> None:
        await self._hold()
        # mode=wait: whoever else uses the server gets whole completions as well.
        url = f"{self._client.root}/pause?mode=wait&clear_cache=true"
        try:
            await self._client.post(url, {})
        except NotThere:
            pass  # others are not held back; ours are
        except BaseException:
            self._running.set()  # a dead server is each request's to find, none waits for ever
            raise

    async def _resume(self, version: int) -> None:
        self.version = version
        try:
            with contextlib.suppress(NotThere):
                await self._client.post(f"{self._client.root}/resume", {})
        finally:
            self._running.set()

    async def _push_lora(self, folder: Path, version: int) -> None:
        name = f"{self._base_model}-adapter-{self._adapters + 1}"
        url = f"{self._client.base_url}/load_lora_adapter"
        await self._pause()
        try:
            await self._client.post(
                url, {"lora_name": name, "lora_path": str(folder)}, retried=False
            )
            await self._unload()
            self._adapters += 1
            self._model = name
            self.version = version
        except NotThere as error:
            raise EngineFailed(f"The server loads no adapters ({error}); {_REMEDY}.") from error
        finally:
            await self._resume(self.version)

    async def _push_full(self, folder: Path, version: int) -> None:
        root = self._client.root
        await self._pause()
        try:
            body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
            await self._client.post(f"{root}/collective_rpc", body, retried=False)
            emptied = await self._client.post(f"{root}/reset_prefix_cache", {})
            if emptied != {"success": True}:
                raise EngineFailed("The server did not empty its prefix cache.")
            await self._unload()
        except NotThere as error:
            await self._resume(self.version)
            raise EngineFailed(f"The server reloads no weights ({error}); {_REMEDY}.") from error
        except EngineFailed as error:
            self._broken = f"The weights of version {version} could not be loaded: {error}"
            self._running.set()  # whoever waits is told
            raise
        self._model = self._base_model
        await self._resume(version)

    async def _unload(self) -> None:
        if self._model != self._base_model:
            url = f"{self._client.base_url}/unload_lora_adapter"
            await self._client.post(url, {"lora_name": self._model})


class VLLMConversation:
    """One growing token sequence; all of it is sent at each turn, the server computes what is new."""

    def __init__(self, engine: VLLMEngine, seed: int) -> None:
        self._engine = engine
        self._seed = seed
        self._ids: list[int] = []
        self._turn = 0
        self._future: Future[Generation] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._closed = False

    def generate(self, new_ids: Sequence[int], sampling: Sampling) -> Future[Generation]:
        """Append ``new_ids``, sample, append the completion; a failed turn appends nothing.

        Raises:
            ValueError: a completion is under way, there is nothing to go on from, or ``max_tokens``
                is below 1.
        """
        if self._future is not None and not self._future.done():
            raise ValueError("A completion of this conversation is under way; wait for its future.")
        prompt = [*self._ids, *new_ids]
        if not prompt:
            raise ValueError("The conversation is empty; pass the prompt's ids.")
        if sampling.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {sampling.max_tokens}.")
        self._future = self._engine._client.run(lambda: self._take_turn(prompt, sampling))
        return self._future

    def close(self) -> None:
        """Give up what is under way, which raises :class:`EngineFailed`. Twice is fine.

        The server drops a request whose client has gone, and keys and values as it needs the room.
        """
        self._closed = True
        self._ids = []
        with contextlib.suppress(
            RuntimeError
        ):  # the engine's loop has ended, and its tasks with it
            self._engine._client.call(self._give_up)

    def _give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _take_turn(self, prompt: list[int], sampling: Sampling) -> Generation:
        if self._closed:
            raise EngineFailed("The conversation is closed.")
        self._task = asyncio.current_task()
        try:
            seed = turn_seed(self._seed, self._turn)
            generation = await self._engine._complete(prompt, sampling, seed)
        except asyncio.CancelledError:
            if self._closed:
                raise EngineFailed("The conversation was closed in mid-turn.") from None
            raise
        finally:
            self._task = None
        self._ids = [*prompt, *generation.ids]
        self._turn += 1
        return generation
