"""A corpus by where it is: a file, a folder, or a retrieval server."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from reagent_env.corpus import Corpus
from reagent_env.served_corpus import ServedCorpus

CorpusPlace = Corpus | str | os.PathLike[str]
"""A corpus, a ``.jsonl`` file or folder of documents, or the URL of a retrieval server."""


def open_corpus(where: CorpusPlace) -> Corpus:
    """The corpus at ``where``, or the one given; a place is read once a process.

    Example: ``open_corpus("wiki.jsonl")``, ``open_corpus("http://127.0.0.1:8000/retrieve")``.

    Raises:
        ValueError: there is no such file or folder.
    """
    return where if isinstance(where, Corpus) else _opened(os.fspath(where))


@functools.lru_cache(maxsize=4)
def _opened(place: str) -> Corpus:
    """A corpus by its place, read once a process."""
    if place.startswith(("http://", "https://")):
        return ServedCorpus(place)
    if not Path(place).exists():
        raise ValueError(f"corpus={place!r}: there is no such file or folder.")
    return Corpus.from_folder(place) if Path(place).is_dir() else Corpus.from_jsonl(place)
