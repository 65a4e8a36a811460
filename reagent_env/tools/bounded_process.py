"""Runs a program on bytes that nobody vouches for: bounded in time, memory and output.

For decoders and recognisers of pictures and sound, whose files come from data sets and policies. Not
a sandbox: the program is ours, only its input is not. It gets no secrets in its environment, no
network is taken away, and on systems without ``ulimit -v`` memory is not bounded.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "VIRTUAL_ENV", "TESSDATA_PREFIX")
_LIMITED = (
    'ulimit -v "$1" 2>/dev/null; ulimit -t "$2" 2>/dev/null; ulimit -c 0 2>/dev/null; shift 2; '
    'exec "$@"'
)


@dataclass(frozen=True)
class Bounds:
    """What a program may use, e.g. ``Bounds(seconds=20.0, memory_bytes=2**30)``."""

    seconds: float = 20.0
    """Of wall time and, rounded up, of processor time."""
    memory_bytes: int = 2**30
    """Of address space."""
    output_bytes: int = 2**26
    """A longer output counts as a failure."""


class ProgramFailed(Exception):
    """The program ended badly; the message holds the end of what it said.

    Attributes:
        timed_out: It was stopped for its time.
        status: Its exit status: 127 where there is no such program, negative for a signal; None
            where it was stopped for what it wrote or took.
    """

    def __init__(self, message: str, *, timed_out: bool = False, status: int | None = None) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.status = status


def run_bounded(command: Sequence[str], given: bytes, bounds: Bounds = Bounds()) -> bytes:
    """What ``command`` writes to standard output when it reads ``given``.

    Example: ``run_bounded(["tesseract", "-", "-"], png)``.

    Raises:
        ProgramFailed: it is missing, fails, takes too long, or writes too much.
    """
    limits = [str(bounds.memory_bytes // 1024), str(int(bounds.seconds) + 1)]
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment |= {"OMP_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        ["/bin/sh", "-c", _LIMITED, "bounded", *limits, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    with process:
        late = threading.Event()

        def stop() -> None:
            late.set()
            _kill(process)

        clock = threading.Timer(bounds.seconds, stop)
        clock.daemon = True
        clock.start()
        try:
            written, said = _exchange(process, given, bounds.output_bytes)
        finally:
            clock.cancel()
            _kill(process)
            process.wait()
    if late.is_set():
        raise ProgramFailed(f"it took more than {bounds.seconds:g} s", timed_out=True)
    if len(written) > bounds.output_bytes:
        raise ProgramFailed(f"it wrote more than {bounds.output_bytes} bytes")
    if process.returncode != 0:
        words = " ".join(said.decode("utf-8", "replace").split())[-300:]
        how = f"signal {-process.returncode}" if process.returncode < 0 else words or "no message"
        raise ProgramFailed(how, status=process.returncode)
    return written


def beside(program: str) -> list[str]:
    """The command that runs a program of this folder by itself, without importing the package."""
    return [sys.executable, "-I", str(Path(__file__).with_name(program))]


def _exchange(process: subprocess.Popen[bytes], given: bytes, most: int) -> tuple[bytes, bytes]:
    """Feed and drain at the same time, so that neither side waits for the other."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[bytes] = []

    def feed() -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write(given)
        with contextlib.suppress(OSError):
            process.stdin.close()

    listening = process.stderr.fileno()

    def listen() -> None:
        for piece in iter(lambda: os.read(listening, 4096), b""):
            said.append(piece)
            del said[:-4]

    threads = [threading.Thread(target=work, daemon=True) for work in (feed, listen)]
    for thread in threads:
        thread.start()
    written = process.stdout.read(most + 1)
    if len(written) > most:
        _kill(process)
    for thread in threads:
        thread.join()
    process.wait()
    return written, b"".join(said)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
