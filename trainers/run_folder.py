"""The folder of a training run: settings, metrics, events, trajectories, summary; one writer at a time.

::

    runs/20261104-120000-reagent-u/
        config.json                     the settings
        metrics.jsonl                   a line an update
        tensorboard/                    the same as events
        trajectories/000012.jsonl       episodes of update 12; held-out-000010.jsonl: an evaluation's
        checkpoints/000012/             ``checkpoints.py``
        report.md curves.png            ``report.py``
        summary.json                    what it came to

Not here: what is measured (``train.py``), checkpoints, the report.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from reagent_env.trainers.atomic_files import naming, write_json, write_text
from reagent_env.trainers.config import TrainConfig, config_from
from reagent_env.trajectory import Trajectory
from reagent_env.trajectory_file import TrajectoryWriter

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_open_here: set[Path] = set()
"""Runs this process writes to: its own second lock would be granted by the system."""


class RunBusy(OSError):
    """Another process trains in this run folder; the message names it."""


class NotARun(ValueError):
    """The folder holds no run that could be resumed; the message says what is missing."""


class RunFolder:
    """A run that this process writes to; a context manager.

    Example::

        with RunFolder.create(config) as run:
            run.log(1, {"train/outcome": 0.44, "seconds": 3.1})
    """

    def __init__(self, path: Path, config: TrainConfig) -> None:
        """Take hold of an existing folder; :meth:`create` and :meth:`resume` make one.

        Raises:
            RunBusy: another process has it.
        """
        self.path = path
        self.config = config
        self._lock: int | None = _lock(path)
        self._events: SummaryWriter | None = None
        self._purge_from: int | None = None
        self._log_to_wandb: Any = None

    @classmethod
    def create(cls, config: TrainConfig, out: Path | None = None) -> Self:
        """A new run in ``out``, or in ``runs/<time>-<recipe>``.

        Raises:
            FileExistsError: ``out`` holds something already.
        """
        path = new_folder(config.recipe) if out is None else out
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise FileExistsError(
                f"{path} is not empty. A new run needs a new folder; "
                f"`reagent train --resume {path}` goes on with an old one."
            )
        run = cls(path, config)
        write_json(path / "config.json", config.to_json())
        run.checkpoints.mkdir()
        run.trajectories.mkdir()
        return run

    @classmethod
    def resume(cls, path: Path) -> Self:
        """An old run, with its own settings.

        Raises:
            NotARun: there is no readable ``config.json``.
            RunBusy: another process has it.
        """
        return cls(path, read_config(path))

    @property
    def checkpoints(self) -> Path:
        """Where finished checkpoints are, and nothing else."""
        return self.path / "checkpoints"

    @property
    def trajectories(self) -> Path:
        """Where episodes are."""
        return self.path / "trajectories"

    def log(self, update: int, metrics: Mapping[str, Any]) -> None:
        """Append an update's line to ``metrics.jsonl``, and its numbers to TensorBoard.

        NaN and infinities are written as null. Raises ``OSError`` that names the file.
        """
        path = self.path / "metrics.jsonl"
        line = json.dumps({"update": update, **_encodable(metrics)}, allow_nan=False) + "\n"
        with naming(path):
            _append(path, line.encode("utf-8"))
        numbers = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        with naming(self.path / "tensorboard"):
            events = self._tensorboard()
            for name, value in numbers.items():
                events.add_scalar(name, value, update)
            events.flush()
        if self.config.wandb:
            self._wandb().log(numbers, step=update)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``."""
        return read_metrics(self.path)

    def rewind(self, update: int) -> None:
        """Forget everything after ``update``, the one that a resumed run goes on from."""
        kept = [line for line in self.metrics() if line["update"] <= update]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        self.trajectories.mkdir(exist_ok=True)
        for file in self.trajectories.glob("*.jsonl"):
            number = file.stem.rpartition("-")[2]
            if number.isdigit() and int(number) > update:
                file.unlink()
        (self.path / "summary.json").unlink(missing_ok=True)  # of an end that is none any more
        self._purge_from = update + 1

    def save_trajectories(
        self, update: int, trajectories: Iterable[Trajectory], kind: str = ""
    ) -> Path:
        """Write an update's episodes, e.g. ``trajectories/000012.jsonl``; ``kind`` goes before it.

        Raises ``OSError`` that names the file.
        """
        name = f"{kind}-{update:06d}.jsonl" if kind else f"{update:06d}.jsonl"
        path = self.trajectories / name
        path.unlink(missing_ok=True)
        with naming(path), TrajectoryWriter(path) as writer:
            for trajectory in trajectories:
                writer.write(trajectory)
        return path

    def write_summary(
        self,
        *,
        updates: int,
        train_seconds: float,
        before: float | None,
        after: float | None,
        n: int,
        ci: tuple[float, float] | None,
        unscored_rate: float,
    ) -> None:
        """Write ``summary.json``.

        Args:
            updates: Updates made.
            train_seconds: Time of training, evaluations left out.
            before: Held-out success before training; None where it was not measured.
            after: And after.
            n: Episodes of each.
            ci: 95 % interval of ``after``.
            unscored_rate: Share of judgements without a score.
        """
        config = self.config
        summary = {
            "recipe": config.recipe,
            "env": config.env,
            "policy": config.policy,
            "judge": config.judge if config.needs_judge else None,
            "seed": config.seed,
            "updates": updates,
            "train_seconds": round(train_seconds, 1),
            "held_out": {"before": before, "after": after, "n": n, "ci": list(ci) if ci else None},
            "unscored_rate": unscored_rate,
        }
        write_json(self.path / "summary.json", _encodable(summary))

    def close(self) -> None:
        """End the logs and let go of the folder. Twice is fine."""
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._log_to_wandb is not None:
            self._log_to_wandb.finish()
            self._log_to_wandb = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            _open_here.discard(self.path.resolve())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _tensorboard(self) -> SummaryWriter:
        if self._events is None:
            from torch.utils.tensorboard import SummaryWriter

            folder = str(self.path / "tensorboard")
            self._events = SummaryWriter(folder, purge_step=self._purge_from)
        return self._events

    def _wandb(self) -> Any:
        if self._log_to_wandb is None:
            self._log_to_wandb = import_wandb().init(
                project="reagent",
                name=self.path.name,
                id=self.path.name,
                resume="allow",
                dir=str(self.path),
                config=self.config.to_json(),
            )
        return self._log_to_wandb


def import_wandb() -> Any:
    """The ``wandb`` module. Raises ``ValueError`` that says how to get it, where it is missing."""
    import importlib

    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise ValueError(
            "wandb=true, and Weights & Biases is not installed: `pip install wandb`, or leave it "
            "out; TensorBoard's events are written in any case."
        ) from error


def read_config(run: Path) -> TrainConfig:
    """The settings of a run. Raises :class:`NotARun` where there are none."""
    path = run / "config.json"
    try:
        return config_from(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise NotARun(
            f"{run} is no run that can be resumed: {path.name} cannot be read ({error}). "
            "A run is a folder such as runs/20261104-120000-reagent-u."
        ) from error


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl`` in order; a torn last one is passed over.

    Raises:
        ValueError: a line in the middle that is no JSON object, with its number.
    """
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn
        try:
            found.append(dict(json.loads(line)))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}, line {number}: not an update's metrics ({error})."
            ) from error
    return found


def _append(path: Path, line: bytes) -> None:
    """Append a whole line or nothing."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        start = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, line)
            if written < len(line):
                os.write(descriptor, line[written:])  # raises what is the matter
        except OSError:
            os.ftruncate(descriptor, start)
            raise
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    """Take the run's lock, which the system frees with the process, however that ends."""
    here = path.resolve()
    if here in _open_here:  # to open and close the file once more would free the lock
        raise RunBusy(f"{path} is being trained by this process.")
    descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # Not flock: a forked child that outlives us would keep that one.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise RunBusy(
            f"{path} is being trained by process {owner or 'unknown'}. Wait for it, or stop it with "
            "Ctrl-C; its run can be resumed."
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    shutil.rmtree(path / ".unfinished", ignore_errors=True)
    _open_here.add(here)
    return descriptor


def new_folder(recipe: str) -> Path:
    """A folder of its own for a run that starts now: ``runs/<time>-<recipe>``."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{recipe}"
    for number in itertools.count(1):
        path = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable")


def _encodable(value: Any) -> Any:
    """The value with null in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _encodable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
