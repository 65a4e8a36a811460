"""``trajectories.jsonl``: one trajectory a line, appended whole; a crash loses at most one line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reagent_env.trajectory import Trajectory


class TrajectoryWriter:
    """Appends trajectories to a file, one ``write`` a line; a context manager, safe to reopen.

    Example::

        with TrajectoryWriter(run / "trajectories.jsonl") as writer:
            writer.write(trajectory)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor: int | None = os.open(
            self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644
        )
        self._end_torn_line()

    def write(self, trajectory: Trajectory) -> None:
        """Append one line. Raises ``OSError`` (a full disk) with the file's earlier lines intact."""
        if self._descriptor is None:
            raise ValueError(f"{self.path} is closed.")
        line = (json.dumps(trajectory.to_json()) + "\n").encode("ascii")
        start = os.fstat(self._descriptor).st_size
        written = os.write(self._descriptor, line)
        if written != len(line):
            os.ftruncate(self._descriptor, start)
            raise OSError(f"Wrote {written} of {len(line)} bytes to {self.path}: is the disk full?")

    def close(self) -> None:
        """Close the file; twice is fine."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _end_torn_line(self) -> None:
        """Cut off what a crash left of an unfinished last line, so that the next line stands alone."""
        assert self._descriptor is not None
        size = os.fstat(self._descriptor).st_size
        position = size
        while position > 0:
            start = max(0, position - 65_536)
            block = os.pread(self._descriptor, position - start, start)
            newline = block.rfind(b"\n")
            if newline >= 0:
                position = start + newline + 1
                break
            position = start
        if position != size:
            os.ftruncate(self._descriptor, position)


def read_trajectories(path: str | Path) -> Iterator[Trajectory]:
    """Yield the trajectories of a file in order, passing over a torn last line.

    An episode that was masked and run again stands here twice: :func:`settled_trajectories` leaves
    out the first.

    Raises:
        ValueError: a line that is not a trajectory, with its number.
    """
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                trajectory = _trajectory(json.loads(line))
            except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}, line {number}: not a trajectory ({type(error).__name__}: {error})."
                ) from error
            yield trajectory


def settled_trajectories(path: str | Path) -> list[Trajectory]:
    """The trajectories of a file without the masked ones whose task was run again afterwards.

    Raises:
        ValueError: as :func:`read_trajectories`.
    """
    records = list(read_trajectories(path))
    last = {record.task.id: place for place, record in enumerate(records)}
    return [
        record
        for place, record in enumerate(records)
        if record.infrastructure_error is None or last[record.task.id] == place
    ]


def _trajectory(record: Any) -> Trajectory:
    if not isinstance(record, dict):
        raise TypeError(f"expected a JSON object, got {type(record).__name__}")
    return Trajectory.from_json(record)
