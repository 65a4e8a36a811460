"""The contract every sandbox keeps: what it promises, what it answers, what it raises.

Not here: how a sandbox is made (``docker.py``, ``embedded.py``) or shared (``pool.py``).
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Self

from reagent_env.sandboxes.errors import CapabilityMissing


class Status(enum.StrEnum):
    """How one execution ended. All of these are results; a lost sandbox is an exception."""

    OK = "ok"
    """It ran to its end (a shell command with exit code 0)."""
    ERROR = "error"
    """The code raised, or the command exited with another code than 0."""
    TIMEOUT_INTERRUPTED = "timeout_interrupted"
    """Interrupted (SIGINT) at its deadline; the session's state is kept."""
    TIMEOUT_KILLED = "timeout_killed"
    """Ignored the interrupt and was killed; files stay, the session's variables are lost."""
    OOM = "oom"
    """Killed for memory; the session's variables are lost."""
    OUTPUT_LIMIT = "output_limit"
    """Stopped because it printed more than the hard limit."""
    SESSION_DIED = "session_died"
    """The session's process ended by itself (``os._exit``, a crash); a new one was started."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What one piece of code or one command did, e.g. ``Execution(Status.OK, "12\\n", exit_code=0)``."""

    status: Status
    """How it ended."""
    output: str
    """Standard output and error as printed, in order; head and tail when it was long."""
    value: str | None = None
    """``repr`` of a last expression (python only), or None."""
    exit_code: int | None = None
    """The command's exit code (shell only); negative for a signal."""
    omitted_chars: int = 0
    """Bytes of output left out between head and tail."""
    state_kept: bool = True
    """False when the python session was started afresh, its variables gone."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use, e.g. ``Limits(memory_mb=512)``."""

    memory_mb: int = 256
    """MiB of memory in all, files on its in-memory disks included; no swap."""
    cpus: float = 1.0
    """CPUs' worth of time."""
    pids: int = 64
    """Processes and threads at once."""
    work_mb: int = 64
    """MiB of ``/work``, the session's working directory (and of ``/tmp``)."""
    shm_mb: int = 16
    """MiB of ``/dev/shm``."""
    inodes: int = 4096
    """Files in each of those."""
    open_files: int = 256
    """File descriptors a process."""
    output_chars: int = 32_768
    """Bytes of output kept of one execution: half of it head, half tail."""
    output_hard_mb: int = 64
    """MiB after which a printing execution is stopped (``output_limit``)."""
    timeout_s: float = 30.0
    """Default seconds of one execution."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(
                    f"Limits.{field.name} must be positive, got {getattr(self, field.name)!r}."
                )


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Which guards a sandbox really enforces; a task that needs a missing one is refused."""

    backend: str
    """``docker``, ``bubblewrap`` or ``process``."""
    network_isolated: bool
    """No packet leaves it: not to the internet, not to the host's loopback."""
    filesystem_isolated: bool
    """The host's files cannot be read beyond the interpreter and system libraries."""
    processes_isolated: bool
    """Host processes can neither be seen nor signalled."""
    user_separated: bool
    """It runs as a user of its own, never the host's root."""
    syscalls_filtered: bool
    """A seccomp filter refuses what a task has no use for."""
    memory_limited: bool
    """The whole sandbox, not merely each process, has a memory cap."""
    pids_limited: bool
    """The number of its processes is capped."""
    disk_limited: bool
    """What it writes is capped in bytes and files, and gone at reset."""

    def require(self, demanded: Iterable[str]) -> None:
        """Raise :class:`CapabilityMissing` unless every guard named in ``demanded`` is enforced."""
        names = {field.name for field in fields(self)} - {"backend"}
        for guard in demanded:
            if guard not in names:
                raise ValueError(
                    f"Unknown capability {guard!r}; known: {', '.join(sorted(names))}."
                )
            if not getattr(self, guard):
                raise CapabilityMissing(
                    f"The {self.backend} sandbox does not provide {guard!r}, which this task demands. "
                    "Run `reagent doctor` to see which sandbox on this machine does."
                )


class Sandbox(ABC):
    """A place where untrusted code runs: one session, its state kept until :meth:`reset`.

    Not thread-safe: one user at a time. A context manager; ``close()`` twice is fine.
    Every verb raises :class:`~reagent_env.sandboxes.errors.SandboxLost` when the sandbox itself
    fails, and never anything else for what the code inside does.

    Example::

        with make_sandbox("auto") as sandbox:
            sandbox.python("x = 6 * 7")
            sandbox.python("x").value       # "42"
            sandbox.shell("ls /work").output
    """

    limits: Limits

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """The guards this sandbox enforces."""

    @abstractmethod
    def python(self, code: str, timeout_s: float | None = None) -> Execution:
        """Run ``code`` in the session; variables stay until reset. A last expression is the value."""

    @abstractmethod
    def shell(self, command: str, timeout_s: float | None = None) -> Execution:
        """Run ``command`` with bash; working directory and exported variables stay until reset."""

    @abstractmethod
    def write_files(self, files: Mapping[str, bytes]) -> None:
        """Put files under ``/work``; names are relative paths, parents are made.

        Raises ``ValueError`` for a path that leaves ``/work`` and for contents that do not fit.
        """

    @abstractmethod
    def read_file(self, path: str, max_bytes: int = 1_048_576) -> bytes:
        """Read at most ``max_bytes`` of a file under ``/work``; ``FileNotFoundError`` if there is none."""

    @abstractmethod
    def ping(self) -> None:
        """Return when the sandbox answers."""

    @abstractmethod
    def reset(self) -> None:
        """Kill every process, wipe every writable place, start a fresh session."""

    @abstractmethod
    def close(self) -> None:
        """End the sandbox and free what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
