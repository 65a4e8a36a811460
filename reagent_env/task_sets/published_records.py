"""Finds a published data set's records: on the hub, or in a folder with a copy of it.

A copy is whatever was downloaded: parquet, jsonl, json or csv files in any sub-folders, as
``hf download HUB --repo-type dataset --local-dir FOLDER`` leaves them, or one file. Text files are
read by the standard library, parquet and the hub by ``datasets`` (extra ``benchmarks``), which runs
no code of a data set. Not here: what a record means (``published_shapes.py``).
"""

from __future__ import annotations

import csv
import fnmatch
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from reagent_env.errors import TaskError
from reagent_env.task_sets.published_table import PUBLISHED, PublishedSet

DATA_FOLDER = "REAGENT_DATA_DIR"
"""Environment variable: a folder with one sub-folder a data set, such as ``gsm8k/``."""
MAX_ATTACHMENT_BYTES = 64 * 2**20
_ENDINGS = (".parquet", ".jsonl", ".json", ".csv")
_SPLIT_WORDS = frozenset({"train", "test", "validation", "valid", "val", "dev", "silver", "main"})
_SAME_SPLIT = {"validation": ("validation", "valid", "val", "dev", "test"), "test": ("test",)}
_MAX_CELL = 64 * 2**20


class DataSetUnavailable(TaskError):
    """A published data set is not to be had here; the message says its terms and how to get it."""


@dataclass(frozen=True)
class Records:
    """What was found, e.g. ``Records([("test.jsonl, line 1", {"question": …})], read_attachment)``."""

    records: Sequence[tuple[str, Mapping[str, Any]]]
    """Where each record stands, and the record."""
    attachment: Callable[[str, str | None], bytes]
    """A file's content by its name and, where the record has one, its path in the data set."""


def find_records(row: PublishedSet, split: str, data: str | os.PathLike[str] | None) -> Records:
    """The records of one of our splits, from ``data``, from :data:`DATA_FOLDER`, or from the hub.

    Raises:
        DataSetUnavailable: none of them has it.
        ValueError: a file that cannot be read, or a path that does not exist.
    """
    folder = local_copy(row, data)
    if folder is None:
        return _from_hub(row, split)
    paths = _chosen_files(row, split, folder)
    root = folder if folder.is_dir() else folder.parent
    records = [found for path in paths for found in _read(path)]
    return Records(records, lambda name, place: _local_attachment(root, name, place))


def local_copy(row: PublishedSet, data: str | os.PathLike[str] | None) -> Path | None:
    """Where a copy of the data set stands; None where it is to come from the hub.

    Raises:
        ValueError: ``data`` names nothing, or a folder of other data sets.
    """
    if data is None:
        shared = os.environ.get(DATA_FOLDER)
        return None if not shared else _own_folder(row, Path(shared).expanduser())
    path = Path(data).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"data={str(data)!r} is no file and no folder; {_how_to_get(row)}")
    own = _own_folder(row, path)
    if own is not None:
        return own
    others = {_key(name) for other in PUBLISHED.values() for name in _names(other)}
    if any(_key(child.name) in others for child in path.iterdir() if child.is_dir()):
        raise DataSetUnavailable(
            f"{path} holds data sets, but no folder {row.name!r} with {row.title}; {_how_to_get(row)}"
        )
    return path


def _own_folder(row: PublishedSet, folder: Path) -> Path | None:
    wanted = {_key(name) for name in _names(row)}
    if not folder.is_dir():
        raise ValueError(f"{DATA_FOLDER}={str(folder)!r} is no folder.")
    named = [child for child in sorted(folder.iterdir()) if child.is_dir()]
    return next((child for child in named if _key(child.name) in wanted), None)


def _names(row: PublishedSet) -> tuple[str, ...]:
    return (row.name, row.environment or row.name, row.hub.rpartition("/")[2], row.hub)


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _how_to_get(row: PublishedSet) -> str:
    agreement = (
        f"its hub page asks for an agreement: log in, accept the terms at {row.page}, then run "
        "`hf auth login` or set HF_TOKEN; "
        if row.gated
        else ""
    )
    return (
        f"{agreement}licence: {row.licence}. To use a copy, give data=FOLDER or set "
        f"{DATA_FOLDER}=PARENT with PARENT/{row.name}/ in it, holding .parquet, .jsonl, .json or "
        f".csv files; `hf download {row.hub} --repo-type dataset --local-dir PARENT/{row.name}` "
        "makes one."
    )


# Files --------------------------------------------------------------------------------------------


def _chosen_files(row: PublishedSet, split: str, folder: Path) -> list[Path]:
    """The files of one split: those whose path names it, else those that name no split."""
    if folder.is_file():
        return [folder]
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _ENDINGS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.name not in ("dataset_infos.json", "dataset_info.json", "state.json")
    ]
    files = [path for path in files if fnmatch.fnmatch(path.name, row.files)] or files
    words = {path: _words(path.relative_to(folder)) for path in files}
    if row.config is not None and any(row.config in words[path] for path in files):
        files = [path for path in files if row.config in words[path]]
    published = row.splits[split]
    for name in _SAME_SPLIT.get(published, (published, split)):
        chosen = [path for path in files if name in words[path]]
        if chosen:
            return chosen
    unnamed = [path for path in files if not words[path] & _SPLIT_WORDS]
    if unnamed:
        return unnamed
    seen = ", ".join(str(path.relative_to(folder)) for path in files[:8]) or "none"
    raise DataSetUnavailable(
        f"{folder} holds no file of {row.title}'s {published!r} split; data files there: {seen}. "
        f"{_how_to_get(row)[:1].upper()}{_how_to_get(row)[1:]}"
    )


def _words(path: Path) -> set[str]:
    parts = {part.lower() for part in path.parts}
    return parts | set(re.split(r"[^a-z0-9]+", path.as_posix().lower()))


_LFS_POINTER = b"version https://git-lfs"


def _read(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open("rb") as opened:
        if opened.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise ValueError(f"{path} is a pointer of Git LFS, not the file: run `git lfs pull`.")
    ending = path.suffix.lower()
    if ending == ".parquet":
        yield from _numbered(path, "row", _parquet(path))
    elif ending == ".csv":
        yield from _numbered(path, "row", _csv(path))
    else:
        yield from _json(path)


def _numbered(
    path: Path, what: str, records: Iterator[Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        for number, record in enumerate(records, start=1):
            yield f"{path}, {what} {number}", record
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}).") from error


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL))
    with path.open(encoding="utf-8-sig", newline="") as lines:
        yield from csv.DictReader(lines)


def _json(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """One object a line; or, in a ``.json`` file, an array of them, perhaps under ``data``."""
    try:
        text = path.read_text("utf-8-sig")
        whole = None
        if path.suffix.lower() == ".json":
            try:
                whole = json.loads(text)
            except ValueError:
                whole = None  # one object a line under another ending
        if isinstance(whole, Mapping):
            whole = whole.get("data", [whole])
        lines: Any = text.split("\n") if whole is None else whole
        for number, line in enumerate(lines, start=1):
            if isinstance(line, str) and not line.strip():
                continue
            record = json.loads(line) if isinstance(line, str) else line
            what = "line" if whole is None else "record"
            if not isinstance(record, Mapping):
                raise ValueError(f"{what} {number} is {type(record).__name__}, not an object")
            yield f"{path}, {what} {number}", record
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({error}).") from error


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    datasets = _datasets()
    try:
        from pyarrow import parquet  # what datasets reads them with; no copy in its cache

        table = datasets.Dataset(parquet.read_table(path))
    except Exception as error:  # pyarrow has a family of its own
        raise ValueError(f"{path}: not a parquet file that can be read ({error}).") from error
    yield from _without_media(datasets, table)


def _local_attachment(root: Path, name: str, place: str | None) -> bytes:
    """A record's file from beside it; whatever the record says, from inside ``root`` alone."""
    path = PurePosixPath(name)
    if not name or path.name != name or name in (".", ".."):
        raise ValueError(f"{name!r} is no file's name.")
    home = root.resolve()
    candidates = [root / place] if place and not PurePosixPath(place).is_absolute() else []
    for found in (*candidates, *sorted(root.rglob("*"))):
        if found.name == name and found.is_file() and found.resolve().is_relative_to(home):
            if found.stat().st_size > MAX_ATTACHMENT_BYTES:
                raise ValueError(f"{found} is larger than {MAX_ATTACHMENT_BYTES} bytes.")
            return found.read_bytes()
    raise DataSetUnavailable(
        f"{name!r}, which a question is about, is not under {root}; copy the data set with its "
        "files, or leave such questions out with subset='text'."
    )


# The hub ------------------------------------------------------------------------------------------


def _from_hub(row: PublishedSet, split: str) -> Records:
    datasets = _datasets()
    published = row.splits[split]
    try:
        table = datasets.load_dataset(row.hub, row.config, split=published)
    except Exception as error:  # the hub's client has many, and wraps them in each other
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataSetUnavailable(
            f"{row.title} ({row.hub}, split {published!r}) could not be had from the hub: {reason} "
            f"— {_how_to_get(row)}"
        ) from error
    rows = enumerate(_without_media(datasets, table), start=1)
    return Records(
        [(f"{row.hub}, {published} row {number}", record) for number, record in rows],
        lambda name, place: _hub_attachment(row, name, place),
    )


def _hub_attachment(row: PublishedSet, name: str, place: str | None) -> bytes:
    import huggingface_hub

    wanted = place or f"2023/{row.splits['test']}/{name}"
    if PurePosixPath(wanted).is_absolute() or ".." in PurePosixPath(wanted).parts:
        raise ValueError(f"{wanted!r} is no path inside a data set.")
    try:
        path = Path(huggingface_hub.hf_hub_download(row.hub, wanted, repo_type="dataset"))
    except Exception as error:
        raise DataSetUnavailable(
            f"{wanted} of {row.title} could not be had from the hub ({error}); {_how_to_get(row)}"
        ) from error
    if path.stat().st_size > MAX_ATTACHMENT_BYTES:
        raise ValueError(f"{wanted} is larger than {MAX_ATTACHMENT_BYTES} bytes.")
    return path.read_bytes()


def _without_media(datasets: Any, table: Any) -> Iterator[Mapping[str, Any]]:
    """Rows without columns that would be decoded to pictures or sounds: none of them is asked about."""
    media = [
        name
        for name, feature in table.features.items()
        if isinstance(feature, datasets.Image | datasets.Audio)
    ]
    yield from table.remove_columns(media)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise DataSetUnavailable(
            "Parquet files and the hub are read by the package datasets: "
            "pip install 'reagent-env[benchmarks]'. Copies as .jsonl, .json or .csv need nothing."
        ) from None
    return datasets
