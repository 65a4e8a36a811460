"""Steps a second of our OpenEnv server and of OpenEnv's echo example, as many sessions each; in one run.

    scripts/make-plugin-venv openenv
    .venv-plugin-openenv/bin/python benchmarks/openenv_server.py --json benchmarks/openenv_server.json

The echo environment is written here after OpenEnv's own (huggingface/OpenEnv, ``envs/echo_env``), in
both of its forms: a plain ``Environment`` that gives the message back, which is the faster one and
the bar, and the MCP tool that the repository has now. Ours takes a completion with a tool call, runs
the tool and answers. Servers run in processes of their own. The bar: ours ≥ 0.7 × the plain echo.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from openenv import GenericEnvClient
from openenv.core.env_server import create_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>'


class EchoAction(Action):
    message: str


class EchoObservation(Observation):
    echoed_message: str = ""
    message_length: int = 0


class Echo(Environment[EchoAction, EchoObservation, State]):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state = State()

    def reset(self, seed: Any = None, episode_id: Any = None, **kwargs: Any) -> EchoObservation:
        self._state = State(episode_id=episode_id)
        return EchoObservation(echoed_message="ready", reward=0.0)

    def step(self, action: EchoAction, timeout_s: Any = None, **kwargs: Any) -> EchoObservation:
        self._state.step_count += 1
        message = action.message
        return EchoObservation(
            echoed_message=message,
            message_length=len(message),
            reward=len(message) * 0.1,
            metadata={"original_message": message, "step": self._state.step_count},
        )

    @property
    def state(self) -> State:
        return self._state


def echo(sessions: int) -> Any:
    return create_app(
        Echo, EchoAction, EchoObservation, env_name="echo", max_concurrent_envs=sessions
    )


def echo_by_mcp(sessions: int) -> Any:
    from fastmcp import FastMCP
    from openenv.core.env_server.mcp_environment import MCPEnvironment
    from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation

    class EchoTool(MCPEnvironment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self) -> None:
            mcp = FastMCP("echo")

            @mcp.tool
            def echo_message(message: str) -> str:
                """Echo a message back."""
                return message

            super().__init__(mcp)
            self._state = State()

        def reset(self, seed: Any = None, episode_id: Any = None, **kwargs: Any) -> Observation:
            return Observation(reward=0.0)

        def _step_impl(self, action: Any, timeout_s: Any = None, **kwargs: Any) -> Observation:
            return Observation(reward=0.0)

        @property
        def state(self) -> State:
            return self._state

    return create_app(
        EchoTool,
        CallToolAction,
        CallToolObservation,
        reset_observation_cls=Observation,
        env_name="echo",
        max_concurrent_envs=sessions,
    )


def ours(sessions: int) -> Any:
    from reagent_env.plugins.conformance_env import LEDGER
    from reagent_env.plugins.openenv import make_app

    return make_app(LEDGER, max_sessions=sessions, max_turns=1_000_000)


SIDES: dict[str, tuple[Callable[[int], Any], dict[str, Any]]] = {
    "ours": (ours, {"text": CALL}),
    "echo": (echo, {"message": CALL}),
    "echo by MCP": (
        echo_by_mcp,
        {"type": "call_tool", "tool_name": "echo_message", "arguments": {"message": CALL}},
    ),
}


def serve(name: str, port: int, sessions: int) -> None:
    uvicorn.run(SIDES[name][0](sessions), host="127.0.0.1", port=port, log_level="error")


async def steps_per_s(port: int, action: dict[str, Any], sessions: int, steps: int) -> float:
    clients = [GenericEnvClient(base_url=f"http://127.0.0.1:{port}") for _ in range(sessions)]
    for client in clients:
        await client.connect()
        await client.reset(seed=0)
        await client.step(action)

    async def play(client: Any) -> None:
        for _ in range(steps // sessions):
            await client.step(action)

    began = time.perf_counter()
    await asyncio.gather(*map(play, clients))
    seconds = time.perf_counter() - began
    for client in clients:
        await client.close()
    return steps // sessions * sessions / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--only", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sides = {name: SIDES[name] for name in given.only}
    context = multiprocessing.get_context("spawn")
    ports: dict[str, int] = {}
    processes = []
    for name in sides:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports[name] = free.getsockname()[1]
        process = context.Process(target=serve, args=(name, ports[name], 64), daemon=True)
        process.start()
        processes.append(process)
    for port in ports.values():
        wait_for_port(port)
    found: dict[str, Any] = {"bar": 0.7}
    for sessions in given.sessions:
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(given.rounds):  # in turn, so that other load meets all alike
            for name, (_, action) in sides.items():
                speed = steps_per_s(ports[name], action, sessions, given.steps)
                speeds[name].append(asyncio.run(speed))
        ratios = {
            name: statistics.quantiles(
                (one / other for one, other in zip(speeds["ours"], speeds[name], strict=True)), n=4
            )
            for name in sides
            if name != "ours"
        }
        medians = {name: statistics.median(one) for name, one in speeds.items()}
        print(f"{sessions} session(s): " + ", ".join(f"{n} {s:.0f}/s" for n, s in medians.items()))
        for name, (low, middle, high) in ratios.items():
            print(f"  ours / {name}: {middle:.2f}, quartiles {low:.2f} – {high:.2f}")
        found[f"{sessions} sessions"] = {"steps_per_s": medians, "ours_over_quartiles": ratios}
    for process in processes:
        process.terminate()
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with socket.socket() as trying:
            if trying.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"Nobody listens on port {port}.")


if __name__ == "__main__":
    main()
