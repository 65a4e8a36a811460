"""LoRA adapters on any causal language model: fewer weights to train, to keep and to push.

Not here: sending them to a server (``engines/vllm.py``).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def apply_lora(
    model: PreTrainedModel, rank: int = 16, alpha: float = 32.0, *, seed: int = 0
) -> PreTrainedModel:
    """Put trainable adapters on every linear layer but the head, and freeze the rest.

    Hu et al. 2021, eq. 3: h = W₀x + (alpha / rank)·B·A·x with B = 0 at first, so the model's output
    is unchanged until the first update.

    Raises:
        ValueError: the rank is below 1, or the model has no linear layer or adapters already.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    if rank < 1:
        raise ValueError(f"The rank of LoRA must be at least 1, got {rank}.")
    if has_adapter(model):
        raise ValueError("The model has LoRA adapters already; train those, or load its base.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(
            r=rank,
            lora_alpha=cast(int, alpha),
            lora_dropout=0.0,  # dropout would part the learner's log-probabilities from the sampler's
            target_modules=target_modules(model),
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():
            # peft reads an attribute that transformers has renamed.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            return cast("PreTrainedModel", get_peft_model(model, config))


def target_modules(model: nn.Module) -> list[str]:
    """Last names of its linear layers without the head, e.g. ``["down_proj", …, "v_proj"]``.

    Raises:
        ValueError: there is none.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    linear = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if module is not head
        and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")  # GPT-2's
    }
    if not linear:
        raise ValueError(f"{type(model).__name__} has no linear layer that could take an adapter.")
    return sorted(linear)


def has_adapter(model: nn.Module) -> bool:
    """Whether ``model`` came from :func:`apply_lora` or :func:`load_adapter`."""
    return hasattr(model, "peft_config")


def save_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``, which vLLM reads as well."""
    if not has_adapter(model):
        raise ValueError("The model has no adapters; apply_lora(model) gives it some.")
    # Never the embeddings: peft would ask a hub whether they have grown.
    cast("PeftModel", model).save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's form with every field left blank


def load_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Put the adapters that :func:`save_adapter` wrote on ``model``, trainable."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted = PeftModel.from_pretrained(cast(Any, model), folder, is_trainable=True)
    return cast("PreTrainedModel", adapted)
