"""Any causal language model of transformers, from a folder or the hub, as a policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from torch import nn

from reagent_env.agents.smollm2 import ModelUnavailable
from reagent_env.trainers.policies.policy import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONTEXT_UNKNOWN = 2048
"""Tokens taken where neither the model's configuration nor its tokenizer says how many."""


def load_pretrained(source: str | Path, *, name: str | None = None, dtype: str = "auto") -> Policy:
    """Read model and tokenizer; a folder of adapters loads its base model and puts them on it.

    Args:
        source: A folder in transformers' or peft's layout, or a hub id.
        name: What to call it; default the source.
        dtype: As :func:`~reagent_env.trainers.policies.load_policy` takes it.

    Raises:
        ModelUnavailable: it cannot be fetched or read, or is no model that chats.
    """
    label = name or str(source)
    try:
        return _load(str(source), label, dtype)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelUnavailable(
            f"The policy {label!r} cannot be loaded: {error}"[:2000]
            + " A folder needs config.json, *.safetensors and tokenizer files; a hub id needs the "
            "network."
        ) from error


def _load(source: str, label: str, dtype: str) -> Policy:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(source)
    adapter = folder / "adapter_config.json"
    base = source
    if adapter.exists():
        base = str(json.loads(adapter.read_text("utf-8"))["base_model_name_or_path"])
    on_gpu = torch.cuda.is_available()
    # bfloat16 is emulated on many CPUs, several times slower, and too coarse for small updates.
    if dtype == "auto":
        dtype = "bfloat16" if on_gpu else "float32"
    loaded: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, output_loading_info=True)
    model: PreTrainedModel = loaded[0]
    loading: dict[str, set[str]] = loaded[1]
    if loading["missing_keys"]:  # transformers would draw them at random, with a warning
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ValueError(f"the file has no weights for {missing}.")
    if on_gpu:
        cast(nn.Module, model).to("cuda")
    if adapter.exists():
        from reagent_env.trainers.policies.lora import load_adapter

        model = load_adapter(model, folder)
    has_tokenizer = not folder.is_dir() or (folder / "tokenizer_config.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(source if has_tokenizer else base)
    complete_tokenizer(tokenizer, label)
    cast(nn.Module, model).eval()
    return Policy(label, model, tokenizer, context_length(model, tokenizer))


def complete_tokenizer(tokenizer: PreTrainedTokenizerBase, label: str) -> None:
    """Give it a padding token and left padding; refuse one that cannot render a chat.

    Raises:
        ValueError: no chat template, or no token that ends a turn.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"{label} has no chat template: it is a base model; take its chat version."
        )
    if tokenizer.eos_token is None:
        raise ValueError(f"{label} has no end-of-turn token (eos_token in tokenizer_config.json).")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"


def context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens the model can attend to: the lesser of its configuration's and its tokenizer's word."""
    config = model.config.get_text_config()
    said = [
        getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None),
        tokenizer.model_max_length,
    ]
    sane = [int(length) for length in said if length is not None and 0 < length < 10_000_000]
    return min(sane, default=CONTEXT_UNKNOWN)
