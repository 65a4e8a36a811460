"""The conformance suite through verifiers: its agents, its interception, its trace."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import verifiers.v1 as vf
from verifiers.v1.clients import ModelContext

from reagent_env.plugins.conformance import ConformanceSuite, Driver, Script, Seen
from reagent_env.plugins.verifiers import (
    ToolUseTasksetConfig,
    ToolUseVerifier,
    ToolUseVerifierConfig,
    vf_text,
)
from reagent_env.testing import ChatReply, ScriptedChatServer

sys.path.insert(0, str(Path(__file__).parent))

from outside_scripts import OutsideSuite

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SECONDS = 120.0


class VerifiersDriver:
    """One environment for each reward, one server that says what the script says."""

    name = "verifiers"
    loss_sees = "*scalar only*"
    # One number an episode; what a turn was worth stays in the trace's info.
    unseen = frozenset({"rewards", "turn_shares"})

    def __init__(self, module: str) -> None:
        self._module = module
        self._envs: dict[str, ToolUseVerifier] = {}
        self._left: list[str] = []
        self._server = ScriptedChatServer(lambda request: ChatReply(self._left.pop(0)))
        self._stack = AsyncExitStack()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> VerifiersDriver:
        self._server.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._wait(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()
        self._server.__exit__(None, None, None)

    def can_play(self, script: Script) -> bool:
        return True

    def play(self, script: Script) -> Seen:
        self._left = list(script.completions)
        return seen(self._wait(self._episode(script)))

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    async def _episode(self, script: Script) -> vf.Episode:
        key = repr((script.source, script.reward, script.env_kwargs))
        if key not in self._envs:
            self._envs[key] = self._make(script)
            await self._stack.enter_async_context(self._envs[key].serving())
        env = self._envs[key]
        task = list(env.taskset)[script.task]
        client = vf.EvalClientConfig(base_url=self._server.base_url, api_key_var="SCRIPTED_KEY")
        return await env.run_episode(task, ModelContext(model="scripted", client=client))

    def _make(self, script: Script) -> ToolUseVerifier:
        class Judged(ToolUseVerifier):
            def _make_judge(self) -> Any:
                return script.judge

        reward = {name: one for name, one in script.reward.items() if name != "judge"}
        taskset = ToolUseTasksetConfig(
            id=self._module, env_id=script.source, env_kwargs=dict(script.env_kwargs)
        )
        return Judged(ToolUseVerifierConfig(taskset=taskset, **reward))


def seen(episode: vf.Episode) -> Seen:
    """What verifiers' records say of an episode."""
    [trace] = episode.traces
    failed = [f"{one.type}: {one.message}" for one in [*episode.errors, *trace.errors]]
    assert all("EpisodeSpoiled" in one for one in failed), (
        failed
    )  # nothing but what the script meant
    messages = trace.branches[-1].messages
    users = [vf_text(one.content) for one in messages if one.role == "user"]
    attempts = trace.info["reagent"]["attempts"]
    turns = [one["turns"] for one in attempts]
    return Seen(
        prompt=users[0],
        observations=tuple(users[1:]),
        episode_return=trace.reward if episode.ok else math.nan,
        process_scores=tuple(one["score"] for one in attempts),
        stop_reasons=tuple(one["stop_reason"] for one in attempts),
        attempt_starts=tuple(sum(turns[:number]) for number in range(len(turns))),
        trained=tuple(vf_text(node.message.content) for node in trace.nodes if node.sampled),
        left_out=not episode.ok,
    )


class Served:
    """A module that verifiers finds, and a server that says what the script says."""

    @pytest.fixture(autouse=True)
    def served(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        module = "conformance_ledger_tasks"
        (tmp_path / f"{module}.py").write_text(
            "from reagent_env.plugins.verifiers import ToolUseChat, ToolUseTaskset, ToolUseVerifier\n"
            "__all__ = ['ToolUseChat', 'ToolUseTaskset', 'ToolUseVerifier']\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setitem(os.environ, "SCRIPTED_KEY", "none")
        with VerifiersDriver(module) as self._driver:
            yield

    def driver(self) -> Driver:
        return self._driver


class TestVerifiers(Served, ConformanceSuite): ...


class TestVerifiersOutside(Served, OutsideSuite): ...
