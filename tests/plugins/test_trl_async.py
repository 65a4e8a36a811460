"""AsyncGRPOTrainer's worker loop with a factory that went through pickle; only its vLLM server is a fake."""

from __future__ import annotations

import asyncio
import pickle
import sys
from multiprocessing import Queue, Value
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from trl_fakes import LIBRARIES_WARN, tiny, written_ids

# isort: split
from trl.experimental.async_grpo.async_rollout_worker import _AsyncRolloutLoop

from reagent_env.plugins.conformance_env import LEDGER, ScriptedJudge
from reagent_env.plugins.trl import make_environment_factory
from reagent_env.plugins.trl_template import with_tool_calls

pytestmark = pytest.mark.filterwarnings(LIBRARIES_WARN)


def call(name: str, **arguments: Any) -> str:
    import json

    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def test_the_worker_of_the_asynchronous_trainer_plays_and_scores_a_rollout() -> None:
    factory = make_environment_factory(LEDGER, judge=ScriptedJudge(), attempts=2)
    tokenizer = with_tool_calls(tiny().tokenizer)
    loop = _AsyncRolloutLoop(
        model_name="tiny",
        dataset=factory.dataset(1),
        reward_funcs=[],
        processing_class=tokenizer,
        eos_token_ids=[tokenizer.eos_token_id],
        rollout_buffer=Queue(),
        model_version_value=Value("i", 0),
        heartbeat_value=Value("d", 0.0),
        failed_event=None,
        exception_info_queue=Queue(),
        metrics_queue=Queue(),
        environment_factory=pickle.loads(pickle.dumps(factory)),
        num_generations=1,
    )
    written = [
        call("balance", owner="Ada"),
        call("submit_answer", answer="1"),
        call("submit_answer", answer="165"),
        "Done.",
    ]

    async def generate(prompt_ids: list[int]) -> tuple[list[int], list[float]]:
        ids = written_ids(tokenizer, written.pop(0))
        return ids, [-0.1] * len(ids)

    loop._generate_one_turn = generate
    environment = loop._environment_pool[None].pop()
    environment.reset(task=0)
    names = ("balance", "submit_answer")
    tools = {name: getattr(environment, name) for name in names}
    prompt = [{"role": "user", "content": "How much do Ada and Bo hold together?"}]
    try:
        completion, _, sequences, calls, failures, _ = loop._loop.run_until_complete(
            asyncio.wait_for(loop._generate_one(prompt, tools, loop._env_tools[None]), 60)
        )
    finally:
        loop._tool_pool.shutdown()
        loop._loop.close()
    assert (calls, failures) == (3, 0)
    told = [message["content"] for message in completion if message["role"] == "tool"]
    assert told[0] == "Ada has 120"
    assert "look up both first" in told[1]  # the critique, in mid-rollout
    assert len(sequences) == 1  # both attempts are one training row
    played = environment._ledger.played()
    assert [attempt.outcome for attempt in played.attempts] == [0.0, 1.0]
    assert environment.get_reward() == pytest.approx(
        sum(a.outcome + 0.3 * (a.score or 0) for a in played.attempts) / 2
    )
