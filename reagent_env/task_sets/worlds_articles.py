"""Writes a world's articles and reads them back: :func:`write_articles`, :func:`read_article`.

The facts of an article are scattered over paragraphs between sentences of no use and warnings of
things with a similar name. A relation may stand in the subject's article, in the object's, or in
both. Reading knows the sentence patterns and the text alone, never the world.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from reagent_env.corpus import Document, sentences, url_of_title
from reagent_env.task_sets.phrasing import stable_random
from reagent_env.task_sets.worlds_facts import World
from reagent_env.task_sets.worlds_schema import Kind, Schema, Value, read_value, show_value

LEFT_OUT = 0.25
"""Share of listed relations that stand in the object's article alone."""
MAX_FILLERS = 3


@dataclass
class Reading:
    """What an article says: ``kind``, its own ``facts``, and ``lists`` of what relates to it."""

    kind: str | None = None
    facts: dict[str, Value] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)


def write_articles(world: World) -> Iterator[Document]:
    """One document a thing, in the world's order; pure in the world and its seed."""
    near = _similar_titles(world)
    for title in world.kinds:
        yield Document(
            title=title,
            url=url_of_title(title, world.schema.scheme),
            text=_article(world, title, near.get(title)),
        )


def read_article(schema: Schema, title: str, text: str, kind: str | None = None) -> Reading:
    """Find kind, facts and lists in an article, or in any part of it such as a search snippet.

    Args:
        schema: Whose sentences to look for.
        title: The article's.
        text: All of it or any sentences of it.
        kind: The thing's kind where the text does not say it; without either nothing is read.
    """
    reading = Reading()
    for sentence in sentences(text):
        lead = _kind_of_lead(schema, title, sentence) if reading.kind is None else None
        if lead is not None:
            reading.kind = lead
        elif known := reading.kind or kind:
            _read_sentence(schema, known, title, sentence, reading)
    return reading


def _read_sentence(schema: Schema, kind: str, title: str, sentence: str, reading: Reading) -> None:
    own = {schema.shown(kind, title), *schema.pronouns(kind, title)}
    for predicate in schema.by_subject[kind]:
        for pattern in predicate.statement_patterns:
            found = pattern.fullmatch(sentence)
            if found and found["S"] in own:
                reading.facts.setdefault(predicate.name, read_value(predicate, found["v"]))
                return
    for predicate in schema.listings(kind):
        for pattern in predicate.list_patterns:
            found = pattern.fullmatch(sentence)
            if found and found["v"] in own:
                members = [part.strip().strip('"') for part in found["m"].split(";")]
                reading.lists.setdefault(predicate.name, members)
                return


def _kind_of_lead(schema: Schema, title: str, sentence: str) -> str | None:
    for kind in schema.kinds.values():
        shown = schema.shown(kind.name, title)
        if sentence.startswith(shown):
            rest = sentence[len(shown) :]
            if any(
                re.match(rf" (?:is|was) an? (?:\w+ )?{re.escape(n)}\b", rest) for n in kind.nouns
            ):
                return kind.name
    return None


def _article(world: World, title: str, near: str | None) -> str:
    schema, kind = world.schema, world.schema.kinds[world.kinds[title]]
    rng = stable_random("article", world.seed, title)
    facts = world.facts[title]
    shown = schema.shown(kind.name, title)
    pronouns = schema.pronouns(kind.name, title)

    def said(template: str, place: str, named: float) -> str:
        """Put the subject into a sentence: a pronoun only where the sentence begins with it."""
        if template.startswith(place) and rng.random() >= named:
            return template.replace(place, rng.choice(pronouns))
        return template.replace(place, shown)

    body: list[str] = []
    for predicate in schema.by_subject[kind.name]:
        value = facts.get(predicate.name)
        if value is None or (predicate.lists and rng.random() < LEFT_OUT):
            continue
        words = (
            schema.shown(predicate.value, str(value))
            if predicate.is_relation
            else show_value(predicate, value, style=int(rng.random() < 0.3))
        )
        body.append(said(rng.choice(predicate.statements), "{S}", 0.4).replace("{v}", words))
    rng.shuffle(body)
    fillers = rng.sample(kind.fillers, k=min(len(kind.fillers), rng.randint(1, MAX_FILLERS)))
    others = world.titles_of[kind.name]
    for filler in fillers:
        other = schema.shown(kind.name, rng.choice(others))
        if other == shown:
            continue
        number = f"{rng.randint(12, 9999):,}"
        sentence = said(filler, "{S}", 0.3).replace("{o}", other).replace("{n}", number)
        body.insert(rng.randint(0, len(body)), sentence)
    if near is not None:
        body.append(f"It should not be confused with {schema.shown(kind.name, near)}.")
    listed = []
    for predicate in schema.listings(kind.name):
        members = world.members(predicate, title)
        if members:
            names = "; ".join(schema.shown(predicate.subject, m) for m in members)
            listed.append(said(rng.choice(predicate.lists), "{v}", 0.5).replace("{m}", names))
    lead = _lead(world, title, kind)
    first = rng.randint(1, 3)
    cut = (first + len(body) + 1) // 2
    paragraphs = [
        [lead, *body[:first]],
        body[first:cut],
        body[cut:],
        listed,
    ]
    return "\n\n".join(" ".join(part) for part in paragraphs if part)


def _lead(world: World, title: str, kind: Kind) -> str:
    rng = stable_random("lead", world.seed, title)
    noun = rng.choice(kind.nouns)
    article = "an" if noun[0] in "aeio" else "a"
    return f"{world.schema.shown(kind.name, title)} is {article} {noun}."


def _similar_titles(world: World) -> dict[str, str]:
    """Title → another of its kind that differs in one character."""
    similar: dict[str, str] = {}
    for titles in world.titles_of.values():
        by_gap: dict[str, str] = {}
        for title in titles:
            for place in range(len(title)):
                gap = f"{title[:place]}\0{title[place + 1 :]}"
                other = by_gap.setdefault(gap, title)
                if other != title:
                    similar.setdefault(title, other)
                    similar.setdefault(other, title)
    return similar
