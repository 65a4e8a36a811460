"""The expert: a script per task set that solves tasks from observations only.

It shows that tasks are solvable with their tools. It reads the question and what tools answer,
never a task's answer: solvers are given strings and nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator, Mapping
from typing import Any

from reagent_env.agents.agent import Agent
from reagent_env.task_sets.solving import Calls, Solver
from reagent_env.tool_formats import ToolFormat, get_tool_format
from reagent_env.trajectory import ToolCall

SOLVERS = {
    "reagent/PythonMath-v0": "reagent_env.task_sets.python_math:solve",
    "reagent/FileQA-v0": "reagent_env.task_sets.file_qa_programs:solve",
    "reagent/SearchQA-v0": "reagent_env.task_sets.search_qa:solve",
    "reagent/ToolMix-v0": "reagent_env.task_sets.tool_mix:solve",
    "reagent/MiniMix-v0": "reagent_env.task_sets.mini_mix:solve",
    "reagent/TextCraft-v0": "reagent_env.families.text_craft_solver:solve",
    "reagent/BabyAI-v0": "reagent_env.families.baby_ai_solver:solve",
    "reagent/SQL-v0": "reagent_env.families.sql:solve",
    "reagent/SciWorld-v0": "reagent_env.families.sci_world_solver:solve",
    "reagent/WebNav-v0": "reagent_env.families.web_nav_solver:solve",
}
"""Environment id → its solver."""
WANDERERS = {
    "reagent/TextCraft-v0": "reagent_env.families.text_craft_solver:wander",
    "reagent/BabyAI-v0": "reagent_env.families.baby_ai_solver:wander",
    "reagent/SciWorld-v0": "reagent_env.families.sci_world_solver:wander",
    "reagent/WebNav-v0": "reagent_env.families.web_nav_solver:wander",
}
"""Environment id → what makes random moves that its simulator understands, where words would not."""


def solver_of(env_id: str) -> Solver:
    """The solver of an environment's task set. Raises ``ValueError`` where there is none."""
    if env_id not in SOLVERS:
        raise ValueError(
            f"There is no expert for {env_id!r}; there is one for {', '.join(SOLVERS)}."
        )
    return _imported(SOLVERS[env_id])


def wanderer_of(env_id: str) -> Solver | None:
    """What makes random moves in an environment's simulator, or None where any words will do."""
    return _imported(WANDERERS[env_id]) if env_id in WANDERERS else None


def _imported(name: str) -> Solver:
    module, _, function = name.partition(":")
    solver: Solver = getattr(importlib.import_module(module), function)
    return solver


class ExpertAgent(Agent):
    """Plays a solver's calls one turn at a time."""

    def __init__(
        self, solver: Solver, tool_format: str | ToolFormat = "hermes", name: str = "expert"
    ) -> None:
        self.name = name
        self.solver = solver
        self.tool_format = get_tool_format(tool_format)
        self._question = ""
        self._running: Generator[Calls, list[str], str] | None = None

    def begin(self, info: Mapping[str, Any]) -> None:
        """Give the solver the question."""
        self._question = info["messages"][-1]["content"]
        self._running = self.solver(self._question)

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        """The solver's next calls, or its answer."""
        assert self._running is not None, "begin() comes before act()"
        starts = info["turn"] == 0 or info.get("attempt_ended", False)
        if starts:
            self._running = self.solver(self._question)
        try:
            if starts:
                calls = next(self._running)
            else:
                calls = self._running.send([one["content"] for one in info["tool_results"]])
        except StopIteration as stop:
            return self.tool_format.render_answer(str(stop.value))
        return self.tool_format.render_calls([ToolCall(name, given) for name, given in calls])
