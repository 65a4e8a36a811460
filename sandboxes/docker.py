"""The Docker sandbox: one hardened container, spoken to over its attached standard streams.

Not here: the image (``image.py``), the protocol (``zygote_sandbox.py``), sharing (``pool.py``).
``docker exec`` is never used: it costs 137 ms a step here where the attached stream costs 1, and
leaves its processes alive when it times out.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import re
import secrets
import select
import ssl
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from reagent_env.sandboxes.contract import Capabilities, Limits
from reagent_env.sandboxes.control_group import cap_sockets
from reagent_env.sandboxes.engine import connect, docker_problem, engine_errors, engine_host
from reagent_env.sandboxes.errors import SandboxLost, SandboxUnavailable
from reagent_env.sandboxes.image import ensure_image, forget_image
from reagent_env.sandboxes.own_user import COUNT, FIRST, OwnUser
from reagent_env.sandboxes.owner import owner_labels
from reagent_env.sandboxes.zygote_sandbox import ZygoteSandbox, zygote_command, zygote_config

__all__ = ["DOCKER_CAPABILITIES", "DockerSandbox", "DockerTransport", "docker_problem"]

DOCKER_CAPABILITIES: Final = Capabilities(
    backend="docker",
    network_isolated=True,
    filesystem_isolated=True,
    processes_isolated=True,
    user_separated=True,
    syscalls_filtered=True,
    memory_limited=True,
    pids_limited=True,
    disk_limited=True,
)
PRELOADED: Final = ("numpy",)
"""Libraries loaded before the first session, so that importing them there costs nothing.

Each costs every sandbox memory: 21 MiB idle with numpy, 55 with sympy as well, 78 with pandas too;
without, a session's first ``import sympy`` or ``import pandas`` takes 0.2 s.
"""

_MASKED: Final = [
    # A list of our own takes the place of the engine's: this is all of that.
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys"),
    *("/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list"),
    *("/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"),
    # The kernel's stock of terminals is one for all containers, and no part of it can be set aside.
    "/dev/pts/ptmx",
]
_STDOUT, _STDERR = 1, 2
_CHUNK: Final = 65536
_HEADER: Final = 8
_KILL_WAIT_S: Final = 0.3
_ASK_S: Final = 1.0
_EVENTS_S: Final = 0.1
"""How long after a container's death the engine may still report that its memory ran out."""
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class DockerSandbox(ZygoteSandbox):
    """A sandbox in a container of its own: no network, read-only root, no rights, capped.

    Example::

        with DockerSandbox(Limits(memory_mb=512)) as sandbox:
            sandbox.python("6 * 7").value   # "42"

    Args:
        limits: What it may use.
        runtime: The engine's runtime: None for its default, ``"runsc"`` for gVisor.
        image: Another image with ``python3``; the project's own by default.
        preload: Libraries loaded beforehand; ``("numpy",)`` by default.
        lift: Names of guards to leave out; only for tests that show a guard matters.

    Raises:
        SandboxUnavailable: No engine answers, no image can be had, or the container fails to start.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        runtime: str | None = None,
        image: str | None = None,
        preload: Iterable[str] = PRELOADED,
        lift: Iterable[str] = (),
    ) -> None:
        limits = limits or Limits()
        lifted = frozenset(lift)
        preload = tuple(preload)
        image = image or ensure_image()

        def start(inet: bool) -> DockerTransport:
            config = zygote_config(limits, preload=preload, lift=lifted, inet=inet)
            command = zygote_command("python3", config)
            return DockerTransport(image, command, limits, runtime=runtime, lift=lifted)

        inet = engine_host() not in _engines_without_socket_cap
        transport = start(inet)
        if inet and not transport.sockets_capped:
            # Known only once it runs. What cannot be capped is not given.
            transport.kill()
            transport.close()
            inet = False
            transport = start(inet)
            if not transport.sockets_capped:  # twice is no accident
                _engines_without_socket_cap.add(engine_host())
        self.container_id = transport.container_id
        try:
            super().__init__(
                transport, limits, DOCKER_CAPABILITIES, watch_memory=transport.watch_memory
            )
            if not inet and not self._capabilities.syscalls_filtered:
                self._capabilities = dataclasses.replace(self._capabilities, memory_limited=False)
        except SandboxLost as error:
            said = transport.diagnostics()
            raise SandboxLost(f"{error} {said}".strip()) from error


class DockerTransport:
    """A container's standard input and output as a byte stream, attached before it starts."""

    def __init__(
        self,
        image: str,
        command: Sequence[str],
        limits: Limits,
        *,
        runtime: str | None = None,
        labels: dict[str, str] | None = None,
        lift: frozenset[str] = frozenset(),
    ) -> None:
        self._owner = os.getpid()
        self._killed = False
        self._user = OwnUser() if sys.platform == "linux" else _UnclaimedUser()
        self._stream = 0
        self._left = 0
        self._inbox = bytearray()
        self._errors = self.new_error_tail()
        self._client = connect()
        try:
            settings = container_settings(
                image,
                command,
                limits,
                user=self._user.uid,
                labels=labels or owner_labels(),
                runtime=runtime,
                lift=lift,
            )
            self.container_id = self._create(settings)
        except BaseException:
            self._user.release()
            raise
        try:
            with engine_errors("starting a sandbox container"):
                # Attached before the start: nothing it says is lost, and the end of our stream is
                # the end of its standard input from its first moment on.
                self._attached = self._client.attach_socket(
                    self.container_id,
                    params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1},
                )
                self._socket: Any = getattr(self._attached, "_sock", self._attached)
                self._socket.setblocking(False)
                _transports.add(self)
                self._client.start(self.container_id)
            # The engine's one setting for it is without effect in current runtimes.
            self.sockets_capped = (
                "memory" in lift
                or cap_sockets(self.container_id, limits, self._first_process)
                or self._counts_sockets_as_memory()
            )
            """What its sockets hold is bounded, or is not meant to be."""
        except BaseException:
            self.kill()
            self.close()
            raise

    def _first_process(self) -> int:
        with contextlib.suppress(SandboxUnavailable), engine_errors("asking for its process"):
            return int(self._client.inspect_container(self.container_id)["State"]["Pid"])
        return 0

    def _counts_sockets_as_memory(self) -> bool:
        with contextlib.suppress(SandboxUnavailable), engine_errors("asking what it can do"):
            return str(self._client.info().get("CgroupVersion")) == "2"
        return False

    def _create(self, settings: dict[str, Any]) -> str:
        import docker.errors

        with engine_errors("creating a sandbox container"):
            try:
                made = self._client.create_container_from_config(settings)
            except docker.errors.ImageNotFound:
                forget_image()
                raise
        return str(made["Id"])

    def send(self, payload: bytes, deadline: float) -> None:
        """Send all of ``payload``; ``TimeoutError`` past the deadline, ``OSError`` if it is gone."""
        view = memoryview(payload)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except _WOULD_BLOCK:
                self._wait(select.POLLOUT, deadline)

    def receive(self, deadline: float) -> bytes:
        """Return some bytes of its standard output, ``b""`` at the end of file.

        Looks at least once, however late it is.

        Raises:
            TimeoutError: Nothing came by the deadline.
            OSError: The engine's stream is broken.
        """
        while True:
            if self._left == 0 and len(self._inbox) >= _HEADER:
                self._stream = self._inbox[0]
                self._left = int.from_bytes(self._inbox[4:_HEADER], "big")
                if self._stream not in (_STDOUT, _STDERR) or self._inbox[1:4] != b"\0\0\0":
                    raise OSError("the engine's stream is malformed")
                del self._inbox[:_HEADER]
                continue  # an empty frame has no payload to wait for
            if self._left and self._inbox:
                part = bytes(self._inbox[: min(self._left, _CHUNK)])
                del self._inbox[: len(part)]
                self._left -= len(part)
                if self._stream == _STDOUT:
                    return part
                self._errors.append(part[-1024:])
                continue
            try:
                data = self._socket.recv(_CHUNK)
            except _WOULD_BLOCK:
                self._wait(select.POLLIN, deadline)
                continue
            except ConnectionResetError:
                data = b""
            if not data:
                return b""
            self._inbox += data

    def _wait(self, event: int, deadline: float) -> None:
        left = deadline - time.monotonic()
        poll = select.poll()  # not select(): descriptors may be over 1,023
        poll.register(self._socket, event)
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError("past the deadline")

    @staticmethod
    def new_error_tail() -> collections.deque[bytes]:
        """Return what keeps the last pieces of standard error and no more."""
        return collections.deque(maxlen=16)

    def diagnostics(self) -> str:
        """Return the tail of what its first process wrote on standard error."""
        return b"".join(self._errors).decode(errors="replace")[-4096:].strip()

    def watch_memory(self) -> Callable[[], bool]:
        """Return what asks the engine whether the container's memory has run out since this call."""
        # Its state cannot be asked for: a container that is dead is soon removed.
        began = time.time()
        seen = threading.Event()

        def ask() -> None:
            with contextlib.suppress(SandboxUnavailable), engine_errors("asking for its events"):
                reported = self._client.events(
                    since=began,
                    until=time.time() + _EVENTS_S,
                    filters={"container": self.container_id, "event": "oom"},
                )
                with contextlib.closing(reported):
                    if any(True for _ in reported):
                        seen.set()

        def ran_out() -> bool:
            # The SDK waits for events without end, and an engine that stalls must not stall us.
            thread = threading.Thread(target=ask, name="sandbox-events", daemon=True)
            thread.start()
            thread.join(_ASK_S)
            return seen.is_set()

        return ran_out

    def kill(self) -> None:
        """Kill the container and all in it. Waits a moment at most; the engine removes it after."""
        if self._killed or os.getpid() != self._owner:
            return
        self._killed = True
        # At the interpreter's end no thread can be started (before Python 3.12, trying hangs), and
        # the end of the stream has to do.
        if sys.is_finalizing():
            return
        # A thread, since an engine that stalls must not stall us: the container then goes with its
        # standard input or, at the latest, with a sweep.
        thread = threading.Thread(target=self._remove, name="sandbox-kill", daemon=True)
        with contextlib.suppress(RuntimeError):  # the end came in between
            thread.start()
            thread.join(_KILL_WAIT_S)

    def _remove(self) -> None:
        with contextlib.suppress(SandboxUnavailable), engine_errors("killing a sandbox container"):
            # Force kills a paused one as well, and a second removal beside auto-remove's is refused.
            self._client.remove_container(self.container_id, force=True, v=True)
        self._user.release()

    def close(self) -> None:
        """Free the stream; its end is the end of the container, should :meth:`kill` have failed."""
        _transports.discard(self)
        attached = getattr(self, "_attached", None)
        if attached is not None:
            self._attached = None
            self._close_descriptor()
            with contextlib.suppress(OSError):
                attached.close()

    def _close_descriptor(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self._socket.close()

    def leave_to_parent(self) -> None:
        """After a fork, in the child: close our copy of the stream; the container is the parent's."""
        self._killed = True
        self.close()
        self._user.release()


def container_settings(
    image: str,
    command: Sequence[str],
    limits: Limits,
    *,
    user: int,
    labels: dict[str, str],
    runtime: str | None = None,
    lift: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Return the body of the engine's "create a container": every guard of ours in one place.

    ``lift`` leaves guards out, for tests that show what each is for: ``network``, ``pids``,
    ``memory``, ``inodes``, ``read_only``, ``user``, ``log``.
    """
    memory = limits.memory_mb << 20
    # Owned by the user: some engines keep the mode of the image's folder instead of ours.
    owned = f"nosuid,nodev,mode=1777,uid={user},gid={user}"
    bounded = f"nr_inodes={limits.inodes},{owned}"
    settings: dict[str, Any] = {
        "Image": image,
        "Entrypoint": [],
        "Cmd": list(command),
        "User": f"{user}:{user}",
        "WorkingDir": "/work",
        "Hostname": "sandbox",
        "Env": ["PYTHONDONTWRITEBYTECODE=1", "LANG=C.UTF-8", "HOME=/work"],
        "Labels": labels,
        "Tty": False,
        "OpenStdin": True,
        "StdinOnce": True,  # we hang up, it reads the end of file
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "NetworkDisabled": True,
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "PidsLimit": limits.pids,
            "Memory": memory,
            "MemorySwap": memory,  # equal: no swap
            "NanoCpus": int(min(limits.cpus, os.cpu_count() or 1) * 1e9),
            "IpcMode": "none",
            "Tmpfs": {
                # Without nr_inodes a bomb of empty files starves the first process of kernel memory.
                "/work": f"size={limits.work_mb}m,exec,{bounded}",
                "/tmp": f"size={limits.work_mb}m,exec,{bounded}",
                "/dev/shm": f"size={limits.shm_mb}m,noexec,"
                f"nr_inodes={min(limits.inodes, 1024)},{owned}",
            },
            # The default log would write every byte of output to the host's disk.
            "LogConfig": {"Type": "none", "Config": {}},
            "Ulimits": [
                {"Name": "nofile", "Soft": limits.open_files, "Hard": limits.open_files},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
            "AutoRemove": True,
            "Init": False,
            "RestartPolicy": {"Name": "no"},
            "MaskedPaths": _MASKED,
        },
    }
    host = settings["HostConfig"]
    if runtime:
        host["Runtime"] = runtime
    for name in lift:
        match name:
            case "network":
                settings["NetworkDisabled"] = False
                host["NetworkMode"] = "host"
            case "pids":
                host["PidsLimit"] = -1
            case "memory":
                host["Memory"] = host["MemorySwap"] = 0
            case "inodes":
                host["Tmpfs"] = {
                    place: re.sub(r"nr_inodes=\d+,", "", options)
                    for place, options in host["Tmpfs"].items()
                }
            case "read_only":
                host["ReadonlyRootfs"] = False
            case "user":
                settings["User"] = "0:0"
            case "log":
                host["LogConfig"] = {"Type": "json-file", "Config": {}}
            case _:  # a guard of the zygote's own
                pass
    return settings


class _UnclaimedUser:
    """A user id where the kernel cannot keep the others off it: the engine is in a machine of its own."""

    def __init__(self) -> None:
        self.uid = FIRST + secrets.randbelow(COUNT)

    def release(self) -> None:
        """Nothing was claimed."""


_engines_without_socket_cap: set[str] = set()
"""Addresses of engines whose containers' socket buffers this process could not cap."""
_transports: weakref.WeakSet[DockerTransport] = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    # A copy of the stream kept open in a child would keep the container alive after its owner.
    for transport in list(_transports):
        transport.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
