"""A chat template with tool calls, for models whose own knows of none (``tiny``, plain ChatML).

TRL's tool loop needs a template that shows calls and answers, and a description of how a completion is
parsed; it has both for well-known models only. Not needed for ``make_rollout_func``.
"""

from __future__ import annotations

import copy
from typing import Any

TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'tool' -%}"
    "{%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}"
    "{{- '<|im_start|>user' -}}"
    "{%- endif -%}"
    "{{- '\n<tool_response>\n' + message.content + '\n</tool_response>' -}}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}"
    "{{- '<|im_end|>\n' -}}"
    "{%- endif -%}"
    "{%- else -%}"
    "{{- '<|im_start|>' + message.role + '\n' + (message.content or '') -}}"
    "{%- for call in message.tool_calls or [] -%}"
    "{%- if message.content or not loop.first -%}{{- '\n' -}}{%- endif -%}"
    '{{- \'<tool_call>{"name": "\' + call.function.name + \'", "arguments": \' -}}'
    "{{- call.function.arguments | tojson -}}"
    "{{- '}</tool_call>' -}}"
    "{%- endfor -%}"
    "{{- '<|im_end|>\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
"""ChatML with Hermes calls, as ``tool_format="compact"`` writes them; the system message, which lists the
tools, is the environment's: ``tools=`` is not shown again."""

RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}
"""How transformers (5.13 and later) reads a completion back."""


def with_tool_calls(tokenizer: Any) -> Any:
    """A copy of a ChatML tokenizer that renders and parses tool calls.

    Example::

        GRPOTrainer(policy.model, processing_class=with_tool_calls(policy.tokenizer), …)

    Raises:
        ValueError: the tokenizer has no ``<|im_start|>`` and ``<|im_end|>``.
    """
    known = tokenizer.get_vocab()
    if not {"<|im_start|>", "<|im_end|>"} <= set(known):
        raise ValueError(
            "with_tool_calls is for ChatML tokenizers, which have <|im_start|> and <|im_end|>; this one "
            "has not. Use a model whose chat template knows tools, or make_rollout_func."
        )
    twin = copy.deepcopy(tokenizer)
    twin.chat_template = TEMPLATE
    twin.response_template = RESPONSE
    return twin
