"""An agent that acts through an engine: the policy as it stands, evaluated like any other agent.

Not here: rollouts that training learns from (``rollout.py``), which read and write the same ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from reagent_env.agents.agent import Agent
from reagent_env.agents.chat import ContextOverflow
from reagent_env.trainers.engines.base import ContextFull, Conversation, Engine, Sampling
from reagent_env.trainers.rendering import Renderer


class PolicyAgent(Agent):
    """One conversation at a time in an engine that many agents share.

    Example::

        renderer = Renderer(policy.tokenizer)
        engine = HFEngine(policy.model, stop_ids=renderer.stop_ids, context_length=2048)
        evaluate(make_env, lambda: PolicyAgent("tiny", engine, renderer, Sampling()), 100, out=folder)

    What it samples follows from ``seed``, task and attempt, whatever else the engine computes.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        renderer: Renderer,
        sampling: Sampling,
        *,
        seed: int = 0,
    ) -> None:
        self.name = name
        self._engine = engine
        self._renderer = renderer
        self._sampling = sampling
        self._seed = seed
        self._conversation: Conversation | None = None
        self._new_ids: list[int] | None = None
        self._closed_turn = False

    def begin(self, info: Mapping[str, Any]) -> None:
        """Start a conversation from the environment's messages."""
        self.close()
        told = f"{self._seed}/{info.get('task_id')}/{info.get('attempt', 0)}"
        digest = hashlib.blake2b(told.encode(), digest_size=8).digest()
        self._conversation = self._engine.open(int.from_bytes(digest, "big") >> 1)
        self._new_ids = self._renderer.opening_ids(info["messages"])

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        """Sample the next completion.

        Raises:
            ContextOverflow: no token fits the model's context any more.
            EngineFailed: the engine cannot sample.
        """
        if self._conversation is None:
            raise ValueError("begin(info) comes before act().")
        if self._new_ids is None:
            new_ids = self._renderer.reply_ids(observation, closed=self._closed_turn)
        else:
            new_ids, self._new_ids = self._new_ids, None
        try:
            generation = self._conversation.generate(new_ids, self._sampling).result()
        except ContextFull as error:
            raise ContextOverflow(str(error)) from error
        self._closed_turn = generation.ids[-1] in self._renderer.stop_ids
        return self._renderer.completion_text(generation.ids)

    def close(self) -> None:
        """Give the conversation's memory back. Twice is fine."""
        if self._conversation is not None:
            self._conversation.close()
            self._conversation = None
