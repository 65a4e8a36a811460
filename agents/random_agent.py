"""A random agent: calls random tools with random arguments, then guesses. The floor of every task."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from reagent_env.agents.agent import Agent
from reagent_env.tool_formats import ToolFormat, get_tool_format
from reagent_env.trajectory import ToolCall

_WORDS = ("a", "the", "0", "1", "2", "10", "42", "yes", "no", "data.csv", "capital", "population")


class RandomAgent(Agent):
    """Calls a random tool with probability ``calling``, else answers with a random word or number."""

    name = "random"

    def __init__(self, tool_format: str | ToolFormat = "hermes", calling: float = 0.6) -> None:
        self.tool_format = get_tool_format(tool_format)
        self.calling = calling
        self._tools: list[Mapping[str, Any]] = []
        self._words: list[str] = []
        self._random = random.Random(0)

    def begin(self, info: Mapping[str, Any]) -> None:
        """Seeded by task and attempt, so that a run can be repeated."""
        self._tools = list(info["tools"])
        self._words = [*_WORDS, *info["messages"][-1]["content"].split()]
        self._random = random.Random(f"{info['task_id']}/{info['attempt']}")

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        """A random call or a random answer."""
        if self._tools and self._random.random() < self.calling:
            schema = self._random.choice(self._tools)["function"]
            arguments = {
                name: self._value(part) for name, part in schema["parameters"]["properties"].items()
            }
            return self.tool_format.render_calls([ToolCall(schema["name"], arguments)])
        guess = self._random.choice([self._word(), str(self._random.randint(-10, 1000))])
        return self.tool_format.render_answer(guess)

    def _word(self) -> str:
        return self._random.choice(self._words)

    def _value(self, schema: Mapping[str, Any]) -> Any:
        match schema.get("type"):
            case "integer":
                return self._random.randint(0, 10)
            case "number":
                return self._random.uniform(0, 10)
            case "boolean":
                return self._random.random() < 0.5
            case "array":
                return [self._value(schema.get("items", {}))]
            case _:
                return self._word()
