"""What is said to vLLM's completion endpoint and how its answer is read: plain functions, no network.

Not here: connections, retries, pauses (``vllm.py``); starting a server (``vllm_server.py``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from reagent_env.trainers.engines.base import EngineFailed, Generation, Sampling


def completion_request(
    model: str,
    prompt_ids: Sequence[int],
    sampling: Sampling,
    *,
    stop_ids: Sequence[int],
    seed: int,
    room: int,
) -> dict[str, Any]:
    """The JSON body of ``POST /v1/completions``: ids in, ids and log-probabilities out.

    Example: ``completion_request("m", [5, 6], Sampling(max_tokens=64), stop_ids=(2,), seed=7, room=9)``
    asks for at most 9 tokens, all that the context still holds.

    Only ``stop_ids`` end a completion (``ignore_eos``): what an end of turn is, the chat template
    says, and both engines must agree on it.
    """
    return {
        "model": model,
        "prompt": list(prompt_ids),
        "add_special_tokens": False,
        "return_token_ids": True,
        "logprobs": 0,  # of the sampled token alone
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": min(sampling.max_tokens, room),
        "stop_token_ids": list(stop_ids),
        "ignore_eos": True,
        "skip_special_tokens": False,
        "seed": seed,
    }


def read_completion(
    reply: Any, sampling: Sampling, *, stop_ids: Sequence[int], room: int, version: int
) -> Generation:
    """The completion in a reply of status 200.

    Raises:
        EngineFailed: it is none, it was aborted on the server, or its ids and log-probabilities do
            not match.
    """
    try:
        [choice] = reply["choices"]
        said = choice["finish_reason"]
        ids = tuple(int(index) for index in choice["token_ids"])
        logprobs = tuple(float(value) for value in choice["logprobs"]["token_logprobs"])
    except (KeyError, TypeError, ValueError) as error:
        raise EngineFailed(
            f"The server's reply has no token ids with log-probabilities ({error!r}): "
            f"{str(reply)[:300]}. It must be vLLM 0.11 or later."
        ) from error
    if said not in ("stop", "length"):
        raise EngineFailed(f"The server ended a completion by {said!r}; was it paused by another?")
    if not ids or len(ids) != len(logprobs):
        raise EngineFailed(f"The server sent {len(ids)} ids and {len(logprobs)} log-probabilities.")
    if said == "stop" and ids[-1] not in stop_ids:
        raise EngineFailed(
            f"The server stopped at token {ids[-1]}, none of stop_ids {tuple(stop_ids)}."
        )
    cut = "context" if room < sampling.max_tokens else "length"
    return Generation(ids, logprobs, "stop" if said == "stop" else cut, version)


def turn_seed(seed: int, turn: int) -> int:
    """A request's seed, from those of its conversation and turn alone: 63 bits."""
    digest = hashlib.blake2b(f"{seed}/{turn}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def says_too_long(message: str) -> bool:
    """Whether a refusal (status 400) means that the conversation outgrew the model's context."""
    said = message.lower()
    return any(words in said for words in ("context length", "context_length", "max_model_len"))


def processes_logprobs(sharp: Any, plain: Any) -> bool:
    """Whether log-probabilities are those after temperature, from two replies to one prompt.

    Args:
        sharp: The reply at temperature 0.5, with ``logprobs: 1``.
        plain: The reply at temperature 1.
    """
    try:
        return abs(_best(sharp) - _best(plain)) > 1e-4
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise EngineFailed(f"The server's reply has no log-probabilities: {error!r}") from error


def _best(reply: Mapping[str, Any]) -> float:
    return max(
        float(value) for value in reply["choices"][0]["logprobs"]["top_logprobs"][0].values()
    )
