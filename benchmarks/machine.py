"""On what a benchmark ran, and how busy other programs kept it meanwhile.

A ratio of two sides that took turns survives a busy machine, a time does not: so every figure is
kept with this. On systems without ``/proc`` the busy shares are unknown.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine during a benchmark, e.g. 2 processors, 0.95 busy, 0.4 of it by other programs."""

    processors: int
    """That this process may use."""
    python: str
    """Version."""
    platform: str
    """Kernel and processor's kind."""
    seconds: float
    """That the benchmark took."""
    busy: float | None
    """Share of all processors' time that was used; None where unknown."""
    others: float | None
    """Share used by processes that are neither the benchmark's own nor its children."""
    load: float | None
    """Average number of tasks that ran or wanted to, over the last minute of the benchmark."""

    def __str__(self) -> str:
        """One line."""
        shown = f"{self.processors} processors, Python {self.python}, {self.seconds:.0f} s"
        if self.busy is not None and self.others is not None:
            shown += f"; {self.busy:.0%} of the machine busy, {self.others:.0%} by other programs"
        return shown if self.load is None else f"{shown}; load {self.load:.1f}"


class Watch:
    """Begins when it is made; :meth:`machine` says what has been since.

    Example::

        watch = Watch()
        …                       # the benchmark; its processes have ended after it
        print(watch.machine())
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._busy = busy_seconds()
        self._own = own_seconds()

    def machine(self) -> Machine:
        """What the machine is, and what it did since."""
        seconds = max(1e-9, time.perf_counter() - self._began)
        whole = seconds * (os.cpu_count() or 1)
        now, own = busy_seconds(), own_seconds() - self._own
        busy = others = None
        if now is not None and self._busy is not None:
            busy = min(1.0, (now - self._busy) / whole)
            others = max(0.0, busy - own / whole)
        affinity = getattr(os, "sched_getaffinity", None)
        return Machine(
            processors=len(affinity(0)) if affinity else os.cpu_count() or 1,
            python=platform.python_version(),
            platform=f"{platform.system()} {platform.machine()}",
            seconds=seconds,
            busy=busy,
            others=others,
            load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        )


def busy_seconds() -> float | None:
    """Processor seconds of the whole machine so far, other programs' included; None where unknown."""
    if not STAT.exists():
        return None
    fields = [int(one) for one in STAT.read_text().splitlines()[0].split()[1:9]]
    return float(sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Processor seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
