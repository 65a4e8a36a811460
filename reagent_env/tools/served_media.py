"""What ``image2text`` and ``audio2text`` share: a server's URL, a client, and what its failures mean."""

from __future__ import annotations

import os
import urllib.parse
from typing import TYPE_CHECKING

from reagent_env.errors import ToolBackendError, ToolError

if TYPE_CHECKING:
    import openai

MAX_REPLY_CHARS = 6_000
"""What a model reads of one file; the rest is counted."""
_REFUSALS = (413, 415, 422)


def server_and_model(spec: str, variable: str) -> tuple[str, str]:
    """URL and model of ``http://host:8000/v1#model``.

    Raises:
        ValueError: it is not of that form; the message says that ``variable`` may hold it.
    """
    base_url, _, model = spec.partition("#")
    parts = urllib.parse.urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not model:
        raise ValueError(
            f"A server is 'http://host:8000/v1#model' (also in {variable}), got {spec!r}."
        )
    return base_url, model


def media_client(base_url: str, timeout_s: float) -> openai.OpenAI:
    """A client with retries; the key is ``OPENAI_API_KEY``, which local servers ignore."""
    import openai

    return openai.OpenAI(
        base_url=base_url,
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
        timeout=timeout_s,
        max_retries=2,
    )


def server_error(error: Exception, name: str, base_url: str) -> Exception:
    """A refusal of this very file is for the model to read; all else is infrastructure."""
    status = getattr(error, "status_code", None)
    if status in _REFUSALS:
        return ToolError(f"The server refused {name!r} (HTTP {status}).")
    return ToolBackendError(
        f"The server at {base_url} failed on {name!r} ({type(error).__name__}: {str(error)[:200]}); "
        "start it, or correct the URL."
    )


def text_of(said: object, base_url: str) -> str:
    """What the server said, cut to :data:`MAX_REPLY_CHARS`.

    Raises:
        ToolBackendError: it is no text.
    """
    if not isinstance(said, str):
        raise ToolBackendError(f"The server at {base_url} answered no text but {str(said)[:80]!r}.")
    return cut(said.strip())


def cut(text: str) -> str:
    """At most :data:`MAX_REPLY_CHARS`, with a note of what is left out."""
    if len(text) <= MAX_REPLY_CHARS:
        return text
    return f"{text[:MAX_REPLY_CHARS]}\n[{len(text) - MAX_REPLY_CHARS} more characters left out]"
