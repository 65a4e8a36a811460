"""One run of an ablation, in a process of its own: ``python -m reagent_env.trainers.ablation.one_run``.

Its first line on standard input says what to do; when standard input ends, so does the process,
since whoever started it is gone. Not here: which runs there are (``plan.py``), starting them
(``processes.py``).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from reagent_env.trainers.config import TrainConfig, config_from

if TYPE_CHECKING:
    from reagent_env.trainers.progress import TrainProgress
    from reagent_env.trainers.run_folder import RunFolder

GRACE_SECONDS = 20.0
"""Between being asked to end and ending all the same."""


def make_run(path: Path, config: TrainConfig, *, measure: bool, before: Path | None = None) -> None:
    """Make a run, or go on with what is there of it; without ``training/`` once it is finished.

    Args:
        path: Its folder.
        config: Its settings.
        measure: Train nothing: the held-out success of its first weights.
        before: Where that was measured: what its answers are compared with for leakage.

    Raises:
        ValueError: the folder holds a run with other settings.
        Exception: whatever training raised.
    """
    from reagent_env.trainers.progress import TrainProgress
    from reagent_env.trainers.run_folder import RunFolder, read_config

    if (path / "config.json").exists():
        there = read_config(path)
        if there.to_json() != config.to_json():
            raise ValueError(
                f"{path} holds a run with other settings: remove it, or another --out."
            )
        made = RunFolder.resume(path)
    else:
        made = RunFolder.create(config, path)
    with made as run, TrainProgress(config) as progress:
        if measure:
            _measure(config, run, progress)
            return
        from reagent_env.trainers.train import train

        train(config, run, progress)
        _measure_leakage(config, run, before)
        _without_optimiser(run)


def _measure(config: TrainConfig, run: RunFolder, progress: TrainProgress) -> None:
    from reagent_env.trainers.held_out import held_out, held_out_fields
    from reagent_env.trainers.parts import load_for_training, training_parts

    policy = load_for_training(config)
    with training_parts(config, policy) as parts:
        parts.engine.pause()
        parts.publish(0)
        found = held_out(config, run, parts, progress, update=0)
    run.write_summary(
        updates=0, train_seconds=0.0, unscored_rate=0.0, **held_out_fields(found, found)
    )


def _measure_leakage(config: TrainConfig, run: RunFolder, before: Path | None) -> None:
    """Keep how often held-out answers talk of a critique: the table has a column for it."""
    from reagent_env.trainers.atomic_files import write_json
    from reagent_env.trainers.leakage import leakage_of

    if config.held_out_episodes:
        there = before is not None and (before / "summary.json").exists()
        found = leakage_of(run.path, before if there else None)
        write_json(run.path / "leakage.json", found.to_json())


def _without_optimiser(run: RunFolder) -> None:
    """A finished run is not resumed: its checkpoint keeps the weights alone."""
    from reagent_env.trainers.atomic_files import remove_folder

    for folder in run.checkpoints.glob("[0-9]*/training"):
        remove_folder(folder, run.path / ".unfinished")


def _end_with_parent() -> None:
    """End this process when standard input ends: Ctrl-C's way first, then for good."""

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    main_thread = threading.main_thread().ident or 0

    def watch() -> None:
        while os.read(0, 4096):  # unbuffered: a buffer's lock would bar the interpreter from ending
            pass
        signal.pthread_kill(main_thread, signal.SIGINT)  # it may be waiting: not any thread
        threading.Event().wait(GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def main() -> None:
    """Read what to do and do it."""
    wanted = json.loads(sys.stdin.buffer.readline())
    _end_with_parent()
    make_run(
        Path(wanted["path"]),
        config_from(wanted["config"]),
        measure=wanted["measure"],
        before=Path(wanted["before"]),
    )


if __name__ == "__main__":
    main()
