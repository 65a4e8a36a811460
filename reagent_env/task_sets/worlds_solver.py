"""A scripted solver that sees what an agent sees: the question, and what the tools answer.

It reads the question by the language's wordings, searches for each thing in turn, and reads search
results and articles by their sentence patterns. It never holds a world or a task. For expert
demonstrations and for measuring that the tasks can be solved; not a language model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from reagent_env.task_sets.worlds_articles import Reading, read_article
from reagent_env.task_sets.worlds_questions import Language, Node, Query
from reagent_env.task_sets.worlds_schema import Predicate, Value, show_value

Calls = list[tuple[str, dict[str, Any]]]
"""Tool name and arguments of each call of one turn."""

Solving = Generator[Calls, list[str], Value]
"""Yields a turn's calls, receives their answers in order, returns a value."""

MAX_BATCH = 8
"""Queries in one search, and documents opened in one turn."""

_HIT = re.compile(r"^\[\d+\] (.*)\n    url: (\S+)\n    (.*)$", re.MULTILINE)
_BLOCK = re.compile(r"^Results for \"", re.MULTILINE)


class NotFound(Exception):
    """The tools did not lead to the fact."""


@dataclass
class SearchHit:
    """One result as the search tool shows it."""

    title: str
    url: str
    snippet: str


def read_hits(observation: str) -> list[list[SearchHit]]:
    """The results of a search call, query by query."""
    return [
        [SearchHit(*found) for found in _HIT.findall(block)]
        for block in _BLOCK.split(observation)[1:]
    ]


@dataclass
class Researcher:
    """Looks facts up by calls; remembers what it has read in this episode."""

    language: Language
    readings: dict[tuple[str, str], Reading] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)

    # Whole questions ----------------------------------------------------------------------------

    def answer(self, query: Query) -> Solving:
        """The value that a query asks for."""
        if query.form == "entity":
            return (yield from self.find(query.node))
        predicate = self.language.schema.predicates[query.predicate]
        title = str((yield from self.find(query.node)))
        if query.form == "count":
            members = yield from self.members(title, predicate)
            return len(members)
        if query.form == "attribute":
            values = yield from self.values([title], predicate)
            return values[title]
        assert query.other is not None
        other = str((yield from self.find(query.other)))
        values = yield from self.values([title, other], predicate)
        first, second = values[title], values[other]
        return title if (first > second) == query.most else other  # type: ignore[operator]

    def find(self, node: Node) -> Solving:
        """The title of the thing that a node describes."""
        if node.of is None:
            return node.title
        of = str((yield from self.find(node.of)))
        predicate = self.language.schema.predicates[node.predicate]
        if node.op == "step":
            return (yield from self.related(of, predicate))
        members = yield from self.members(of, predicate)
        if node.op == "both":
            assert node.of2 is not None
            of2 = str((yield from self.find(node.of2)))
            second = self.language.schema.predicates[node.predicate2]
            others = yield from self.members(of2, second)
            fitting = [title for title in members if title in others]
        else:
            attribute = self.language.schema.predicates[node.attribute]
            values = yield from self.values(members, attribute)
            if node.op == "occurred":
                fitting = [t for t, v in values.items() if str(v).startswith(f"{node.year:04d}-")]
            else:
                best = (max if node.most else min)(values.values())
                fitting = [title for title, value in values.items() if value == best]
        if len(fitting) != 1:
            raise NotFound(f"{len(fitting)} things fit")
        return fitting[0]

    # Single facts -------------------------------------------------------------------------------

    def related(self, title: str, predicate: Predicate) -> Solving:
        """The thing that a relation leads to, by either side's article."""
        known = self._fact(title, predicate)
        if known is not None:
            return known
        hits = (yield from self._search([f"{title} {predicate.query}"], 4))[0]
        self._read_snippets(hits, {title: predicate.subject})
        known = self._fact(title, predicate) or self._listed_by(title, predicate, hits)
        if known is not None:
            return known
        yield from self._open([title], predicate.subject)
        known = self._fact(title, predicate)
        if known is not None:
            return known
        # The article is silent: the relation stands in the object's article, which names this one.
        said = re.sub(r"\{\w+\}", "", " ".join(predicate.lists))
        blocks = yield from self._search([f"{title} {said}", title], 8)
        hits = list({hit.url: hit for block in blocks for hit in block}.values())
        known = self._listed_by(title, predicate, hits)
        if known is not None:
            return known
        wider = (yield from self._search([title], 20))[0]
        known = self._listed_by(title, predicate, wider)
        if known is not None:
            return known
        others = [hit.title for hit in hits if hit.title != title][:MAX_BATCH]
        for start in range(0, len(others), 4):
            batch = others[start : start + 4]
            yield from self._open(batch, predicate.value)
            for other in batch:
                if title in self._reading(other, predicate.value).lists.get(predicate.name, ()):
                    return other
        raise NotFound(f"{predicate.name} of {title}")

    def values(
        self, titles: Sequence[str], predicate: Predicate
    ) -> Generator[Calls, list[str], dict[str, Value]]:
        """An attribute of several things, searched for together."""
        yield from self.look_for(titles, predicate)
        silent = [title for title in titles if self._fact(title, predicate) is None]
        for start in range(0, len(silent), MAX_BATCH):
            yield from self._open(silent[start : start + MAX_BATCH], predicate.subject)
        found: dict[str, Value] = {}
        for title in titles:
            value = self._fact(title, predicate)
            if value is None:
                raise NotFound(f"{predicate.name} of {title}")
            found[title] = value
        return found

    def look_for(
        self, titles: Sequence[str], predicate: Predicate
    ) -> Generator[Calls, list[str], None]:
        """Search for one fact of several things at once; what the results show is remembered."""
        missing = [title for title in titles if self._fact(title, predicate) is None]
        for start in range(0, len(missing), MAX_BATCH):
            batch = missing[start : start + MAX_BATCH]
            blocks = yield from self._search(
                [f"{title} {predicate.query}" for title in batch], 3 if len(batch) == 1 else 1
            )
            for hits in blocks:
                self._read_snippets(hits, dict.fromkeys(batch, predicate.subject))

    def members(self, title: str, predicate: Predicate) -> Generator[Calls, list[str], list[str]]:
        """All things that an article lists for a relation."""
        for _ in range(2):
            listed = self._reading(title, predicate.value).lists.get(predicate.name)
            if listed:
                return listed
            if title not in self.urls:
                plural = predicate.members[0].partition(" ")[0]
                hits = (yield from self._search([f"{title} {plural}"], 3))[0]
                self._read_snippets(hits, {title: predicate.value})
            elif title not in self.opened:
                yield from self._open([title], predicate.value)
        listed = self._reading(title, predicate.value).lists.get(predicate.name)
        if not listed:
            raise NotFound(f"list of {predicate.name} at {title}")
        return listed

    # Calls --------------------------------------------------------------------------------------

    def _search(
        self, queries: list[str], top_k: int
    ) -> Generator[Calls, list[str], list[list[SearchHit]]]:
        (seen,) = yield [("search", {"queries": queries, "top_k": top_k})]
        blocks = read_hits(seen)
        blocks += [[] for _ in range(len(queries) - len(blocks))]
        for hit in (hit for hits in blocks for hit in hits):
            self.urls.setdefault(hit.title, hit.url)
        return blocks

    def _open(self, titles: Sequence[str], kind: str) -> Generator[Calls, list[str], None]:
        unknown = [title for title in titles if title not in self.urls]
        if unknown:
            yield from self._search(unknown[:MAX_BATCH], 3)
            if any(title not in self.urls for title in unknown):
                raise NotFound(f"no article on one of {unknown}")
        wanted = [t for t in titles if t in self.urls and t not in self.opened]
        if not wanted:
            return
        pages = yield [("browse", {"url": self.urls[title]}) for title in wanted]
        for title, page in zip(wanted, pages, strict=False):
            self.opened.add(title)
            self._read(title, page.partition("\n\n")[2], kind)

    def _read_snippets(self, hits: Sequence[SearchHit], kinds: dict[str, str]) -> None:
        for hit in hits:
            if hit.title in kinds and not hit.snippet.endswith("…"):
                self._read(hit.title, hit.snippet, kinds[hit.title])

    def _listed_by(self, title: str, predicate: Predicate, hits: Sequence[SearchHit]) -> str | None:
        for hit in hits:
            if hit.title != title and title in hit.snippet:
                schema = self.language.schema
                reading = read_article(schema, hit.title, hit.snippet, predicate.value)
                if title in reading.lists.get(predicate.name, ()):
                    return hit.title
        return None

    def _read(self, title: str, text: str, kind: str) -> None:
        found = read_article(self.language.schema, title, text, kind)
        known = self._reading(title, found.kind or kind)
        known.facts.update(found.facts)
        known.lists.update(found.lists)

    def _reading(self, title: str, kind: str) -> Reading:
        return self.readings.setdefault((title, kind), Reading(kind))

    def _fact(self, title: str, predicate: Predicate) -> Value | None:
        return self._reading(title, predicate.subject).facts.get(predicate.name)


def drive(
    steps: Generator[Calls, list[str], str], call: Callable[[str, dict[str, Any]], str]
) -> tuple[str, list[Calls]]:
    """Run a solver against tools; its answer and the calls of each turn.

    Args:
        steps: What ``solve(question)`` returned.
        call: Gives a tool's answer, or its error as text.
    """
    turns: list[Calls] = []
    try:
        calls = next(steps)
        while True:
            turns.append(calls)
            calls = steps.send([call(name, arguments) for name, arguments in calls])
    except StopIteration as stop:
        return str(stop.value), turns


def solve_question(
    question: str, languages: Sequence[Language]
) -> Generator[Calls, list[str], str]:
    """Answer a question in any of the languages; an empty answer where it cannot be read or found."""
    for language in languages:
        for query in language.parse(question):
            try:
                value = yield from Researcher(language).answer(query)
            except NotFound:
                continue
            if query.form != "attribute":
                return str(value)
            return show_value(language.schema.predicates[query.predicate], value)
    return ""
