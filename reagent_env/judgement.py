"""What a reward model says of one attempt: reasoning, a critique, a score; or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Judgement:
    """One verdict on a process, e.g. ``Judgement("...", "Search before you guess.", score=0.3)``.

    ``score`` is None exactly when ``unscored`` says why: an unreadable or missing verdict is never 0.
    """

    reasoning: str = ""
    """The judge's thinking; never shown to the policy."""
    critique: str = ""
    """Short advice to the policy, without the answer."""
    score: float | None = None
    """Quality of the process in [0, 1], or None where it could not be scored."""
    turn_scores: tuple[float | None, ...] | None = None
    """φ_t for each turn t: quality of the process through turn t; the last equals ``score``."""
    unscored: str | None = None
    """Why there is no score, or None."""
    latency_s: float = 0.0
    """Seconds the judgement took."""
    tokens: int = 0
    """Tokens the judge wrote."""

    def __post_init__(self) -> None:
        if (self.score is None) == (self.unscored is None):
            raise ValueError(
                f"A judgement has either a score or a reason for having none, got "
                f"score={self.score!r}, unscored={self.unscored!r}."
            )
        scores = [s for s in (self.score, *(self.turn_scores or ())) if s is not None]
        if not all(0.0 <= score <= 1.0 for score in scores):
            raise ValueError(f"A judgement's scores lie in [0, 1], got {scores}.")

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Judgement:
        """The inverse of :meth:`to_json`."""
        values = dict(record)
        if values.get("turn_scores") is not None:
            values["turn_scores"] = tuple(values["turn_scores"])
        return cls(**values)
