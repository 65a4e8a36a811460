"""Who owns a container: labels that tell a later sweep whether that process still lives.

A pid alone is not enough: pids are used again. A process is named by its pid, its start time, the
boot it belongs to and the pid namespace in which that pid means something.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

PREFIX: Final = "reagent_env."
MARK: Final = f"{PREFIX}sandbox"
"""Label that every container of ours carries."""

LIFETIME_S: Final = 24 * 3600
"""Seconds after which a container whose owner cannot be judged from here is taken for abandoned."""

_runs: dict[int, str] = {}


def run_id() -> str:
    """Return this process's id of its own: sandboxes of one run carry the same."""
    return _runs.setdefault(os.getpid(), secrets.token_hex(6))


def owner_labels(pid: int | None = None) -> dict[str, str]:
    """Return the labels of a container that process ``pid`` (this one by default) makes now."""
    owner = os.getpid() if pid is None else pid
    return {
        MARK: "1",
        f"{PREFIX}run": run_id(),
        f"{PREFIX}owner_pid": str(owner),
        f"{PREFIX}owner_start": start_time(owner) or "",
        f"{PREFIX}boot": boot_id(),
        f"{PREFIX}pid_namespace": pid_namespace(),
        f"{PREFIX}deadline": str(int(time.time()) + LIFETIME_S),
    }


def is_abandoned(labels: Mapping[str, str], *, running: bool) -> bool:
    """Return whether nobody owns a container any more; False whenever that is not certain.

    Args:
        labels: The container's labels.
        running: Whether the container runs: no container of ours outlives a boot.
    """
    if labels.get(MARK) != "1":
        return False
    try:
        pid = int(labels[f"{PREFIX}owner_pid"])
        start = labels[f"{PREFIX}owner_start"]
        past_deadline = time.time() > float(labels[f"{PREFIX}deadline"])
    except (KeyError, ValueError):
        return False  # not labels that we wrote
    if labels.get(f"{PREFIX}boot") != boot_id():
        # Another boot of this machine, or another machine with the same engine.
        return past_deadline or not running
    if labels.get(f"{PREFIX}pid_namespace") != pid_namespace():
        return past_deadline  # that pid means nothing here
    return not is_alive(pid, start)


def is_alive(pid: int, start: str) -> bool:
    """Return whether the process that started at ``start`` still has the number ``pid``."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # somebody else's
    now = start_time(pid)
    # Where its start time is hidden from us, the process gets the benefit of the doubt.
    return now is None or not start or now == start


def start_time(pid: int) -> str | None:
    """Return a text that no other process with this pid has, or None if it cannot be read.

    A zombie counts as ended: nothing in it can use a sandbox.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, IndexError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            fields = stat.rpartition(")")[2].split()  # the name before may hold anything
            return "ended" if fields[0] in "ZX" else fields[19]
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        shown = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        return shown.stdout.strip() or None
    return None


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return this boot's id."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        shown = subprocess.run(
            ["sysctl", "-n", "kern.bootsessionuuid"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        return shown.stdout.strip()
    return "unknown"


def pid_namespace() -> str:
    """Return the id of this process's pid namespace, empty where there is none."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""
