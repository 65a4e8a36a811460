"""The tools that come with the package, by name."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from reagent_env.task import Task
from reagent_env.tool_definition import Tool
from reagent_env.tools.python import python
from reagent_env.tools.shell import shell

if TYPE_CHECKING:
    from reagent_env.corpus import Corpus
    from reagent_env.corpus_places import CorpusPlace

__all__ = ["get_tool", "python", "shell"]


def get_tool(
    name: str,
    tasks: Sequence[Task],
    corpus: CorpusPlace | None = None,
) -> Tool:
    """The tool of that name, over ``corpus`` or the documents that ``tasks`` bring, if it needs any.

    ``"module:name"`` is a tool of another module, such as a family's.

    Raises:
        ValueError: there is no such tool, or there is no ``corpus`` for it to search.
    """
    module, _, attribute = name.partition(":")
    if attribute:
        found = getattr(importlib.import_module(module), attribute, None)
        if not isinstance(found, Tool):
            raise ValueError(f"{name!r} is no tool but {found!r}; write 'module:name' of a @tool.")
        return found
    known = sorted({*_MAKERS, *_SEARCHING})
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown tool {name!r}; known: {', '.join(known)}.{hint}")
    if name in _SEARCHING:
        return _SEARCHING[name](_corpus(name, tasks, corpus))
    return _MAKERS[name]()


def _search(corpus: Corpus) -> Tool:
    from reagent_env.tools.search import make_search_tool

    return make_search_tool(corpus)


def _browse(corpus: Corpus) -> Tool:
    from reagent_env.tools.browse import make_browse_tool

    return make_browse_tool(corpus)


def _file_reader() -> Tool:
    from reagent_env.tools.file_reader import file_reader

    return file_reader


def _image2text() -> Tool:
    from reagent_env.tools.image2text import make_image2text_tool

    return make_image2text_tool()


def _audio2text() -> Tool:
    from reagent_env.tools.audio2text import make_audio2text_tool

    return make_audio2text_tool()


def _corpus(
    tool_name: str,
    tasks: Sequence[Task],
    given: CorpusPlace | None,
) -> Corpus:
    from reagent_env.corpus_places import open_corpus

    where = getattr(tasks, "corpus", None) if given is None else given
    if where is None:
        raise ValueError(
            f"The tool {tool_name!r} needs documents, and these tasks bring none; pass corpus=: a "
            ".jsonl file or folder of documents, a Corpus, or the URL of a retrieval server."
        )
    return open_corpus(where)


_MAKERS: dict[str, Callable[[], Tool]] = {
    "python": lambda: python,
    "shell": lambda: shell,
    "file_reader": _file_reader,
    "image2text": _image2text,
    "audio2text": _audio2text,
}
_SEARCHING: dict[str, Callable[[Corpus], Tool]] = {"search": _search, "browse": _browse}
