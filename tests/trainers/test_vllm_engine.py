"""The vLLM engine against a loopback server that speaks as vLLM does; no model behind it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reagent_env.agents.serve import ServerFailed, VLLMServer
from reagent_env.trainers.engines.base import ContextFull, EngineFailed, Generation, Sampling
from reagent_env.trainers.engines.vllm import VLLMEngine
from reagent_env.trainers.engines.vllm_wire import read_completion, turn_seed

END = 2
TWO_TOKENS = Sampling(max_tokens=2)
Answer = Callable[[str, dict[str, Any]], tuple[int, Any]]


def completes(ids: list[int], finish: str = "stop") -> dict[str, Any]:
    """A completion as vLLM 0.32 words it, each token at a log-probability of −0.5."""
    return {
        "id": "cmpl-8ff3fb5c0c40ae0e",
        "object": "text_completion",
        "created": 1795329884,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "text": "…",
                "logprobs": {
                    "text_offset": [0] * len(ids),
                    "token_logprobs": [-0.5] * len(ids),
                    "tokens": ["…"] * len(ids),
                    "top_logprobs": [{"…": -0.5}] * len(ids),
                },
                "finish_reason": finish,
                "stop_reason": ids[-1] if finish == "stop" and ids else None,
                "token_ids": ids,
                "prompt_logprobs": None,
                "prompt_token_ids": [1],
            }
        ],
        "usage": {"prompt_tokens": 1, "total_tokens": 3, "completion_tokens": len(ids)},
    }


def refuses(message: str, status: int = 400) -> tuple[int, Any]:
    error = {"message": message, "type": "BadRequestError", "param": None, "code": status}
    return status, {"error": error}


def usual(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    """What a server started for training answers; its model writes 7, then ends the turn."""
    if path == "/v1/completions":
        return 200, completes([7, END])
    if path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        return 200, f"Success: {path} '{body['lora_name']}'."
    if path == "/collective_rpc":
        return 200, {"results": [None]}
    if path == "/reset_prefix_cache":
        return 200, {"success": True}
    return 200, {"status": "fine"}


class LoopbackVLLM:
    """Records what it is asked, and answers by a function of path and body."""

    def __init__(self, answer: Answer = usual, context: int = 32) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.at_once = self.most_at_once = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                model = {"id": "m", "object": "model", "max_model_len": context}
                self.say(200, {"object": "list", "data": [model]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                path = self.path.partition("?")[0]
                with lock:
                    server.asked.append((path, body))
                    server.at_once += path == "/v1/completions"
                    server.most_at_once = max(server.most_at_once, server.at_once)
                status, reply = server.answer(path, body)
                with lock:
                    server.at_once -= path == "/v1/completions"
                self.say(status, reply)

            def say(self, status: int, reply: Any) -> None:
                raw = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing on the test's output."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is part of some tests."""

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def completions(self) -> list[dict[str, Any]]:
        return [body for path, body in self.asked if path == "/v1/completions"]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[LoopbackVLLM]:
    running = LoopbackVLLM()
    yield running
    running.close()


@pytest.fixture
def engine(server: LoopbackVLLM) -> Iterator[VLLMEngine]:
    with VLLMEngine(server.url, "m", stop_ids=(END,), deadline_s=20) as made:
        yield made


def test_ids_and_logprobs_come_back_as_the_server_sampled_them(
    server: LoopbackVLLM, engine: VLLMEngine
) -> None:
    generation = engine.open(seed=0).generate([5, 6], TWO_TOKENS).result(10)
    assert generation == Generation((7, END), (-0.5, -0.5), "stop", version=0)
    [asked] = server.completions()
    assert asked["prompt"] == [5, 6]
    assert (asked["logprobs"], asked["return_token_ids"]) == (0, True)
    assert (asked["stop_token_ids"], asked["ignore_eos"]) == ([END], True)
    assert (asked["max_tokens"], asked["temperature"], asked["top_p"]) == (2, 1.0, 1.0)
    assert engine.context_length == 32


def test_a_turn_sends_all_that_was_read_and_sampled_before(
    server: LoopbackVLLM, engine: VLLMEngine
) -> None:
    conversation = engine.open(seed=0)
    conversation.generate([5, 6], TWO_TOKENS).result(10)
    conversation.generate([8], TWO_TOKENS).result(10)
    assert [one["prompt"] for one in server.completions()] == [[5, 6], [5, 6, 7, END, 8]]


def test_seeds_follow_from_conversation_and_turn_alone(
    server: LoopbackVLLM, engine: VLLMEngine
) -> None:
    for seed in (3, 4, 3):
        conversation = engine.open(seed)
        conversation.generate([5], TWO_TOKENS).result(10)
        conversation.generate([5], TWO_TOKENS).result(10)
    seeds = [one["seed"] for one in server.completions()]
    assert seeds[0:2] == seeds[4:6] == [turn_seed(3, 0), turn_seed(3, 1)]
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_completion_gets_the_room_there_is_and_says_so(
    server: LoopbackVLLM, engine: VLLMEngine
) -> None:
    server.answer = lambda path, body: (200, completes([7] * body["max_tokens"], "length"))
    short = engine.open(0).generate([5], Sampling(max_tokens=4)).result(10)
    assert (short.finish, len(short.ids)) == ("length", 4)
    cut = engine.open(0).generate([5] * 29, Sampling(max_tokens=4)).result(10)
    assert (cut.finish, len(cut.ids)) == ("context", 3)


def test_a_conversation_that_fills_the_context_is_not_sent(
    server: LoopbackVLLM, engine: VLLMEngine
) -> None:
    with pytest.raises(ContextFull, match="32 tokens, the context 32"):
        engine.open(0).generate([5] * 32, TWO_TOKENS).result(10)
    assert server.completions() == []


def test_a_server_that_finds_it_too_long_is_believed(
    server: LoopbackVLLM, engine: VLLMEngine
) -> None:
    server.answer = lambda path, body: refuses("This model's maximum context length is 16 tokens.")
    with pytest.raises(ContextFull, match="maximum context length"):
        engine.open(0).generate([5], TWO_TOKENS).result(10)


def test_another_refusal_is_the_engines_failure_and_not_asked_again(
    server: LoopbackVLLM, engine: VLLMEngine
) -> None:
    server.answer = lambda path, body: refuses("top_p must be in (0, 1].")
    with pytest.raises(EngineFailed, match="top_p must be"):
        engine.open(0).generate([5], TWO_TOKENS).result(10)
    assert len(server.completions()) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_asked_again(
    server: LoopbackVLLM, engine: VLLMEngine, status: int
) -> None:
    replies = iter([(status, {"error": "busy"}), (status, {"error": "busy"})])
    server.answer = lambda path, body: next(replies, (200, completes([7, END])))
    assert engine.open(0).generate([5], TWO_TOKENS).result(10).ids == (7, END)
    assert len(server.completions()) == 3


def test_trouble_that_stays_is_the_engines_failure(server: LoopbackVLLM) -> None:
    server.answer = lambda path, body: (503, {"error": "loading"})
    with (
        VLLMEngine(server.url, "m", stop_ids=(END,), retries=1) as engine,
        pytest.raises(EngineFailed, match="did not answer"),
    ):
        engine.open(0).generate([5], TWO_TOKENS).result(10)
    assert len(server.completions()) == 2


def test_a_failed_turn_leaves_the_conversation_as_it_was(
    server: LoopbackVLLM, engine: VLLMEngine
) -> None:
    conversation = engine.open(0)
    server.answer = lambda path, body: refuses("no")
    with pytest.raises(EngineFailed):
        conversation.generate([5, 6], TWO_TOKENS).result(10)
    server.answer = usual
    conversation.generate([8], TWO_TOKENS).result(10)
    assert server.completions()[-1]["prompt"] == [8]


def test_a_silent_server_is_given_up_on_in_time(server: LoopbackVLLM) -> None:
    release = threading.Event()
    server.answer = lambda path, body: (release.wait(10), (200, completes([7, END])))[1]
    with VLLMEngine(server.url, "m", stop_ids=(END,), deadline_s=0.2) as engine:
        began = time.monotonic()
        with pytest.raises(EngineFailed, match=r"within 0\.2 s"):
            engine.open(0).generate([5], TWO_TOKENS).result(10)
        assert time.monotonic() - began < 3
        release.set()


def test_no_more_requests_are_under_way_than_allowed(server: LoopbackVLLM) -> None:
    def slow(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(0.05)
        return usual(path, body)

    server.answer = slow
    with VLLMEngine(server.url, "m", stop_ids=(END,), max_in_flight=3) as engine:
        futures = [engine.open(seed).generate([5], TWO_TOKENS) for seed in range(12)]
        assert [future.result(10).ids for future in futures] == [(7, END)] * 12
    assert server.most_at_once == 3


def test_a_pause_lets_what_runs_end_and_holds_back_what_comes(
    server: LoopbackVLLM, engine: VLLMEngine
) -> None:
    asked, release = threading.Event(), threading.Event()

    def held(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/completions" and body["prompt"] == [5]:
            asked.set()
            release.wait(10)
        return usual(path, body)

    server.answer = held
    before = engine.open(0).generate([5], TWO_TOKENS)
    assert asked.wait(10)
    pausing = threading.Thread(target=engine.pause)
    pausing.start()
    pausing.join(0.2)
    assert pausing.is_alive(), "a request is under way"
    release.set()
    pausing.join(10)
    assert before.result(10).version == 0
    assert server.paths()[-1] == "/pause"
    after = engine.open(0).generate([6], TWO_TOKENS)
    time.sleep(0.1)
    assert not after.done()
    engine.resume(version=5)
    assert after.result(10).version == 5
    assert server.paths()[-2:] == ["/resume", "/v1/completions"]


def test_a_server_that_cannot_pause_is_drained_all_the_same(
    server: LoopbackVLLM, engine: VLLMEngine
) -> None:
    server.answer = lambda path, body: (
        refuses("Not Found", 404) if path in ("/pause", "/resume") else usual(path, body)
    )
    engine.pause()
    future = engine.open(0).generate([5], TWO_TOKENS)
    time.sleep(0.1)
    assert not future.done()
    engine.resume(1)
    assert future.result(10).version == 1


def test_adapters_are_loaded_under_a_new_name_and_the_old_ones_unloaded(
    server: LoopbackVLLM, engine: VLLMEngine, tmp_path: Path
) -> None:
    conversation = engine.open(0)
    for version in (1, 2):
        engine.push_lora(tmp_path / str(version), version)
        assert conversation.generate([5], TWO_TOKENS).result(10).version == version
    loads = [body for path, body in server.asked if path == "/v1/load_lora_adapter"]
    assert [Path(body["lora_path"]) for body in loads] == [tmp_path / "1", tmp_path / "2"]
    first, second = (body["lora_name"] for body in loads)
    assert first != second
    unloaded = [body["lora_name"] for path, body in server.asked if path.startswith("/v1/unload")]
    assert unloaded == [first]
    assert [one["model"] for one in server.completions()] == [first, second]


def test_refused_adapters_leave_the_old_weights_under_the_old_version(
    server: LoopbackVLLM, engine: VLLMEngine, tmp_path: Path
) -> None:
    engine.push_lora(tmp_path, 1)
    server.answer = lambda path, body: (
        refuses("LoRA rank 64 is greater than max_lora_rank 16.")
        if path == "/v1/load_lora_adapter"
        else usual(path, body)
    )
    with pytest.raises(EngineFailed, match="max_lora_rank 16"):
        engine.push_lora(tmp_path, 2)
    assert engine.open(0).generate([5], TWO_TOKENS).result(10).version == 1


def test_full_weights_are_reloaded_between_requests_and_the_cache_emptied(
    server: LoopbackVLLM, engine: VLLMEngine, tmp_path: Path
) -> None:
    engine.push_full(tmp_path, 3)
    assert server.paths() == ["/pause", "/collective_rpc", "/reset_prefix_cache", "/resume"]
    body = server.asked[1][1]
    assert body == {"method": "reload_weights", "kwargs": {"weights_path": str(tmp_path)}}
    assert engine.open(0).generate([5], TWO_TOKENS).result(10).version == 3


def test_after_half_loaded_weights_nothing_is_sampled(
    server: LoopbackVLLM, engine: VLLMEngine, tmp_path: Path
) -> None:
    server.answer = lambda path, body: (
        refuses("no such folder") if path == "/collective_rpc" else usual(path, body)
    )
    with pytest.raises(EngineFailed, match="no such folder"):
        engine.push_full(tmp_path, 3)
    with pytest.raises(EngineFailed, match="version 3 could not be loaded"):
        engine.open(0).generate([5], TWO_TOKENS).result(10)
    assert server.completions() == []


def test_a_server_not_started_for_training_says_how_to_start_it(
    server: LoopbackVLLM, engine: VLLMEngine, tmp_path: Path
) -> None:
    server.answer = lambda path, body: (
        usual(path, body) if path == "/v1/completions" else refuses("Not Found", 404)
    )
    with pytest.raises(EngineFailed, match="VLLM_SERVER_DEV_MODE=1"):
        engine.push_full(tmp_path, 1)
    with pytest.raises(EngineFailed, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"):
        engine.push_lora(tmp_path, 1)
    assert engine.open(0).generate([5], TWO_TOKENS).result(10).version == 0, "the old weights go on"


def test_logprobs_from_before_the_temperature_are_refused(
    server: LoopbackVLLM, engine: VLLMEngine
) -> None:
    with pytest.raises(EngineFailed, match="--logprobs-mode processed_logprobs"):
        engine.open(0).generate([5], Sampling(temperature=0.7)).result(10)

    def processed(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        reply = completes([7, END])
        reply["choices"][0]["logprobs"]["top_logprobs"] = [{"…": -0.5 * body["temperature"]}]
        return 200, reply

    server.answer = processed
    with VLLMEngine(server.url, "m", stop_ids=(END,)) as other:
        for _ in range(2):
            other.open(0).generate([5], Sampling(temperature=0.7)).result(10)
    assert len(server.completions()) == 2 + 2 + 2, "each engine asks twice, once"


def test_closing_the_engine_fails_what_is_under_way_and_what_comes(server: LoopbackVLLM) -> None:
    release = threading.Event()
    server.answer = lambda path, body: (release.wait(10), usual(path, body))[1]
    engine = VLLMEngine(server.url, "m", stop_ids=(END,))
    under_way = engine.open(0).generate([5], TWO_TOKENS)
    time.sleep(0.1)
    not_begun = engine.open(0).generate([5], TWO_TOKENS)
    engine.close()
    engine.close()
    release.set()
    for future in (under_way, not_begun, engine.open(0).generate([5], TWO_TOKENS)):
        with pytest.raises(EngineFailed, match="closed"):
            future.result(10)


def test_closing_a_conversation_gives_up_its_turn_and_no_other(
    server: LoopbackVLLM, engine: VLLMEngine
) -> None:
    release = threading.Event()
    server.answer = lambda path, body: (release.wait(10), usual(path, body))[1]
    closing, staying = engine.open(0), engine.open(1)
    given_up, kept = closing.generate([5], TWO_TOKENS), staying.generate([5], TWO_TOKENS)
    with pytest.raises(ValueError, match="under way"):
        closing.generate([6], TWO_TOKENS)
    time.sleep(0.1)
    closing.close()
    closing.close()
    with pytest.raises(EngineFailed, match="conversation was closed"):
        given_up.result(10)
    release.set()
    assert kept.result(10).ids == (7, END)
    engine.pause()  # nothing is counted as under way any more
    engine.resume(0)
    with pytest.raises(EngineFailed, match="closed"):
        closing.generate([6], TWO_TOKENS).result(10)


def test_an_empty_prompt_and_no_tokens_are_refused(engine: VLLMEngine) -> None:
    with pytest.raises(ValueError, match="empty"):
        engine.open(0).generate([], TWO_TOKENS)
    with pytest.raises(ValueError, match="max_tokens must be at least 1"):
        engine.open(0).generate([5], Sampling(max_tokens=0))
    with pytest.raises(ValueError, match="stop_ids is empty"):
        VLLMEngine("http://127.0.0.1:9/v1", "m", stop_ids=())


def test_nobody_at_the_url_and_an_unknown_model_are_said_at_once(server: LoopbackVLLM) -> None:
    with pytest.raises(EngineFailed, match="has no model 'n'; it has 'm'"):
        VLLMEngine(server.url, "n", stop_ids=(END,))
    with pytest.raises(EngineFailed, match="did not answer"):
        VLLMEngine("http://127.0.0.1:9/v1", "m", stop_ids=(END,), retries=0)


def test_the_only_model_of_a_server_needs_no_name_and_a_push_names_its_version(
    server: LoopbackVLLM,
) -> None:
    pytest.importorskip("torch")
    from reagent_env.trainers.engines import vllm_server

    class Learner:
        def save_pretrained(self, folder: Path, **_: object) -> None:
            (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")

    policy: Any = SimpleNamespace(model=Learner())
    with vllm_server.served_policy(server.url, policy, (END,)) as (engine, publish):
        engine.pause()
        publish(4)
        assert engine.open(0).generate([5], TWO_TOKENS).result(10).version == 4
    [asked] = server.completions()
    assert asked["model"] == "m"
    [reload] = [body for path, body in server.asked if path == "/collective_rpc"]
    pushed = Path(reload["kwargs"]["weights_path"])
    assert pushed.name == "000004"
    assert not pushed.parent.exists(), "nothing is left of it"


class DeadServer(VLLMServer):
    def raise_if_dead(self) -> None:
        raise ServerFailed("its log ends: out of memory")


def test_an_engine_whose_own_server_died_says_why() -> None:
    dead = DeadServer("m")
    with pytest.raises(EngineFailed, match="log ends: out of memory"):
        VLLMEngine("http://127.0.0.1:9/v1", "m", stop_ids=(END,), retries=0, server=dead)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("Bad gateway", "no token ids"),
        ({"choices": []}, "no token ids"),
        (completes([7, END], "abort"), "ended a completion by 'abort'"),
        (completes([], "length"), "0 ids and 0 log-probabilities"),
        (completes([7], "stop"), r"stopped at token 7, none of stop_ids \(2,\)"),
    ],
)
def test_a_reply_that_is_no_completion_is_refused(reply: Any, words: str) -> None:
    with pytest.raises(EngineFailed, match=words):
        read_completion(reply, TWO_TOKENS, stop_ids=(END,), room=9, version=0)


def test_an_older_server_without_ids_is_refused() -> None:
    reply = completes([7, END])
    del reply["choices"][0]["token_ids"]
    with pytest.raises(EngineFailed, match=r"must be vLLM 0\.11 or later"):
        read_completion(reply, TWO_TOKENS, stop_ids=(END,), room=9, version=0)


def test_an_engine_beside_the_learners_asks_nothing_while_weights_are_pushed_and_follows(
    server: LoopbackVLLM, engine: VLLMEngine, tmp_path: Path
) -> None:
    with VLLMEngine(server.url, "m", stop_ids=(END,), deadline_s=20) as other:
        other.hold()
        waiting = other.open(1).generate([5], TWO_TOKENS)
        engine.push_lora(tmp_path, version=4)
        assert not waiting.done()
        assert server.completions() == []
        other.follow(4, engine.served_as)
        assert waiting.result(10).version == 4
        assert [one["model"] for one in server.completions()] == [engine.served_as]
        assert engine.served_as != "m"
