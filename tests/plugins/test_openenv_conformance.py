"""The conformance suite through OpenEnv's server and client."""

from __future__ import annotations

import math
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from openenv import GenericEnvClient

from reagent_env.plugins.conformance import ConformanceSuite, Driver, Record, Script, Seen
from reagent_env.plugins.openenv import make_app, running

sys.path.insert(0, str(Path(__file__).parent))

from outside_scripts import OutsideSuite

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class OpenEnvDriver:
    """One server for each reward, one session for each of those."""

    name = "openenv"
    unseen = frozenset({"trained"})  # a server of environments knows no tokens
    loss_sees = "the client's affair: turn rewards are observed; TRL over OpenEnv: *scalar only*"

    def __init__(self) -> None:
        self.open = ExitStack()
        self._clients: dict[str, Any] = {}

    def can_play(self, script: Script) -> bool:
        return True

    def play(self, script: Script) -> Seen:
        client = self._client(script)
        record = Record(client.reset(**script.options).observation["text"])
        for completion in script.completions:
            turn = client.step({"text": completion})
            seen = turn.observation
            shares = [math.nan if one is None else one for one in seen["turn_rewards"] or ()]
            info = {
                "stop_reason": seen["stop_reason"],
                "attempt_ended": seen["attempt_ended"],
                "judgement": {"score": seen["score"]},
                "reward/turns": shares,
            }
            reward = math.nan if turn.reward is None else turn.reward
            record.add(completion, seen["text"], reward, turn.done, info)
            if turn.done:
                return record.seen()
        raise AssertionError("the script ran out")

    def _client(self, script: Script) -> Any:
        key = repr((script.source, script.reward, script.env_kwargs))
        if key not in self._clients:
            app = make_app(script.source, **script.reward, **script.env_kwargs)
            url = self.open.enter_context(running(app))
            client = GenericEnvClient(base_url=url).sync()
            self._clients[key] = self.open.enter_context(client)
        return self._clients[key]


class ThroughServers:
    """The driver of a suite, whose servers end with the test."""

    @pytest.fixture(autouse=True)
    def servers(self) -> Any:
        self._driver = OpenEnvDriver()
        with self._driver.open:
            yield

    def driver(self) -> Driver:
        return self._driver


class TestOpenEnv(ThroughServers, ConformanceSuite):
    pass


class TestOpenEnvOutside(ThroughServers, OutsideSuite):
    pass
