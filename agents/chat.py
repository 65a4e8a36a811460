"""An agent that asks an OpenAI-compatible chat server: vLLM, llama.cpp, a hosted model.

It sends the conversation as text, tool calls included, so that any model and any tool format
works; the server's own tool parsing is not used.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import openai

from reagent_env.agents.agent import Agent
from reagent_env.errors import ToolBackendError

CHECK_SECONDS = 10.0
"""How long :func:`check_model` waits for the list of models."""


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn, e.g. ``Sampling(temperature=0.0)``."""

    temperature: float = 0.7
    """0 is greedy."""
    top_p: float = 0.95
    """Nucleus mass."""
    max_tokens: int = 1024
    """Tokens a turn."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request, of which servers have their own, e.g. ``{"top_k": 40}``."""


class ContextOverflow(Exception):
    """The conversation no longer fits the model's context: the episode ends with outcome 0."""


class PolicyUnavailable(ToolBackendError):
    """The model's server could not be asked, after retries."""


class ChatAgent(Agent):
    """One conversation with ``model`` at ``base_url``; instances may share a client.

    Example::

        agent = ChatAgent("http://127.0.0.1:8000/v1", "my-model")
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        sampling: Sampling = Sampling(),
        client: openai.OpenAI | None = None,
        timeout_s: float = 120.0,
    ) -> None:
        self.name = f"{base_url}#{model}"
        self.model = model
        self.sampling = sampling
        self.client = client or chat_client(base_url, timeout_s)
        self._messages: list[dict[str, str]] = []

    def begin(self, info: Mapping[str, Any]) -> None:
        """Start from the environment's messages."""
        self._messages = [dict(message) for message in info["messages"]]

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        """Ask for the next completion.

        Raises:
            PolicyUnavailable: the server failed, after retries.
            ContextOverflow: the server says the conversation is too long.
        """
        if self._messages[-1]["role"] == "assistant":
            self._messages.append({"role": "user", "content": observation})
        try:
            reply = self.client.chat.completions.create(
                model=self.model,
                messages=[_sendable(message) for message in self._messages],
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
                max_tokens=self.sampling.max_tokens,
                extra_body=dict(self.sampling.extra) or None,
            )
        except openai.BadRequestError as error:
            if _too_long(error):
                raise ContextOverflow(str(error)) from error
            raise PolicyUnavailable(f"{self.name} refused the request: {error}") from error
        except openai.OpenAIError as error:
            raise PolicyUnavailable(f"{self.name} did not answer: {error}") from error
        except ValueError as error:  # status 200 and a body that is no JSON
            raise PolicyUnavailable(f"{self.name} answered nonsense: {error}") from error
        completion = _content(reply)
        if completion is None:
            raise PolicyUnavailable(
                f"{self.name} answered with status 200, but not with a chat completion: "
                f"{str(reply)[:200]!r}. Does the URL end in /v1?"
            )
        self._messages.append({"role": "assistant", "content": completion})
        return completion


def chat_client(base_url: str, timeout_s: float = 120.0) -> openai.OpenAI:
    """A client with retries; the key is ``OPENAI_API_KEY``, which local servers ignore."""
    return openai.OpenAI(
        base_url=base_url,
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
        timeout=timeout_s,
        max_retries=4,
    )


def check_model(client: openai.OpenAI, model: str, timeout_s: float = CHECK_SECONDS) -> None:
    """Ask a server once which models it has, before anything depends on it.

    A server that lists no models, or is busy, passes: only asking for a completion tells.

    Raises:
        PolicyUnavailable: nobody answers, the key is refused, or ``model`` is not among the models;
            the message names the URL, the models there are, and what to do.
    """
    url = str(client.base_url).rstrip("/")
    try:
        page = client.with_options(timeout=timeout_s, max_retries=0).models.list()
        models = [str(one.id) for one in page.data]
    except openai.APITimeoutError:
        raise PolicyUnavailable(
            f"{url}/models did not answer within {timeout_s:g} s; is the server still loading, "
            "or is this another service's port?"
        ) from None
    except openai.APIConnectionError as error:
        reason = error.__cause__ or error
        raise PolicyUnavailable(
            f"No model server at {url} ({reason}); start one (`reagent serve MODEL` does), or "
            "correct the URL."
        ) from error
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise PolicyUnavailable(
            f"{url} refused the key; set OPENAI_API_KEY to a valid one ({error})."
        ) from error
    except (openai.OpenAIError, AttributeError, TypeError, ValueError):
        return
    if not models or model in models:
        return
    near = difflib.get_close_matches(model, models, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(repr(one) for one in models[:20])
    more = f" and {len(models) - 20} more" if len(models) > 20 else ""
    raise PolicyUnavailable(f"{url} has no model {model!r}.{hint} It has {shown}{more}.")


def _too_long(error: openai.BadRequestError) -> bool:
    """Whether the conversation outgrew the model: vLLM and llama.cpp say so in words, OpenAI by code."""
    said = f"{error} {error.code} {error.body}".lower()
    return any(words in said for words in ("context length", "context_length", "context size"))


def _content(reply: Any) -> str | None:
    """The completion's text; None if this is no chat completion. The client checks no reply's shape."""
    try:
        content = reply.choices[0].message.content
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
    if content is None:
        return ""
    return content if isinstance(content, str) else None


def _sendable(message: Mapping[str, str]) -> Any:
    """HTTP bodies are UTF-8, which lone surrogates are not: they travel as replacement characters."""
    content = message["content"].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return {"role": message["role"], "content": content}
