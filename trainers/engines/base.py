"""What samples tokens: conversations go in as token ids, completions come out as token ids.

Not here: turning messages into ids (``rendering.py``), acting in an environment (``rollout.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from reagent_env.errors import InfrastructureError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn, e.g. ``Sampling(temperature=1.0, max_tokens=128)``."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Nucleus mass; below 1 the log-probabilities returned are those of the truncated distribution."""
    max_tokens: int = 256
    """Tokens of one completion, the end-of-turn token included."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One completion, e.g. ``Generation((7, 8, 2), (-0.1, -0.2, -0.0), "stop", 3)``."""

    ids: tuple[int, ...]
    """Tokens as sampled, the end-of-turn token included where ``finish`` is ``stop``."""
    logprobs: tuple[float, ...]
    """Log-probability of each under the distribution it was drawn from."""
    finish: str
    """``stop`` (an end-of-turn token), ``length`` (``max_tokens``) or ``context`` (the model's)."""
    version: int
    """Version of the weights that sampled it."""


class ContextFull(Exception):
    """The conversation leaves no room for a completion: the attempt ends with outcome 0."""


class EngineFailed(InfrastructureError):
    """The engine cannot sample (a server is gone, out of memory); the episode is masked."""


class Conversation(Protocol):
    """One growing token sequence in an engine, its keys and values kept between turns."""

    def generate(self, new_ids: Sequence[int], sampling: Sampling) -> Future[Generation]:
        """Append ``new_ids`` to the sequence, then sample a completion and append that too.

        The future raises :class:`ContextFull` or :class:`EngineFailed`.
        """
        ...

    def close(self) -> None:
        """Give its memory back. Twice is fine."""
        ...


class Engine(Protocol):
    """Samples for many conversations at once; safe to call from many threads."""

    context_length: int
    """Tokens that a conversation can hold."""

    def open(self, seed: int) -> Conversation:
        """A new, empty conversation, whose random numbers depend on ``seed`` alone."""
        ...

    def pause(self) -> None:
        """Return once nothing is being computed; requests that come wait until :meth:`resume`."""
        ...

    def resume(self, version: int) -> None:
        """Go on with the weights as they are now, called ``version``; kept keys and values of older
        weights are not used again."""
        ...

    def close(self) -> None:
        """Stop; requests under way raise :class:`EngineFailed`. Twice is fine."""
        ...
