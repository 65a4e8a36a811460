"""200 scripted episodes through verl's real worker; only its server is a fake."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from outside_scripts import OutsideSuite
from verl_fakes import (  # first: it silences what verl's imports warn of
    LIBRARIES_WARN,
    Recorded,
    WrittenServer,
    configuration,
    make_worker,
    row,
)

# isort: split
from verl.trainer.ppo.v1 import agent_loop_tq

from reagent_env.plugins.conformance import ConformanceSuite, Driver, Script, Seen
from reagent_env.plugins.conformance_env import LEDGER
from reagent_env.plugins.verl import ReagentAgentLoop
from reagent_env.plugins.verl_rewards import read_rewards, spans_of

pytestmark = LIBRARIES_WARN
HEAD, FOOT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"


class VerlDriver:
    """Plays a script through ``AgentLoopWorkerTQ`` and reads the tensors that it hands to verl's trainer.

    What a judge said of a rollout before infrastructure spoiled it reaches no tensor, so scripts
    that fail are played without a judge.
    """

    name = "verl"
    unseen = frozenset({"rewards"})  # turns are paid at their tokens; a step pays nothing by itself
    loss_sees = "each turn with `reagent_*` estimators and `gae`; verl's others: *scalar only*"

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = configuration(folder, {"source": LEDGER})
        config.actor_rollout_ref.rollout.n = 1
        self.script = Script(0, (), 0)
        self.worker = make_worker(config, WrittenServer(None, lambda n: []))
        self.tokenizer = self.worker.tokenizer
        self.recorded = Recorded()
        self.monkeypatch = monkeypatch
        made = ReagentAgentLoop.__init__

        def init(loop: Any, *args: Any, **kwargs: Any) -> None:
            played = {"source": self.script.source, "env_kwargs": dict(self.script.env_kwargs)}
            made(loop, *args, **{**kwargs, **played, **self.script.reward})  # judges are no YAML

        monkeypatch.setattr(ReagentAgentLoop, "__init__", init)

    def can_play(self, script: Script) -> bool:
        return script.judge is None or not script.spoiled

    def play(self, script: Script) -> Seen:
        self.script = script
        self.worker.llm_client = WrittenServer(self.tokenizer, lambda n: script.completions)
        self.recorded = Recorded()
        self.monkeypatch.setattr(agent_loop_tq, "tq", self.recorded)
        prompt = {"uid": "u", **row(script.task)}
        trajectory = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False}
        asyncio.run(self._run(prompt, trajectory))
        return self._seen(self.recorded.fields["u_0_0"], script)

    async def _run(self, prompt: dict[str, Any], trajectory: dict[str, Any]) -> None:
        params = {"temperature": 1.0, "top_p": 1.0}
        await self.worker._run_prompt(prompt, params, trajectory)

    def _seen(self, fields: dict[str, Any], script: Script) -> Seen:
        ids, mask = fields["responses"].tolist(), fields["response_mask"].tolist()
        rewards = fields["rm_scores"].tolist()
        extra = fields["extra_fields"]
        prompt = self.tokenizer.decode(fields["prompts"].tolist())
        prompt = prompt.split(HEAD)[-1].removesuffix(FOOT)
        left_out = not any(mask)
        if left_out:  # which tokens were sampled is told by their log-probabilities
            mask = [int(value < 0) for value in fields["rollout_log_probs"].tolist()]
        spans = spans_of(mask)
        ends = [span.end for span in spans]
        gaps = [ids[end : span.begin] for end, span in zip(ends[:-1], spans[1:], strict=True)]
        turns = extra["attempt_turns"]
        attempts = [] if left_out else read_rewards(rewards, mask)
        scores = [None if one.score is None else one.score / script.weight for one in attempts]
        shares: list[float] = []
        for one in attempts:
            shares += self._shares(one)
        starts = [sum(turns[:number]) for number in range(len(turns))]
        return Seen(
            prompt=prompt,
            observations=tuple(self._observation(gap) for gap in gaps),
            episode_return=math.nan if left_out else math.fsum(rewards),
            turn_shares=(*(0.0 for _ in gaps), math.nan) if left_out else tuple(shares),
            process_scores=(None,) if left_out else tuple(scores),
            stop_reasons=tuple(extra["stop_reasons"]),
            attempt_starts=tuple(starts),
            trained=tuple(self.tokenizer.decode(ids[span.begin : span.end - 1]) for span in spans),
            left_out=left_out,
        )

    @staticmethod
    def _shares(attempt: Any) -> list[float]:
        levels = attempt.levels()
        shares = [after - before for before, after in pairwise(levels)]
        if attempt.score is None:
            shares = [0.0] * attempt.turns
        shares[-1] += attempt.outcome
        return shares

    def _observation(self, gap: Sequence[int]) -> str:
        text = self.tokenizer.decode(gap).lstrip("\n")
        return text.removeprefix(HEAD).removesuffix(FOOT)


class Given:
    @pytest.fixture(autouse=True)
    def _given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given = (tmp_path, monkeypatch)

    def driver(self) -> Driver:
        return VerlDriver(*self.given)


class TestVerl(Given, ConformanceSuite): ...


class TestVerlOutside(Given, OutsideSuite): ...
