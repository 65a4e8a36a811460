"""Reads the ``tasks`` and ``tools`` arguments of :class:`~reagent_env.env.ToolUseEnv`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from reagent_env.task import SPLITS, Task
from reagent_env.task_sets import is_path, load_task_set
from reagent_env.tool_definition import Tool, tool
from reagent_env.tools import get_tool

if TYPE_CHECKING:
    from reagent_env.corpus_places import CorpusPlace

Tasks = str | os.PathLike[str] | Sequence[Task] | Iterable[Task]
Tools = Sequence[str | Tool | Callable[..., Any]]


def choose_tasks(tasks: Tasks, split: str | None) -> Sequence[Task]:
    """The tasks that ``tasks`` and ``split`` name.

    Raises:
        ValueError: an unknown set or split, something that is no task, or no task at all.
    """
    if split not in (None, "all", *SPLITS):
        raise ValueError(f"Unknown split {split!r}; known: {', '.join(SPLITS)}, all.")
    wanted = None if split == "all" else split
    if isinstance(tasks, str | os.PathLike):
        if split is None and not is_path(tasks):
            wanted = "train"
        chosen: Sequence[Task] = load_task_set(tasks, split=wanted)
    elif isinstance(tasks, Task) or not isinstance(tasks, Iterable):
        raise ValueError(
            f"tasks must be a set's name, a path, or a list of Task objects, got {tasks!r}."
        )
    elif wanted is None and isinstance(tasks, Sequence) and not isinstance(tasks, list | tuple):
        chosen = cast(Sequence[Task], tasks)  # perhaps generated on demand: do not run through it
    else:
        listed = list(tasks)
        for task in listed:
            if not isinstance(task, Task):
                raise ValueError(
                    f"tasks must hold Task objects, got {type(task).__name__}; "
                    "make them with Task(question=..., answer=..., grader=...)."
                )
        chosen = listed if wanted is None else [task for task in listed if task.split == wanted]
    if len(chosen) == 0:
        raise ValueError(
            f"There is no task in split {split!r}; splits are by content hash (80/10/10), "
            "so a small set may leave one empty: pass split='all' to use all tasks."
        )
    return chosen


def tools_by_name(
    tools: Tools, tasks: Sequence[Task], corpus: CorpusPlace | None = None
) -> dict[str, Tool]:
    """The tools that ``tools`` names or holds, over ``corpus`` or what ``tasks`` bring.

    Raises:
        ValueError: an unknown or doubled name, or one string in place of a list.
        TypeError: a function that cannot be a tool.
    """
    if isinstance(tools, str | Tool):
        raise ValueError(f"tools must be a list, got {tools!r}; write tools=[{tools!r}].")
    by_name: dict[str, Tool] = {}
    for given in tools:
        if isinstance(given, str):
            one = get_tool(given, tasks, corpus)
        else:
            one = given if isinstance(given, Tool) else tool(given)
        if one.name in by_name:
            raise ValueError(f"Two tools are named {one.name!r}; rename one: @tool(name=...).")
        by_name[one.name] = one
    return by_name
