"""Reads tasks from JSON files: our own, GSM8K-shaped, MATH-shaped, or plain question and answer.

The shape of a record is told by its keys:

- ``{"question", "answer": "… #### 42"}`` (GSM8K): grader ``number``.
- ``{"problem", "solution": "… \\boxed{42}", "level", "type"}`` (MATH): grader ``math``.
- ``{"question", "answer"}`` with any of a task's other fields (what ``Task.to_json`` writes), or
  with keys of a data set's own, which go into ``metadata`` (its ``id`` as ``source_id``).
- records with ``context``, ``paragraphs`` or ``supporting_facts`` (HotpotQA and its like): the
  whole file is read by :func:`reagent_env.task_sets.search_qa.load_hotpot`.

A file is data: it may name graders that are registered, and no other code.

Not here: downloading data sets.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reagent_env.answers import boxed_values
from reagent_env.graders import grader_names, is_registered, problem_with
from reagent_env.quantities import parse_quantity
from reagent_env.task import Task
from reagent_env.task_sets.phrasing import check_split

if TYPE_CHECKING:
    from reagent_env.corpus import Corpus

_OWN_FIELDS = ("grader", "files", "metadata")
_IDS = ("id", "_id")
_OUR_ID = re.compile(r"[0-9a-f]{16}")


def read_jsonl(
    path: Path,
    split: str | None = None,
    grader: str | None = None,
    *,
    corpus: Corpus | None = None,
    allow_grader_import: bool = False,
) -> Sequence[Task]:
    """All tasks of a file, or those whose content hash falls into ``split``.

    Args:
        path: a file of one JSON object a line (empty lines are skipped), or of one JSON array.
        split: ``train``, ``validation``, ``test``, or None for all.
        grader: a grader to use instead of the shape's own.
        corpus: what ``search`` and ``browse`` look into; by default the file's own contexts,
            where it has any.
        allow_grader_import: let the file name graders as ``module:function``, which imports and
            runs code of its choice in this process; only for files you wrote yourself.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: naming file, line and what is wrong with it.
    """
    check_split(split)
    if not path.is_file():
        raise FileNotFoundError(f"No file {str(path)!r}; give the path of a .jsonl file of tasks.")
    tasks: dict[str, Task] = {}
    for place, text in _records(path):
        try:
            record = json.loads(text) if isinstance(text, str) else text
            if not tasks and (corpus is not None or _has_contexts(record)):
                from reagent_env.task_sets.search_qa import load_hotpot

                return load_hotpot(path, split, corpus=corpus, grader=grader or "qa")
            task = _task(record, grader)
            trusted = grader is not None or allow_grader_import
            if not trusted:
                _refuse_import(task.grader)
            problem = problem_with(task, allow_import=trusted)
            if problem is not None:
                raise ValueError(problem)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            said = str(error)
            raise ValueError(said if said.startswith(str(path)) else f"{place}: {said}") from error
        tasks.setdefault(task.id, task)
    if not tasks:
        raise ValueError(f"{path}: no tasks in it; each line must be one JSON object.")
    return [task for task in tasks.values() if split is None or task.split == split]


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each record stands, and its text (of a line) or its value (in an array)."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        broken = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {broken}: not UTF-8 text ({error}).") from error
    if path.suffix == ".json" and text.lstrip().startswith("["):
        try:
            array = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not a JSON array ({error}).") from error
        yield from ((f"{path}, record {n}", one) for n, one in enumerate(array, start=1))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line


def _has_contexts(record: Any) -> bool:
    return isinstance(record, Mapping) and (
        "supporting_facts" in record
        or any(isinstance(record.get(key), list | dict) for key in ("context", "paragraphs"))
    )


def _refuse_import(grader: str) -> None:
    if is_registered(grader):
        return
    if ":" in grader:
        raise ValueError(
            f"the grader {grader!r} would import and run code; if you trust the file, pass "
            "allow_grader_import=True, or name a registered grader."
        )
    near = difflib.get_close_matches(grader, grader_names(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown grader {grader!r}.{hint} Known: {', '.join(grader_names())}.")


def _task(record: Any, grader: str | None) -> Task:
    if not isinstance(record, Mapping):
        raise ValueError(f"each line must be a JSON object, got {type(record).__name__}.")
    if "problem" in record and "solution" in record:
        task = _from_math(record)
    elif isinstance(record.get("answer"), str) and "####" in record["answer"]:
        task = _from_gsm8k(record)
    elif "question" in record and "answer" in record:
        if any(name in record for name in _OWN_FIELDS):
            task = _from_own(record)
        else:
            task = _from_plain(record)
    else:
        raise ValueError(
            'needs "question" and "answer", or "problem" and "solution"; '
            f"got the keys {sorted(record)}."
        )
    if grader is None:
        return task
    return Task(task.question, task.answer, grader, task.files, task.metadata)


def _from_own(record: Mapping[str, Any]) -> Task:
    found = record.get("id")
    if found is None or (isinstance(found, str) and _OUR_ID.fullmatch(found)):
        task = Task.from_json(record)
        if found not in (None, task.id):
            raise ValueError(f'"id" is {found!r}, but the content hashes to {task.id!r}.')
        return task
    metadata = {"source_id": found, **(record.get("metadata") or {})}
    return Task.from_json({**_without(record, ("id",)), "metadata": metadata})


def _from_plain(record: Mapping[str, Any]) -> Task:
    for key in record:
        near = difflib.get_close_matches(key.lower(), ("grader", "metadata"), n=1, cutoff=0.8)
        if near:
            raise ValueError(f"unknown key {key!r}; did you mean {near[0]!r}?")
    metadata = _others(record, ("question", "answer"))
    return Task(_text(record, "question"), record["answer"], metadata=metadata)


def _others(record: Mapping[str, Any], read: tuple[str, ...]) -> dict[str, Any]:
    """What a data set's record holds besides the keys that were read; its id as ``source_id``."""
    ids = [record[key] for key in _IDS if record.get(key) is not None]
    source = {"source_id": ids[0]} if ids else {}
    return {**_without(record, (*read, *_IDS)), **source}


def _without(record: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


def _from_gsm8k(record: Mapping[str, Any]) -> Task:
    final = record["answer"].rsplit("####", 1)[1].strip()
    quantity = parse_quantity(final.replace("$", ""))
    if quantity is None:
        raise ValueError(f'"answer" must end in "#### <number>", got {final!r} after "####".')
    return Task(
        question=_text(record, "question"),
        answer=final.replace("$", "").replace(",", ""),
        grader="number",
        metadata={
            **_others(record, ("question", "answer")),
            "kind": "gsm8k",
            "grader_options": {"any_unit": True},
        },
    )


def _from_math(record: Mapping[str, Any]) -> Task:
    boxed = boxed_values(_text(record, "solution").replace("\\fbox", "\\boxed"))
    if not boxed:
        raise ValueError('"solution" must hold its answer in one \\boxed{…} with balanced braces.')
    metadata = _others(record, ("problem", "solution", "answer", "level", "type", "grader_options"))
    metadata["kind"] = str(record.get("type", "math"))
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
