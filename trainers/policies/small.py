"""What the small models of this package share: a Llama with fresh weights, and a tokenizer's shell.

Not here: what their tokenizers learn and how large they are (``tiny.py``, ``trainers/judge/model.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


def chat_tokenizer(
    backend: Any, *, pad: str, start: str, end: str, template: str, context_length: int
) -> PreTrainedTokenizerFast:
    """A trained ``tokenizers`` tokenizer with its special tokens and chat template.

    Args:
        backend: A ``tokenizers.Tokenizer``.
        pad: Token of padding.
        start: Token that opens a message.
        end: Token that ends a turn.
        template: Of conversations.
        context_length: Tokens that the model can hold.
    """
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast
    fast: PreTrainedTokenizerFast = make(
        tokenizer_object=backend,
        pad_token=pad,
        eos_token=end,
        additional_special_tokens=[start],
        model_max_length=context_length,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = template
    return fast


def fresh_llama(
    tokenizer: PreTrainedTokenizerFast, shape: Mapping[str, Any], context_length: int, seed: int
) -> LlamaForCausalLM:
    """A Llama of that shape for that tokenizer, its weights drawn by ``seed``, embeddings tied."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=context_length,
        tie_word_embeddings=True,
        initializer_range=0.02,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **shape,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
