"""The tools that come with the package, by name."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from reagent_env.task import Task
from reagent_env.tool_definition import Tool
from reagent_env.tools.python import python
from reagent_env.tools.shell import shell

__all__ = ["get_tool", "python", "shell"]


def get_tool(name: str, tasks: Sequence[Task]) -> Tool:
    """The tool of that name, over the documents that ``tasks`` brings where it needs any.

    ``"module:name"`` is a tool of another module, such as a family's.

    Raises:
        ValueError: there is no such tool, or ``tasks`` has no ``corpus`` for it to search.
    """
    module, _, attribute = name.partition(":")
    if attribute:
        found = getattr(importlib.import_module(module), attribute, None)
        if not isinstance(found, Tool):
            raise ValueError(f"{name!r} is no tool but {found!r}; write 'module:name' of a @tool.")
        return found
    if name not in _MAKERS:
        near = difflib.get_close_matches(name, _MAKERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown tool {name!r}; known: {', '.join(sorted(_MAKERS))}.{hint}")
    return _MAKERS[name](tasks)


def _search(tasks: Sequence[Task]) -> Tool:
    from reagent_env.tools.search import make_search_tool

    return make_search_tool(_corpus("search", tasks))


def _browse(tasks: Sequence[Task]) -> Tool:
    from reagent_env.tools.browse import make_browse_tool

    return make_browse_tool(_corpus("browse", tasks))


def _file_reader(tasks: Sequence[Task]) -> Tool:
    from reagent_env.tools.file_reader import file_reader

    return file_reader


def _image2text(tasks: Sequence[Task]) -> Tool:
    from reagent_env.tools.image2text import make_image2text_tool

    return make_image2text_tool()


def _audio2text(tasks: Sequence[Task]) -> Tool:
    from reagent_env.tools.audio2text import make_audio2text_tool

    return make_audio2text_tool()


def _corpus(tool_name: str, tasks: Sequence[Task]) -> Any:
    corpus = getattr(tasks, "corpus", None)
    if corpus is None:
        raise ValueError(
            f"The tool {tool_name!r} needs documents, and these tasks bring none; pass "
            f"tools=[make_{tool_name}_tool(corpus)] instead of its name."
        )
    return corpus


_MAKERS: dict[str, Callable[[Sequence[Task]], Tool]] = {
    "python": lambda tasks: python,
    "shell": lambda tasks: shell,
    "search": _search,
    "browse": _browse,
    "file_reader": _file_reader,
    "image2text": _image2text,
    "audio2text": _audio2text,
}
