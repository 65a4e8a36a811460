"""Judgements by constrained decoding, where a server has it: the regular expression, and a probe.

Servers ignore fields they do not know, so asking whether one constrains its output means asking it
for something no model would write, and looking.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import openai

from reagent_env.reward_models.chat_call import NoAnswer, ask

_NUMBER = r"(0(\.[0-9]{1,4})?|1(\.0{1,4})?)"
_PROBE = r"<probe>[0-9]{6}</probe>"


def judgement_regex(turns: int) -> str:
    """Matches judgements of ``turns`` turns, without ``<`` in their texts."""
    entry = rf"({_NUMBER}|null)"
    listed = entry + (rf"(, {entry}){{{turns - 1}}}" if turns > 1 else "")
    return (
        r"<think>[^<]*</think>\n<critique>[^<]*</critique>\n"
        rf"<turns>\[{listed}\]</turns>\n<score>{_NUMBER}</score>"
    )


def vllm_constraint(regex: str) -> dict[str, Any]:
    """The field of vLLM from 0.11 on."""
    return {"structured_outputs": {"regex": regex}}


def older_vllm_constraint(regex: str) -> dict[str, Any]:
    """The field of vLLM before 0.12."""
    return {"guided_regex": regex}


CONSTRAINTS = {"structured_outputs": vllm_constraint, "guided_regex": older_vllm_constraint}
"""Ways to ask for a regular expression, newest first."""


async def probe(client: openai.AsyncOpenAI, body: Mapping[str, Any]) -> str | None:
    """Which of :data:`CONSTRAINTS` this server follows, or None.

    Raises:
        NoAnswer: the server could not be asked at all.
    """
    question = [{"role": "user", "content": "Name a colour."}]
    for name, constraint in CONSTRAINTS.items():
        asked = {**body, "messages": question, "max_tokens": 40, **constraint(_PROBE)}
        try:
            reply = await ask(client, asked)
        except NoAnswer as failure:
            if failure.server_at_fault:
                raise
            continue  # a 400: the field is known to be unknown
        if re.fullmatch(_PROBE, reply.content.strip()):
            return name
    return None
