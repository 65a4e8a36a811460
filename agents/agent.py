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
        """Start an episode; ``info`` is what ``reset()`` returned."""

    @abstractmethod
    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        """The next completion. Raises an infrastructure error when it cannot act (a dead server)."""
