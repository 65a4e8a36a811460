"""``tiny``: a causal language model of about a million parameters, with its own small tokenizer.

The default policy on a machine without a GPU: it acts in a whole episode of
``reagent/MiniMix-v0`` in milliseconds. Not here: how it is trained (``trainers/sft.py``).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reagent_env.trainers.policies.small import chat_tokenizer, fresh_llama

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from reagent_env.trainers.policies.policy import Policy

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
CONTEXT_LENGTH = 2048
VOCABULARY = 2048

SHIPPED = Path(__file__).parent / "tiny_policy"
"""The cold-started policy that comes with the package; ``trainers/configs/tiny.toml`` makes it."""

FRAMES = (
    '<tool_call>{"name": "',
    '", "arguments": {"',
    '"}}</tool_call>',
    "<tool_response>\n",
    "\n</tool_response>",
    "\\boxed{",
    "system\n",
    "user\n",
    "assistant\n",
)
"""Texts around calls, results and messages that are one token each, as larger models have them."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, to the letter: nothing is trimmed, nothing added."""

SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
"""1.1 million parameters, embeddings included."""


def make_tokenizer(
    texts: Iterable[str], vocabulary: int = VOCABULARY, frames: Iterable[str] = ()
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on ``texts``: any text has ids.

    Args:
        texts: What the policy will read and write.
        vocabulary: Size, the 256 bytes and three special tokens included.
        frames: Further texts that are one token each.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    whole = list(dict.fromkeys([*frames, *FRAMES]))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # Words, numbers by two digits, and what is between them, apart: a name is the same
            # tokens wherever it occurs, and can be copied. A label keeps its colon, so that the
            # token before a value says what it is the value of.
            pre_tokenizers.Split(
                Regex(r"[A-Za-z_]+: |[A-Za-z_]+|[0-9]{1,2}|[^A-Za-z_0-9]+"), "isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(whole),
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(frame, normalized=False) for frame in whole])
    return chat_tokenizer(
        tokenizer,
        pad=PAD,
        start=START,
        end=END,
        template=CHAT_TEMPLATE,
        context_length=CONTEXT_LENGTH,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlamaForCausalLM:
    """A fresh model for that tokenizer, its weights drawn by ``seed``."""
    return fresh_llama(tokenizer, SHAPE, CONTEXT_LENGTH, seed)


def load_tiny(*, dtype: str = "auto") -> Policy:
    """The policy that comes with the package, after its cold start and before any reinforcement."""
    from reagent_env.trainers.policies.pretrained import load_pretrained

    return load_pretrained(SHIPPED, name="tiny", dtype=dtype)


def ship(run: Path) -> None:
    """Put the newest checkpoint of an ``sft`` run in the package's place: model and tokenizer alone."""
    from reagent_env.trainers.policies import checkpoint_folder

    SHIPPED.mkdir(exist_ok=True)
    for file in checkpoint_folder(run).iterdir():
        if file.is_file():
            shutil.copy(file, SHIPPED / file.name)


if __name__ == "__main__":
    ship(Path(sys.argv[1]))
