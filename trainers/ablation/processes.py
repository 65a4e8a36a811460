"""Runs in processes of their own, so many at once; those that are there already are passed over."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from reagent_env.trainers.ablation.plan import MEASURE, PlannedRun
from reagent_env.trainers.atomic_files import write_json

COMMAND = (sys.executable, "-m", "reagent_env.trainers.ablation.one_run")
"""What makes a run: reads what to do from standard input, and ends when that ends."""
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
GIVE_UP_AFTER = 3
"""Runs that fail one after the other with none between that does not: the fault is in no single one."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended, e.g. ``Ended(run, 214.0, None)``."""

    run: PlannedRun
    seconds: float
    failure: str | None
    """The end of its log, or None."""


def is_finished(run: PlannedRun) -> bool:
    """Whether it is there already."""
    return (run.path / "summary.json").exists()


def log_of(run: PlannedRun) -> Path:
    """What the process says."""
    return run.path.with_suffix(".log")


def failure_of(run: PlannedRun) -> str | None:
    """How it failed when it was last tried; None where it did not, or was not."""
    file = _failure_file(run)
    return str(json.loads(file.read_text("utf-8"))["failure"]) if file.exists() else None


def _failure_file(run: PlannedRun) -> Path:
    return run.path.with_name(f"{run.path.name}.failed.json")


def make_all(
    runs: Sequence[PlannedRun],
    *,
    at_once: int,
    limit_seconds: float,
    on_end: Callable[[Ended], None],
) -> list[Ended]:
    """Make the runs, ``at_once`` at a time; returns those that failed.

    A failed run spoils no other; after :data:`GIVE_UP_AFTER` in a row the rest is not begun. On an
    exception such as Ctrl-C the processes are ended, and what they did stays to go on from.

    Args:
        runs: Those not finished are made, in order.
        at_once: Processes at a time, one thread each.
        limit_seconds: Of one process; then it is ended and counts as failed.
        on_end: Called in the order in which they end.
    """
    processes = _Processes(limit_seconds)
    failed: list[Ended] = []
    in_a_row = 0
    lock = threading.Lock()

    def one(run: PlannedRun) -> None:
        nonlocal in_a_row
        with lock:
            if in_a_row >= GIVE_UP_AFTER:
                return
        ended = processes.make(run)
        if ended is None:
            return
        with lock:
            in_a_row = in_a_row + 1 if ended.failure else 0
            if ended.failure:
                failed.append(ended)
            on_end(ended)

    with ThreadPoolExecutor(at_once, thread_name_prefix="run") as pool:
        try:
            for future in [pool.submit(one, run) for run in runs if not is_finished(run)]:
                future.result()
        except BaseException:
            processes.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


class _Processes:
    """The processes under way."""

    def __init__(self, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._live: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def make(self, run: PlannedRun) -> Ended | None:
        """Make one run and wait for it; None where everything was stopped."""
        began = time.monotonic()
        log = log_of(run)
        log.parent.mkdir(parents=True, exist_ok=True)
        order = {
            "path": str(run.path),
            "config": run.config.to_json(),
            "measure": run.arm == MEASURE,
            "before": str(run.before),
        }
        with log.open("ab") as said, self._lock:
            if self._stopped:
                return None
            process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ONE_THREAD},
                start_new_session=True,  # Ctrl-C is passed on by stop(), once
            )
            self._live.add(process)
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it ended at once: its log says why
                process.stdin.write(json.dumps(order).encode() + b"\n")
                process.stdin.flush()
            failure = None
            try:
                code = process.wait(self._limit)
                if code != 0 or not is_finished(run):
                    failure = f"exit {code}; {log} ends with:\n{_end_of(log)}"
            except subprocess.TimeoutExpired:
                failure = f"not finished after {self._limit / 60:.0f} minutes; see {log}"
        finally:
            _end(process)
            with self._lock:
                self._live.discard(process)
        if self._stopped:
            return None
        seconds = time.monotonic() - began
        if failure is None:
            _failure_file(run).unlink(missing_ok=True)
        else:
            write_json(_failure_file(run), {"failure": failure, "seconds": seconds})
        return Ended(run, seconds, failure)

    def stop(self) -> None:
        """End them all, and let none begin."""
        with self._lock:
            self._stopped = True
            live = list(self._live)
        for process in live:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in live:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process: its standard input first, which it takes for our end; then for good."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_of(log: Path, lines: int = 8) -> str:
    text = log.read_bytes()[-20_000:].decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-lines:])
