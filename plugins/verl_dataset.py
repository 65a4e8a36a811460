"""Data sets for verl, and the reward function for loops other than ours. Needs no verl.

::

    python -m reagent_env.plugins.verl_dataset reagent/SearchQA-v0 train.parquet --count 2048
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reagent_env.answers import final_answer
from reagent_env.env import ToolUseEnv
from reagent_env.graders import grade
from reagent_env.plugins.building import build_env
from reagent_env.task import Task

AGENT = "reagent"


def rows(env_id: str, count: int, *, seed: int = 0, **env_kwargs: Any) -> list[dict[str, Any]]:
    """``count`` different tasks as verl's rows: ``prompt``, ``agent_name``, ``reward_model`` and so on.

    Args:
        env_id: A registered id; ``module:id`` too.
        count: Rows; no more than the environment has tasks.
        seed: Of the choice of tasks.
        **env_kwargs: Given to ``gym.make``; give the agent loop the same, or its tasks are others.

    Raises:
        ValueError: there are not as many tasks.
    """
    env = build_env(env_id, **env_kwargs)
    inner = env.unwrapped
    assert isinstance(inner, ToolUseEnv)
    there = len(inner.tasks)
    if not 1 <= count <= there:
        raise ValueError(f"count must be from 1 to {there}, the tasks there are; got {count!r}.")
    found = []
    for place, index in enumerate(np.random.default_rng(seed).permutation(there)[:count]):
        task = inner.tasks[int(index)]
        found.append(
            {
                "data_source": env_id,
                "prompt": inner.opening(task)["messages"],
                "agent_name": AGENT,
                "ability": "tools",
                "reward_model": {"style": "rule", "ground_truth": str(task.answer)},
                "extra_info": {
                    "index": place,
                    "env_id": env_id,
                    "task": int(index),
                    "grader": task.grader,
                    "question": task.question,
                    "answer": json.dumps(task.answer, default=str),
                    "grader_options": json.dumps(task.metadata.get("grader_options") or {}),
                },
            }
        )
    env.close()
    return found


def write(path: str | Path, env_id: str, count: int, *, seed: int = 0, **env_kwargs: Any) -> None:
    """:func:`rows` as a parquet file, for ``data.train_files``."""
    import pandas

    pandas.DataFrame(rows(env_id, count, seed=seed, **env_kwargs)).to_parquet(path)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, float]:
    """The task's own grade of a response, for verl's own loops (``single_turn_agent``, ``tool_agent``).

    ``reward.custom_reward_function.path``: this file; ``name``: ``compute_score``. Our own agent loop
    brings its reward along, and needs none.

    Raises:
        GraderError: the outcome cannot be computed; never a reward of 0.
    """
    told = dict(extra_info or {})
    task = Task(
        question=str(told.get("question", "")),
        answer=json.loads(told["answer"]) if "answer" in told else ground_truth,
        grader=str(told.get("grader") or "exact"),
        metadata={"grader_options": json.loads(told.get("grader_options") or "{}")},
    )
    outcome = grade(task, final_answer(solution_str))
    return {"score": outcome, "acc": outcome}


def main() -> None:
    """Write a data set from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("env_id")
    parser.add_argument("path", type=Path)
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="train")
    given = parser.parse_args()
    write(given.path, given.env_id, given.count, seed=given.seed, split=given.split)


if __name__ == "__main__":
    main()
