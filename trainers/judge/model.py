"""The small judge: a causal language model of 0.6 million parameters, and its own tokenizer.

It reads the short view of ``reward_models/marks.py`` and writes a judgement. Not here: how it is
trained (``training.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from reagent_env.trainers.policies.small import chat_tokenizer, fresh_llama

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

ASK, END, PAD = "<|judge|>", "<|end|>", "<|pad|>"
CONTEXT_LENGTH = 1024
VOCABULARY = 1536

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|judge|>' }}{% endif %}"
)
"""The view, then one token after which the judgement begins."""

SHAPE: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 288,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
}
"""0.6 million parameters, embeddings included: minutes of training on one core."""

_PIECES = r"</?[a-z]+>|@[0-9]?|[\[\],]|\n| ?[^\s<>\[\],@]+| "
"""Tags, marks and words stand alone, so that a mark is the same token wherever it occurs."""


def make_judge_tokenizer(
    texts: Iterable[str], vocabulary: int = VOCABULARY
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on views and judgements: any text has ids."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, ASK, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return chat_tokenizer(
        tokenizer,
        pad=PAD,
        start=ASK,
        end=END,
        template=CHAT_TEMPLATE,
        context_length=CONTEXT_LENGTH,
    )


def make_judge_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlamaForCausalLM:
    """A fresh model for that tokenizer, its weights drawn by ``seed``."""
    return fresh_llama(tokenizer, SHAPE, CONTEXT_LENGTH, seed)
