"""A corpus behind a retrieval server, in the shape that Search-R1 and AgentGym-RL serve Wikipedia in.

One request a query: ``POST URL {"queries": [q], "topk": k, "return_scores": true}`` is answered by
``{"result": [[{"document": {"contents": "title\\ntext"}, "score": s}, …]]}``. ``browse`` opens what a
search of this process has found.
"""

from __future__ import annotations

import threading
import urllib.parse
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from reagent_env.corpus import Corpus, Document, Hit, url_of_title
from reagent_env.errors import ToolBackendError
from reagent_env.json_http import NoJson, ask_json

KEPT_DOCUMENTS = 20_000
MAX_DOCUMENT_CHARS = 100_000


class ServedCorpus(Corpus):
    """What a server finds, e.g. ``ServedCorpus("http://127.0.0.1:8000/retrieve")``."""

    def __init__(self, url: str, *, timeout_s: float = 30.0) -> None:
        """Prepare; nothing is sent before the first search.

        Args:
            url: The whole address that queries are posted to.
            timeout_s: Seconds for one query.

        Raises:
            ValueError: no ``http`` URL.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"A retrieval server is 'http://host:8000/retrieve', got {url!r}.")
        super().__init__([Document("", url, "")], name=url, cache=False)
        self.documents = ()
        self.url = url
        self.timeout_s = timeout_s
        self._found: OrderedDict[str, Document] = OrderedDict()
        self._finding = threading.Lock()

    def search(self, query: str, top_k: int = 5) -> list[Hit]:
        """What the server finds, best first.

        Raises:
            ToolBackendError: it cannot be asked, or answers something else.
        """
        body = {"queries": [query], "topk": top_k, "return_scores": True}
        try:
            reply = ask_json("POST", self.url, body, timeout_s=self.timeout_s)
            hits = [_hit(one) for one in reply["result"][0][:top_k]]
        except (NoJson, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ToolBackendError(
                f"The retrieval server at {self.url} gave no results ({type(error).__name__}: "
                f"{str(error)[:200]}); start it, or correct the URL."
            ) from error
        with self._finding:
            for hit in hits:
                self._found[hit.document.url] = hit.document
                self._found.move_to_end(hit.document.url)
            while len(self._found) > KEPT_DOCUMENTS:
                self._found.popitem(last=False)
        return hits

    def find(self, url_or_title: str) -> Document | None:
        """A document that was found before, by its url or its title's."""
        wanted = url_or_title.strip()
        with self._finding:
            return self._found.get(wanted) or self._found.get(url_of_title(wanted))

    def near_titles(self, url_or_title: str, count: int = 3) -> list[Document]:
        """What a search for the name finds."""
        return [hit.document for hit in self.search(url_or_title[:200], count)]

    def __getstate__(self) -> dict[str, Any]:
        """The address alone: a copy in another process finds its own."""
        return {"url": self.url, "timeout_s": self.timeout_s}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _hit(given: Any) -> Hit:
    document = given.get("document", given) if isinstance(given, Mapping) else given
    contents = document.get("contents", document.get("text"))
    title = document.get("title")
    if not isinstance(contents, str):
        raise ValueError(f"a result has no contents: {str(given)[:80]!r}")
    if not isinstance(title, str) or not title.strip():
        title, _, contents = contents.partition("\n")
    title = title.strip().strip('"') or "Untitled"
    identity = document.get("id")
    url = url_of_title(title) + (f"#{identity}" if isinstance(identity, str | int) else "")
    score = given.get("score")
    value = float(score) if isinstance(score, int | float) else 0.0
    return Hit(Document(title, url, contents.strip()[:MAX_DOCUMENT_CHARS]), value)
