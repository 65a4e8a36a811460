"""Reads the accessibility tree that WebNav shows, for the scripted players. Not here: how it is made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE = re.compile(r"^(?P<indent> *)- (?P<rest>.*)$")
_ELEMENT = re.compile(
    r'^(?P<role>[a-z]+)(?: (?P<name>"(?:[^"\\]|\\.)*"))?(?P<marks>(?: \[[^\]]*\])*)(?::(?: (?P<text>.*))?)?$'
)
_REFERENCE = re.compile(r"\[ref=(e\d+)\]")


@dataclass(frozen=True)
class Element:
    """One line of a tree, e.g. ``Element("button", "Submit", "e7", "", 2, "")``."""

    role: str
    """``button``, ``textbox``, …; ``text`` for words that belong to no element of their own."""
    name: str
    """What assistive software would say."""
    id: str
    """What actions take; empty where the line has none."""
    text: str
    """The words in it, or what a field holds."""
    depth: int
    """How far it is indented."""
    marks: str
    """What stands in square brackets: ``[checked]``, ``[selected]``, …"""

    @property
    def words(self) -> str:
        """Its name, or else its text."""
        return self.name or self.text


@dataclass(frozen=True)
class Tree:
    """A page as its elements in order; the first line with words repeats the instruction."""

    elements: tuple[Element, ...]

    def all(self, *roles: str) -> list[Element]:
        """The elements with an id and one of these roles, in order."""
        return [one for one in self.elements if one.role in roles and one.id]

    def find(self, words: str, *roles: str) -> Element | None:
        """The first element of these roles (of any, if none) whose name or text is ``words``."""
        for one in self.elements:
            if one.id and one.words == words and (not roles or one.role in roles):
                return one
        return None

    def following(self, start: Element) -> Iterator[Element]:
        """The elements after ``start``."""
        place = self.elements.index(start)
        yield from self.elements[place + 1 :]


def read_tree(shown: str) -> Tree:
    """The tree in an observation, whatever stands before it."""
    return Tree(tuple(filter(None, map(_element, shown.splitlines()))))


def _element(line: str) -> Element | None:
    found = _LINE.match(line)
    if found is None:
        return None
    rest, depth = found["rest"], len(found["indent"]) // 2
    if rest.startswith("'"):  # a key quoted as YAML has it
        key, _, after = rest[1:].rpartition("'")
        rest = key.replace("''", "'") + after
    part = _ELEMENT.match(rest)
    if part is None:
        return None
    marks = part["marks"] or ""
    reference = _REFERENCE.search(marks)
    return Element(
        part["role"],
        json.loads(part["name"]) if part["name"] else "",
        reference[1] if reference else "",
        _plain(part["text"] or ""),
        depth,
        marks,
    )


def _plain(text: str) -> str:
    """Words without YAML's quotes."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text[1:-1]
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    return text
