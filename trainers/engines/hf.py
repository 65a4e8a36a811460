"""The in-process engine: a transformers model that many conversations share, a token each a step.

One thread owns the model. Conversations come and go between steps; the keys and values of each are
kept, so a turn costs its new tokens only. transformers' own continuous batching is not used: it has
one random generator for all requests, a request of its own for every turn, and no way to say
that the weights have changed. Not here: the passes (``hf_batch.py``), servers (``vllm.py``).
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from reagent_env.trainers.engines import hf_batch
from reagent_env.trainers.engines.base import ContextFull, EngineFailed, Generation, Sampling


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """What an engine did since it was made, e.g. 10,240 tokens ``sampled`` in 2.1 s ``busy_s``."""

    sampled: int
    """Tokens drawn."""
    prefilled: int
    """Tokens read in passes of their own: prompts, observations, and what was forgotten."""
    shared: int
    """Tokens not read, because another conversation began with the same."""
    steps: int
    """Passes that drew a token for each conversation at work."""
    evictions: int
    """Times that idle keys and values made room."""
    busy_s: float
    """Seconds of computing."""
    idle_s: float
    """Seconds of waiting for requests, pauses included."""


@dataclass(frozen=True, slots=True)
class _Request:
    new_ids: list[int]
    sampling: Sampling
    future: Future[Generation]


class HFConversation:
    """One sequence of an :class:`HFEngine`, made by its ``open()``."""

    def __init__(self, engine: HFEngine, seed: int) -> None:
        self._engine = engine
        self.sequence = hf_batch.Sequence(seed)
        """The engine's; nobody else's to change."""
        self.request: _Request | None = None
        """The engine's as well: a completion under way."""
        self.closed = False

    def generate(self, new_ids: Sequence[int], sampling: Sampling) -> Future[Generation]:
        """Append ``new_ids``, then sample a completion and append it.

        The future raises :class:`ContextFull` where no token fits, :class:`EngineFailed` where the
        engine or the conversation is closed or the model fails; the sequence is then as before.

        Raises:
            ValueError: a completion is under way already, there is nothing to go on from, or
                ``max_tokens`` is below 1.
        """
        return self._engine._submit(self, list(new_ids), sampling)

    def close(self) -> None:
        """Give its memory back; a completion under way raises :class:`EngineFailed`."""
        self._engine._leave(self)


class HFEngine:
    """Samples from ``model`` in this process; any causal language model of transformers.

    Example::

        engine = HFEngine(policy.model, stop_ids=renderer.stop_ids, context_length=2048)
        conversation = engine.open(seed=7)
        generation = conversation.generate(prompt_ids, Sampling(max_tokens=64)).result()
        …
        engine.pause(); optimizer.step(); engine.resume(version=1)

    A generation that a pause interrupts goes on with the new weights, its earlier tokens read again;
    its ``version`` is the oldest among its tokens. The trainer changes the weights (or the mode:
    ``model.train()``) between :meth:`pause` and :meth:`resume` only.

    Under ``deterministic`` the same requests give the same bits, whatever threads do: nothing runs
    before every open conversation has a request, and those run to their end together, ordered by
    seed. So a conversation that uses a tool holds up the others, and :meth:`expect` announces those
    not open yet. Close conversations in a ``finally``: one that is forgotten holds up all.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        stop_ids: Sequence[int],
        context_length: int,
        device: str | torch.device | None = None,
        max_live: int = 64,
        deterministic: bool = False,
        pad_id: int = 0,
    ) -> None:
        """Start the engine's thread.

        Args:
            model: With ``sdpa`` or ``eager`` attention; moved to ``device``, set to ``eval()``.
            stop_ids: Tokens that end a completion.
            context_length: Tokens of a conversation.
            device: Default: where the model is.
            max_live: Conversations that keep keys and values. More may be open: the one unused for
                longest is forgotten and read again when it goes on; more at work wait their turn.
            deterministic: Lock-step, see above.
            pad_id: Any token; what it gives is never used.

        Raises:
            ValueError: an argument makes no sense, or the model's attention cannot be batched so.
        """
        if context_length < 2 or max_live < 1:
            raise ValueError(
                "context_length must be at least 2 and max_live at least 1, got "
                f"{context_length} and {max_live}."
            )
        self.context_length = context_length
        self.deterministic = deterministic
        self._model: torch.nn.Module = (
            model if device is None else torch.nn.Module.to(model, device)
        )
        self._batch = hf_batch.Batch(
            model,
            stop_ids=frozenset(stop_ids),
            context_length=context_length,
            device=torch.device(device) if device is not None else model.device,
            max_live=max_live,
            pad_id=pad_id,
        )
        self._changed = threading.Condition()
        self._open: set[HFConversation] = set()
        self._at_work: dict[hf_batch.Sequence, HFConversation] = {}
        self._pending: list[HFConversation] = []
        self._leaving: list[HFConversation] = []
        self._expected = 0
        self._paused = self._computing = self._closing = False
        self._busy_s = self._idle_s = 0.0
        self._model.train(False)
        self._thread = threading.Thread(target=self._run, name="hf-engine", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a thread in mid-pass when Python ends would crash it

    def open(self, seed: int) -> HFConversation:
        """A new, empty conversation, whose random numbers depend on ``seed`` alone.

        Raises:
            EngineFailed: the engine is closed.
        """
        with self._changed:
            if self._closing:
                raise EngineFailed("The engine is closed.")
            self._expected = max(0, self._expected - 1)
            conversation = HFConversation(self, seed)
            self._open.add(conversation)
            return conversation

    def expect(self, more: int) -> None:
        """Announce conversations that will be opened; without ``deterministic`` it does nothing.

        Nothing runs before they are. Announce the next before closing the last, and take back
        (``expect(-1)``) one that never comes::

            engine.expect(len(tasks))          # before any thread starts
        """
        with self._changed:
            self._expected = max(0, self._expected + more)
            self._changed.notify_all()

    def pause(self) -> None:
        """Return once nothing is being computed (under ``deterministic``: once a round is over)."""
        with self._changed:
            self._paused = True
            self._changed.wait_for(lambda: not self._computing)

    def resume(self, version: int) -> None:
        """Go on with the weights as they are now; older keys and values are not used again."""
        self.pause()
        with self._changed:
            if version != self._batch.version:
                self._batch.forget()
            self._batch.version = version
            self._model.train(False)
            self._paused = False
            self._changed.notify_all()

    def close(self) -> None:
        """Stop after the pass under way; requests raise :class:`EngineFailed`. Twice is fine."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        atexit.unregister(self.close)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def metrics(self) -> EngineMetrics:
        """Counts and times so far."""
        with self._changed:
            counts = self._batch.counts
            return EngineMetrics(
                sampled=counts.sampled,
                prefilled=counts.prefilled,
                shared=counts.shared,
                steps=counts.steps,
                evictions=counts.evictions,
                busy_s=self._busy_s,
                idle_s=self._idle_s,
            )

    def __enter__(self) -> HFEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(
        self, conversation: HFConversation, new_ids: list[int], sampling: Sampling
    ) -> Future[Generation]:
        future: Future[Generation] = Future()
        with self._changed:
            if conversation.request is not None:
                raise ValueError("A completion of this conversation is under way; await it first.")
            if sampling.max_tokens < 1:
                raise ValueError(f"max_tokens must be at least 1, got {sampling.max_tokens}.")
            before = len(conversation.sequence.ids)
            if not new_ids and not before:
                raise ValueError("An empty conversation has nothing to go on from.")
            if conversation.closed or self._closing:
                what = "conversation" if conversation.closed else "engine"
                future.set_exception(EngineFailed(f"The {what} is closed."))
            elif before + len(new_ids) >= self.context_length:
                tokens = before + len(new_ids)
                future.set_exception(
                    ContextFull(f"{tokens} tokens, in a context of {self.context_length}.")
                )
            else:
                conversation.request = _Request(new_ids, sampling, future)
                self._pending.append(conversation)
                self._changed.notify_all()
        return future

    def _leave(self, conversation: HFConversation) -> None:
        with self._changed:
            if not conversation.closed:
                conversation.closed = True
                self._open.discard(conversation)
                self._leaving.append(conversation)
                self._changed.notify_all()

    # What follows runs in the engine's thread.

    def _run(self) -> None:
        why = "The engine was closed."
        try:
            with torch.no_grad():  # not inference_mode: its tensors could not be trained on later
                while self._await_work():
                    self._advance()
        except BaseException as error:
            why = f"The engine's thread failed: {type(error).__name__}: {error}"
            raise
        finally:
            with self._changed:
                self._closing = True
                self._computing = False
                given_up = [*self._at_work.values(), *self._pending]
                self._pending = []
                self._changed.notify_all()
            self._batch.give_up()
            for conversation in given_up:
                self._refuse(conversation, EngineFailed(why))

    def _await_work(self) -> bool:
        """Take in what has come, once there is something to do; False when closed."""
        with self._changed:
            self._computing = False
            self._changed.notify_all()
            began = time.perf_counter()
            self._changed.wait_for(lambda: self._closing or self._may_run())
            self._idle_s += time.perf_counter() - began
            if self._closing:
                return False
            self._computing = True
            if self.deterministic and self._batch.busy:
                return True  # who comes and goes in mid-round does so when it is over
            coming, self._pending = self._pending, []
            leaving, self._leaving = self._leaving, []
        for conversation in leaving:
            self._batch.remove(conversation.sequence)
            if conversation not in coming:
                self._refuse(conversation, EngineFailed("The conversation was closed."))
        if self.deterministic:
            coming.sort(key=lambda one: (one.sequence.seed, one.sequence.ids, _asked(one).new_ids))
        for conversation in coming:
            request = _asked(conversation)
            if conversation.closed:
                self._refuse(conversation, EngineFailed("The conversation was closed."))
            elif request.future.set_running_or_notify_cancel():
                self._at_work[conversation.sequence] = conversation
                self._batch.add(conversation.sequence, request.new_ids, request.sampling)
            else:
                conversation.request = None
        return True

    def _may_run(self) -> bool:
        if not self.deterministic:
            return not self._paused and bool(self._batch.busy or self._pending or self._leaving)
        here = [one for one in self._pending if not one.closed]
        barrier = bool(self._pending) and not self._expected and len(here) == len(self._open)
        return self._batch.busy or (not self._paused and barrier)

    def _advance(self) -> None:
        began = time.perf_counter()
        try:
            done = self._batch.advance()
        except Exception as error:  # out of memory, say: those at work fail, the engine goes on
            self._batch.give_up()
            for conversation in list(self._at_work.values()):
                failed = EngineFailed(f"The model failed: {type(error).__name__}: {error}")
                failed.__cause__ = error
                self._refuse(conversation, failed)
            return
        self._busy_s += time.perf_counter() - began
        for sequence in done:
            conversation = self._at_work.pop(sequence)
            future = _asked(conversation).future
            conversation.request = None
            future.set_result(
                Generation(
                    tuple(sequence.ids[sequence.begin :]),
                    tuple(sequence.logprobs),
                    sequence.finish or "stop",
                    sequence.version,
                )
            )

    def _refuse(self, conversation: HFConversation, error: EngineFailed) -> None:
        """Fail its request, if there is one; its sequence is as before."""
        request, conversation.request = conversation.request, None
        sequence = conversation.sequence
        if self._at_work.pop(sequence, None) is not None and request is not None:
            del sequence.ids[sequence.begin - len(request.new_ids) :]
        if request is not None and not request.future.done():
            request.future.set_exception(error)


def _asked(conversation: HFConversation) -> _Request:
    assert conversation.request is not None
    return conversation.request
