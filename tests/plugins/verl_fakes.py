"""What verl's tests share: a server that says what is written, verl's real worker around it."""

from __future__ import annotations

import asyncio
import importlib.resources
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

with (
    warnings.catch_warnings()
):  # verl imports what Ray and others have deprecated, and engines it lacks
    warnings.simplefilter("ignore")
    import verl
    import verl.trainer.ppo.ray_trainer
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
    from verl.protocol import DataProto
    from verl.trainer.ppo.v1 import agent_loop_tq
    from verl.workers.rollout.replica import TokenOutput

from reagent_env.trainers.policies.tiny import SHIPPED

PROMPT, RESPONSE = 2048, 3000
LIBRARIES_WARN = [
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "FutureWarning", "UserWarning")
]
"""verl's own, of what it has called differently since."""


class WrittenServer:
    """``server_manager``: request n of a conversation gets its n-th completion."""

    def __init__(self, tokenizer: Any, written: Callable[[int], Sequence[str]]) -> None:
        self.tokenizer = tokenizer
        self.written = written
        self.logprobs = True
        self.requests: list[dict[str, Any]] = []
        self._conversations: dict[str, list[str]] = {}

    async def generate(
        self,
        request_id: str,
        *,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        **kwargs: Any,
    ) -> TokenOutput:
        asked = {"id": request_id, "prompt": prompt_ids, "params": sampling_params, **kwargs}
        self.requests.append(asked)
        if request_id not in self._conversations:
            self._conversations[request_id] = list(self.written(len(self._conversations)))
        text = self._conversations[request_id].pop(0)
        if text == "(the server dies)":
            raise ConnectionError("no route to the server")
        ids = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        ids = [*ids, self.tokenizer.eos_token_id]
        return TokenOutput(
            token_ids=ids,
            log_probs=[-0.01 * (n + 1) for n in range(len(ids))] if self.logprobs else None,
            stop_reason="completed",
            num_preempted=0,
            extra_fields={"min_global_steps": 3, "max_global_steps": 3 + len(self.requests)},
        )


def configuration(folder: Path, loop: dict[str, Any]) -> Any:
    """verl's own defaults, the tiny policy, and our agent loop with these settings."""
    loops = [{"name": "reagent", "_target_": "reagent_env.plugins.verl.ReagentAgentLoop", **loop}]
    path = folder / "agent_loop.yaml"
    OmegaConf.save(OmegaConf.create(loops), path)
    defaults = importlib.resources.files(verl) / "trainer/config/_generated_ppo_trainer.yaml"
    config: Any = OmegaConf.load(str(defaults))
    config.actor_rollout_ref.model.path = str(SHIPPED)
    config.actor_rollout_ref.rollout.name = "vllm"
    config.actor_rollout_ref.rollout.prompt_length = PROMPT
    config.actor_rollout_ref.rollout.response_length = RESPONSE
    config.actor_rollout_ref.rollout.n = 2
    config.actor_rollout_ref.rollout.agent.agent_loop_config_path = str(path)
    return config


class Recorded:
    """Stands in for TransferQueue: keeps what the worker puts."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.status: list[str] = []

    async def async_kv_put(self, key: str, partition_id: str, tag: dict[str, Any]) -> None:
        self.status.append(tag["status"])

    async def async_kv_batch_put(
        self, keys: list[str], fields: Any, tags: list[Any], partition_id: str
    ) -> None:
        for place, key in enumerate(keys):
            self.fields[key] = {name: fields[name][place] for name in fields.keys()}  # noqa: SIM118


def make_worker(config: Any, server: WrittenServer) -> Any:
    """verl's worker of its current trainer, without the Ray actor around it."""
    worker_class = agent_loop_tq.AgentLoopWorkerTQ.__ray_metadata__.modified_class
    worker = object.__new__(worker_class)
    AgentLoopWorker.__init__(worker, config, server)
    worker.background_tasks = set()
    return worker


def row(task: int, **extra: Any) -> dict[str, Any]:
    """A data set's row as the worker gets it."""
    return {
        "raw_prompt": [{"role": "user", "content": "?"}],
        "agent_name": "reagent",
        "data_source": "test",
        "reward_model": {"ground_truth": ""},
        "extra_info": {"task": task, **extra},
        "index": 0,
        "global_steps": 1,
    }


def play_group(worker: Any, monkeypatch: pytest.MonkeyPatch, task: int, uid: str = "u") -> Recorded:
    """``rollout.n`` sessions of one prompt through verl's worker."""
    recorded = Recorded()
    monkeypatch.setattr(agent_loop_tq, "tq", recorded)
    trajectory = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False}
    prompt = {"uid": uid, **row(task)}
    asyncio.run(_run(worker, prompt, trajectory))
    return recorded


async def _run(worker: Any, prompt: dict[str, Any], trajectory: dict[str, Any]) -> None:
    await worker._run_prompt(prompt, {"temperature": 1.0, "top_p": 1.0}, trajectory)


def as_batch(recorded: Recorded) -> DataProto:
    """The rows as verl's trainer pads them for advantages and loss."""
    rows = [recorded.fields[key] for key in sorted(recorded.fields)]

    def padded(name: str) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([one[name] for one in rows], batch_first=True)

    tensors = {
        "response_mask": padded("response_mask"),
        "token_level_rewards": padded("rm_scores"),
        "responses": padded("responses"),
        "rollout_log_probs": padded("rollout_log_probs"),
    }
    batch = DataProto.from_single_dict(tensors)
    batch.non_tensor_batch["uid"] = np.array([one["uid"] for one in rows], dtype=object)
    return batch
