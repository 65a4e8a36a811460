"""A judge behind any OpenAI-compatible server: vLLM, llama.cpp, a hosted model.

Asynchronous inside, on an event loop in a thread of its own; :meth:`ServedJudge.judge` can be
called from any thread and :meth:`ServedJudge.ajudge` awaited on any loop, all sharing one bound on
requests in flight. Whatever the server does, a trajectory is scored by its words or unscored with a
reason; no failure becomes a number.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import openai

from reagent_env.judgement import Judgement
from reagent_env.reward_models import structured as constrained
from reagent_env.reward_models.base import Unscored, judged_attempt, kind_of, unscored
from reagent_env.reward_models.chat_call import ChatText, NoAnswer, ask
from reagent_env.reward_models.circuit_breaker import CircuitBreaker
from reagent_env.reward_models.parse import parse_judgement
from reagent_env.reward_models.prompt import (
    LEAST_MAX_CHARS,
    MAX_CHARS,
    TEXT_CHARS,
    judge_messages,
)
from reagent_env.reward_models.reply_cache import ReplyCache
from reagent_env.trajectory import Trajectory

logger = logging.getLogger(__name__)

_LATENCIES_KEPT = 4096


@dataclass(frozen=True, slots=True)
class JudgeMetrics:
    """What a served judge has done so far, e.g. for a training log."""

    scored: int
    """Judgements with a score."""
    unscored: dict[str, int]
    """Judgements without, by kind."""
    requests: int
    """Questions sent; retries of one are not counted apart."""
    from_cache: int
    """Judgements whose reply was on disk."""
    joined: int
    """Judgements that shared a question in flight."""
    prompt_tokens: int
    """Tokens read, as the server counts."""
    completion_tokens: int
    """Tokens written, as the server counts."""
    latency_p50_s: float
    """Median seconds a question, retries included; NaN before the first."""
    latency_p95_s: float
    """95th percentile of the same."""
    breaker_opened: int
    """Times the server was given up on for a while."""


class ServedJudge:
    """Asks ``model`` at ``base_url`` to judge.

    Example::

        with ServedJudge("http://127.0.0.1:8000/v1", "agent-rrm", cache="runs/judge") as judge:
            judgements = judge.judge(trajectories)
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        concurrency: int = 64,
        deadline_s: float = 120.0,
        request_timeout_s: float = 60.0,
        max_retries: int = 3,
        temperature: float = 0.0,
        max_tokens: int = 1400,
        max_chars: int = MAX_CHARS,
        text_chars: int = TEXT_CHARS,
        cache: str | Path | None = None,
        structured: Literal["off", "auto"] = "off",
        breaker_failures: int = 8,
        breaker_cooldown_s: float = 10.0,
        api_key: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare; nothing is sent before the first judgement.

        Args:
            base_url: As an OpenAI client is given it, e.g. ``http://127.0.0.1:8000/v1``.
            model: The model's name on that server.
            concurrency: Most requests in flight, over all callers; about twice what the server answers
                at once keeps it busy.
            deadline_s: Most seconds one judgement's request takes, retries included.
            request_timeout_s: Most seconds of silence in one try.
            max_retries: Further tries after a lost connection, 408, 429 or 5xx, with jitter.
            temperature: 0 is greedy.
            max_tokens: Most tokens the judge writes.
            max_chars: Most characters of the trajectory the judge reads.
            text_chars: Most characters of any one text in it.
            cache: Folder for replies by content; None keeps none. Models are told apart by their
                names alone: give two models of one name two folders.
            structured: ``auto`` constrains decoding where a probe shows that the server can.
            breaker_failures: Failures in a row after which the server is left alone for a while.
            breaker_cooldown_s: Seconds until it is tried again.
            api_key: Default: ``OPENAI_API_KEY``, which local servers ignore.
            extra_body: Further fields of each request, e.g. ``{"top_k": 1}``.

        Raises:
            ValueError: a bound is out of range, or a cache is asked for with a temperature above 0.
        """
        for name, value in (
            ("concurrency", concurrency),
            ("deadline_s", deadline_s),
            ("request_timeout_s", request_timeout_s),
            ("max_tokens", max_tokens),
            ("text_chars", text_chars),
        ):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value!r}.")
        if max_chars < LEAST_MAX_CHARS:
            raise ValueError(f"max_chars must be at least {LEAST_MAX_CHARS}, got {max_chars}.")
        if structured not in ("off", "auto"):
            raise ValueError(f"structured must be 'off' or 'auto', got {structured!r}.")
        if cache is not None and temperature > 0:
            raise ValueError(
                f"A cache would repeat one sample of temperature {temperature}; "
                "use temperature=0 or cache=None."
            )
        self.base_url = base_url
        self.model = model
        self.concurrency = concurrency
        self.deadline_s = deadline_s
        self.request_timeout_s = request_timeout_s
        self.max_retries = max_retries
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.max_chars = max_chars
        self.text_chars = text_chars
        self.cache = None if cache is None else Path(cache)
        self.structured = structured
        self.breaker_failures = breaker_failures
        self.breaker_cooldown_s = breaker_cooldown_s
        self.extra_body = dict(extra_body or {})
        self._api_key = api_key
        self._running: _Running | None = None
        self._starting = threading.Lock()

    def judge(self, trajectories: Sequence[Trajectory], *, attempt: int = -1) -> list[Judgement]:
        """Judge an attempt of each trajectory, by default its last; same order, any thread."""
        running = self._run()
        asking = asyncio.run_coroutine_threadsafe(
            running.judge(self, list(trajectories), attempt), running.loop
        )
        try:
            return asking.result()
        except BaseException:
            asking.cancel()
            raise

    async def ajudge(
        self, trajectories: Sequence[Trajectory], *, attempt: int = -1
    ) -> list[Judgement]:
        """The same, awaited, on whichever loop."""
        running = self._run()
        asking = asyncio.run_coroutine_threadsafe(
            running.judge(self, list(trajectories), attempt), running.loop
        )
        return await asyncio.wrap_future(asking)

    def metrics(self) -> JudgeMetrics:
        """Counts, tokens and latencies since this judge began to run."""
        return self._run().metrics()

    def close(self) -> None:
        """End the connections and the thread. Twice is fine; judging again starts anew."""
        with self._starting:
            running, self._running = self._running, None
        if running is not None:
            running.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ServedJudge({self.base_url!r}, {self.model!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Settings only: a copy in another process runs its own thread."""
        return {k: v for k, v in vars(self).items() if k not in ("_running", "_starting")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _running=None, _starting=threading.Lock())

    def _run(self) -> _Running:
        with self._starting:
            if self._running is None or self._running.pid != os.getpid():  # a fork has no threads
                self._running = _Running(self)
                weakref.finalize(self, self._running.stop)
            return self._running


class _Running:
    """The thread, loop, connections and counts of a judge that has begun to judge."""

    def __init__(self, judge: ServedJudge) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._client = openai.AsyncOpenAI(
            base_url=judge.base_url,
            api_key=judge._api_key or os.environ.get("OPENAI_API_KEY", "none"),
            timeout=judge.request_timeout_s,
            max_retries=judge.max_retries,
            http_client=fast_http_client(),
        )
        self._slots = asyncio.Semaphore(judge.concurrency)
        self._breaker = CircuitBreaker(judge.breaker_failures, judge.breaker_cooldown_s)
        self._cache_folder = judge.cache
        self._cache: ReplyCache | None = None
        self._in_flight: dict[str, asyncio.Future[ChatText | NoAnswer]] = {}
        self._constraint: str | None = None
        self._probed = judge.structured == "off"
        self._probe_lock = asyncio.Lock()
        self._kinds: Counter[str] = Counter()
        self._scored = self._requests = self._from_cache = self._joined = 0
        self._prompt_tokens = self._completion_tokens = 0
        self._latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._loop_forever, args=(ready,), name="judge", daemon=True
        )
        self._thread.start()
        ready.wait()

    async def judge(
        self, judge: ServedJudge, trajectories: list[Trajectory], attempt: int
    ) -> list[Judgement]:
        for trajectory in trajectories:  # a wrong index is the caller's mistake: before any request
            judged_attempt(trajectory, attempt)
        return list(await asyncio.gather(*(self._one(judge, t, attempt) for t in trajectories)))

    async def _one(self, judge: ServedJudge, trajectory: Trajectory, attempt: int) -> Judgement:
        judged = judged_attempt(trajectory, attempt)
        if judged is None or not judged.turns:
            judgement = Judgement(unscored=unscored(Unscored.EMPTY, "the attempt has no turn"))
        else:
            async with self._slots:  # before writing the prompt: the first requests leave at once
                began = time.perf_counter()
                body = await self._body(judge, trajectory, attempt, len(judged.turns))
                reply = await self._reply(judge, body, len(judged.turns))
            judgement = replace(
                _read(reply, len(judged.turns), judge.max_tokens),
                latency_s=time.perf_counter() - began,
                tokens=reply.completion_tokens if isinstance(reply, ChatText) else 0,
            )
        kind = kind_of(judgement)
        self._scored += kind is None
        if kind is not None:
            self._kinds[kind.value] += 1
        return judgement

    async def _body(
        self, judge: ServedJudge, trajectory: Trajectory, attempt: int, turns: int
    ) -> dict[str, Any]:
        body = {
            "model": judge.model,
            "temperature": judge.temperature,
            "max_tokens": judge.max_tokens,
            **judge.extra_body,
        }
        if not self._probed:
            await self._probe(judge, body)
        if self._constraint is not None:
            regex = constrained.judgement_regex(turns)
            body |= constrained.CONSTRAINTS[self._constraint](regex)
        body["messages"] = judge_messages(
            trajectory, attempt, max_chars=judge.max_chars, text_chars=judge.text_chars
        )
        return body

    async def _probe(self, judge: ServedJudge, body: dict[str, Any]) -> None:
        async with self._probe_lock:
            if self._probed:
                return
            try:
                async with asyncio.timeout(judge.deadline_s):
                    self._constraint = await constrained.probe(self._client, body)
            except (NoAnswer, TimeoutError) as error:
                logger.warning("%r: decoding stays unconstrained, no probe: %s", judge, error)
            self._probed = True  # only now: those that wait for the lock are to know its outcome

    async def _reply(
        self, judge: ServedJudge, body: dict[str, Any], turns: int
    ) -> ChatText | NoAnswer:
        """From disk, from the same question in flight, or from the server."""
        if judge.temperature > 0:  # each question is a sample of its own
            return await self._ask(judge, body)
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        kept = None if self._cache is None else self._cache.get(key)
        if kept is not None:
            self._from_cache += 1
            return kept
        pending = self._in_flight.get(key)
        if pending is not None:
            self._joined += 1
            return await asyncio.shield(pending)
        pending = self._in_flight[key] = self.loop.create_future()
        try:
            reply = await self._ask(judge, body)
        except BaseException:
            pending.set_result(_given_up())
            raise
        else:
            pending.set_result(reply)
        finally:
            del self._in_flight[key]
        # A reply that cannot be read may have been an accident: it is not kept.
        readable = _read(reply, turns, judge.max_tokens).score is not None
        if self._cache is not None and isinstance(reply, ChatText) and readable:
            self._cache.put(key, reply)
        return reply

    async def _ask(self, judge: ServedJudge, body: dict[str, Any]) -> ChatText | NoAnswer:
        if not self._breaker.admit():
            return NoAnswer(
                Unscored.TRANSPORT,
                f"not asked: {self._breaker.failures} failures in a row, the last one "
                f"{self._breaker.last_failure}",
                server_at_fault=True,
            )
        began = time.perf_counter()
        self._requests += 1
        learned = False
        try:
            async with asyncio.timeout(judge.deadline_s):
                reply = await ask(self._client, body)
        except (NoAnswer, TimeoutError) as error:
            learned = True
            failure = error if isinstance(error, NoAnswer) else _too_late(judge.deadline_s)
            if failure.server_at_fault:
                self._breaker.failed(failure.detail)
            else:
                self._breaker.succeeded()
            return failure
        else:
            learned = True
            self._breaker.succeeded()
            self._prompt_tokens += reply.prompt_tokens
            self._completion_tokens += reply.completion_tokens
            return reply
        finally:
            self._latencies.append(time.perf_counter() - began)
            if not learned:
                self._breaker.abandoned()

    def metrics(self) -> JudgeMetrics:
        latencies = sorted(self._latencies)
        return JudgeMetrics(
            scored=self._scored,
            unscored=dict(self._kinds),
            requests=self._requests,
            from_cache=self._from_cache,
            joined=self._joined,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            latency_p50_s=_quantile(latencies, 0.5),
            latency_p95_s=_quantile(latencies, 0.95),
            breaker_opened=self._breaker.times_opened,
        )

    def stop(self) -> None:
        if self.pid != os.getpid() or not self._thread.is_alive():
            return
        if threading.current_thread() is self._thread:  # collected there: nobody waits
            self.loop.call_soon(self.loop.stop)
            return
        with contextlib.suppress(RuntimeError):  # the loop ended in between
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)

    def _loop_forever(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        if self._cache_folder is not None:
            self._cache = ReplyCache(self._cache_folder)  # SQLite stays with the thread it is for
        ready.set()
        try:
            self.loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self.loop.run_until_complete(self._client.close())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            if self._cache is not None:
                self._cache.close()


def fast_http_client() -> Any:
    """openai's client over aiohttp where that is installed: half the processor time; else None."""
    try:
        return openai.DefaultAioHttpClient()
    except (RuntimeError, AttributeError):  # without its aiohttp extra; too old to have one
        return None


def _read(reply: ChatText | NoAnswer, turns: int | None, max_tokens: int) -> Judgement:
    if isinstance(reply, NoAnswer):
        return Judgement(unscored=unscored(reply.kind, reply.detail))
    if reply.finish_reason == "length":
        why = unscored(Unscored.UNPARSED, f"cut off at {max_tokens} tokens")
        return Judgement(reasoning=reply.reasoning or reply.content, unscored=why)
    return parse_judgement(reply.content, turns, reply.reasoning)


def _too_late(deadline_s: float) -> NoAnswer:
    return NoAnswer(Unscored.TRANSPORT, f"deadline of {deadline_s:g} s", server_at_fault=True)


def _given_up() -> NoAnswer:
    detail = "the same question in flight was given up"
    return NoAnswer(Unscored.TRANSPORT, detail, server_at_fault=False)


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[round(share * (len(ordered) - 1))] if ordered else float("nan")
