"""One question to an OpenAI-compatible server, and a name for each way of getting no answer.

Not here: how many questions at once, deadlines, caching (``served.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import openai

from reagent_env.reward_models.base import Unscored

_OVERFLOW_WORDS = (
    "context length",
    "context_length",
    "context size",
    "context_size",
    "context window",
    "maximum model length",
    "max_model_len",
    "too many tokens",
    "prompt is too long",
)
"""How servers word a 400 for a prompt that does not fit."""
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True)
class ChatText:
    """What a server answered, e.g. ``ChatText("<think>…", None, "stop", 900, 210)``."""

    content: str
    """The message."""
    reasoning: str | None
    """What the server split off as reasoning, or None."""
    finish_reason: str | None
    """``stop``; ``length`` when it was cut off."""
    prompt_tokens: int
    """As the server counts them; 0 where it does not."""
    completion_tokens: int
    """As the server counts them; 0 where it does not."""


class NoAnswer(Exception):
    """Why there is no answer.

    Attributes:
        kind: ``TRANSPORT``, ``REFUSED`` or ``CONTEXT_OVERFLOW``.
        detail: In words, short.
        server_at_fault: Whether further questions are likely to fail too.
    """

    def __init__(self, kind: Unscored, detail: str, *, server_at_fault: bool) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
        self.server_at_fault = server_at_fault


async def ask(client: openai.AsyncOpenAI, body: Mapping[str, Any]) -> ChatText:
    """Post one chat completion; the client retries by itself.

    Raises:
        NoAnswer: there is none; whatever a server does comes out as this.
    """
    try:
        # The typed method spends half a millisecond a call on checking what is built right here.
        answer: object = await client.post(
            "/chat/completions", cast_to=object, body={**body, "stream": False}
        )
        return _read(answer)
    except openai.APITimeoutError as error:
        raise _at_fault("no answer in time, after retries") from error
    except openai.APIStatusError as error:
        raise _refusal(error) from error
    except openai.APIConnectionError as error:
        cause = error.__cause__
        raise _at_fault(f"no connection ({type(cause or error).__name__}: {cause})") from error
    except Exception as error:  # a server can answer anything at all
        raise _at_fault(f"not a chat completion ({type(error).__name__}: {error})") from error


def _read(answer: object) -> ChatText:
    if not isinstance(answer, dict):
        raise ValueError(f"the body is {type(answer).__name__}, not an object")
    choices = answer.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        raise ValueError("it does not hold one choice")
    message = choices[0]["message"]
    content = message.get("content")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    for text in (content, reasoning):
        if text is not None and not isinstance(text, str):
            raise ValueError("its text is not a string")
    usage = answer.get("usage") or {}
    finish_reason = choices[0].get("finish_reason")
    return ChatText(
        content=content or "",
        reasoning=reasoning,
        finish_reason=None if finish_reason is None else str(finish_reason),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _refusal(error: openai.APIStatusError) -> NoAnswer:
    status = error.status_code
    detail = f"HTTP {status}: {_message(error)}"[:_SHOWN_CHARS]
    if status in (408, 409, 429) or status >= 500:
        return _at_fault(detail)
    if status == 413 or (
        status in (400, 422) and any(word in str(error).lower() for word in _OVERFLOW_WORDS)
    ):
        return NoAnswer(Unscored.CONTEXT_OVERFLOW, detail, server_at_fault=False)
    return NoAnswer(Unscored.REFUSED, detail, server_at_fault=status not in (400, 422))


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return json.dumps(body, default=str)


def _at_fault(detail: str) -> NoAnswer:
    return NoAnswer(Unscored.TRANSPORT, detail[:_SHOWN_CHARS], server_at_fault=True)
