"""The arena: a sandbox under attack, another at work beside it, and a look at the host afterwards."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attack_list import LOST, Attack

from reagent_env.sandboxes.channel import WATCHDOG_S
from reagent_env.sandboxes.contract import Execution, Limits, Sandbox
from reagent_env.sandboxes.docker import DockerSandbox
from reagent_env.sandboxes.embedded import BubblewrapSandbox
from reagent_env.sandboxes.errors import SandboxLost
from reagent_env.sandboxes.pool import Lease, SandboxPool

GRACE_S = 0.5
"""Seconds from a step's deadline to its being killed inside."""
SLACK_S = 1.0 if "PYTEST_XDIST_WORKER" in os.environ else 0.3
"""Seconds an answer may take beyond that; more where other tests run on the same cores."""
BYSTANDER_S = SLACK_S + 0.5
"""Seconds within which the sandbox alongside must have done a step, whatever happens next door."""
PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/mnt", "/media", "/srv")


def make_victim(kind: str, limits: Limits, lift: tuple[str, ...] = ()) -> Sandbox:
    """Return a sandbox of ``kind`` that starts quickly: nothing is loaded beforehand."""
    if kind == "docker":
        return DockerSandbox(limits, preload=(), lift=lift)
    return BubblewrapSandbox(limits, preload=(), lift=lift)


def processes_of(uid: int) -> list[int]:
    """Return the host's processes of one user, zombies left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid == uid:
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX":
                    found.append(int(folder.name))
        except OSError:
            continue
    return found


def files_of(uid: int) -> list[str]:
    """Return what a user owns in the host's shared folders."""
    found = []
    for place in PLACES:
        if os.path.isdir(place):
            with os.scandir(place) as listing:
                for entry in listing:
                    try:
                        if entry.stat(follow_symlinks=False).st_uid == uid:
                            found.append(entry.path)
                    except OSError:
                        continue
    return found


def ipc_of(uid: int) -> list[str]:
    """Return the host's System V objects of one user."""
    found = []
    for name, column in (("shm", 7), ("msg", 7), ("sem", 4)):
        rows = Path(f"/proc/sysvipc/{name}").read_text().splitlines()[1:]
        found += [f"{name} {row}" for row in rows if int(row.split()[column]) == uid]
    return found


def resident_bytes() -> int:
    """Return this process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for what has no event to wait for."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


class Bystander:
    """A sandbox that counts, step by step, while another is attacked."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.sandbox.python("n = 0")
        self.count = 0
        self.worst_s = 0.0
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _work(self) -> None:
        try:
            while True:
                began = time.monotonic()
                execution = self.sandbox.python("n += 1; n", 5.0)
                self.worst_s = max(self.worst_s, time.monotonic() - began)
                self.count += 1
                assert execution.value == str(self.count), execution
                if self._stop.wait(0.02):
                    return
        except BaseException as error:
            self.failure = error

    def __enter__(self) -> Bystander:
        self._stop.clear()
        self.worst_s = 0.0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._thread is not None
        self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


@dataclass(frozen=True)
class Blow:
    """What an attack got for an answer, and when."""

    outcome: str
    execution: Execution | None
    seconds: float
    lost_because: str = ""


class Arena:
    """One backend's pool of one sandbox, with a bystander."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.limits = Limits()
        self.pool = SandboxPool(lambda: make_victim(kind, self.limits), max_size=1)
        self.bystander = Bystander(make_victim(kind, self.limits))

    def close(self) -> None:
        self.pool.close()
        self.bystander.sandbox.close()

    @staticmethod
    def strike(sandbox: Sandbox, verb: str, code: str, timeout_s: float) -> Blow:
        """Run one piece of code and time the answer."""
        began = time.monotonic()
        try:
            execution = getattr(sandbox, verb)(code, timeout_s)
        except SandboxLost as error:
            return Blow(LOST, None, time.monotonic() - began, str(error))
        return Blow(str(execution.status), execution, time.monotonic() - began)

    def attack(self, attack: Attack) -> Blow:
        """Carry out an attack and check everything but its outcome's own meaning."""
        uid = self.begin()
        memory = resident_bytes()
        with self.bystander as bystander, self.pool.acquire(20) as lease:
            if attack.prepare:
                assert lease.python(attack.prepare).status == "ok"
            blow = self.strike(lease, attack.verb, attack.code, attack.timeout_s)
            assert blow.seconds <= attack.timeout_s + GRACE_S + SLACK_S, blow
            if attack.then is not None and blow.outcome != LOST:
                after = self.strike(lease, "python", attack.then, 2.0)
                assert after.seconds <= 2.0 + WATCHDOG_S + SLACK_S, after
                if attack.then_outcome is not None:
                    assert after.outcome == attack.then_outcome, after
                if attack.then_value is not None:
                    assert after.execution is not None, after
                    assert after.execution.value == attack.then_value, after
        growth = resident_bytes() - memory
        assert growth <= 4 << 20, f"the host's memory grew by {growth >> 10} KiB"
        assert bystander.failure is None
        assert bystander.worst_s <= BYSTANDER_S
        self.look_around(uid)
        return blow

    def begin(self) -> int:
        """Return the user of the sandbox that stands ready, clean."""
        with self.pool.acquire(20) as lease:
            return int(lease.shell("id -u").output)

    def look_around(self, uid: int) -> None:
        """Whoever uses the pool next finds a clean sandbox, and the host shows nothing left."""
        with self.pool.acquire(20) as lease:
            assert lease.python("6 * 7").value == "42"
            left = lease.shell("ls -A /work /tmp /dev/shm; tail -qn +2 /proc/sysvipc/*")
            assert left.output == "/dev/shm:\n\n/tmp:\n\n/work:\n"
            seen = lease.shell("cat /proc/[0-9]*/comm").output.split()
            assert len(seen) <= 4, seen  # the first process, the session, bash and cat
            now = int(lease.shell("id -u").output)
            if now == uid:
                # Bubblewrap's own process beside the first one; bash is just ending.
                assert wait_until(lambda: len(processes_of(uid)) <= 3, 2.0), processes_of(uid)
            self.no_log(lease)
        if now != uid:
            assert wait_until(lambda: processes_of(uid) == [], 2.0), processes_of(uid)
        assert files_of(uid) == []
        assert ipc_of(uid) == []

    def no_log(self, lease: Lease) -> None:
        """The engine keeps no byte of a container's output."""
        sandbox = lease._sandbox
        if isinstance(sandbox, DockerSandbox):
            from reagent_env.sandboxes.engine import connect

            assert connect().inspect_container(sandbox.container_id)["LogPath"] == ""
