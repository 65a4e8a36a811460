"""The ``browse`` tool: read a document of the corpus, or a web page where that is allowed.

Not here: finding documents (``search``), fetching and refusing addresses (``web_page``).
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from reagent_env.corpus import Corpus, Document
from reagent_env.errors import ToolError
from reagent_env.tool_definition import Tool, tool
from reagent_env.tools.web_page import FetchLimits, fetch_page

PAGE_CHARS = 3000
"""Length of a page; it ends at a paragraph or a sentence where one is near."""
BEST_PASSAGES = 5
"""Sentences shown for a query."""
KEPT_PAGES = 16
"""Web pages kept, so that page 2 costs no second fetch."""


def make_browse_tool(
    corpus: Corpus | None,
    allow_web: bool = False,
    *,
    allow_private: bool = False,
    limits: FetchLimits | None = None,
    name: str = "browse",
) -> Tool:
    """The tool ``browse(url: str, query: str = "", page: int = 1)``.

    Args:
        corpus: Its documents open by url or exact title; None for the web alone.
        allow_web: Open ``http`` and ``https`` urls too (extra ``web``).
        allow_private: With ``allow_web``, also addresses that are not public.
        limits: Time, size and redirects of a fetch.
        name: What the model calls it.
    """
    if corpus is None and not allow_web:
        raise ValueError("browse needs a corpus, or allow_web=True; else it can open nothing.")
    kept: OrderedDict[str, Document] = OrderedDict()
    lock = threading.Lock()

    def opened(url: str) -> Document:
        if corpus is not None and (document := corpus.find(url)) is not None:
            return document
        if not url.lower().startswith(("http://", "https://")):
            raise ToolError(_not_found(corpus, url))
        if not allow_web:
            raise ToolError(f"{url!r} is not in the collection, and the web is switched off here.")
        with lock:
            if url in kept:
                return kept[url]
        found = fetch_page(url, allow_private=allow_private, limits=limits)
        text = found.text + ("\n\n[cut: the page is longer than can be read]" if found.cut else "")
        document = Document(found.title, found.url, text)
        with lock:
            kept[url] = document
            while len(kept) > KEPT_PAGES:
                kept.popitem(last=False)
        return document

    @tool(name=name)
    def browse(url: str, query: str = "", page: int = 1) -> str:
        """Read a document, page by page, or only its passages about a question.

        Args:
            url: The document's url, as search shows it.
            query: What to look for; with it only the fitting passages are shown.
            page: Which page of a long document, from 1; ignored with a query.
        """
        if not url.strip():
            raise ToolError("browse needs a url, as search shows it.")
        document = opened(url.strip())
        heading = f"{document.title}\nurl: {document.url}\n"
        if query.strip():
            own = corpus is not None and corpus.find(document.url) is document
            reader = corpus if corpus is not None and own else Corpus([document], cache=False)
            best = reader.passages(document, query, BEST_PASSAGES)
            asked = " ".join(query.split())[:120]
            return f'{heading}Passages for "{asked}":\n' + "\n".join(f"- {part}" for part in best)
        pages = split_pages(document.text)
        if not 1 <= page <= len(pages):
            raise ToolError(f"{document.url} has {len(pages)} page(s), so no page {page}.")
        more = f"\n\n[page {page} of {len(pages)}]" if len(pages) > 1 else ""
        return f"{heading}\n{pages[page - 1]}{more}"

    return browse


def split_pages(text: str, size: int = PAGE_CHARS) -> list[str]:
    """Cut a text into pages of at most ``size`` characters, at the last fitting break."""
    pages = []
    rest = text.strip()
    while len(rest) > size:
        window = rest[: size + 1]
        breaks = (window.rfind("\n\n"), window.rfind(". ") + 1, window.rfind(" "))
        at = next((place for place in breaks if place > size // 2), size)
        pages.append(rest[:at].strip())
        rest = rest[at:].strip()
    return [*pages, rest]


def _not_found(corpus: Corpus | None, url: str) -> str:
    near = corpus.near_titles(url) if corpus is not None else []
    hint = "; ".join(f"{document.title} ({document.url})" for document in near)
    return f"No document {url[:200]!r}." + (
        f" Near: {hint}." if hint else " Find urls with search."
    )
