"""Turns SmolLM2's GGUF file into a plain transformers folder: weights dequantised, once.

A program of its own, ``python smollm2_convert.py GGUF FOLDER``, so that it can run in another
interpreter (vLLM's); it imports torch, transformers and gguf, and nothing of this package.
``smollm2.py`` fetches the file and calls this. Not a converter of GGUF files in general: what is
mended below is what this one file lacks.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

_PROBE = "What is  1234 + 30?"


def convert(gguf: Path, folder: Path) -> None:
    """Write weights (float32), configuration and tokenizer of ``gguf`` into ``folder``, and check them.

    Raises:
        ValueError: the folder, read again, does not give the same tokens and logits.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    tokenizer = plain_tokenizer(gguf)
    tokenizer.save_pretrained(folder)

    source: Any = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    ).eval()
    # transformers marks a model read from GGUF as quantised, for good: it can be neither saved nor
    # trained. A new model with the same values carries no mark.
    settings = source.config.to_dict()
    settings.pop("quantization_config", None)
    settings.pop("_model_name_or_path", None)
    config = type(source.config).from_dict(settings)
    config.dtype = torch.float32
    model: Any = type(source)(config).eval()
    model.load_state_dict(source.state_dict())
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)

    ids = torch.tensor([tokenizer(_PROBE).input_ids])
    again: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        before, after = source(ids).logits, again.eval()(ids).logits
    if not torch.equal(before, after):
        difference = (before - after).abs().max().item()
        raise ValueError(f"the saved model's logits differ by up to {difference} from the file's")
    tokenizer_again = transformers.AutoTokenizer.from_pretrained(folder)
    if tokenizer_again(_PROBE).input_ids != tokenizer(_PROBE).input_ids:
        raise ValueError("the saved tokenizer gives other tokens")
    if tokenizer_again.chat_template != tokenizer.chat_template:
        raise ValueError("the saved tokenizer has another chat template")
    if tokenizer_again.padding_side != "left":
        raise ValueError("the saved tokenizer does not pad on the left")


def plain_tokenizer(gguf: Path) -> Any:
    """The tokenizer, with what transformers does not take from the file: digits apart, left padding."""
    import tokenizers
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The file says "pre: smollm": each digit a piece of its own, before GPT-2's rule. Without it,
    # "  12" gives two tokens for two spaces where the model was trained on one.
    tokenizer.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        chat_template=tokenizer.chat_template,
        padding_side="left",
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        unk_token=tokenizer.unk_token,
        pad_token=tokenizer.pad_token,
    )


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
