"""A task: what is asked, what is right, and how that is judged. Its id is the hash of its content."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Task:
    """One question with its answer, e.g. ``Task(question="What is 2 + 3?", answer="5", grader="number")``.

    Two tasks with the same content are the same task in every process and under every hash seed.
    """

    question: str
    """What the agent is asked; never contains the answer."""
    answer: Any
    """What is right, in the form that the grader takes (JSON-encodable). The agent never sees it."""
    grader: str = "exact"
    """Name of the grader in :mod:`reagent_env.graders`."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Relative path → content; placed in the task's folder, which the sandbox sees as ``/work``."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """JSON-encodable facts about the task: ``level``, ``kind``, evidence. The agent never sees them."""

    def __post_init__(self) -> None:
        if not isinstance(self.question, str) or not self.question.strip():
            raise ValueError(f"Task.question must be a non-empty string, got {self.question!r}.")
        if not isinstance(self.grader, str) or not self.grader:
            raise ValueError(f"Task.grader must be a grader's name, got {self.grader!r}.")
        for name, blob in dict(self.files).items():
            if not isinstance(blob, bytes):
                raise ValueError(f"Task.files[{name!r}] must be bytes, got {type(blob).__name__}.")
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or path.name == "" or "\0" in name:
                raise ValueError(
                    f"Task.files: {name!r} is no relative path below the task's folder."
                )
        object.__setattr__(self, "files", MappingProxyType(dict(self.files)))
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))
        try:
            json.dumps([self.answer, dict(self.metadata)], allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Task.answer and Task.metadata must be JSON-encodable ({error}); "
                "turn other values into strings, numbers, lists or dicts first."
            ) from error

    @functools.cached_property
    def id(self) -> str:
        """Sixteen hexadecimal digits: SHA-256 over question, answer, grader, files and metadata."""
        content = {
            "question": self.question,
            "answer": self.answer,
            "grader": self.grader,
            "files": {name: hashlib.sha256(blob).hexdigest() for name, blob in self.files.items()},
            "metadata": dict(self.metadata),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def split(self) -> str:
        """``train``, ``validation`` or ``test``, by content hash (80 / 10 / 10).

        Hashed over the question and files alone, so that the same question can never
        stand in two splits under different answers or metadata.
        """
        named = self.metadata.get("split")
        if named in SPLITS:
            return str(named)
        digest = hashlib.sha256(self.question.encode("utf-8", "surrogatepass"))
        for name in sorted(self.files):
            digest.update(name.encode("utf-8", "surrogatepass") + b"\0" + self.files[name])
        bucket = int.from_bytes(digest.digest()[:4], "big") % 10
        return "train" if bucket < 8 else SPLITS[bucket - 7]

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict; files are base64."""
        return {
            "id": self.id,
            "question": self.question,
            "answer": self.answer,
            "grader": self.grader,
            "files": {k: base64.b64encode(v).decode("ascii") for k, v in self.files.items()},
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Task:
        """The inverse of :meth:`to_json`; unknown keys are refused by name."""
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = set(record) - known - {"id"}
        if unknown:
            raise ValueError(f"Unknown task fields {sorted(unknown)}; known: {sorted(known)}.")
        values = {key: record[key] for key in known if key in record}
        values["files"] = {
            name: base64.b64decode(blob) for name, blob in (record.get("files") or {}).items()
        }
        return cls(**values)

    def __reduce__(self) -> tuple[type[Task], tuple[Any, ...]]:
        """Pickle by content: the read-only views do not pickle."""
        content = (self.question, self.answer, self.grader, dict(self.files), dict(self.metadata))
        return Task, content

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        """A task does not change, so it is its own copy (Gymnasium copies keyword arguments)."""
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)
