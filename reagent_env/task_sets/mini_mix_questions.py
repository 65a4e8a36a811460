"""MiniMix's questions: how a plan of look-ups is worded, and read back from the words.

A question asks for one value, ``the mayor of the home of Ostrin``, or computes with one or two:
``the height of Velmora times 37``. Not here: which questions are drawn (``mini_mix.py``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from reagent_env.task_sets.mini_mix_world import ALIAS, KINDS

OPERATIONS = {"plus": "+", "minus": "-", "times": "*"}
LEADS = {
    "name": ("What is {}?", "Find {}.", "Name {}."),
    "number": ("What is {}?", "Find {}.", "State {}."),
    "computed": ("What is {}?", "How much is {}?", "Compute {}."),
}
"""Kind of answer → paraphrases."""

_TERM = r"((?:the \w+ of )+)(?:the (\w+) known as )?([A-Z]\w+)"
_QUESTION = re.compile(
    rf"(?:What is|Find|Name|State|How much is|Compute) {_TERM}"
    rf"(?: (plus|minus|times) (?:{_TERM}|(\d+)))?[?.]"
)


@dataclass(frozen=True)
class Term:
    """A value to look up, e.g. ``Term("Ostrin", ("home", "mayor"))``."""

    start: str
    """The name that the question gives."""
    path: tuple[str, ...]
    """Labels in the order in which they are followed."""
    alias_of: str = ""
    """The kind of the start where its name is an alias, else empty."""

    @property
    def hops(self) -> int:
        """Look-ups that it takes."""
        return len(self.path) + bool(self.alias_of)

    def __str__(self) -> str:
        start = f"the {self.alias_of} {ALIAS} {self.start}" if self.alias_of else self.start
        return "".join(f"the {label} of " for label in reversed(self.path)) + start


@dataclass(frozen=True)
class Plan:
    """What a question asks, e.g. ``Plan(Term("Velmora", ("height",)), "times", 37)``."""

    first: Term
    operation: str = ""
    """One of :data:`OPERATIONS`, or empty where nothing is computed."""
    second: Term | int | None = None

    @property
    def terms(self) -> tuple[Term, ...]:
        """What is looked up."""
        return (self.first, self.second) if isinstance(self.second, Term) else (self.first,)

    @property
    def hops(self) -> int:
        """Look-ups that it takes."""
        return sum(term.hops for term in self.terms)

    @property
    def level(self) -> int:
        """Calls that it takes, 1 to 4."""
        return self.hops + bool(self.operation)

    @property
    def answer_form(self) -> str:
        """Key of :data:`LEADS`."""
        if self.operation:
            return "computed"
        return "number" if any(self.first.path[-1] in k.numbers for k in KINDS.values()) else "name"

    def __str__(self) -> str:
        if not self.operation:
            return str(self.first)
        return f"{self.first} {self.operation} {self.second}"


def worded(plan: Plan, phrasing: int) -> str:
    """The question; ``phrasing`` counts through the paraphrases."""
    leads = LEADS[plan.answer_form]
    return leads[phrasing % len(leads)].format(plan)


def read_plan(question: str) -> Plan | None:
    """The plan that a question words, or None where it is none of ours.

    >>> read_plan("What is the mayor of the home of Ostrin?").first.path
    ('home', 'mayor')
    """
    found = _QUESTION.fullmatch(question.strip())
    if found is None:
        return None
    first = _term(found[1], found[2], found[3])
    if found[4] is None:
        return Plan(first)
    second = int(found[8]) if found[8] else _term(found[5], found[6], found[7])
    return Plan(first, found[4], second)


def _term(labels: str, kind: str | None, start: str) -> Term:
    path = re.findall(r"the (\w+) of ", labels)
    return Term(start, tuple(reversed(path)), kind or "")
