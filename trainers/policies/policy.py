"""A policy to train: a model, its tokenizer and the room it has. Not here: how it samples (engines)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Policy:
    """What a name of ``--policy`` gives, e.g. ``Policy("smollm2", model, tokenizer, 8192)``."""

    name: str
    """As asked for: ``tiny``, ``smollm2``, a folder, a run or a hub id."""
    model: PreTrainedModel
    """A causal language model: float32 on a CPU and bfloat16 on a GPU, unless asked for otherwise; with
    adapters where it has any."""
    tokenizer: PreTrainedTokenizerBase
    """With a chat template and a padding token."""
    context_length: int
    """Tokens that a conversation can hold, the last completion included."""

    def save(self, folder: Path) -> None:
        """Write model and tokenizer so that ``load_policy(folder)`` reads them back."""
        self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
