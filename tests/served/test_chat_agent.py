"""The chat agent against a real HTTP server on loopback, in the wire shape vLLM has."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from typer.testing import CliRunner

from reagent_env import tool
from reagent_env.agents.chat import ChatAgent, ContextOverflow, PolicyUnavailable, Sampling
from reagent_env.agents.evaluate import evaluate
from reagent_env.agents.summary import summarise
from reagent_env.cli import app
from reagent_env.testing import addition_env, addition_tasks
from reagent_env.trajectory_file import read_trajectories

CALL = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'
Impatient = Callable[[str], openai.OpenAI]

# The bodies vLLM 0.32.0 sent with status 400 for 3,000 words and for 300,000, of 2,048 tokens.
VLLM_TOO_LONG = {
    "error": {
        "message": "This model's maximum context length is 2048 tokens. However, your prompt "
        "contains at least 2049 input tokens, which exceeds this limit even without any output "
        "tokens. Please reduce the length of the input prompt. (parameter=input_tokens, "
        "value=2049)",
        "type": "BadRequestError",
        "param": "input_tokens",
        "code": 400,
    }
}
VLLM_FAR_TOO_LONG = {
    "error": {
        "message": "This model's maximum context length is 2048 tokens. However, your prompt "
        "contains 1500148 characters (more than 165888 characters, which is the upper bound for "
        "2048 input tokens). Please reduce the length of the input prompt. "
        "(parameter=input_text, value=1500148)",
        "type": "BadRequestError",
        "param": "input_text",
        "code": 400,
    }
}
OPENAI_TOO_LONG = {
    "error": {
        "message": "Input tokens exceed the configured limit of 272000 tokens.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
}
LLAMA_CPP_TOO_LONG = {
    "error": {
        "code": 400,
        "message": "request (3031 tokens) exceeds the available context size (2048 tokens)",
        "type": "exceed_context_size_error",
    }
}
VLLM_TOO_MANY_ASKED = {
    "error": {
        "message": "max_tokens=4096 cannot be greater than max_model_len=2048. Please request "
        "fewer output tokens. (parameter=max_tokens, value=4096)",
        "type": "BadRequestError",
        "param": "max_tokens",
        "code": 400,
    }
}


def test_the_conversation_grows_by_the_completion_and_the_observation(
    serve: Any, says: Any
) -> None:
    server = serve(lambda request, number: says([CALL, r"\boxed{5}"][number]))
    env = addition_env()
    with openai.OpenAI(base_url=server.base_url, api_key="none") as client:
        agent = ChatAgent(server.base_url, "m", client=client, sampling=Sampling(0.0, 0.5, 64))
        observation, info = env.reset(seed=0)
        agent.begin(info)
        completion = agent.act(observation, info)
        observation, _, _, _, info = env.step(completion)
        agent.act(observation, info)
    first, second = server.requests
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert [message["role"] for message in second["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][2]["content"] == CALL
    assert second["messages"][3]["content"] == "<tool_response>\n5.0\n</tool_response>"
    assert first["model"] == "m"
    assert (first["temperature"], first["top_p"], first["max_tokens"]) == (0.0, 0.5, 64)


def test_a_new_episode_starts_a_new_conversation(
    serve: Any, says: Any, impatient: Impatient
) -> None:
    server = serve(lambda request, number: says("no idea"))
    env = addition_env()
    agent = ChatAgent(server.base_url, "m", client=impatient(server.base_url))
    for seed in (0, 1):
        observation, info = env.reset(seed=seed)
        agent.begin(info)
        agent.act(observation, info)
    assert [len(request["messages"]) for request in server.requests] == [2, 2]


@pytest.mark.parametrize("status", [503, 429, 500])
def test_a_busy_server_is_asked_again(
    serve: Any, says: Any, reply: Any, tmp_path: Path, status: int
) -> None:
    busy = reply(status, {"error": {"message": "busy"}}, {"retry-after-ms": "1"})
    server = serve(lambda request, number: busy if number < 2 else says(r"\boxed{1}"))
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=2) as client:
        [trajectory] = evaluate(
            lambda: addition_env(tasks=addition_tasks(1)),
            lambda: ChatAgent(server.base_url, "m", client=client),
            1,
            out=tmp_path,
            retries=0,
        )
    assert trajectory.outcome == 1.0
    assert len(server.requests) == 3
    assert server.requests[0] == server.requests[2]


def test_a_dead_server_masks_the_episode_and_never_scores_it_0(
    tmp_path: Path, impatient: Impatient
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        trajectories = evaluate(
            addition_env,
            lambda: ChatAgent(url, "m", client=impatient(url)),
            3,
            out=tmp_path,
            retries=1,
        )
    assert [one.outcome for one in trajectories] == [None, None, None]
    assert {one.stop_reason for one in trajectories} == {"infrastructure_failure"}
    assert all("PolicyUnavailable" in (one.infrastructure_error or "") for one in trajectories)
    summary = summarise(trajectories)
    assert (summary.masked, summary.outcome.n) == (3, 0)
    assert [one.outcome for one in read_trajectories(tmp_path / "trajectories.jsonl")] == [None] * 3


def test_a_server_that_dies_in_mid_episode_masks_it_too(
    serve: Any, says: Any, reply: Any, tmp_path: Path, impatient: Impatient
) -> None:
    down = reply(502, "<html>Bad gateway</html>")
    server = serve(lambda request, number: says(CALL) if number == 0 else down)
    [trajectory] = evaluate(
        addition_env,
        lambda: ChatAgent(server.base_url, "m", client=impatient(server.base_url)),
        1,
        out=tmp_path,
        retries=0,
    )
    assert (trajectory.outcome, trajectory.stop_reason) == (None, "infrastructure_failure")
    assert len(trajectory.turns) == 1, "what it did before is kept"


@pytest.mark.parametrize(
    "body",
    [VLLM_TOO_LONG, VLLM_FAR_TOO_LONG, OPENAI_TOO_LONG, LLAMA_CPP_TOO_LONG],
    ids=["vllm", "vllm, by characters", "openai", "llama.cpp"],
)
def test_a_conversation_too_long_ends_the_episode_with_outcome_0(
    serve: Any, says: Any, reply: Any, tmp_path: Path, impatient: Impatient, body: Any
) -> None:
    server = serve(lambda request, number: says(CALL) if number == 0 else reply(400, body))
    [trajectory] = evaluate(
        addition_env,
        lambda: ChatAgent(server.base_url, "m", client=impatient(server.base_url)),
        1,
        out=tmp_path,
    )
    assert (trajectory.outcome, trajectory.stop_reason) == (0.0, "context_length")
    assert trajectory.infrastructure_error is None
    assert len(server.requests) == 2, "it is not tried again: the policy wrote this itself"


@pytest.mark.parametrize(
    "body",
    [VLLM_TOO_MANY_ASKED, {"error": {"message": "unknown field 'top_p'"}}],
    ids=["max_tokens", "another"],
)
def test_a_request_that_is_wrong_in_itself_is_not_the_policys_fault(
    serve: Any, reply: Any, impatient: Impatient, body: Any
) -> None:
    server = serve(lambda request, number: reply(400, body))
    observation, info = addition_env().reset(seed=0)
    agent = ChatAgent(server.base_url, "m", client=impatient(server.base_url))
    agent.begin(info)
    with pytest.raises(PolicyUnavailable, match="refused"):
        agent.act(observation, info)


def test_a_model_the_server_does_not_have_is_named(
    serve: Any, reply: Any, impatient: Impatient
) -> None:
    body = {"error": {"message": "The model `m` does not exist. Valid aliases: smollm2."}}
    server = serve(lambda request, number: reply(404, body))
    observation, info = addition_env().reset(seed=0)
    agent = ChatAgent(server.base_url, "m", client=impatient(server.base_url))
    agent.begin(info)
    with pytest.raises(PolicyUnavailable, match="Valid aliases: smollm2"):
        agent.act(observation, info)


@pytest.mark.parametrize(
    "body",
    [
        "<html>Sign in</html>",
        {"hello": "world"},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"role": "assistant", "content": 7}}]},
        ["no", "object"],
        None,
    ],
    ids=str,
)
def test_nonsense_with_status_200_masks_the_episode(
    serve: Any, reply: Any, tmp_path: Path, impatient: Impatient, body: Any
) -> None:
    server = serve(lambda request, number: reply(200, body))
    [trajectory] = evaluate(
        addition_env,
        lambda: ChatAgent(server.base_url, "m", client=impatient(server.base_url)),
        1,
        out=tmp_path,
        retries=0,
    )
    assert (trajectory.outcome, trajectory.stop_reason) == (None, "infrastructure_failure")


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{",
        b"",
    ],
    ids=["not HTTP", "cut off", "nothing"],
)
def test_a_broken_connection_masks_the_episode(
    tmp_path: Path, impatient: Impatient, sent: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(sent)

        thread = threading.Thread(target=answer_once)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        [trajectory] = evaluate(
            addition_env,
            lambda: ChatAgent(url, "m", client=impatient(url)),
            1,
            out=tmp_path,
            retries=0,
        )
        thread.join()
    assert (trajectory.outcome, trajectory.stop_reason) == (None, "infrastructure_failure")


def test_an_empty_completion_is_a_turn(
    serve: Any, says: Any, tmp_path: Path, impatient: Impatient
) -> None:
    server = serve(lambda request, number: says(None))
    [trajectory] = evaluate(
        addition_env,
        lambda: ChatAgent(server.base_url, "m", client=impatient(server.base_url)),
        1,
        out=tmp_path,
    )
    assert trajectory.outcome == 0.0
    assert trajectory.turns[0].completion == ""


def test_lone_surrogates_and_nul_travel_in_both_directions(
    serve: Any, says: Any, tmp_path: Path, impatient: Impatient
) -> None:
    @tool
    def broken() -> str:
        """Say what no encoding can hold."""
        return "a\ud800b\0c\U0001f600"

    call = '<tool_call>{"name": "broken", "arguments": {}}</tool_call>'
    server = serve(lambda request, number: says([f"\udfff\0 {call}", "done"][number]))
    [trajectory] = evaluate(
        lambda: addition_env(tools=[broken]),
        lambda: ChatAgent(server.base_url, "m", client=impatient(server.base_url)),
        1,
        out=tmp_path,
    )
    assert (trajectory.outcome, trajectory.stop_reason) == (0.0, "answered")
    said, observed = (message["content"] for message in server.requests[1]["messages"][2:])
    assert said.startswith("\ufffd")
    assert "a\ufffdb" in observed
    assert "c\U0001f600" in observed, "what is no lone surrogate stays as it is"
    [kept] = read_trajectories(tmp_path / "trajectories.jsonl")
    assert kept.turns[0].completion == trajectory.turns[0].completion


def test_as_many_episodes_as_allowed_are_asked_for_at_once(
    serve: Any, says: Any, reply: Any, tmp_path: Path, impatient: Impatient
) -> None:
    meeting = threading.Barrier(4)

    def answer(request: dict[str, Any], number: int) -> Any:
        try:
            meeting.wait(20)  # passes only when four requests are inside together
        except threading.BrokenBarrierError:
            return reply(500, {"error": {"message": "too few came"}})
        return says("no idea")

    server = serve(answer)
    client = impatient(server.base_url)
    trajectories = evaluate(
        addition_env,
        lambda: ChatAgent(server.base_url, "m", client=client),
        8,
        out=tmp_path,
        concurrency=4,
        retries=0,
    )
    assert [one.outcome for one in trajectories] == [0.0] * 8
    questions = [request["messages"][-1]["content"] for request in server.requests]
    assert len(set(questions)) == 8, "each worker held its own conversation"


def test_the_overflow_tells_what_the_server_said(
    serve: Any, reply: Any, impatient: Impatient
) -> None:
    server = serve(lambda request, number: reply(400, VLLM_TOO_LONG))
    observation, info = addition_env().reset(seed=0)
    agent = ChatAgent(server.base_url, "m", client=impatient(server.base_url))
    agent.begin(info)
    with pytest.raises(ContextOverflow, match="2049 input tokens"):
        agent.act(observation, info)


def test_reagent_eval_fails_when_every_episode_was_masked(
    serve: Any, reply: Any, tmp_path: Path
) -> None:
    server = serve(lambda request, number: reply(400, {"error": {"message": "no field 'top_p'"}}))
    shown = CliRunner().invoke(
        app,
        [
            *("eval", "reagent/PythonMath-v0", "--agent", f"{server.base_url}#m"),
            *("--sandbox", "process", "--episodes", "2", "--out", str(tmp_path)),
        ],
    )
    assert shown.exit_code == 1
    assert "Every episode was masked" in shown.output
    assert "no field 'top_p'" in (tmp_path / "trajectories.jsonl").read_text()
