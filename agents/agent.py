"""What acts in an environment: reads observations, writes completions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class Agent(ABC):
    """Acts in one episode at a time; one instance a running episode.

    Example::

        observation, info = env.reset()
        agent.begin(info)
        observation, reward, terminated, truncated, info = env.step(agent.act(observation, info))
    """

    name: str
    """Shown in tables and written into trajectories."""

    @abstractmethod
    def begin(self, info: Mapping[str, Any]) -> None:
        """Start an episode, or an independent attempt; ``info`` is what ``reset()`` returned."""

    @abstractmethod
    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        """The next completion.

        ``info["turn"]`` is 0 where :meth:`begin` has just been called; ``info["attempt_ended"]`` is
        true where ``observation`` is feedback on an attempt and another one starts.

        Raises:
            InfrastructureError: it cannot act, through no fault of the policy (a dead server).
        """
