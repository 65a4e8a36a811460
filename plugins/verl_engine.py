"""verl's server as an engine of ours: the same episode loop, its tokens sampled by verl's servers.

An episode runs in a thread and waits there; each completion is a coroutine on the event loop of
verl's worker. Not here: the loop itself (``reagent_env.trainers.rollout``).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from reagent_env.trainers.engines.base import ContextFull, EngineFailed, Generation, Sampling


class VerlEngine:
    """One rollout's engine; keeps what the server says beside the tokens."""

    def __init__(
        self,
        server: Any,
        loop: asyncio.AbstractEventLoop,
        sampling_params: dict[str, Any],
        *,
        stop_ids: Sequence[int],
        prompt_length: int,
        response_length: int,
        request_options: dict[str, Any] | None = None,
    ) -> None:
        """Sample from ``server``.

        Args:
            server: verl's ``server_manager``.
            loop: The event loop that its requests belong to.
            sampling_params: What verl asks for: temperature, top_p and so on.
            stop_ids: Tokens that end a completion.
            prompt_length: Tokens of the prompt at most.
            response_length: Tokens of the response at most, observations included.
            request_options: Further arguments of ``server.generate``, e.g. ``priority``.
        """
        self.context_length = prompt_length + response_length
        self.prompt_length = prompt_length
        self.response_length = response_length
        self.has_logprobs = True
        """False once a completion came without log-probabilities."""
        self.extra_fields: dict[str, Any] = {}
        """``min_global_steps`` of the first completion, ``max_global_steps`` of the last, and so on."""
        self.preempted = -1
        self.seconds = 0.0
        """Spent in the server, in all."""
        self._server = server
        self._loop = loop
        self._params = {**sampling_params, "stop_token_ids": list(stop_ids)}
        self._options = request_options or {}

    def open(self, seed: int) -> VerlConversation:
        """A conversation; its requests share an id, so that they go to the server with its cache."""
        return VerlConversation(self, self._options.get("request_id") or uuid.uuid4().hex)

    def pause(self) -> None:
        """verl does that."""

    def resume(self, version: int) -> None:
        """verl does that."""

    def close(self) -> None:
        """Nothing to do."""

    async def _sample(self, request_id: str, ids: list[int], room: int) -> Any:
        options = {key: value for key, value in self._options.items() if key != "request_id"}
        began = self._loop.time()
        try:
            output = await self._server.generate(
                request_id=request_id,
                prompt_ids=ids,
                sampling_params={**self._params, "max_tokens": room},
                **options,
            )
        except Exception as error:
            raise EngineFailed(f"verl's server failed: {type(error).__name__}: {error}") from error
        self.seconds += self._loop.time() - began
        self._note(output)
        if not output.token_ids:
            raise EngineFailed("verl's server returned no token.")
        return output

    def _note(self, output: Any) -> None:
        told = dict(output.extra_fields or {})
        if not self.extra_fields:
            self.extra_fields = told
        elif told.get("max_global_steps") is not None:
            self.extra_fields["max_global_steps"] = told["max_global_steps"]
        if output.num_preempted is not None:
            self.preempted = max(0, self.preempted) + output.num_preempted
        if not output.log_probs:
            self.has_logprobs = False


class VerlConversation:
    """A growing sequence; verl's servers keep no state but their prefix cache."""

    def __init__(self, engine: VerlEngine, request_id: str) -> None:
        self._engine = engine
        self._request_id = request_id
        self._ids: list[int] = []
        self._prompt = 0

    def generate(self, new_ids: Sequence[int], sampling: Sampling) -> Future[Generation]:
        """Append ``new_ids``, then sample a completion and append it.

        The future raises :class:`ContextFull`, or :class:`EngineFailed` where the server fails.

        Raises:
            ValueError: the prompt is longer than verl's ``prompt_length``.
        """
        engine = self._engine
        self._ids += new_ids
        if not self._prompt:
            self._prompt = len(self._ids)
            if self._prompt > engine.prompt_length:
                raise ValueError(
                    f"The prompt has {self._prompt} tokens, verl's rollout.prompt_length is "
                    f"{engine.prompt_length}: raise data.max_prompt_length."
                )
        room = min(sampling.max_tokens, engine.response_length - (len(self._ids) - self._prompt))
        if room < 1:
            full: Future[Generation] = Future()
            full.set_exception(ContextFull("The response has outgrown rollout.response_length."))
            return full
        return asyncio.run_coroutine_threadsafe(self._complete(room), engine._loop)

    async def _complete(self, room: int) -> Generation:
        output = await self._engine._sample(self._request_id, list(self._ids), room)
        ids = tuple(int(one) for one in output.token_ids[:room])
        logprobs = tuple(output.log_probs or ())[: len(ids)] or (0.0,) * len(ids)
        self._ids += ids
        stopped = ids[-1] in self._engine._params["stop_token_ids"]
        version = self._engine.extra_fields.get("max_global_steps") or 0
        return Generation(ids, logprobs, "stop" if stopped else "length", int(version))

    def close(self) -> None:
        """Nothing is held."""
