"""The served judge against a real HTTP server that misbehaves by script."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reagent_env.judgement import Judgement
from reagent_env.reward_models import served
from reagent_env.reward_models.base import RewardModel, Unscored, kind_of
from reagent_env.reward_models.circuit_breaker import CircuitBreaker
from reagent_env.reward_models.parse import render_judgement
from reagent_env.reward_models.reply_cache import FILE_NAME
from reagent_env.reward_models.served import ServedJudge
from reagent_env.reward_models.structured import judgement_regex
from reagent_env.testing import ChatReply, ChatRequest, ScriptedChatServer, example_trajectory
from reagent_env.testing.reward_model_contract import RewardModelContract
from reagent_env.trajectory import Trajectory

Script = Callable[[ChatRequest], ChatReply]


def numbered(count: int) -> list[Trajectory]:
    """Trajectories that differ in their question."""
    base = example_trajectory(2)
    return [
        replace(base, task=replace(base.task, question=f"What is {n} + 4?")) for n in range(count)
    ]


def score_of(text: str) -> float:
    """The score this scripted judge gives to a question: any number in [0, 1] of four decimals."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 10_001 / 10_000


def record_line(request: ChatRequest) -> str:
    return next(line for line in request.user.splitlines() if line.startswith("{"))


def honest(request: ChatRequest) -> ChatReply:
    """Scores by content, a score for each turn."""
    record = record_line(request)
    turns = [turn for turn in json.loads(record)["turns"] if "turn" in turn]
    n = int(turns[-1]["turn"])
    score = score_of(record)
    return ChatReply(render_judgement("Thought.", "Check.", score, [None] * (n - 1) + [score]))


@contextmanager
def judging(script: Script, server: dict[str, Any] | None = None, **options: Any) -> Iterator[Any]:
    """A served judge and its server: ``with judging(honest) as (judge, server)``."""
    settings = {"max_retries": 0, "deadline_s": 20.0, "request_timeout_s": 20.0, **options}
    with (
        ScriptedChatServer(script, **(server or {})) as serving,
        ServedJudge(serving.base_url, "scripted", **settings) as judge,
    ):
        yield judge, serving


class TestAServedJudgeKeepsTheContract(RewardModelContract):
    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        with ScriptedChatServer(honest) as server:
            self.base_url = server.base_url
            yield

    def make_reward_model(self) -> RewardModel:
        return ServedJudge(self.base_url, "scripted")


def test_judgements_come_in_the_order_of_the_trajectories() -> None:
    trajectories = numbered(40)
    with judging(honest, {"latency_s": 0.01, "slots": 3}, concurrency=7) as (judge, _):
        together = judge.judge(trajectories)
        alone = [judge.judge([trajectory])[0] for trajectory in trajectories[:5]]
    assert len({judgement.score for judgement in together}) > 30
    assert [j.score for j in together[:5]] == [j.score for j in alone]
    assert together[0].reasoning == "Thought."
    assert together[0].critique == "Check."
    assert together[0].tokens == 7
    assert 0.01 <= together[0].latency_s < 20


def test_requests_in_flight_are_bounded_over_all_threads() -> None:
    with judging(honest, {"latency_s": 0.02}, concurrency=5) as (judge, server):
        callers = [
            threading.Thread(target=judge.judge, args=(numbered(60)[n * 20 : n * 20 + 20],))
            for n in range(3)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(30)
    assert len(server.requests) == 60
    assert server.peak == 5


def test_it_can_be_awaited_on_any_loop() -> None:
    with judging(honest) as (judge, _):

        async def both() -> list[list[Judgement]]:
            return await asyncio.gather(judge.ajudge(numbered(3)), judge.ajudge(numbered(2)))

        three, two = asyncio.run(both())
        assert [j.score for j in two] == [j.score for j in three[:2]]
        assert asyncio.run(judge.ajudge([])) == []


def test_a_caller_that_gives_up_leaves_its_slot_to_others() -> None:
    def script(request: ChatRequest) -> ChatReply:
        return ChatReply(hangs=True) if request.number == 0 else honest(request)

    with judging(script, concurrency=1) as (judge, _):

        async def impatient() -> None:
            async with asyncio.timeout(0.3):
                await judge.ajudge(numbered(1))

        with pytest.raises(TimeoutError):
            asyncio.run(impatient())
        assert judge.judge(numbered(1))[0].score is not None


def test_the_request_is_greedy_and_bounded() -> None:
    with judging(honest, extra_body={"top_k": 1}) as (judge, server):
        judge.judge(numbered(1))
        body = server.requests[0].body
    assert (body["temperature"], body["max_tokens"], body["model"]) == (0.0, 1400, "scripted")
    assert body["top_k"] == 1
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_passing_fault_is_tried_again(status: int) -> None:
    def once(request: ChatRequest) -> ChatReply:
        if request.number == 0:
            return ChatReply("busy", status=status, headers={"retry-after-ms": "1"})
        return honest(request)

    with judging(once, max_retries=2) as (judge, server):
        (judgement,) = judge.judge(numbered(1))
    assert judgement.score is not None
    assert len(server.requests) == 2


def test_a_lost_connection_is_tried_again() -> None:
    def once(request: ChatRequest) -> ChatReply:
        return ChatReply(hangs_up=True) if request.number == 0 else honest(request)

    with judging(once, max_retries=1) as (judge, _):
        assert judge.judge(numbered(1))[0].score is not None


def html(request: ChatRequest) -> ChatReply:
    return ChatReply(raw=b"<html>0.9</html>", headers={"content-type": "text/html"})


BODY = {"object": "chat.completion", "choices": []}
FAULTS: dict[str, tuple[ChatReply, Unscored]] = {
    "500": (ChatReply("broken", status=500), Unscored.TRANSPORT),
    "529": (ChatReply("overloaded", status=529), Unscored.TRANSPORT),
    "429": (ChatReply("slow down", status=429), Unscored.TRANSPORT),
    "hang-up": (ChatReply(hangs_up=True), Unscored.TRANSPORT),
    "hang": (ChatReply(hangs=True), Unscored.TRANSPORT),
    "HTML": (html(None), Unscored.TRANSPORT),  # type: ignore[arg-type]
    "half a JSON": (ChatReply(raw=b'{"choices": [{"mess'), Unscored.TRANSPORT),
    "a JSON list": (ChatReply(raw=b"[0.9]"), Unscored.TRANSPORT),
    "a JSON number": (ChatReply(raw=b"0.9"), Unscored.TRANSPORT),
    "deep JSON": (ChatReply(raw=b"[" * 100_000), Unscored.TRANSPORT),
    "no choice": (ChatReply(raw=json.dumps(BODY).encode()), Unscored.TRANSPORT),
    "no message": (ChatReply(raw=b'{"choices": [{}]}'), Unscored.TRANSPORT),
    "text that is none": (
        ChatReply(raw=b'{"choices": [{"message": {"content": 0.9}}]}'),
        Unscored.TRANSPORT,
    ),
    "two choices": (
        ChatReply(raw=b'{"choices": [{"message": {"content": "a"}}, {"message": {}}]}'),
        Unscored.TRANSPORT,
    ),
    "null content": (
        ChatReply(raw=b'{"choices": [{"message": {"content": null}}]}'),
        Unscored.UNPARSED,
    ),
    "empty content": (ChatReply(""), Unscored.UNPARSED),
    "prose": (ChatReply("I would say 0.9"), Unscored.UNPARSED),
    "a score of nan": (
        ChatReply("<think></think><critique></critique><score>nan</score>"),
        Unscored.UNPARSED,
    ),
    "cut off": (
        ChatReply(render_judgement("a", "b", 0.9), finish_reason="length"),
        Unscored.UNPARSED,
    ),
    "turns of another length": (
        ChatReply(render_judgement("a", "b", 0.9, [0.9] * 7)),
        Unscored.UNPARSED,
    ),
    "wrong key": (ChatReply("who are you?", status=401), Unscored.REFUSED),
    "no such model": (ChatReply("no such model", status=404), Unscored.REFUSED),
    "wrong parameter": (ChatReply("top_k is unknown", status=400), Unscored.REFUSED),
    "vLLM's overflow": (
        ChatReply("This model's maximum context length is 4096 tokens.", status=400),
        Unscored.CONTEXT_OVERFLOW,
    ),
    "llama.cpp's overflow": (
        ChatReply("the request exceeds the available context size", status=400),
        Unscored.CONTEXT_OVERFLOW,
    ),
    "too large": (ChatReply("Payload Too Large", status=413), Unscored.CONTEXT_OVERFLOW),
}


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_has_its_own_name_and_no_score(
    fault: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if transport == "aiohttp":
        pytest.importorskip("aiohttp")
    else:
        monkeypatch.setattr(served, "fast_http_client", lambda: None)
    reply, kind = FAULTS[fault]
    deadline = 0.3 if reply.hangs else 20.0
    with judging(lambda _: reply, deadline_s=deadline) as (judge, _):
        (judgement,) = judge.judge(numbered(1))
        assert judgement.score is None
        assert judgement.turn_scores is None
        assert kind_of(judgement) is kind, judgement.unscored
        assert judge.metrics().unscored == {kind.value: 1}


def test_the_deadline_covers_the_retries() -> None:
    began = time.monotonic()
    with judging(
        lambda _: ChatReply("later", status=503, headers={"retry-after": "30"}),
        max_retries=5,
        deadline_s=0.5,
    ) as (judge, _):
        (judgement,) = judge.judge(numbered(1))
    assert judgement.unscored == "transport: deadline of 0.5 s"
    assert time.monotonic() - began < 10


def test_reasoning_that_the_server_splits_off_is_the_think_block() -> None:
    reply = ChatReply("<critique>b</critique><score>0.4</score>", reasoning="Quote: 1.0")
    with judging(lambda _: reply) as (judge, _):
        (judgement,) = judge.judge(numbered(1))
    assert (judgement.score, judgement.reasoning) == (0.4, "Quote: 1.0")


def test_the_second_time_the_answer_is_on_disk(tmp_path: Path) -> None:
    with judging(honest, cache=tmp_path) as (judge, server):
        first = judge.judge(numbered(10))
        again = judge.judge(numbered(10))
        assert len(server.requests) == 10
        assert judge.metrics().from_cache == 10
        judge.close()  # and in another process' stead: a new run reads the same file
        third = judge.judge(numbered(11))
        assert len(server.requests) == 11
    assert [j.score for j in first] == [j.score for j in again] == [j.score for j in third[:10]]
    assert [j.tokens for j in again] == [7] * 10


def test_another_model_or_sampling_is_another_question(tmp_path: Path) -> None:
    with judging(honest, cache=tmp_path) as (judge, server):
        judge.judge(numbered(1))
        for change in ({"model": "other"}, {"max_tokens": 900}, {"extra_body": {"top_k": 1}}):
            options = {"model": "scripted", "cache": tmp_path, **change}
            with ServedJudge(server.base_url, **options) as other:  # type: ignore[arg-type]
                other.judge(numbered(1))
        assert len(server.requests) == 4


def test_an_unreadable_answer_is_not_kept(tmp_path: Path) -> None:
    def later(request: ChatRequest) -> ChatReply:
        return ChatReply("garbage") if request.number == 0 else honest(request)

    with judging(later, cache=tmp_path) as (judge, server):
        assert judge.judge(numbered(1))[0].score is None
        assert judge.judge(numbered(1))[0].score is not None
        assert len(server.requests) == 2


@pytest.mark.parametrize("kept", ['{"content": 1}', "not json", '"text"', "{}", "[]"])
def test_a_tampered_cache_is_read_as_nothing(tmp_path: Path, kept: str) -> None:
    import sqlite3

    with judging(honest, cache=tmp_path) as (judge, server):
        (first,) = judge.judge(numbered(1))
        judge.close()
        with sqlite3.connect(tmp_path / FILE_NAME) as database:
            database.execute("UPDATE replies SET reply = ?", (kept,))
        database.close()
        assert judge.judge(numbered(1))[0].score == first.score
        assert len(server.requests) == 2


def test_a_broken_cache_file_is_no_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is not a database" * 100)
    with judging(honest, cache=tmp_path) as (judge, server):
        assert judge.judge(numbered(2))[0].score is not None
        assert judge.judge(numbered(2))[0].score is not None
        assert len(server.requests) == 4
    assert "not cached any more" in caplog.text


def test_equal_attempts_in_flight_are_asked_about_once() -> None:
    with judging(honest, {"latency_s": 0.05}) as (judge, server):
        judgements = judge.judge([example_trajectory(2)] * 16)
        assert judge.metrics().joined == 15
    assert len({judgement.score for judgement in judgements}) == 1
    assert len(server.requests) == 1


def test_a_sampling_judge_is_asked_each_time_and_has_no_cache(tmp_path: Path) -> None:
    with judging(honest, temperature=0.7) as (judge, server):
        judge.judge([example_trajectory(2)] * 4)
        assert len(server.requests) == 4
    with pytest.raises(ValueError, match="temperature"):
        ServedJudge("http://127.0.0.1:1/v1", "m", temperature=0.7, cache=tmp_path)


def test_one_fault_in_five_fabricates_no_score_and_moves_no_mean() -> None:
    garbage = [
        ChatReply("<score>1.0</score>"),
        ChatReply("<think>x</think><critique>y</critique><score>1.1</score>"),
        ChatReply(raw=b"\xff\xfe"),
        ChatReply(render_judgement("a", "b", 1.0), finish_reason="length"),
    ]
    true_scores: dict[str, float] = {}
    faulty: set[str] = set()

    def script(request: ChatRequest) -> ChatReply:
        record = record_line(request)
        question = json.loads(record)["question"]
        true_scores[question] = score_of(record)
        draw = int(hashlib.sha256(f"fault {question}".encode()).hexdigest()[:8], 16)
        if draw % 5:
            return honest(request)
        faulty.add(question)
        match draw // 5 % 3:
            case 0:
                return ChatReply("broken", status=500, headers={"retry-after-ms": "1"})
            case 1:
                return ChatReply(hangs=True)
            case _:
                return garbage[draw % len(garbage)]

    trajectories = numbered(600)
    with judging(
        script, max_retries=1, deadline_s=4.0, concurrency=64, breaker_failures=10_000
    ) as (
        judge,
        _,
    ):
        judgements = judge.judge(trajectories)
        counts = judge.metrics().unscored
    scored = {
        t.task.question: j.score
        for t, j in zip(trajectories, judgements, strict=True)
        if j.score is not None
    }
    assert 90 <= len(faulty) <= 150
    assert set(counts) == {"transport", "unparsed"}
    assert sum(counts.values()) == len(judgements) - len(scored)
    fabricated = {q for q, score in scored.items() if score != true_scores[q]}
    assert not fabricated
    # A hurried machine may miss a deadline that was not a fault: that is unscored as well.
    assert set(scored).isdisjoint(faulty)
    assert len(scored) >= 400
    mean = sum(scored.values()) / len(scored)
    true_mean = sum(true_scores[q] for q in scored) / len(scored)
    everyone = sum(true_scores.values()) / len(true_scores)
    assert abs(mean - true_mean) < 1e-9
    assert abs(mean - everyone) < 0.01


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_in_an_outage_everything_is_unscored_and_soon() -> None:
    began = time.monotonic()
    options: dict[str, Any] = {"max_retries": 1, "deadline_s": 5.0, "breaker_failures": 4}
    with ServedJudge(f"http://127.0.0.1:{unused_port()}/v1", "m", **options) as judge:
        judgements = judge.judge(numbered(300))
        metrics = judge.metrics()
    assert {kind_of(judgement) for judgement in judgements} == {Unscored.TRANSPORT}
    assert metrics.breaker_opened == 1
    assert metrics.requests < 140  # two rounds of 64 slots; the rest were not asked
    assert "not asked: 4 failures in a row" in str(judgements[-1].unscored)
    assert time.monotonic() - began < 15


def test_a_server_that_hangs_holds_nobody_up_for_long() -> None:
    began = time.monotonic()
    with judging(
        lambda _: ChatReply(hangs=True), deadline_s=0.5, concurrency=8, breaker_failures=8
    ) as (judge, server):
        judgements = judge.judge(numbered(200))
        assert len(server.requests) <= 16
    assert all(judgement.score is None for judgement in judgements)
    assert time.monotonic() - began < 10


def test_after_an_outage_a_probe_finds_the_server_again() -> None:
    down = threading.Event()
    down.set()

    def script(request: ChatRequest) -> ChatReply:
        return ChatReply("down", status=500) if down.is_set() else honest(request)

    with judging(script, breaker_failures=3, breaker_cooldown_s=0.0, concurrency=1) as (judge, _):
        assert all(j.score is None for j in judge.judge(numbered(6)))
        down.clear()
        assert all(j.score is not None for j in judge.judge(numbered(6)))


def test_bad_answers_do_not_open_the_breaker() -> None:
    replies = [ChatReply("garbage"), ChatReply("maximum context length", status=400)]
    with judging(
        lambda request: replies[request.number % 2], breaker_failures=2, concurrency=1
    ) as (judge, server):
        judge.judge(numbered(20))
        assert len(server.requests) == 20
        assert judge.metrics().breaker_opened == 0


def test_the_breaker_opens_probes_once_and_closes() -> None:
    now = [0.0]
    breaker = CircuitBreaker(failures=2, cooldown_s=10.0, clock=lambda: now[0])
    breaker.failed("a")
    breaker.succeeded()
    breaker.failed("b")
    assert breaker.admit()
    breaker.failed("c")
    assert breaker.is_open
    assert not breaker.admit()
    now[0] = 10.0
    assert breaker.admit()
    assert not breaker.admit()  # one probe at a time
    breaker.failed("d")
    assert not breaker.admit()
    now[0] = 20.0
    assert breaker.admit()
    breaker.abandoned()
    assert breaker.admit()
    breaker.succeeded()
    assert not breaker.is_open
    assert (breaker.admit(), breaker.admit()) == (True, True)
    assert (breaker.times_opened, breaker.last_failure) == (1, "d")
    with pytest.raises(ValueError, match="failures >= 1"):
        CircuitBreaker(failures=0)


@pytest.mark.parametrize("field", ["structured_outputs", "guided_regex"])
def test_decoding_is_constrained_where_a_probe_shows_it(field: str) -> None:
    def script(request: ChatRequest) -> ChatReply:
        if "attempt" not in request.user.lower():
            return ChatReply("<probe>123456</probe>" if field in request.body else "Blue.")
        return honest(request)

    with judging(script, structured="auto") as (judge, server):
        assert judge.judge(numbered(3))[0].score is not None
        bodies = [request.body for request in server.requests]
    probes = 1 if field == "structured_outputs" else 2
    assert len(bodies) == probes + 3
    assert all(field in body for body in bodies[-3:])
    assert judgement_regex(2) in json.dumps(bodies[-1]).replace("\\\\", "\\")


@pytest.mark.parametrize("probe", [ChatReply("Blue."), ChatReply("unknown field", status=400)])
def test_a_server_that_ignores_the_constraint_is_asked_without(probe: ChatReply) -> None:
    def script(request: ChatRequest) -> ChatReply:
        return honest(request) if "attempt" in request.user.lower() else probe

    with judging(script, structured="auto") as (judge, server):
        judge.judge(numbered(2))
        judge.judge(numbered(4)[2:])
        assert len(server.requests) == 2 + 4  # probed once
        assert "structured_outputs" not in server.requests[-1].body


def test_the_regular_expression_matches_judgements_and_nothing_looser() -> None:
    import re

    for turns in (1, 2, 5):
        pattern = re.compile(judgement_regex(turns))
        scores: list[float | None] = [None, *[0.25] * (turns - 1)]
        assert pattern.fullmatch(render_judgement("a\nb", "c", 0.25, scores))
        assert not pattern.fullmatch(render_judgement("a", "b", 0.25, [*scores, 0.5]))
        assert not pattern.fullmatch("<think></think>\n<critique></critique>\n<score>2</score>")


def test_metrics_add_up() -> None:
    replies = [ChatReply("garbage"), ChatReply("broken", status=500)]

    def script(request: ChatRequest) -> ChatReply:
        return replies[request.number] if request.number < 2 else honest(request)

    with judging(script, concurrency=1) as (judge, _):
        judge.judge(numbered(10))
        metrics = judge.metrics()
    assert metrics.scored == 8
    assert metrics.unscored == {"unparsed": 1, "transport": 1}
    assert metrics.requests == 10
    assert metrics.completion_tokens == 9 * 7
    assert metrics.prompt_tokens > 9 * 500
    assert 0 < metrics.latency_p50_s <= metrics.latency_p95_s


def test_closing_twice_is_fine_and_judging_again_starts_anew() -> None:
    with judging(honest) as (judge, _):
        before = judge.judge(numbered(1))[0].score
        judge.close()
        judge.close()
        assert judge.judge(numbered(1))[0].score == before
    assert not [thread for thread in threading.enumerate() if thread.name == "judge"]


def test_a_forgotten_judge_ends_its_thread() -> None:
    import gc

    with ScriptedChatServer(honest) as server:
        judge = ServedJudge(server.base_url, "scripted")
        judge.judge(numbered(1))
        del judge
        gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name == "judge"]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_copy_judges_too() -> None:
    with judging(honest) as (judge, _):
        expected = judge.judge(numbered(1))[0].score
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                judgement = judge.judge(numbered(1))[0]
                os.write(writable, repr(judgement.score).encode())
            finally:
                os._exit(0)
        os.close(writable)
        with os.fdopen(readable) as pipe:
            assert float(pipe.read()) == expected
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"concurrency": 0}, "concurrency must be positive"),
        ({"deadline_s": 0}, "deadline_s must be positive"),
        ({"max_chars": 10}, "at least 16000"),
        ({"structured": "yes"}, "'off' or 'auto'"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ServedJudge("http://127.0.0.1:1/v1", "m", **options)


def test_a_wrong_attempt_is_refused_before_anything_is_sent() -> None:
    with judging(honest) as (judge, server):
        with pytest.raises(IndexError):
            judge.judge(numbered(2), attempt=1)
        assert server.requests == []
