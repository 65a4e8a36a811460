"""What a run needs in memory, from the shape of its policy; arithmetic alone, no torch.

Not here: printing it (``dry_run.py``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from reagent_env.trainers.config import TrainConfig

GIB = 2**30


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder's shape, e.g. ``ModelShape(36, 4096, 12288, 32, 8, 128, 151936, tied=False)``."""

    layers: int
    width: int
    inner: int
    """Width of the feed-forward part."""
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    tied: bool
    """Whether the head shares the embedding's weights."""

    @property
    def parameters(self) -> int:
        """Weights of a Llama-like decoder: 8.19e9 for Qwen3-8B."""
        attention = 2 * self.width * self.head_width * (self.heads + self.kv_heads)
        layer = attention + 3 * self.width * self.inner + 2 * self.width
        embeddings = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.layers * layer + embeddings + self.width

    def adapter_parameters(self, rank: int) -> int:
        """Weights of LoRA adapters of that rank on every linear layer but the head."""
        query, key = self.heads * self.head_width, self.kv_heads * self.head_width
        attention = 2 * (self.width + query) + 2 * (self.width + key)
        return self.layers * rank * (attention + 3 * (self.width + self.inner))

    def kv_bytes(self, bytes_each: int) -> int:
        """Bytes of keys and values a token: 147,456 for Qwen3-8B in 16 bits."""
        return 2 * self.layers * self.kv_heads * self.head_width * bytes_each


KNOWN = {
    "smollm2": ModelShape(30, 576, 1536, 9, 3, 64, 49_152, tied=True),
    "tiny": ModelShape(5, 160, 448, 5, 5, 32, 1024, tied=True),
    "Qwen/Qwen3-4B": ModelShape(36, 2560, 9728, 32, 8, 128, 151_936, tied=True),
    "Qwen/Qwen3-8B": ModelShape(36, 4096, 12_288, 32, 8, 128, 151_936, tied=False),
}
"""Shapes of models that are not on this machine's disk."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes on each device of the learner, e.g. ``plan.total / GIB``."""

    parameters: int
    """Weights of the model."""
    trained: int
    """Weights that are trained: all, or the adapters'."""
    devices: int
    """GPUs that the learner is spread over; 1 without GPUs."""
    parts: dict[str, float]
    """What → bytes on one device."""

    @property
    def total(self) -> float:
        """Bytes on one device."""
        return sum(self.parts.values())


def shape_of(policy: str) -> ModelShape | None:
    """The shape of a policy, by name or from its folder's ``config.json``; None where unknown."""
    if policy in KNOWN:
        return KNOWN[policy]
    path = Path(policy) / "config.json"
    try:
        written = json.loads(path.read_text("utf-8"))
        heads, width = written["num_attention_heads"], written["hidden_size"]
        return ModelShape(
            layers=written["num_hidden_layers"],
            width=width,
            inner=written["intermediate_size"],
            heads=heads,
            kv_heads=written.get("num_key_value_heads") or heads,
            head_width=written.get("head_dim") or width // heads,
            vocabulary=written["vocab_size"],
            tied=bool(written.get("tie_word_embeddings", False)),
        )
    except (OSError, KeyError, TypeError, ValueError):
        return None


def memory_plan(config: TrainConfig, shape: ModelShape) -> MemoryPlan:
    """What one device of the learner holds at its fullest.

    On GPUs: FSDP with weights, gradients and Adam's moments in 32 bits shared out over all of them,
    16 bits in compute, and a copy of the weights for vLLM on each, whose keys and values get what is
    left. Without: everything in 32 bits in this process, rollouts at half the context; frozen weights in
    bfloat16 take less.
    """
    devices = max(1, config.gpus)
    on_gpu = config.gpus > 0
    compute = 2 if on_gpu else 4
    weights = shape.parameters
    trained = shape.adapter_parameters(config.lora_rank) if config.lora_rank else weights
    frozen_bytes = 0 if trained == weights else weights * compute
    tokens = config.micro_batch_tokens
    # Korthikanti et al. 2022: about 34 bytes a token, layer and unit of width in 16 bits, and 2 of
    # these with checkpointing, besides one layer at work.
    whole = 17 * compute * shape.width
    layers = (
        (compute * shape.layers * shape.width + whole)
        if config.gradient_checkpointing
        else (shape.layers * whole)
    )
    context = config.context_length or 2048
    live = min(config.concurrency, config.groups_in_flight * config.group_size)
    sharded = {
        "weights": (frozen_bytes + 4 * (trained if trained != weights else weights)) / devices,
        "gradients": 4 * trained / devices,
        "Adam's moments": 8 * trained / devices,
        "activations": tokens * layers,
        "logits": 3 * 4 * tokens * shape.vocabulary / (8 if on_gpu else 1),  # in slices on a GPU
    }
    if not on_gpu:
        sharded["keys and values of rollouts"] = live * context / 2 * shape.kv_bytes(compute)
    if config.kl:
        sharded["reference policy"] = weights * compute / devices
    if on_gpu:
        sharded["one layer gathered"] = 2 * compute * (weights / shape.layers)
        sharded["weights of the server"] = weights * compute
    return MemoryPlan(weights, trained, devices, sharded)
