"""A control group for one sandbox: memory, process and CPU caps, where this user may make one.

Works on cgroup v1 and v2 as mounted at ``/sys/fs/cgroup``. Not for Docker, which makes its own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reagent_env.sandboxes.contract import Limits

ROOT = Path("/sys/fs/cgroup")
PARENT = "reagent"
_OVERHEAD_PROCESSES = 4
"""The zygote and bubblewrap's own processes, which are not the task's."""
_SOCKETS_PART = 8
"""What TCP and UDP may hold, where that is counted apart, is the memory divided by this."""
_numbers = itertools.count(1)


@dataclass(frozen=True)
class ControlGroup:
    """One sandbox's folders below ``/sys/fs/cgroup``, e.g. one each for memory, pids and cpu on v1."""

    folders: tuple[Path, ...]
    """Where a process's id is written for it to join."""
    memory: bool
    """The memory cap was read back as set."""
    pids: bool
    """The process cap was read back as set."""
    oom_file: Path | None
    """The file with the line ``oom_kill N``."""

    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed for memory, 0 where it cannot be read."""
        if self.oom_file is not None:
            with contextlib.suppress(OSError, ValueError):
                for line in self.oom_file.read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return 0

    def watch_memory(self) -> Callable[[], bool]:
        """Return what says whether the kernel has killed for memory since this call."""
        before = self.oom_kills()
        return lambda: self.oom_kills() > before

    def join_script(self) -> str:
        """Return shell commands by which a subshell puts itself into the group."""
        return "".join(f"echo 0 > {folder}/cgroup.procs\n" for folder in self.folders)

    def remove(self, seconds: float = 2.0) -> None:
        """Kill what is left in it and remove the folders; waits for the dying for ``seconds``."""
        limit = time.monotonic() + seconds
        for folder in self.folders:
            while folder.exists():
                for pid in _members(folder):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > limit:
                        return  # the next sweep removes it
                    # v1 has no event for an emptied group.
                    time.sleep(0.002)


def cap_sockets(container: str, limits: Limits, pid: Callable[[], int]) -> bool:
    """Bound what a container's sockets hold, which version 1 counts apart; False if not ours to.

    Not needed on version 2, where a group's memory includes it.

    Args:
        container: Its id; the usual places of its group are tried first.
        limits: What the sandbox may use.
        pid: Asks for its first process, whose group is tried where those places are not it.
    """
    cap = str((limits.memory_mb << 20) // _SOCKETS_PART)
    places = (f"docker/{container}", f"system.slice/docker-{container}.scope")
    return any(_cap_sockets_of(place, cap) for place in places) or _cap_sockets_of(
        _memory_group(pid()), cap
    )


def _cap_sockets_of(place: str, cap: str) -> bool:
    return bool(place) and _write(ROOT / "memory" / place / "memory.kmem.tcp.limit_in_bytes", cap)


def _memory_group(pid: int) -> str:
    """The memory group of a process on version 1, below the controller's root; "" if unknown."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if "memory" in controllers.split(","):
                return place.strip("/")
    return ""


def make_control_group(limits: Limits) -> ControlGroup | None:
    """Make a group with ``limits``, or return None where that is not possible."""
    name = f"{os.getpid()}-{start_time(os.getpid())}-{next(_numbers)}"
    memory, pids = str(limits.memory_mb << 20), str(limits.pids + _OVERHEAD_PROCESSES)
    if (ROOT / "cgroup.controllers").exists():
        return _make_v2(name, memory, pids, limits.cpus)
    return _make_v1(name, memory, pids, limits.cpus)


def _make_v2(name: str, memory: str, pids: str, cpus: float) -> ControlGroup | None:
    parent = ROOT / PARENT
    try:
        parent.mkdir(exist_ok=True)
        for folder in (ROOT, parent):
            for controller in ("memory", "pids", "cpu"):
                _write(folder / "cgroup.subtree_control", f"+{controller}")
        _sweep(parent)
        group = parent / name
        group.mkdir()
    except OSError:
        return None
    has_memory = _set(group / "memory.max", memory)
    _write(group / "memory.swap.max", "0")
    has_pids = _set(group / "pids.max", pids)
    _write(group / "cpu.max", f"{int(cpus * 100_000)} 100000")
    oom = group / "memory.events"
    return ControlGroup((group,), has_memory, has_pids, oom if oom.exists() else None)


def _make_v1(name: str, memory: str, pids: str, cpus: float) -> ControlGroup | None:
    folders: dict[str, Path] = {}
    for controller in ("memory", "pids", "cpu"):
        parent = ROOT / controller / PARENT
        if not (ROOT / controller / "cgroup.procs").exists():
            continue
        with contextlib.suppress(OSError):
            parent.mkdir(exist_ok=True)
            _sweep(parent)
            (parent / name).mkdir()
            folders[controller] = parent / name
    if not folders:
        return None
    has_memory = has_pids = False
    oom = None
    if "memory" in folders:
        has_memory = _set(folders["memory"] / "memory.limit_in_bytes", memory)
        # Absent without swap accounting; then no swapping at all.
        _write(folders["memory"] / "memory.memsw.limit_in_bytes", memory)
        _write(folders["memory"] / "memory.swappiness", "0")
        # Version 1 counts what sockets hold apart, and lets it grow without end.
        _write(
            folders["memory"] / "memory.kmem.tcp.limit_in_bytes", str(int(memory) // _SOCKETS_PART)
        )
        oom = folders["memory"] / "memory.oom_control"
    if "pids" in folders:
        has_pids = _set(folders["pids"] / "pids.max", pids)
    if "cpu" in folders:
        _write(folders["cpu"] / "cpu.cfs_period_us", "100000")
        _write(folders["cpu"] / "cpu.cfs_quota_us", str(int(cpus * 100_000)))
    return ControlGroup(tuple(folders.values()), has_memory, has_pids, oom)


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError:
        return False
    return True


def _set(path: Path, text: str) -> bool:
    return _write(path, text) and path.read_text().strip() == text


def _members(folder: Path) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    return []


def start_time(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot; None when there is no such process.

    Names a process together with its id, which alone is used again.
    """
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text()
        return text.rpartition(")")[2].split()[19]
    return None


def _sweep(parent: Path) -> None:
    """Remove empty groups whose owner is dead (one with processes in it refuses to go)."""
    for folder in parent.iterdir():
        pid, _, rest = folder.name.partition("-")
        if folder.is_dir() and pid.isdigit() and start_time(int(pid)) != rest.partition("-")[0]:
            with contextlib.suppress(OSError):
                folder.rmdir()
