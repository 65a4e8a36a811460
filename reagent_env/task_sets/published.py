"""Published data sets as task sets: one loader, a table of what there is (``published_table.py``).

``load_task_set("hotpotqa", split="test")`` and ``gym.make("reagent/GSM8K-v0")`` come here. Records are
found by ``published_records.py`` and read by ``published_shapes.py``; the order is the published one.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reagent_env.corpus import Corpus, context_paragraphs
from reagent_env.task import Task
from reagent_env.task_sets.phrasing import check_split
from reagent_env.task_sets.published_records import (
    DATA_FOLDER,
    DataSetUnavailable,
    Records,
    find_records,
    local_copy,
)
from reagent_env.task_sets.published_shapes import READERS, Question
from reagent_env.task_sets.published_table import PUBLISHED, PublishedSet
from reagent_env.task_sets.search_qa import SearchTasks

__all__ = [
    "DATA_FOLDER",
    "DataSetUnavailable",
    "maker",
    "published",
    "published_row",
    "splits_of",
]

_KEPT_SETS = 6


def published(
    name: str,
    split: str | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    subset: str | None = None,
    levels: Sequence[int | str] | None = None,
    kinds: Sequence[str] | None = None,
    ids: Iterable[str] | str | os.PathLike[str] | None = None,
    contexts: bool = True,
) -> Sequence[Task]:
    """The tasks of a published data set, with the corpus of their contexts where they carry any.

    Example: ``published("gaia", "test", data="copies/gaia", subset="text", levels=(1, 2))``.

    Args:
        name: One of :data:`~reagent_env.task_sets.published_table.PUBLISHED`.
        split: ``test`` (the one that results are reported on); where there is a published training
            split, ``train`` and ``validation``, a tenth of it by the question's hash; None for all.
        data: A copy: a file, its folder, or a folder of data sets; else the folder that
            ``REAGENT_DATA_DIR`` names, else the hub.
        subset: ``text`` leaves out what is about a file or a picture, ``full`` does not; where the
            table has subsets, ``text`` by default.
        levels: Only these of ``metadata["level"]``.
        kinds: Only these of ``metadata["kind"]``.
        ids: Only records with these ids, in a list or in a file of one a line.
        contexts: Gather the records' paragraphs into a corpus to search in.

    Returns:
        The tasks in published order, each once; ``.corpus`` where contexts were gathered.

    Raises:
        DataSetUnavailable: it is not to be had here; the message says its terms and what to do.
        ValueError: an unknown name, split, subset, level, kind or id, or a record that is not read.
    """
    check_split(split)
    row = published_row(name)
    wanted = None if ids is None else frozenset(_ids(ids))
    if subset is None:
        subset = row.subsets[0] if row.subsets else None
    elif subset not in row.subsets:
        known = ", ".join(row.subsets) or "none"
        raise ValueError(f"{row.title} has no subset {subset!r}; known: {known}.")
    there = splits_of(row)
    if split is not None and split not in there:
        raise ValueError(
            f"{row.title} has no split {split!r}; it has {', '.join(there)}. Results are "
            "reported on 'test'."
        )
    splits = there if split is None else (split,)
    loaded = [
        _loaded(row.name, one, _place(row, data), _stamp(row, data), subset, contexts)
        for one in splits
    ]
    tasks = [task for part, _ in loaded for task in part]
    if not tasks:
        raise DataSetUnavailable(
            f"{local_copy(row, data) or row.hub} holds no question of {row.title} in {splits}."
        )
    tasks = _only(tasks, "level", levels, row)
    tasks = _only(tasks, "kind", kinds, row)
    if wanted is not None:
        tasks = [task for task in tasks if task.metadata.get("source_id") in wanted]
        _check_ids(tasks, wanted, row)
    corpora = [corpus for _, corpus in loaded if corpus is not None]
    if not corpora:
        return tuple(tasks)
    corpus = corpora[0] if len(corpora) == 1 else _joined(row.name, tuple(corpora))
    return SearchTasks(row.name, tasks, corpus)


def splits_of(row: PublishedSet) -> tuple[str, ...]:
    """Our splits of a data set; ``validation`` is set aside from ``train``."""
    return tuple(
        part
        for one in row.splits
        for part in (("train", "validation") if one == "train" else (one,))
    )


def published_row(name: str) -> PublishedSet:
    """The table's row of a data set. Raises ``ValueError`` that names the nearest."""
    if name not in PUBLISHED:
        near = difflib.get_close_matches(name.lower(), PUBLISHED, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"No published data set {name!r}.{hint} Known: {', '.join(PUBLISHED)}.")
    return PUBLISHED[name]


def maker(name: str) -> Callable[..., Sequence[Task]]:
    """What :func:`~reagent_env.task_sets.load_task_set` calls for a data set of the table."""
    return functools.partial(published, name)


def _place(row: PublishedSet, data: str | os.PathLike[str] | None) -> Path | None:
    return local_copy(row, data)


def _stamp(row: PublishedSet, data: str | os.PathLike[str] | None) -> tuple[Any, ...]:
    """What a copy looks like now: a changed one is read again."""
    place = local_copy(row, data)
    if place is None:
        return ()
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    return tuple((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in files)


@functools.lru_cache(maxsize=_KEPT_SETS)
def _loaded(
    name: str,
    split: str,
    place: Path | None,
    stamp: tuple[Any, ...],
    subset: str | None,
    contexts: bool,
) -> tuple[tuple[Task, ...], Corpus | None]:
    """Every environment of a process shares one reading, and one index."""
    row = PUBLISHED[name]
    found = find_records(row, "train" if split == "validation" else split, place)
    tasks: dict[str, Task] = {}
    for where, record in found.records:
        try:
            question = READERS[row.shape](record)
            if subset == "text" and question.has_media:
                continue
            if split != "test" and _set_aside(question.text) != (split == "validation"):
                continue
            task = _task(row, split, question, found)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{where}: not read as {row.title}: {error}") from error
        tasks.setdefault(task.id, task)
    corpus = None
    if contexts and row.contexts:
        records = [_with_contexts(record) for _, record in found.records]
        if any(True for record in records for _ in context_paragraphs(record)):
            corpus = Corpus.from_contexts(records, name=f"{row.name}-{split}")
    return tuple(tasks.values()), corpus


def _task(row: PublishedSet, split: str, question: Question, found: Records) -> Task:
    files = dict(question.files)
    text = question.text
    if question.file_name is not None:
        files[question.file_name] = found.attachment(question.file_name, question.file_place)
    if files:
        text += "".join(f"\n\nAttached file: {name}" for name in files)
    grader = question.grader or row.grader
    metadata = {"kind": row.name, **question.metadata, "source": row.name, "split": split}
    if grader == row.grader and row.grader_options:
        metadata["grader_options"] = dict(row.grader_options)
    elif grader == "correctness":
        metadata["grader_options"] = {"question": question.text}
    return Task(text, question.answer, grader, files, metadata)


def _set_aside(question: str) -> bool:
    """Whether a training question is one of those to validate on: a tenth, whatever else there is."""
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).digest()[0] % 10 == 0


def _with_contexts(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where FlashRAG keeps them: under ``metadata``."""
    inner = record.get("metadata")
    if isinstance(inner, Mapping) and "context" in inner and "context" not in record:
        return inner
    return record


def _joined(name: str, corpora: tuple[Corpus, ...]) -> Corpus:
    documents = {(document.title, document.text): document for c in corpora for document in c}
    records = [{"context": [[title, text] for title, text in documents]}]
    return Corpus.from_contexts(records, name=name)


def _only(
    tasks: list[Task], what: str, wanted: Sequence[Any] | None, row: PublishedSet
) -> list[Task]:
    if wanted is None:
        return tasks
    if isinstance(wanted, str):
        raise ValueError(f"{what}s must be a list, got {wanted!r}; write {what}s=[{wanted!r}].")
    known = {task.metadata.get(what) for task in tasks}
    for value in wanted:
        if value not in known:
            names = ", ".join(sorted(repr(one) for one in known))
            raise ValueError(f"{row.title} has no {what} {value!r}; {what}s: {names}.")
    return [task for task in tasks if task.metadata.get(what) in wanted]


def _ids(ids: Iterable[str] | str | os.PathLike[str]) -> Iterable[str]:
    if isinstance(ids, str | os.PathLike):
        lines = Path(ids).expanduser().read_text("utf-8").split("\n")
        return [line.strip() for line in lines if line.strip()]
    return ids


def _check_ids(tasks: list[Task], wanted: frozenset[str], row: PublishedSet) -> None:
    missing = sorted(wanted - {str(task.metadata.get("source_id")) for task in tasks})
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(wanted)} ids are not among the {row.title} questions chosen, "
            f"such as {missing[0]!r}."
        )
