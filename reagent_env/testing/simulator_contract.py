"""The contract of environments whose outcome is a simulator's state, as a pytest class to inherit.

Example::

    class TestMine(SimulatorContract):
        env_id = "mine/Maze-v0"
        solver = "mine.maze:solve"
        idle = ToolCall("act", {"command": "xyzzy"})
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import pytest
from gymnasium.error import ResetNeeded

from reagent_env.env import ToolUseEnv
from reagent_env.task import SPLITS
from reagent_env.task_sets.solving import Solver
from reagent_env.testing.env_contract import EnvContract
from reagent_env.trajectory import ToolCall

_TASKS_LOOKED_AT = 100
"""Of each split, from its start."""


class SimulatorContract(EnvContract):
    """:class:`EnvContract`, where an expert's moves earn what an answer earns elsewhere."""

    env_id: str
    """As ``gymnasium.make`` takes it."""
    solver: str
    """``module:function`` of an expert (:mod:`reagent_env.task_sets.solving`)."""
    idle: ToolCall
    """A call that is understood as a call and gets nowhere."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the episodes that the expert plays; it has to succeed in them."""

    def make_env(self, **kwargs: Any) -> gymnasium.Env[str, str]:
        return gymnasium.make(self.env_id, disable_env_checker=True, **kwargs)

    def test_the_right_answer_earns_one_and_says_so_once(self, env: Any) -> None:
        """Nothing is right to say here: the right moves earn, once, within (0, 1]."""
        for seed in self.seeds:
            steps = list(play(env, solver_named(self.solver), seed))
            rewards = [reward for _, reward, _, _, _ in steps]
            _, _, terminated, truncated, info = steps[-1]
            assert (terminated, truncated) == (True, False), info
            assert 0 < rewards[-1] <= 1
            assert not any(rewards[:-1])
            assert info["reward/outcome"] == rewards[-1]
            with pytest.raises(ResetNeeded):
                env.step("once more")

    def test_saying_that_it_is_done_earns_nothing(self, env: Any) -> None:
        unwrapped: ToolUseEnv = env.unwrapped
        env.reset(seed=self.seeds[0])
        task = unwrapped.trajectory.task
        for text in ("yes", "1.0", task.question, json.dumps(dict(task.metadata)), task.id):
            env.reset(options={"task": task})
            _, reward, terminated, _, _ = env.step(unwrapped.tool_format.render_answer(text))
            assert (reward, terminated) == (0.0, True)

    def test_calls_that_get_nowhere_earn_nothing(self, env: Any) -> None:
        env.reset(seed=self.seeds[0])
        completion = env.unwrapped.tool_format.render_calls([self.idle])
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(completion)
            total += float(reward)
            over = terminated or truncated
        assert total == 0.0

    def test_an_episode_played_again_is_the_same_episode(self, env: Any) -> None:
        solver = solver_named(self.solver)
        seed = self.seeds[0]
        assert list(play(env, solver, seed)) == list(play(env, solver, seed))

    def test_two_environments_share_no_world(self, env: Any) -> None:
        other = self.make_env()
        solver = solver_named(self.solver)
        alone = list(play(env, solver, self.seeds[0]))
        idle = other.unwrapped.tool_format.render_calls([self.idle])  # type: ignore[attr-defined]
        together = []
        other.reset(seed=self.seeds[0])
        for step in play(env, solver, self.seeds[0]):
            if other.step(idle)[2:4] != (False, False):
                other.reset(seed=self.seeds[0])
            together.append(step)
        other.close()
        assert together == alone

    def test_every_process_and_hash_seed_gives_the_same_episodes(self) -> None:
        program = (
            "import sys, reagent_env.testing.simulator_contract as contract;"
            "print(contract.digest(sys.argv[1], sys.argv[2], map(int, sys.argv[3:])))"
        )
        arguments = [self.env_id, self.solver, *map(str, self.seeds)]
        printed = printed_under_hash_seeds(program, *arguments)
        assert printed[0] == printed[1]
        assert len(printed[0].strip()) == 64

    def test_no_task_stands_in_two_splits_and_each_says_its_kind_and_level(self) -> None:
        questions: dict[str, set[str]] = {}
        for split in SPLITS:
            env = self.make_env(split=split)
            tasks = list(itertools.islice(env.unwrapped.tasks, _TASKS_LOOKED_AT))  # type: ignore[attr-defined]
            env.close()
            assert tasks
            assert {task.split for task in tasks} == {split}
            assert all("kind" in task.metadata and "level" in task.metadata for task in tasks)
            questions[split] = {task.id for task in tasks}
        for one, other in itertools.combinations(SPLITS, 2):
            assert not questions[one] & questions[other]


def solver_named(name: str) -> Solver:
    """The solver that ``module:function`` names."""
    module, _, function = name.partition(":")
    solver: Solver = getattr(importlib.import_module(module), function)
    return solver


def play(
    env: Any, solver: Solver, seed: int | None = None, **options: Any
) -> Iterator[tuple[str, float, bool, bool, dict[str, Any]]]:
    """Let a solver play an episode; what each step returned, to the end.

    Args:
        env: A tool-use environment.
        solver: Plays.
        seed: Of the reset.
        **options: Of the reset.
    """
    _, info = env.reset(seed=seed, options=options or None)
    render: Callable[..., str] = env.unwrapped.tool_format.render_calls
    moves = solver(info["messages"][-1]["content"])
    over = False
    results: list[str] | None = None
    while not over:
        try:
            calls = next(moves) if results is None else moves.send(results)
            completion = render([ToolCall(name, given) for name, given in calls])
        except StopIteration as stop:
            completion = env.unwrapped.tool_format.render_answer(str(stop.value))
        step = env.step(completion)
        results = [one["content"] for one in step[4]["tool_results"]]
        over = step[2] or step[3]
        yield step


def printed_under_hash_seeds(program: str, *arguments: str) -> list[str]:
    """What a Python program prints in two processes that hash texts differently; it has to succeed."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        for hash_seed in ("1", "2")
    ]
    printed = [process.communicate(timeout=150)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    return printed


def digest(env_id: str, solver: str, seeds: Any) -> str:
    """SHA-256 over everything that a solver sees in the episodes of ``seeds``."""
    env = gymnasium.make(env_id, disable_env_checker=True)
    seen = hashlib.sha256()
    for seed in seeds:
        seen.update(env.reset(seed=seed)[0].encode("utf-8", "surrogatepass"))
        for step in play(env, solver_named(solver), seed):
            seen.update(json.dumps(step).encode())
    env.close()
    return seen.hexdigest()
