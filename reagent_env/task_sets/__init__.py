"""Task sets by name or path: ``load_task_set("python_math", split="train")`` is a sequence of tasks.

Not here: the tasks themselves; each set is one module, imported when first asked for. A package of
yours adds a set with the entry-point group ``reagent_env.task_sets`` or :func:`register_task_set`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from reagent_env.task import Task
from reagent_env.task_sets.phrasing import check_split
from reagent_env.task_sets.published_table import PUBLISHED

TaskSetMaker = Callable[..., Sequence[Task]]
"""``make(split=…, **options) -> Sequence[Task]``; ``split=None`` means all splits."""

ENTRY_POINT_GROUP = "reagent_env.task_sets"

_BUILT_IN = {
    "mini_mix": "reagent_env.task_sets.mini_mix:mini_mix",
    "python_math": "reagent_env.task_sets.python_math:python_math",
    "file_qa": "reagent_env.task_sets.file_qa:file_qa",
    "search_qa": "reagent_env.task_sets.search_qa:search_qa",
    "tool_mix": "reagent_env.task_sets.tool_mix:tool_mix",
}
_BUILT_IN |= {name: f"{__name__}.published:{name}" for name in PUBLISHED}
_REGISTERED: dict[str, TaskSetMaker] = {}


def register_task_set(name: str) -> Callable[[TaskSetMaker], TaskSetMaker]:
    """Add a task set under a name; a name taken already is refused."""

    def add(maker: TaskSetMaker) -> TaskSetMaker:
        if name in _BUILT_IN or _REGISTERED.get(name, maker) is not maker:
            raise ValueError(f"A task set named {name!r} exists already; choose another name.")
        _REGISTERED[name] = maker
        return maker

    return add


def task_set_names() -> list[str]:
    """The names that :func:`load_task_set` knows, those of entry points included."""
    found = {entry.name for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
    return sorted(found | set(_BUILT_IN) | set(_REGISTERED))


def load_task_set(
    name_or_path: str | os.PathLike[str], split: str | None = None, **options: Any
) -> Sequence[Task]:
    """The tasks of a named set or of a JSONL file, in one split or (``split=None``) in all.

    Example: ``load_task_set("python_math", split="test", levels=(1, 2))`` or
    ``load_task_set("gsm8k.jsonl")``.

    Args:
        name_or_path: a name of :func:`task_set_names`, or a path of a ``.jsonl`` file
            (:mod:`reagent_env.task_sets.jsonl` says which shapes of line it reads).
        split: ``train``, ``validation``, ``test``, or None for all.
        **options: what the set takes, such as ``levels`` or ``kinds``.

    Raises:
        ValueError: for an unknown name or split, or a line that cannot be read.
        FileNotFoundError: when the path names no file.
    """
    check_split(split)
    if is_path(name_or_path):
        from reagent_env.task_sets.jsonl import read_jsonl

        return read_jsonl(Path(name_or_path), split=split, **options)
    return _maker(os.fspath(name_or_path))(split=split, **options)


def is_path(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether :func:`load_task_set` takes it for a file rather than for a set's name."""
    if isinstance(name_or_path, os.PathLike):
        return True
    return name_or_path.endswith((".jsonl", ".json")) or os.sep in name_or_path


def _maker(name: str) -> TaskSetMaker:
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name in _BUILT_IN:
        module, _, function = _BUILT_IN[name].partition(":")
        if name in PUBLISHED:
            return cast(TaskSetMaker, importlib.import_module(module).maker(name))
        return cast(TaskSetMaker, getattr(importlib.import_module(module), function))
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            return cast(TaskSetMaker, entry.load())
    near = difflib.get_close_matches(name, task_set_names(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"Unknown task set {name!r}.{hint} Known: {', '.join(task_set_names())}; "
        "or give the path of a .jsonl file."
    )
