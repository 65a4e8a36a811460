"""The benchmarks as environments: by id, with their tools, judges and documents, or a reason why not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from reagent_env.benchmark_env import make_benchmark_env
from reagent_env.errors import ToolBackendError
from reagent_env.served_corpus import ServedCorpus
from reagent_env.task_sets.published_table import BENCHMARKS
from reagent_env.testing import ChatReply, EnvContract, ScriptedChatServer
from reagent_env.testing.published_miniatures import write_miniatures

COPIES: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    COPIES[:] = [write_miniatures(tmp_path_factory.mktemp("copies"))]
    yield COPIES[0]
    COPIES.clear()


class TestHotpotQA(EnvContract):
    def make_env(self, **kwargs: Any) -> Any:
        kwargs = {"data": COPIES[0], "sandbox": "process", **kwargs}
        return gymnasium.make("reagent/HotpotQA-v0", disable_env_checker=True, **kwargs)


class TestGAIA(EnvContract):
    def make_env(self, **kwargs: Any) -> Any:
        kwargs = {"data": COPIES[0], "sandbox": "process", "subset": "full", **kwargs}
        kwargs["tools"] = ("python", "file_reader")
        return gymnasium.make("reagent/GAIA-v0", disable_env_checker=True, **kwargs)


def test_every_benchmark_is_made_by_its_id_with_its_tools(copies: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "wiki.jsonl"
    corpus.write_text('{"title": "Keth", "text": "A river."}\n')
    for env_id, row in BENCHMARKS.items():
        kwargs: dict[str, Any] = {"data": copies, "sandbox": "process"}
        kwargs |= {"subset": "full"} if row.subsets else {}
        kwargs |= {"judge": "http://127.0.0.1:9/v1#m"} if row.judge == "own" else {}
        kwargs |= {"corpus": corpus} if "search" in row.tools else {}
        env = gymnasium.make(env_id, disable_env_checker=True, **kwargs)
        inner: Any = env.unwrapped
        assert set(inner.tools) == set(row.tools)
        prompt, _ = env.reset(seed=0)
        assert inner.trajectory.task.question in prompt
        env.close()


def test_a_text_subset_has_no_tools_for_files(copies: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "wiki.jsonl"
    corpus.write_text('{"title": "Keth", "text": "A river."}\n')
    env = make_benchmark_env("gaia", data=copies, corpus=corpus, sandbox="process")
    assert sorted(env.tools) == ["browse", "python", "search"]
    env.close()


def test_the_tools_see_the_attached_file(copies: Path) -> None:
    env = make_benchmark_env(
        "gaia", data=copies, subset="full", levels=[2], tools=["image2text", "file_reader"]
    )
    env.reset(options={"task": 1})
    (name,) = env.tasks[1].files
    call = {"name": "image2text", "arguments": {"path": name}}
    observation, *_ = env.step(f"<tool_call>{json.dumps(call)}</tool_call>")
    assert "4812" in observation
    _, reward, *_ = env.step("\\boxed{4,812}")
    env.close()
    assert reward == 1.0


def test_a_judge_decides_what_a_comparison_does_not_find_right(copies: Path) -> None:
    with ScriptedChatServer(lambda request: ChatReply("<verdict>correct</verdict>")) as server:
        rewards = []
        for judge in (None, f"{server.base_url}#judge"):
            env = make_benchmark_env("hotpotqa", data=copies, judge=judge, tools=())
            env.reset(options={"task": 0})
            rewards.append(env.step("\\boxed{It lies on the river called Keth.}")[1])
            env.close()
    assert rewards == [0.0, 1.0]


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("hle", {}, "REAGENT_CORRECTNESS_JUDGE"),
        ("bamboogle", {}, "no documents to search in"),
        ("bamboogle", {"corpus": "/nowhere.jsonl"}, "no such file or folder"),
        ("gsm8k", {"judge": "judge"}, "http://host:8000/v1#model"),
        ("nothing", {}, "Known: gsm8k"),
    ],
)
def test_what_is_missing_is_said(
    name: str, given: dict[str, Any], message: str, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REAGENT_CORRECTNESS_JUDGE", raising=False)
    with pytest.raises(ValueError, match=message):
        make_benchmark_env(name, data=copies, sandbox="process", **given)


def test_members_of_a_vector_share_one_reading(copies: Path) -> None:
    envs: Any = gymnasium.make_vec("reagent/MuSiQue-v0", num_envs=3, data=copies, sandbox="process")
    observations, _ = envs.reset(seed=0)
    assert len(observations) == 3
    corpora = {id(env.unwrapped.tasks.corpus) for env in envs.envs}
    envs.close()
    assert len(corpora) == 1


# A retrieval server -------------------------------------------------------------------------------


@pytest.fixture
def retrieval() -> Iterator[Any]:
    asked: list[dict[str, Any]] = []
    answer: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            document = {"id": "7", "contents": '"Keth"\nThe Keth is a river of 212 km.'}
            body = json.dumps(
                answer or {"result": [[{"document": document, "score": 3.5}]]}
            ).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}/retrieve", asked, answer
    http.shutdown()
    thread.join(5)
    http.server_close()


def test_a_retrieval_server_is_searched_and_what_it_found_is_opened(
    retrieval: Any, copies: Path
) -> None:
    url, asked, _ = retrieval
    env = make_benchmark_env("bamboogle", data=copies, corpus=url)
    env.reset(seed=0)
    call = (
        '<tool_call>{"name": "search", "arguments": {"queries": ["Keth"], "top_k": 2}}</tool_call>'
    )
    observation, *_ = env.step(call)
    assert "[1] Keth\n    url: wiki://Keth#7" in observation
    assert asked == [{"queries": ["Keth"], "topk": 2, "return_scores": True}]
    call = '<tool_call>{"name": "browse", "arguments": {"url": "wiki://Keth#7"}}</tool_call>'
    assert "212 km" in env.step(call)[0]
    env.close()


def test_a_retrieval_server_that_answers_something_else_is_infrastructure(retrieval: Any) -> None:
    url, _, answer = retrieval
    answer["error"] = "no index"
    with pytest.raises(ToolBackendError, match="gave no results"):
        ServedCorpus(url).search("Keth")
    with pytest.raises(ToolBackendError, match="start it"):
        ServedCorpus("http://127.0.0.1:9/retrieve", timeout_s=2.0).search("Keth")
    with pytest.raises(ValueError, match="http://host:8000/retrieve"):
        ServedCorpus("file:///etc/passwd")
