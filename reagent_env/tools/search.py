"""The ``search`` tool: several queries at once over a corpus; titles, urls and a line of each hit.

Not here: reading a document (``browse``).
"""

from __future__ import annotations

from reagent_env.corpus import Corpus
from reagent_env.errors import ToolError
from reagent_env.tool_definition import Tool, tool

MAX_QUERIES = 8
"""Queries in one call."""
MAX_TOP_K = 20
"""Results a query."""
MAX_QUERY_CHARS = 400
"""A longer query is cut."""
SNIPPET_CHARS = 240
"""Length of the passage shown of each hit."""


def make_search_tool(corpus: Corpus, *, name: str = "search") -> Tool:
    """The tool ``search(queries: list[str], top_k: int = 5)`` over a corpus.

    What the model reads, for each query::

        Results for "Velmora bridge":
        [1] Velmora Bridge
            url: wiki://Velmora_Bridge
            The Velmora Bridge crosses the River Oska.
    """

    @tool(name=name)
    def search(queries: list[str], top_k: int = 5) -> str:
        """Search the document collection by keywords.

        Each result has a title, a url to read with browse, and the sentence that fits best.

        Args:
            queries: One or more keyword queries, e.g. ["Velmora population", "River Oska"].
            top_k: Number of results for each query, 1 to 20.
        """
        asked = [" ".join(query.split())[:MAX_QUERY_CHARS] for query in queries]
        if not any(asked):
            raise ToolError(
                'search needs at least one non-empty query, e.g. ["Velmora population"].'
            )
        if len(asked) > MAX_QUERIES:
            raise ToolError(
                f"search takes at most {MAX_QUERIES} queries a call, got {len(asked)}; "
                "send the others in a second call."
            )
        if not 1 <= top_k <= MAX_TOP_K:
            raise ToolError(f"top_k must be from 1 to {MAX_TOP_K}, got {top_k}.")
        return "\n\n".join(_results(corpus, query, top_k) for query in asked)

    return search


def _results(corpus: Corpus, query: str, top_k: int) -> str:
    hits = corpus.search(query, top_k)
    if not hits:
        return (
            f'Results for "{query}":\nNothing found. Use other or fewer words: a name as it would '
            "stand in a title, without the words of the question."
        )
    lines = [f'Results for "{query}":']
    for number, hit in enumerate(hits, start=1):
        best = corpus.passages(hit.document, query)
        lines += [
            f"[{number}] {_one_line(hit.document.title, 120)}",
            f"    url: {hit.document.url}",
            f"    {_one_line(best[0] if best else '', SNIPPET_CHARS)}",
        ]
    return "\n".join(lines)


def _one_line(text: str, limit: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1].rstrip() + "…"
