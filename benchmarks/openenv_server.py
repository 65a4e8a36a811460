"""Steps a second of our OpenEnv server and of OpenEnv's echo example, as many sessions each; in one run.

    scripts/make-plugin-venv openenv
    .venv-plugin-openenv/bin/python benchmarks/openenv_server.py --json benchmarks/openenv_server.json

The echo environment is written here after OpenEnv's own (huggingface/OpenEnv, ``envs/echo_env``), in
both of its forms: a plain ``Environment`` that gives the message back, which is the faster one and
the bar, and the MCP tool that the repository has now. Ours takes a completion with a tool call, runs
a tool that gives the message back, and answers; once with a tool that ends by itself, as echo's step
does, once under the default time limit, which costs a thread. Servers run in processes of their own,
each as its package serves: ours by ``serve()``. The bar: ours ≥ 0.7 × the plain echo. Beside it, each
server's own processor time a step, which other work on the machine changes less than the speed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from machine import Watch
from openenv import GenericEnvClient
from openenv.core.env_server import create_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from rows import Row, arguments, deliver

BAR = 0.7
MESSAGE = "Four score and seven years ago"
CALL = '<tool_call>\n{"name": "echo", "arguments": {"message": "' + MESSAGE + '"}}\n</tool_call>'


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


def serve_ours(port: int, sessions: int, **limits: Any) -> None:
    from reagent_env import ToolUseEnv, tool
    from reagent_env.plugins.openenv import serve
    from reagent_env.testing import addition_tasks

    @tool(**limits)
    def echo(message: str) -> str:
        """Give the message back.

        Args:
            message: What to give back.
        """
        return message

    def make() -> ToolUseEnv:
        return ToolUseEnv(addition_tasks(), [echo], max_turns=1_000_000)

    serve(make, port=port, max_sessions=sessions)


def serve_theirs(app: Any, port: int) -> None:
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


SIDES: dict[str, tuple[Callable[[int, int], None], dict[str, Any]]] = {
    "ours": (lambda port, sessions: serve_ours(port, sessions, timeout_s=None), {"text": CALL}),
    "ours, time limit": (serve_ours, {"text": CALL}),
    "echo": (lambda port, sessions: serve_theirs(echo(sessions), port), {"message": CALL}),
    "echo by MCP": (
        lambda port, sessions: serve_theirs(echo_by_mcp(sessions), port),
        {"type": "call_tool", "tool_name": "echo_message", "arguments": {"message": CALL}},
    ),
}
"""How a side serves, given a port and as many sessions as may come; and what its client sends."""


def serve_side(name: str, port: int, sessions: int) -> None:
    SIDES[name][0](port, sessions)


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
    parser = arguments(__doc__, quick="two rounds")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--only", nargs="+", choices=list(SIDES), default=list(SIDES))
    given = parser.parse_args()
    rounds = 2 if given.quick else given.rounds
    watch = Watch()
    rows: list[Row] = []
    sides = {name: SIDES[name] for name in given.only}
    context = multiprocessing.get_context("spawn")
    ports: dict[str, int] = {}
    servers: dict[str, int] = {}
    processes = []
    for name in sides:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports[name] = free.getsockname()[1]
        process = context.Process(target=serve_side, args=(name, ports[name], 64), daemon=True)
        process.start()
        processes.append(process)
        assert process.pid is not None
        servers[name] = process.pid
    for port in ports.values():
        wait_for_port(port)
    found: dict[str, Any] = {"bar": BAR}
    for sessions in given.sessions:
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        spent = dict.fromkeys(sides, 0.0)
        for _ in range(rounds):  # in turn, so that other load meets all alike
            for name, (_, action) in sides.items():
                before = processor_seconds(servers[name])
                speed = steps_per_s(ports[name], action, sessions, given.steps)
                speeds[name].append(asyncio.run(speed))
                spent[name] += processor_seconds(servers[name]) - before
        ratios = {
            f"{mine} / {theirs}": statistics.quantiles(
                (one / other for one, other in zip(speeds[mine], speeds[theirs], strict=True)), n=4
            )
            for mine in sides
            for theirs in sides
            if mine.startswith("ours") and not theirs.startswith("ours")
        }
        medians = {name: statistics.median(one) for name, one in speeds.items()}
        took = {name: all_of_it / rounds / given.steps for name, all_of_it in spent.items()}
        print(f"{sessions} session(s): " + ", ".join(f"{n} {s:.0f}/s" for n, s in medians.items()))
        print(
            "  server's processor ms a step: "
            + ", ".join(f"{n} {1e3 * s:.3f}" for n, s in took.items())
        )
        for name, (low, middle, high) in ratios.items():
            print(f"  {name}: {middle:.2f}, quartiles {low:.2f} – {high:.2f}")
        found[f"{sessions} sessions"] = {
            "steps_per_s": medians,
            "ratio_quartiles": ratios,
            "server_processor_s_per_step": took,
        }
        rows += [row_of(name, sessions, one, medians) for name, one in ratios.items()]
    for process in processes:
        process.terminate()
        process.join(10)
    deliver(given.json, "openenv_server", rows, watch.machine(), found)


def row_of(name: str, sessions: int, quartiles: list[float], medians: dict[str, float]) -> Row:
    mine, theirs = name.split(" / ")
    return Row(
        name=f"OpenEnv, {name}, {sessions} session{'s' * (sessions > 1)}",
        compares="steps a second of our server / of OpenEnv's example",
        measured=quartiles[1],
        quartiles=(quartiles[0], quartiles[2]),
        bar=BAR if name == "ours / echo" else None,
        ours=medians[mine],
        other=medians[theirs],
        unit="steps/s",
    )


def processor_seconds(process_id: int) -> float:
    """That a process has used so far (Linux)."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
