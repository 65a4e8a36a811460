"""AgentGym's servers as environments: their schemas, their faults, and what they may pay."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from gymnasium.error import ResetNeeded

from reagent_env.families.agentgym_client import (
    AgentGymServer,
    agentgym_tasks,
    make_agentgym_env,
)
from reagent_env.families.agentgym_dialects import DIALECTS, Dialect
from reagent_env.families.agentgym_format import AgentGymFormat
from reagent_env.families.agentgym_trajectories import conversation, read_conversations
from reagent_env.testing import EnvContract
from reagent_env.testing.published_miniatures import write_miniatures
from reagent_env.trajectory import ToolCall


class SmallServer:
    """Serves one dialect's schema, and refuses every other; the game is to say ``win``."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.worlds: dict[int, dict[str, Any]] = {}
        self.made = 0
        self.pays = 1.0 * dialect.scale
        self.breaks: set[str] = set()
        self.requests: list[tuple[str, dict[str, Any]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"{}")
                self._reply(self.path, body)

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                self._reply(parts.path, {k: int(v) for k, v in parse_qsl(parts.query)})

            def _reply(self, path: str, body: dict[str, Any]) -> None:
                status, answer = server.answer(path, body)
                blob = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(blob)))
                self.end_headers()
                self.wfile.write(blob)

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join(5)
        self._http.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        dialect = self.dialect
        if not path.startswith(dialect.prefix + "/"):
            return 404, {"detail": "Not Found"}
        verb = path[len(dialect.prefix) + 1 :]
        self.requests.append((verb, body))
        if verb in self.breaks:
            return 200, {"error": "no such world"}
        if verb == "create":
            self.made += 1
            self.worlds[self.made] = {}
            bare = dialect.id_key == "env_idx" and dialect.name != "webarena"
            return 200, self.made if bare else {dialect.id_key: self.made}
        world = self.worlds.get(body.get(dialect.id_key, -1))
        if world is None:
            return 422, {"detail": f"{dialect.id_key} missing or gone"}
        if verb == "close":
            del self.worlds[body[dialect.id_key]]
            return 200, True
        if verb == "reset":
            if set(body) != {dialect.id_key, dialect.index_key, *dialect.reset}:
                return 422, {"detail": sorted(body)}
            world["task"] = body[dialect.index_key]
            if dialect.name == "webshop":
                return 200, [None, None]
            return 200, {"observation": f"Task {world['task']}.", "id": body[dialect.id_key]}
        if verb == "observation":
            return 200, f"Task {world['task']}."
        won = "win" in body["action"]
        seen = (dialect.success or "You won.") if won else "Sorry, incorrect. Please try again."
        payload = {dialect.observation_key: seen, dialect.done_key: won, "reward": 0.0}
        payload[dialect.value_key] = self.pays if won else 0.0
        return 200, payload


@pytest.fixture
def serve() -> Iterator[Any]:
    running: list[SmallServer] = []

    def start(family: str) -> SmallServer:
        running.append(SmallServer(DIALECTS[family]))
        return running[-1]

    yield start
    for server in running:
        server.stop()


def said(action: str) -> str:
    return f"Thought:\nI try.\n\nAction:\n{action}"


@pytest.mark.parametrize("family", DIALECTS)
def test_every_familys_schema_is_spoken(family: str, serve: Any) -> None:
    server = serve(family)
    env = make_agentgym_env(server.url, family, [7])
    prompt, _ = env.reset(seed=0)
    assert "Task 7." in prompt
    observation, reward, terminated, *_ = env.step(said("wait"))
    assert (observation[:5], reward, terminated) == ("Sorry", 0.0, False)
    _, reward, terminated, truncated, info = env.step(said("win"))
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["stop_reason"] == "finished"
    with pytest.raises(ResetNeeded):
        env.step(said("win"))
    env.close()
    assert server.worlds == {}


def test_worlds_are_given_back_at_the_end_of_each_episode(serve: Any) -> None:
    server = serve("textcraft")
    env = make_agentgym_env(server.url, "textcraft", range(3))
    for seed in range(5):
        env.reset(seed=seed)
    assert (server.made, len(server.worlds)) == (5, 1)
    env.close()
    assert server.worlds == {}


def test_a_server_that_pays_too_much_or_too_little_pays_within_bounds(serve: Any) -> None:
    server = serve("babyai")
    env = make_agentgym_env(server.url, "babyai", [0])
    outcomes = []
    for server.pays in (2.5, -3.0, 0.75):
        env.reset()
        outcomes.append(env.step(said("win"))[1])
    env.close()
    assert outcomes == [1.0, 0.0, 0.75]


def test_a_wrong_answer_ends_the_episode_and_is_not_told(serve: Any) -> None:
    env = make_agentgym_env(serve("searchqa").url, "searchqa", [0])
    env.reset()
    observation, reward, terminated, *_ = env.step("<think>no</think><answer>Paris</answer>")
    env.close()
    assert (observation, reward, terminated) == ("", 0.0, True)


def test_an_unfinished_task_pays_in_part_only_where_the_family_does(serve: Any) -> None:
    outcomes = {}
    for family in ("sciworld", "textcraft"):
        server = serve(family)
        env = make_agentgym_env(server.url, family, [0], max_turns=2)
        env.reset()
        half = DIALECTS[family].scale / 2
        key = DIALECTS[family].value_key

        def pays_half(
            path: str,
            body: dict[str, Any],
            own: Any = server.answer,
            half: float = half,
            key: str = key,
        ) -> tuple[int, Any]:
            status, answer = own(path, body)
            if path.endswith("/step"):
                answer[key] = half
            return status, answer

        server.answer = pays_half
        over = False
        while not over:
            *_, terminated, truncated, _ = env.step(said("wait"))
            over = terminated or truncated
        outcomes[family] = env.trajectory.outcome
        env.close()
    assert outcomes == {"sciworld": 0.5, "textcraft": 0.0}


@pytest.mark.parametrize("broken", ["create", "reset", "step"])
def test_a_server_that_fails_masks_the_episode(broken: str, serve: Any) -> None:
    server = serve("textcraft")
    server.breaks = {broken}
    env = make_agentgym_env(server.url, "textcraft", [0])
    env.reset()
    _, reward, terminated, truncated, info = env.step(said("wait"))
    env.close()
    assert math.isnan(reward)
    assert (terminated, truncated) == (False, True)
    assert "no such world" in info["infrastructure_error"]
    assert server.worlds == {}


def test_a_server_that_is_not_there_masks_the_episode_and_says_where_it_was_sought() -> None:
    env = make_agentgym_env("http://127.0.0.1:9", "textcraft", [0], timeout_s=2.0)
    env.reset()
    _, reward, *_, info = env.step(said("wait"))
    env.close()
    assert math.isnan(reward)
    assert "http://127.0.0.1:9" in info["infrastructure_error"]


def test_a_value_that_is_no_number_is_a_failure_not_a_reward(serve: Any) -> None:
    server = serve("textcraft")
    server.pays = math.inf
    env = make_agentgym_env(server.url, "textcraft", [0])
    env.reset()
    _, reward, *_, info = env.step(said("win"))
    env.close()
    assert math.isnan(reward)
    assert "no number" in info["infrastructure_error"]


def test_no_action_and_two_actions_use_up_a_turn_and_reach_no_server(serve: Any) -> None:
    server = serve("textcraft")
    env = make_agentgym_env(server.url, "textcraft", [0])
    env.reset()
    for text, count in (("I give up.", 0), (f"{said('a')}\n\n{said('b')}", 2)):
        observation, reward, terminated, *_ = env.step(text)
        assert f"there are {count}" in observation
        assert (reward, terminated) == (0.0, False)
    env.close()
    assert [verb for verb, _ in server.requests] == ["create", "reset", "close"]


def test_the_format_reads_what_it_writes() -> None:
    style = AgentGymFormat()
    (call,) = style.parse(said("get 1 oak planks")).calls
    assert call.arguments == {"action": "get 1 oak planks"}
    assert style.parse(style.render_calls([call], "hm")).calls == (call,)
    (call,) = AgentGymFormat(whole=True).parse("<search>x</search>").calls
    assert call.arguments == {"action": "<search>x</search>"}


def test_tasks_by_number_and_by_item_id_are_the_same_tasks() -> None:
    assert agentgym_tasks("maze", [3]) == agentgym_tasks("maze", ["lmrlgym_maze_3"])
    with pytest.raises(ValueError, match="no item of maze"):
        agentgym_tasks("maze", ["babyai_3"])
    with pytest.raises(ValueError, match="0 or more"):
        agentgym_tasks("maze", [-1])


def test_an_unknown_family_and_a_wrong_url_are_refused() -> None:
    with pytest.raises(ValueError, match="Did you mean 'textcraft'"):
        AgentGymServer("http://127.0.0.1:1", "textcrat")
    with pytest.raises(ValueError, match="http://host:port"):
        AgentGymServer("file:///etc/passwd", "textcraft")


def test_agentgyms_own_way_of_acting_is_told_as_it_is(serve: Any) -> None:
    """Nothing of giving up: a completion without an action uses up its turn."""
    env = make_agentgym_env(serve("textcraft").url, "textcraft", range(3))
    inner = env.unwrapped
    assert inner.system_prompt == inner.tool_format.system_prompt(list(inner.tools.values()))
    env.close()


class TestContract(EnvContract):
    @pytest.fixture(autouse=True)
    def _server(self, serve: Any) -> None:
        self.server = serve("textcraft")

    def make_env(self, **kwargs: Any) -> Any:
        return make_agentgym_env(
            self.server.url, "textcraft", range(20), **{"tool_format": "hermes", **kwargs}
        )

    def test_the_right_answer_earns_one_and_says_so_once(self, env: Any) -> None:
        """What is done in the world counts, not what is answered."""
        env.reset(seed=0)
        win = ToolCall("act", {"action": "win"})
        _, reward, terminated, _, info = env.step(env.tool_format.render_calls([win]))
        assert (reward, terminated, info["reward/outcome"]) == (1.0, True, 1.0)
        env.reset(seed=0)
        _, reward, terminated, *_ = env.step("\\boxed{You won.}")
        assert (reward, terminated) == (0.0, True)


# Their data ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniatures(tmp_path_factory.mktemp("copies"))


def test_played_episodes_are_read_with_what_is_to_be_learnt(copies: Path) -> None:
    (episode,) = read_conversations("agenttraj_l", data=copies)
    assert (episode.family, episode.index) == ("textcraft", 3)
    assert [message.role for message in episode.messages][:3] == ["user", "assistant", "user"]
    assert [message.trained for message in episode.messages] == [0, 0, 0, 1, 0, 1]


def test_items_to_evaluate_on_become_tasks(copies: Path) -> None:
    items = [item.item_id for item in read_conversations("agenteval", data=copies)]
    assert items == ["textcraft_0", "textcraft_1"]
    tasks = agentgym_tasks("textcraft", [item for item in items if item])
    assert [task.metadata["index"] for task in tasks] == [0, 1]


def test_reagents_conversations_are_read(copies: Path) -> None:
    (chat,) = read_conversations("reagent_sft", data=copies)
    assert [message.role for message in chat.messages] == ["system", *["user", "assistant"] * 2]
    assert chat.messages[-1].content.endswith("\\boxed{42}.")
    assert [message.trained for message in chat.messages] == [0, 0, 1, 0, 1]


def test_a_record_of_another_shape_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"messages": []}\n{"messages": [{"role": "oracle", "content": "x"}]}\n')
    with pytest.raises(ValueError, match=r"train\.jsonl, line 2: .*unknown role 'oracle'"):
        list(read_conversations("reagent_sft", data=path))
    with pytest.raises(ValueError, match="keys: \\['text'\\]"):
        conversation({"text": "x"})
    with pytest.raises(ValueError, match="Did you mean 'agenteval'"):
        list(read_conversations("agent_eval"))
