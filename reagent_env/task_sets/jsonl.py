"""Reads tasks from JSONL files: our own, GSM8K-shaped, MATH-shaped, or plain question and answer.

The shape of a line is told by its keys:

- ``{"question", "answer": "… #### 42"}`` (GSM8K): grader ``number``.
- ``{"problem", "solution": "… \\boxed{42}", "level", "type"}`` (MATH): grader ``math``.
- ``{"question", "answer", …}`` with any of a task's other fields (what ``Task.to_json`` writes).

Not here: downloading data sets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reagent_env.answers import boxed_values
from reagent_env.quantities import parse_quantity
from reagent_env.task import Task
from reagent_env.task_sets.phrasing import check_split


def read_jsonl(path: Path, split: str | None = None, grader: str | None = None) -> list[Task]:
    """All tasks of a file, or those whose content hash falls into ``split``.

    Args:
        path: a file of one JSON object a line; empty lines are skipped.
        split: ``train``, ``validation``, ``test``, or None for all.
        grader: a grader to use instead of the shape's own.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: naming file, line and what is wrong with it.
    """
    check_split(split)
    if not path.is_file():
        raise FileNotFoundError(f"No file {str(path)!r}; give the path of a .jsonl file of tasks.")
    tasks: dict[str, Task] = {}
    with path.open(encoding="utf-8", errors="strict") as lines:
        number = 0
        try:
            for number, line in enumerate(lines, start=1):  # noqa: B007
                if line.strip():
                    task = _task(json.loads(line), grader)
                    tasks.setdefault(task.id, task)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, after line {number}: not UTF-8 text ({error}).") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if not tasks:
        raise ValueError(f"{path}: no tasks in it; each line must be one JSON object.")
    return [task for task in tasks.values() if split is None or task.split == split]


def _task(record: Any, grader: str | None) -> Task:
    if not isinstance(record, Mapping):
        raise ValueError(f"each line must be a JSON object, got {type(record).__name__}.")
    if "problem" in record and "solution" in record:
        task = _from_math(record)
    elif isinstance(record.get("answer"), str) and "####" in record["answer"]:
        task = _from_gsm8k(record)
    elif "question" in record and "answer" in record:
        task = Task.from_json(record)
        if "id" in record and record["id"] != task.id:
            raise ValueError(f'"id" is {record["id"]!r}, but the content hashes to {task.id!r}.')
    else:
        raise ValueError(
            'needs "question" and "answer", or "problem" and "solution"; '
            f"got the keys {sorted(record)}."
        )
    if grader is None:
        return task
    return Task(task.question, task.answer, grader, task.files, task.metadata)


def _from_gsm8k(record: Mapping[str, Any]) -> Task:
    final = record["answer"].rsplit("####", 1)[1].strip()
    quantity = parse_quantity(final.replace("$", ""))
    if quantity is None:
        raise ValueError(f'"answer" must end in "#### <number>", got {final!r} after "####".')
    return Task(
        question=_text(record, "question"),
        answer=final.replace("$", "").replace(",", ""),
        grader="number",
        metadata={"kind": "gsm8k", "grader_options": {"any_unit": True}},
    )


def _from_math(record: Mapping[str, Any]) -> Task:
    boxed = boxed_values(_text(record, "solution").replace("\\fbox", "\\boxed"))
    if not boxed:
        raise ValueError('"solution" must hold its answer in one \\boxed{…} with balanced braces.')
    metadata: dict[str, Any] = {"kind": str(record.get("type", "math"))}
    level = re.search(r"\d+", str(record.get("level", "")))
    if level:
        metadata["level"] = int(level[0])
    return Task(
        question=_text(record, "problem"), answer=boxed[-1], grader="math", metadata=metadata
    )


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'"{key}" must be a non-empty text, got {value!r}.')
    return value
