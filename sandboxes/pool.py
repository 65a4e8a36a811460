"""A pool of sandboxes, shared by many threads: made when needed, reset between users, replaced.

Not here: which backend (``select.py``). A sandbox given back is reset before anyone else gets it,
off the caller's path; nobody waits for a reset while a clean one is idle.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import dataclasses
import logging
import os
import queue
import random
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reagent_env.sandboxes.contract import Capabilities, Execution, Limits, Sandbox, Status
from reagent_env.sandboxes.errors import SandboxError, SandboxLost, SandboxUnavailable

logger = logging.getLogger(__name__)

MEMORY_VARIABLE: Final = "REAGENT_SANDBOX_MEMORY_MB"
ACQUIRE_TIMEOUT_S: Final = 120.0
EPISODES_PER_SANDBOX: Final = 200
_BREAKER_OPENS_AT: Final = 3
_RESET_EXPECTED_S: Final = 1.0
_BACKOFF_S: Final = (0.1, 10.0)


@dataclass(slots=True)
class PoolCounters:
    """What a pool has done so far, for logs, e.g. ``PoolCounters(created=4, reset=210)``."""

    created: int = 0
    """Sandboxes made."""
    create_failed: int = 0
    """Attempts to make one that failed."""
    acquired: int = 0
    """Leases given."""
    reset: int = 0
    """Sandboxes wiped for their next user."""
    lost: int = 0
    """Sandboxes that died, froze or failed to be wiped."""
    recycled: int = 0
    """Sandboxes replaced on purpose: after an out-of-memory kill or enough episodes."""
    waits: int = 0
    """Acquisitions that found no idle sandbox."""
    waited_s: float = 0.0
    """Seconds spent waiting, over all acquisitions."""
    timeouts: int = 0
    """Acquisitions given up at their deadline."""


class Lease(Sandbox):
    """One user's hold on a pooled sandbox: the sandbox's verbs, until :meth:`release`.

    Afterwards every verb raises ``RuntimeError``, so that no one can reach into the session of the
    next user. A lease that is forgotten gives its sandbox back when it is collected.

    Example::

        with pool.acquire() as sandbox:
            sandbox.shell("ls")
    """

    def __init__(self, pool: SandboxPool, member: _Member) -> None:
        self.limits = member.sandbox.limits
        self.deadline: float | None = None
        """Reading of ``time.monotonic()`` by which executions end, their own limits apart."""
        self._member: _Member | None = member
        self._pid = os.getpid()
        self._finalizer = weakref.finalize(self, _give_back, pool._returned, member)
        self._finalizer.atexit = False

    @property
    def sandbox(self) -> Sandbox:
        """This lease, as the sandbox it is."""
        return self

    @property
    def capabilities(self) -> Capabilities:
        """The guards this sandbox enforces."""
        return self._sandbox.capabilities

    @property
    def _sandbox(self) -> Sandbox:
        if self._member is None:
            raise RuntimeError("This sandbox was given back to its pool; acquire another one.")
        if os.getpid() != self._pid:
            raise SandboxLost(
                "This sandbox belongs to the process this one was forked from; acquire one here."
            )
        return self._member.sandbox

    @contextlib.contextmanager
    def _noticing_loss(self) -> Any:
        sandbox, member = self._sandbox, self._member
        assert member is not None
        try:
            yield sandbox
        except SandboxLost as error:
            member.unfit = str(error)
            member.was_lost = True
            raise

    def _within_deadline(self, timeout_s: float | None) -> float | None:
        if self.deadline is None:
            return timeout_s
        left = max(0.05, self.deadline - time.monotonic())
        return min(left, self.limits.timeout_s if timeout_s is None else timeout_s)

    def _noted(self, execution: Execution) -> Execution:
        if execution.status is Status.OOM and self._member is not None:
            # The kernel may have killed anything in it, and its memory accounting starts anew.
            self._member.unfit = "it ran out of memory"
        return execution

    def python(self, code: str, timeout_s: float | None = None) -> Execution:
        """Run ``code`` in the session; variables stay until reset. A last expression is the value."""
        with self._noticing_loss() as sandbox:
            return self._noted(sandbox.python(code, self._within_deadline(timeout_s)))

    def shell(self, command: str, timeout_s: float | None = None) -> Execution:
        """Run ``command`` with bash; working directory and exported variables stay until reset."""
        with self._noticing_loss() as sandbox:
            return self._noted(sandbox.shell(command, self._within_deadline(timeout_s)))

    def write_files(self, files: Mapping[str, bytes]) -> None:
        """Put files under ``/work``; names are relative paths, parents are made."""
        with self._noticing_loss() as sandbox:
            sandbox.write_files(files)

    def read_file(self, path: str, max_bytes: int = 1_048_576) -> bytes:
        """Read at most ``max_bytes`` of a file under ``/work``; ``FileNotFoundError`` if there is none."""
        with self._noticing_loss() as sandbox:
            content: bytes = sandbox.read_file(path, max_bytes)
            return content

    def ping(self) -> None:
        """Return when the sandbox answers."""
        with self._noticing_loss() as sandbox:
            sandbox.ping()

    def reset(self) -> None:
        """Kill every process, wipe every writable place, start a fresh session."""
        with self._noticing_loss() as sandbox:
            sandbox.reset()

    def release(self) -> None:
        """Give the sandbox back; it is wiped before its next user. Twice is fine."""
        self._member = None
        self._finalizer()

    def close(self) -> None:
        """Give the sandbox back."""
        self.release()


class SandboxPool:
    """At most ``max_size`` sandboxes, lent in the order of asking.

    Example::

        pool = SandboxPool(DockerSandbox, max_size=8)
        with pool.acquire(timeout_s=30) as sandbox:
            sandbox.python("6 * 7")

    Args:
        create: Makes one sandbox.
        max_size: Sandboxes at once; by default as many as fit three quarters of the memory
            (``REAGENT_SANDBOX_MEMORY_MB`` overrides that memory).
        limits: What one sandbox may use; only its memory matters here.
        capabilities: What its sandboxes enforce, where that is known before one is made.
        backend: Their kind, likewise.
        episodes_per_sandbox: Uses after which a sandbox is replaced.
        min_idle: Clean sandboxes to keep ready in the background.
        before_first: Called once, when the first sandbox is about to be made.
    """

    def __init__(
        self,
        create: Callable[[], Sandbox],
        *,
        max_size: int | None = None,
        limits: Limits | None = None,
        capabilities: Capabilities | None = None,
        backend: str | None = None,
        episodes_per_sandbox: int = EPISODES_PER_SANDBOX,
        min_idle: int = 0,
        before_first: Callable[[], None] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.max_size = default_size(self.limits) if max_size is None else max_size
        if self.max_size < 1:
            raise ValueError(f"max_size must be at least 1, got {max_size!r}.")
        if not 0 <= min_idle <= self.max_size:
            raise ValueError(f"min_idle must be within 0…{self.max_size}, got {min_idle!r}.")
        self.min_idle = min_idle
        self._create = create
        self._capabilities = capabilities
        self._backend = backend
        self._episodes_per_sandbox = episodes_per_sandbox
        self._before_first = before_first
        self._max_creating = 2 * (os.cpu_count() or 1)
        self._start_empty()
        _pools.add(self)

    def _start_empty(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: collections.deque[_Member] = collections.deque()
        self._waiters: collections.deque[_Waiter] = collections.deque()
        self._members: set[_Member] = set()
        self._returned: queue.SimpleQueue[_Member | None] = queue.SimpleQueue()
        self._counters = PoolCounters()
        self._creating = 0
        self._reserved = 0
        self._resetters = 0
        self._failures = 0
        self._last_failure = ""
        self._next_attempt = 0.0
        self._closing = threading.Event()

    # --- what users call --------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """The guards its sandboxes enforce; makes the first sandbox if that is the way to know."""
        if self._capabilities is None:
            with self.acquire() as sandbox:
                self._capabilities = sandbox.capabilities
        return self._capabilities

    @property
    def backend(self) -> str:
        """The kind of its sandboxes: ``docker``, ``bubblewrap``, ``process``, else ``custom``."""
        return self._backend or "custom"

    @property
    def counters(self) -> PoolCounters:
        """A copy of what the pool has done so far."""
        with self._lock:
            return dataclasses.replace(self._counters)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closing.is_set()

    @property
    def size(self) -> int:
        """Sandboxes there are now, lent or not."""
        with self._lock:
            return len(self._members)

    def acquire(self, timeout_s: float = ACQUIRE_TIMEOUT_S) -> Lease:
        """Lend a clean sandbox that answers, waiting in line at most ``timeout_s`` seconds.

        Raises:
            SandboxUnavailable: None became free or could be made in time; the message says why.
        """
        began = time.monotonic()
        deadline = began + timeout_s
        first = True
        while True:
            waiter = _Waiter()
            with self._lock:
                self._refuse_if_closed()
                if first:
                    self._waiters.append(waiter)
                else:  # the one it was given did not answer: it keeps its place
                    self._waiters.appendleft(waiter)
                self._pump()
                if first and waiter.member is None:
                    self._counters.waits += 1
            first = False
            member = self._await(waiter, deadline, timeout_s)
            try:
                member.sandbox.ping()
            except SandboxError as error:
                self._discard(member, f"it does not answer: {error}", lost=True)
                continue
            except BaseException:
                _give_back(self._returned, member)
                raise
            member.episodes += 1
            with self._lock:
                self._counters.acquired += 1
                self._counters.waited_s += time.monotonic() - began
            return Lease(self, member)

    def reserve(self, count: int = 1) -> None:
        """Claim room for ``count`` sandboxes to be held at the same time.

        A vector environment's members each hold one while waiting for all the others; more members
        than room would wait for ever. So they reserve when they are made, and are refused then.

        Raises:
            SandboxUnavailable: There is no such room.
        """
        with self._lock:
            self._refuse_if_closed()
            if self._reserved + count > self.max_size:
                raise SandboxUnavailable(
                    f"{count} more sandboxes at once were asked for, but of {self.max_size} "
                    f"{self._reserved} are reserved: members of a vector environment would wait for "
                    "each other for ever. Use fewer, lower Limits.memory_mb "
                    f"(now {self.limits.memory_mb}), or raise {MEMORY_VARIABLE}."
                )
            self._reserved += count

    def unreserve(self, count: int = 1) -> None:
        """Give back what :meth:`reserve` claimed."""
        with self._lock:
            self._reserved = max(0, self._reserved - count)

    def close(self) -> None:
        """End every sandbox, lent ones too, and refuse all waiting. Twice is fine."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
            members = list(self._members)
            self._members.clear()
            self._idle.clear()
            for waiter in self._waiters:
                waiter.ready.set()
            self._waiters.clear()
            resetters = self._resetters
        for _ in range(resetters):
            self._returned.put(None)
        _close_all(members)

    def __enter__(self) -> SandboxPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- handing over (all under the lock) ----------------------------------------------------------

    def _refuse_if_closed(self) -> None:
        if self._closing.is_set():
            raise SandboxUnavailable("This sandbox pool was closed; make another one.")

    def _pump(self) -> None:
        """Give idle sandboxes to who waits longest; start making what is missing."""
        while self._waiters and self._idle:
            waiter = self._waiters.popleft()
            # The one used last: its memory is warm, and spares are left to be given up.
            waiter.member = self._idle.pop()
            waiter.ready.set()
        now = time.monotonic()
        coming = self._creating + sum(
            # One that has been at it for long is stuck: do not count on it.
            member.returned_at is not None and now - member.returned_at < _RESET_EXPECTED_S
            for member in self._members
        )
        missing = len(self._waiters) + max(0, self.min_idle - len(self._idle)) - coming
        # After repeated failures one attempt at a time: a stalled engine is not helped by more.
        at_once = 1 if self._failures >= _BREAKER_OPENS_AT else self._max_creating
        room = self.max_size - len(self._members) - self._creating
        for _ in range(min(missing, room, at_once - self._creating)):
            self._creating += 1
            threading.Thread(target=self._make_one, name="sandbox-create", daemon=True).start()
        if self._resetters == 0:
            for _ in range(max(2, min(8, os.cpu_count() or 1))):
                self._resetters += 1
                threading.Thread(
                    target=self._reset_returned,
                    args=(self._returned,),
                    name="sandbox-reset",
                    daemon=True,
                ).start()

    def _await(self, waiter: _Waiter, deadline: float, timeout_s: float) -> _Member:
        try:
            while not waiter.ready.wait(
                max(0.0, min(_RESET_EXPECTED_S, deadline - time.monotonic()))
            ):
                if time.monotonic() >= deadline:
                    break
                with self._lock:  # what it counted on may be stuck by now
                    self._pump()
        except BaseException:  # interrupted: whatever it was given goes back
            with self._lock:
                self._withdraw(waiter)
            raise
        with self._lock:
            if waiter.member is not None:
                return waiter.member
            self._withdraw(waiter)
            self._refuse_if_closed()
            self._counters.timeouts += 1
            resetting = sum(member.returned_at is not None for member in self._members)
            lent = len(self._members) - len(self._idle) - resetting
            reason = f"{lent} of at most {self.max_size} are in use"
            if resetting:
                reason += f", {resetting} are being reset"
            if self._last_failure:
                reason += f"; making one fails ({self._failures}×): {self._last_failure}"
            elif self._creating:
                reason += f"; {self._creating} are being made"
        raise SandboxUnavailable(
            f"No sandbox within {timeout_s:.1f} s: {reason}. Hold fewer at once, wait longer, or "
            f"raise {MEMORY_VARIABLE}; `reagent doctor` checks the backends."
        )

    def _withdraw(self, waiter: _Waiter) -> None:
        if waiter.member is not None:
            self._idle.append(waiter.member)
            self._pump()
        else:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)

    # --- threads of its own -------------------------------------------------------------------------

    def _make_one(self) -> None:
        try:
            while not self._closing.wait(max(0.0, self._next_attempt - time.monotonic())):
                sandbox = self._try_create()
                with self._lock:
                    if sandbox is not None and not self._closing.is_set():
                        member = _Member(sandbox, self._episodes_per_sandbox)
                        self._members.add(member)
                        self._idle.append(member)
                        return
                    closing = self._closing.is_set()
                    # Nobody left to make it for, or one attempt too many for an engine that fails.
                    wanted = len(self._waiters) > 0
                    surplus = self._failures >= _BREAKER_OPENS_AT and self._creating > 1
                if closing and sandbox is not None:
                    _close_all([sandbox])
                if closing or not wanted or surplus:
                    return
        finally:
            with self._lock:
                self._creating -= 1
                if not self._closing.is_set():
                    self._pump()

    def _try_create(self) -> Sandbox | None:
        try:
            with self._lock:
                before, self._before_first = self._before_first, None
            if before is not None:
                before()
            sandbox = self._create()
        except Exception as error:
            # Whatever a factory raises reaches those who wait, at their deadline.
            with self._lock:
                self._counters.create_failed += 1
                self._failures += 1
                self._last_failure = f"{type(error).__name__}: {error}"
                low, high = _BACKOFF_S
                pause = min(high, low * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1.5)
                self._next_attempt = time.monotonic() + pause
            logger.warning("making a sandbox failed: %s", error)
            return None
        with self._lock:
            self._counters.created += 1
            self._failures = 0
            self._last_failure = ""
            self._next_attempt = 0.0
        return sandbox

    def _reset_returned(self, returned: queue.SimpleQueue[_Member | None]) -> None:
        while (member := returned.get()) is not None:
            if self._closing.is_set():
                return
            clean = False
            try:
                clean = self._make_clean(member)
            finally:
                with self._lock:
                    member.returned_at = None
                    if not self._closing.is_set():
                        if clean:
                            self._counters.reset += 1
                            self._idle.append(member)
                        self._pump()  # also when it was discarded: somebody may have counted on it

    def _make_clean(self, member: _Member) -> bool:
        if member.unfit:
            self._discard(member, member.unfit, lost=member.was_lost)
            return False
        if member.episodes >= member.last_episode:
            self._discard(member, f"it served {member.episodes} episodes", lost=False)
            return False
        try:
            member.sandbox.reset()
        except Exception as error:
            self._discard(member, f"it could not be reset: {error}", lost=True)
            return False
        return True

    def _discard(self, member: _Member, reason: str, *, lost: bool) -> None:
        logger.debug("a sandbox is replaced: %s", reason)
        try:
            with contextlib.suppress(Exception):
                member.sandbox.close()
        finally:
            with self._lock:
                self._members.discard(member)
                if lost:
                    self._counters.lost += 1
                else:
                    self._counters.recycled += 1
                if not self._closing.is_set():
                    self._pump()


class _Member:
    """A sandbox and what the pool remembers of it."""

    def __init__(self, sandbox: Sandbox, episodes: int) -> None:
        self.sandbox = sandbox
        self.episodes = 0
        # Not all at once, though all were made at once.
        self.last_episode = max(1, round(episodes * random.uniform(0.9, 1.1)))
        self.unfit = ""
        self.was_lost = False
        self.returned_at: float | None = None
        """When its user left it; None once it is clean again."""


def _give_back(returned: queue.SimpleQueue[_Member | None], member: _Member) -> None:
    # Without the pool's lock: garbage collection may call this in the middle of anything.
    member.returned_at = time.monotonic()
    returned.put(member)


class _Waiter:
    """One thread in line."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.member: _Member | None = None


def _close_all(closing: list[Any]) -> None:
    """Close sandboxes side by side: one after another, each would wait for its engine."""

    def close(one: Any) -> None:
        with contextlib.suppress(Exception):
            (one.sandbox if isinstance(one, _Member) else one).close()

    threads = [threading.Thread(target=close, args=(one,), daemon=True) for one in closing]
    deadline = time.monotonic() + 10.0
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:  # no threads at interpreter shutdown
        for one in closing:
            close(one)
        return
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


# --- how many ---------------------------------------------------------------------------------------


def default_size(limits: Limits) -> int:
    """Return how many sandboxes of these limits fit three quarters of this machine's memory."""
    configured = os.environ.get(MEMORY_VARIABLE)
    if configured is not None:
        try:
            memory_mb = int(configured)
        except ValueError:
            raise ValueError(f"{MEMORY_VARIABLE} must be a number, got {configured!r}.") from None
    else:
        memory_mb = int(0.75 * (memory_bytes() >> 20))
    return max(1, memory_mb // limits.memory_mb)


def memory_bytes(root: Path = Path("/")) -> int:
    """Return this machine's memory, or what this process's own cgroup allows where that is less."""
    bounds = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        total = next(line for line in lines if line.startswith("MemTotal:"))
        bounds.append(int(total.split()[1]) * 1024)
    if not bounds:
        bounds.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in _cgroup_files(root):
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            bounds.append(int(file.read_text()))
    return min(bounds)


def _cgroup_files(root: Path) -> list[Path]:
    """The memory limits of this process's cgroup and all above it, version 2 or 1."""
    files: list[Path] = []
    mount = root / "sys/fs/cgroup"
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                base, name = mount, "memory.max"
            elif "memory" in controllers.split(","):
                base, name = mount / "memory", "memory.limit_in_bytes"
            else:
                continue
            group = base / path.lstrip("/")
            files += [folder / name for folder in (group, *group.parents) if base in folder.parents]
            files.append(base / name)
    return files


# --- this process's end, and its children -----------------------------------------------------------

_pools: weakref.WeakSet[SandboxPool] = weakref.WeakSet()
_of_parent: list[Any] = []


def _close_pools() -> None:
    for pool in list(_pools):
        pool.close()


def _forget_parents_sandboxes() -> None:
    # In a forked child: its sandboxes are the parent's, and so are the threads and locks as they were
    # at that moment. Kept, not dropped: their finalizers must not run here.
    for pool in list(_pools):
        _of_parent.append((pool._members, pool._idle, pool._waiters, pool._returned, pool._lock))
        pool._start_empty()


atexit.register(_close_pools)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents_sandboxes)
