"""Files that are whole or not there: written aside, flushed to the disk, then renamed.

Not here: which files a run has (``run_folder.py``, ``checkpoints.py``).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_json(path: Path, record: Any) -> None:
    """Write one JSON value. Raises ``OSError`` that names ``path``, with the old file intact."""
    write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a whole file. Raises ``OSError`` that names ``path``, with the old file intact."""
    part = path.with_name(f".{path.name}.part")
    with naming(path):
        try:
            with open(part, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            flush_folder(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(target: Path, aside: Path) -> Iterator[Path]:
    """Yield an empty folder within ``aside``; once the block ends well it is ``target``.

    Until then nothing of it is beside ``target``, whatever happens: an exception, ``kill -9``, a
    full disk. An older ``target`` gives way in one rename.

    Raises:
        OSError: it could not be written; names ``target``. What was written is removed.
    """
    part = aside / target.name
    with naming(target):
        aside.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            yield part
            flush_tree(part)
            if target.exists():
                remove_folder(target, aside)
            os.replace(part, target)
            flush_folder(target.parent)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def remove_folder(folder: Path, aside: Path) -> None:
    """Remove a folder so that it is never seen half removed: renamed into ``aside`` first."""
    aside.mkdir(parents=True, exist_ok=True)
    doomed = aside / f"removed-{folder.name}"
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(folder, doomed)
    flush_folder(folder.parent)
    shutil.rmtree(doomed, ignore_errors=True)


def flush_tree(folder: Path) -> None:
    """Bring every file beneath ``folder``, and the folders themselves, to the disk."""
    for inside, _, names in os.walk(folder):
        for name in names:
            with open(Path(inside) / name, "rb") as file:
                os.fsync(file.fileno())
        flush_folder(Path(inside))


def flush_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an ``OSError`` that names no file name ``path``; such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
