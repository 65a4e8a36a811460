"""A corpus of documents with a ranked keyword index (BM25), for the search and browse tools.

Meant for thousands to a few hundred thousand documents held in memory; not a web-scale search
server. Equal scores keep the documents' order, so a search answers alike in every process.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

INDEX_VERSION = 1
"""Part of every index's cache key: raised when tokens or weights change."""
TITLE_WEIGHT = 3
"""How many times a title counts beside its text."""
MAX_QUERY_WORDS = 64
"""Further distinct words of a query are ignored."""

_STOPWORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been by did do does for from had has have her his how in into is it "
        "its of on or she he that the their them they this to was were what when where which who "
        "whom whose why will with",
    )
)
_WORD = re.compile(r"\w+")
_DIGIT_COMMA = re.compile(r"(?<=\d),(?=\d{3})")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"“'(]?[^\Wa-z_])|\n+")


@dataclass(frozen=True)
class Document:
    """One article, e.g. ``Document("Velmora", "wiki://Velmora", "Velmora is a city in ...")``."""

    title: str
    url: str
    """Unique within a corpus; what the browse tool takes."""
    text: str
    """Paragraphs parted by blank lines."""
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Hit:
    """A search result: the document and its BM25 score (> 0; higher is better)."""

    document: Document
    score: float


def words(text: str) -> list[str]:
    """The index terms of a text: folded, without accents, stopwords, thousands commas, plural s.

    >>> words("The Bridges of Órlan: 12,400 m")
    ['bridge', 'orlan', '12400', 'm']
    """
    return [_singular(word) for word in _WORD.findall(_folded(text)) if word not in _STOPWORDS]


def sentences(text: str) -> list[str]:
    """The sentences of a text, stripped, in order; a line break always ends one."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def cache_folder() -> Path:
    """Where indexes are kept: ``$REAGENT_CACHE_DIR``, else ``$XDG_CACHE_HOME``, else ``~/.cache``."""
    own = os.environ.get("REAGENT_CACHE_DIR")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "reagent_env"


class Corpus:
    """Documents and their index; searches may run in many threads at once.

    Example::

        corpus = Corpus([Document("Velmora", "wiki://Velmora", "Velmora is a city.")])
        corpus.search("city", top_k=3)[0].document.title   # "Velmora"
    """

    def __init__(
        self, documents: Iterable[Document], *, name: str = "corpus", cache: bool | Path = True
    ) -> None:
        """Hold the documents; the index is built or loaded at the first search.

        Args:
            documents: At least one; urls must differ.
            name: For messages and ``repr``.
            cache: Keep the index on disk: True for :func:`cache_folder`, or a folder, or False.

        Raises:
            ValueError: no documents, or two with the same url.
        """
        self.documents = tuple(documents)
        self.name = name
        if not self.documents:
            raise ValueError(f"Corpus {name!r} has no documents; give it at least one.")
        self._by_url = {document.url: document for document in self.documents}
        if len(self._by_url) < len(self.documents):
            twice = Counter(document.url for document in self.documents).most_common(1)[0][0]
            raise ValueError(f"Corpus {name!r}: url {twice!r} occurs twice; urls must differ.")
        self._cache = cache_folder() / "bm25" if cache is True else cache
        self._lock = threading.Lock()
        self._index: Any = None
        self._by_title: dict[str, Document] | None = None
        self._sentence_words: dict[str, tuple[tuple[str, frozenset[str]], ...]] = {}

    # Making one ---------------------------------------------------------------------------------

    @classmethod
    def from_folder(cls, folder: str | Path, *, cache: bool | Path = True) -> Corpus:
        """Read every ``.txt``, ``.md`` and ``.jsonl`` file under a folder, in path order.

        A text file's title is its first line if that starts with ``#``, else its name.

        Raises:
            ValueError: the folder holds no such file.
        """
        root = Path(folder)
        found: list[Document] = []
        for path in sorted(root.rglob("*"), key=lambda p: p.relative_to(root).as_posix()):
            place = path.relative_to(root).as_posix()
            if path.suffix == ".jsonl" and path.is_file():
                found.extend(_jsonl_documents(path))
            elif path.suffix in (".txt", ".md") and path.is_file():
                text = path.read_text("utf-8", errors="replace").strip()
                head, _, rest = text.partition("\n")
                titled = head.startswith("#")
                found.append(
                    Document(
                        title=head.lstrip("# ").strip() if titled else path.stem,
                        url=f"corpus://{quote(place)}",
                        text=rest.strip() if titled else text,
                    )
                )
        if not found:
            raise ValueError(f"{root} holds no .txt, .md or .jsonl file; is it the right folder?")
        return cls(_with_unique_urls(found), name=root.name, cache=cache)

    @classmethod
    def from_jsonl(cls, path: str | Path, *, cache: bool | Path = True) -> Corpus:
        """Read one JSON object a line: ``text`` or ``contents``, and ``title``, ``url`` if known.

        Where there is no title, the first line of the contents is taken for it (as in the
        Wikipedia dumps made for retrieval).

        Raises:
            ValueError: a line that is no such object; the message gives its number.
        """
        source = Path(path)
        documents = _with_unique_urls(_jsonl_documents(source))
        return cls(documents, name=source.stem, cache=cache)

    @classmethod
    def from_contexts(
        cls,
        records: Iterable[Mapping[str, Any]],
        *,
        name: str = "contexts",
        cache: bool | Path = True,
    ) -> Corpus:
        """Gather the paragraphs of records shaped as HotpotQA's, MuSiQue's or 2Wiki's.

        ``context`` is ``[[title, [sentences]]]`` or ``{"title": [...], "sentences": [[...]]}``;
        ``paragraphs`` is ``[{"title", "paragraph_text"}]``. Equal paragraphs are kept once.
        """
        seen: dict[tuple[str, str], Document] = {}
        for record in records:
            for title, text in context_paragraphs(record):
                seen.setdefault((title, text), Document(title, url_of_title(title), text))
        return cls(_with_unique_urls(seen.values()), name=name, cache=cache)

    # Using it -----------------------------------------------------------------------------------

    def search(self, query: str, top_k: int = 5) -> list[Hit]:
        """The best documents for a query, best first; equal scores keep the documents' order.

        Only documents sharing a word with the query are returned, so the list may be short or
        empty.
        """
        import numpy as np

        terms = list(dict.fromkeys(words(query)))[:MAX_QUERY_WORDS]
        index = self._ready_index()
        ids = [index.vocab_dict[term] for term in terms if term in index.vocab_dict]
        if not ids or top_k < 1:
            return []
        scores = index.get_scores_from_ids(ids)
        candidates = np.flatnonzero(scores > 0)
        if len(candidates) > top_k:
            bar = np.partition(scores[candidates], len(candidates) - top_k)[-top_k]
            candidates = candidates[scores[candidates] >= bar]
        order = np.argsort(-scores[candidates], kind="stable")[:top_k]
        return [
            Hit(self.documents[int(place)], float(scores[place])) for place in candidates[order]
        ]

    def find(self, url_or_title: str) -> Document | None:
        """The document with this url, else the first with this title (case ignored), else None."""
        document = self._by_url.get(url_or_title.strip())
        return document or self._titles().get(_folded(url_or_title).strip())

    def near_titles(self, url_or_title: str, count: int = 3) -> list[Document]:
        """Documents whose title resembles a name, for a message such as "did you mean"."""
        name = _folded(url_or_title.rpartition("/")[2].replace("_", " ")).strip()[:200]
        titles = self._titles()
        exact = [titles[name]] if name in titles else []
        alike = (
            difflib.get_close_matches(name, titles, n=count, cutoff=0.7)
            if len(titles) <= 20_000
            else []
        )
        near = [titles[title] for title in alike] or [
            hit.document for hit in self.search(name, count)
        ]
        unique = dict.fromkeys(document.url for document in exact + near)
        return [self._by_url[url] for url in unique][:count]

    def passages(self, document: Document, query: str, count: int = 1) -> list[str]:
        """The sentences of a document that share most words with a query, in reading order.

        With no word shared, the first sentences. A word of the title counts little: every sentence
        of the article is about it.
        """
        split = self._split_sentences(document)
        terms = set(words(query)[:MAX_QUERY_WORDS])
        title = set(words(document.title))
        ranked = sorted(
            range(len(split)),
            key=lambda i: (-sum(0.25 if w in title else 1.0 for w in terms & split[i][1]), i),
        )
        return [split[i][0] for i in sorted(ranked[:count])]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the documents in order; two corpora with it are the same."""
        digest = hashlib.sha256()
        for document in self.documents:
            for part in (document.title, document.url, document.text):
                digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def __repr__(self) -> str:
        return f"Corpus({self.name!r}, {len(self)} documents)"

    def __getstate__(self) -> dict[str, Any]:
        """Picklable for worker processes: the lock is left out, the index goes along."""
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    # Inside -------------------------------------------------------------------------------------

    def _titles(self) -> dict[str, Document]:
        if self._by_title is None:
            self._by_title = {
                _folded(document.title).strip(): document for document in reversed(self.documents)
            }
        return self._by_title

    def _split_sentences(self, document: Document) -> tuple[tuple[str, frozenset[str]], ...]:
        split = self._sentence_words.get(document.url)
        if split is None:
            split = tuple((s, frozenset(words(s))) for s in sentences(document.text))
            if len(self._sentence_words) < 20_000:
                self._sentence_words[document.url] = split
        return split

    def _ready_index(self) -> Any:
        if self._index is None:
            with self._lock:
                if self._index is None:
                    self._index = self._load_index() or self._build_index()
        return self._index

    def _index_folder(self) -> Path | None:
        if not isinstance(self._cache, Path):
            return None
        import bm25s

        major = ".".join(bm25s.__version__.split(".")[:2])
        return self._cache / f"{self.fingerprint[:32]}-v{INDEX_VERSION}-{major}"

    def _load_index(self) -> Any:
        folder = self._index_folder()
        if folder is None or not folder.is_dir():
            return None
        import bm25s

        # A cache that cannot be read is no reason to fail: the index is built again.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, EOFError):
            index = bm25s.BM25.load(folder, show_progress=False)
            scores = index.scores
            if (
                scores["num_docs"] == len(self.documents)
                and len(scores["indices"]) == len(scores["data"]) == int(scores["indptr"][-1])
                and int(scores["indices"].max(initial=0)) < len(self.documents)
                and max(index.vocab_dict.values(), default=0) <= len(scores["indptr"]) - 1
            ):
                index.vocab_dict.pop("", None)
                return index
        return None

    def _build_index(self) -> Any:
        import bm25s

        vocabulary: dict[str, int] = {}
        rows = []
        for document in self.documents:
            terms = words(document.title) * TITLE_WEIGHT + words(document.text)
            # bm25s needs a term in the vocabulary even where no document has any.
            rows.append([vocabulary.setdefault(t, len(vocabulary)) for t in terms or ["\0"]])
        index = bm25s.BM25()
        index.index((rows, vocabulary), show_progress=False)
        index.vocab_dict.pop("", None)
        self._save_index(index)
        return index

    def _save_index(self, index: Any) -> None:
        folder = self._index_folder()
        if folder is None:
            return
        # Written aside and renamed, so that no process ever reads half an index; a folder that
        # cannot be written only costs the next process its head start.
        with contextlib.suppress(OSError):
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
            try:
                index.save(aside, show_progress=False)
                if folder.is_dir():  # unreadable, or another process was first
                    shutil.rmtree(folder, ignore_errors=True)
                os.replace(aside, folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)


def url_of_title(title: str, scheme: str = "wiki") -> str:
    """The url of an article, e.g. ``wiki://Mount_Arvel``."""
    name = " ".join(title.split()).replace(" ", "_")
    return f"{scheme}://{quote(name, safe='()_-.,', errors='replace')}"


def context_paragraphs(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Title and text of each paragraph of one HotpotQA-, 2Wiki- or MuSiQue-shaped record.

    Raises:
        ValueError: a context of another shape.
    """
    context = record.get("context")
    pairs: Iterable[Any] = ()
    if isinstance(context, Mapping):
        texts = context.get("sentences", context.get("content", ()))
        pairs = zip(context.get("title", ()), texts, strict=False)
    elif isinstance(context, Sequence) and not isinstance(context, str):
        pairs = context
    elif isinstance(record.get("paragraphs"), Sequence):
        pairs = [(p.get("title"), p.get("paragraph_text", "")) for p in record["paragraphs"]]
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError(
                f"A context entry must be [title, [sentences]], got {str(pair)[:80]!r}; "
                "see HotpotQA's format."
            )
        title, body = pair
        text = body if isinstance(body, str) else "".join(_spaced(body))
        yield title.strip(), text.strip()


def _spaced(parts: Iterable[Any]) -> Iterator[str]:
    for number, part in enumerate(parts):
        text = str(part)
        yield text if number == 0 or text.startswith(" ") else " " + text


def _folded(text: str) -> str:
    if text.isascii():
        lowered = text.lower()
    else:
        decomposed = unicodedata.normalize("NFKD", text)
        lowered = "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()
    return _DIGIT_COMMA.sub("", lowered)


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _with_unique_urls(documents: Iterable[Document]) -> list[Document]:
    """Number the second and later documents of one url, as passages of one article are."""
    seen: dict[str, int] = {}
    unique = []
    for document in map(_encodable, documents):
        count = seen[document.url] = seen.get(document.url, 0) + 1
        url = document.url if count == 1 else f"{document.url}#{count}"
        unique.append(Document(document.title, url, document.text, document.metadata))
    return unique


def _encodable(document: Document) -> Document:
    """Half a surrogate pair, which JSON can carry, would break whoever encodes the text later."""
    title, url, text = (
        part if part.isascii() else part.encode("utf-8", "replace").decode("utf-8")
        for part in (document.title, document.url, document.text)
    )
    return Document(title, url, text, document.metadata)


def _jsonl_documents(path: Path) -> Iterator[Document]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error}).") from None
            text = record.get("text", record.get("contents")) if isinstance(record, dict) else None
            if not isinstance(text, str):
                raise ValueError(
                    f'{path}, line {number}: expected an object with "text" or "contents", '
                    f"got {line.strip()[:80]!r}."
                )
            title = record.get("title")
            if not isinstance(title, str) or not title.strip():
                title, _, text = text.partition("\n")
            title = title.strip().strip('"') or f"Document {number}"
            url = record.get("url")
            known = {"text", "contents", "title", "url"}
            yield Document(
                title=title,
                url=url if isinstance(url, str) and url else url_of_title(title, "corpus"),
                text=text.strip(),
                metadata={k: v for k, v in record.items() if k not in known},
            )
