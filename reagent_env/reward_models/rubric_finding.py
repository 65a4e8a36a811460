"""One flaw that the rubric found, and how the findings of an attempt weigh together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reagent_env.reward_models.rubric_view import View

REPEATED = 0.5
"""Each further finding of a kind weighs this much of the one before."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A flaw, e.g. ``Finding(2, "repeated_call", 0.25, "…same call as turn 1", "Use what …")``."""

    turn: int
    """Index of the turn at fault, from 0."""
    kind: str
    """A word for it; kinds weigh less each time they recur."""
    severity: float
    """Share of the quality it takes, in (0, 1)."""
    explanation: str
    """What was seen, for the reasoning."""
    advice: str
    """What to do instead, for the critique: no answer, no value out of the attempt."""
    hindsight: bool = False
    """True where only later turns show it."""
    idle: bool = False
    """True where the turn brought nothing nearer, whatever it showed."""


Check = Callable[[View], Iterable[Finding]]


class Quality:
    """The product of (1 - severity · 0.5^k) over findings, k earlier ones of the same kind."""

    def __init__(self) -> None:
        self.value = 1.0
        self._seen: Counter[str] = Counter()

    def add(self, finding: Finding) -> None:
        """Take one finding into account."""
        weight = REPEATED ** min(self._seen[finding.kind], 60)
        self._seen[finding.kind] += 1
        self.value *= 1.0 - finding.severity * weight
