"""One judged example a line: a trajectory, what is wrong with it and where, and what to say of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reagent_env.trajectory import Trajectory

CLEAN = "clean"
"""The kind of a trajectory without a planted flaw that is nobody's benign twin."""
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class PlantedRecord:
    """A trajectory with its label, e.g. ``PlantedRecord(trajectory, "unit_slip", 2, 0.3, ...)``."""

    trajectory: Trajectory
    """What to judge; its task holds the right answer, which a judge must not see."""
    kind: str
    """The flaw's kind, a benign twin's, or ``clean``."""
    turn: int | None
    """Index of the flawed turn; None without a flaw."""
    target: float
    """Quality of the process in [0, 1], from the flaw's severity."""
    critique: str
    """Reference critique; never holds the answer."""
    turn_targets: tuple[float, ...]
    """[T] φ_t, quality through turn t; falls at ``turn``; the last is ``target``."""
    pair_id: str
    """The same for the two partners of a pair."""
    benign: bool = False
    """True for a twin that differs from its partner without being worse."""
    diverges: int | None = None
    """First turn that differs from the partner's: ``turn``, or before it where harmless turns
    come in between. None for a clean partner."""
    split: str = "train"
    """The task's split."""
    label: str = "as_is"
    """``as_is``: graded by the task's own answer. ``unlucky``: by a wrong one that neither partner
    gives. ``lucky``: by a wrong one that the flawed partner gives."""

    def __post_init__(self) -> None:
        turns = len(self.trajectory.attempts[-1].turns) if self.trajectory.attempts else 0
        if len(self.turn_targets) != turns:
            raise ValueError(f"turn_targets has {len(self.turn_targets)} entries, want {turns}.")
        if not all(0.0 <= y <= 1.0 for y in (self.target, *self.turn_targets)):
            raise ValueError(f"Targets lie in [0, 1], got {self.target}, {self.turn_targets}.")
        if self.turn is not None and not 0 <= self.turn < turns:
            raise ValueError(f"turn {self.turn} is outside the {turns} turns.")

    @property
    def flawed(self) -> bool:
        """Whether a flaw was planted."""
        return self.turn is not None

    @property
    def group(self) -> str:
        """What makes the task, whatever its recorded answer: its question and its files."""
        task = self.trajectory.task
        return task.question + "\0" + "\0".join(sorted(task.files))

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict."""
        return {
            "schema_version": SCHEMA_VERSION,
            "trajectory": self.trajectory.to_json(),
            "kind": self.kind,
            "turn": self.turn,
            "target": self.target,
            "critique": self.critique,
            "turn_targets": list(self.turn_targets),
            "pair_id": self.pair_id,
            "benign": self.benign,
            "diverges": self.diverges,
            "split": self.split,
            "label": self.label,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PlantedRecord:
        """The inverse of :meth:`to_json`; of fields that are absent, the defaults."""
        version = record.get("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"This record has schema version {version!r}; this reagent_env reads "
                f"{SCHEMA_VERSION}. Upgrade reagent-env to read it."
            )
        return cls(
            trajectory=Trajectory.from_json(record["trajectory"]),
            kind=str(record["kind"]),
            turn=record["turn"],
            target=float(record["target"]),
            critique=str(record.get("critique", "")),
            turn_targets=tuple(float(y) for y in record["turn_targets"]),
            pair_id=str(record["pair_id"]),
            benign=bool(record.get("benign", False)),
            diverges=record.get("diverges", record["turn"]),
            split=str(record.get("split", "train")),
            label=str(record.get("label", "as_is")),
        )


def write_records(path: str | Path, records: Iterable[PlantedRecord]) -> int:
    """Write a JSONL file anew and return how many records it holds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with open(path, "w", encoding="ascii") as lines:
        for record in records:
            lines.write(json.dumps(record.to_json(), sort_keys=True) + "\n")
            count += 1
    return count


def read_records(path: str | Path) -> Iterator[PlantedRecord]:
    """Yield a file's records in order.

    Raises:
        ValueError: a line that is not a record, with its number.
    """
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield PlantedRecord.from_json(json.loads(line))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}, line {number}: not a record of `reagent judge-data` "
                    f"({type(error).__name__}: {error})."
                ) from error
