"""A sandbox over any transport that leads to a zygote: the verbs of the contract, typed.

Not here: how the zygote's surroundings are made (``docker.py``, ``embedded.py``, ``process.py``).
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from reagent_env.sandboxes.channel import BOOT, WATCHDOG_S, Channel, RequestRefused
from reagent_env.sandboxes.contract import Capabilities, Execution, Limits, Sandbox, Status
from reagent_env.sandboxes.errors import SandboxLost
from reagent_env.sandboxes.transport import Transport

LIBRARIES = ("numpy", "sympy", "pandas")
"""What the zygote loads beforehand where it is installed."""
WRITE_CHUNK = 1 << 20
RESET_S = 10.0
MEMORY_GONE = "All memory of the sandbox was taken: it ended, and its files with it.\n"
CODE_CAP = 8 << 20


def zygote_config(
    limits: Limits,
    *,
    work: str = "/work",
    scratch: str = "/tmp",
    wipe: Iterable[str] = ("/work", "/tmp", "/dev/shm"),
    wipe_owned: Iterable[str] = ("/dev/mqueue",),
    preload: Iterable[str] = LIBRARIES,
    env: Mapping[str, str] | None = None,
    lift: Iterable[str] = (),
    **extra: Any,
) -> dict[str, Any]:
    """Return the zygote's configuration.

    Args:
        limits: The limits that a process's own rlimits can enforce.
        work: The session's folder and HOME, as seen inside.
        scratch: The session's TMPDIR.
        wipe: Folders emptied at reset.
        wipe_owned: Folders from which the session's own entries go at reset, where they exist.
            (A message queue can be made below ``/dev/mqueue`` without the calls that are refused.)
        preload: Libraries to load before the first session.
        env: Variables added to the session's environment.
        lift: Names of guards to leave out; only for tests that show a guard matters.
        **extra: ``path`` (folders added to ``sys.path``), ``inet``, ``nproc``,
            ``address_space``, ``file_size`` (bytes), ``oom_files`` and ``own_user``.
    """
    variables = {
        "HOME": work,
        "TMPDIR": scratch,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        **(env or {}),
    }
    return {
        "work": work,
        "wipe": list(wipe),
        "wipe_owned": list(wipe_owned),
        "preload": list(preload),
        "env": variables,
        "open_files": limits.open_files,
        "lift": sorted(lift),
        **extra,
    }


def zygote_command(python: str, config: Mapping[str, Any]) -> list[str]:
    """Return the argv that starts a zygote, which then waits for its source on standard input."""
    return [python, "-I", "-c", BOOT, json.dumps(config)]


class ZygoteSandbox(Sandbox):
    """The contract's verbs over a transport whose far side was started by :func:`zygote_command`.

    Args:
        transport: The stream; it is this object's to close.
        limits: What the surroundings enforce, and the defaults of each execution.
        capabilities: What the surroundings were made to guard. Claims that the zygote sees to be
            untrue from inside (network, user, system calls) are struck out.
        boot_timeout_s: Seconds until the zygote must have loaded its libraries and answered.
        on_close: Called once, after the transport is closed.
        watch_memory: Called between executions; returns what says, once the sandbox has died,
            whether its memory has run out since. Code that makes the kernel kill the zygote itself
            then ends as ``oom``, like any other that takes too much, and all later code too;
            unless given, as :class:`SandboxLost`.
    """

    def __init__(
        self,
        transport: Transport,
        limits: Limits,
        capabilities: Capabilities,
        *,
        boot_timeout_s: float = 60.0,
        on_close: Callable[[], None] | None = None,
        watch_memory: Callable[[], Callable[[], bool]] | None = None,
    ) -> None:
        self.limits = limits
        self._watch_memory = watch_memory
        self._memory_gone = False
        self._transport = transport
        self._channel = Channel(transport)
        self._on_close = on_close
        self._closed = False
        try:
            self._channel.boot()
            self.facts: Mapping[str, Any] = self._channel.request("hello", seconds=boot_timeout_s)
            self._capabilities = _seen_from_inside(capabilities, self.facts)
            self._ran_out = watch_memory() if watch_memory is not None else None
        except BaseException:
            self.close()
            raise

    @property
    def capabilities(self) -> Capabilities:
        """The guards this sandbox enforces."""
        return self._capabilities

    @property
    def lost(self) -> str | None:
        """Why the sandbox is gone, or None while it is usable."""
        return self._channel.lost

    def python(self, code: str, timeout_s: float | None = None) -> Execution:
        """Run ``code`` in the session; variables stay until reset. A last expression is the value."""
        return self._execute("python", code, timeout_s)

    def shell(self, command: str, timeout_s: float | None = None) -> Execution:
        """Run ``command`` with bash; working directory and exported variables stay until reset."""
        return self._execute("shell", command, timeout_s)

    def write_files(self, files: Mapping[str, bytes]) -> None:
        """Put files under ``/work``; names are relative paths, parents are made."""
        for path in files:
            _check_path(path)
        for path, content in files.items():
            for offset in range(0, max(len(content), 1), WRITE_CHUNK):
                chunk = base64.b64encode(content[offset : offset + WRITE_CHUNK]).decode("ascii")
                fields = {"path": path, "offset": offset, "content": chunk}
                try:
                    self._channel.request("write", fields, seconds=RESET_S)
                except RequestRefused as refusal:
                    raise ValueError(f"Cannot write a file into the sandbox: {refusal}.") from None

    def read_file(self, path: str, max_bytes: int = 1_048_576) -> bytes:
        """Read at most ``max_bytes`` of a file under ``/work``; ``FileNotFoundError`` if there is none."""
        _check_path(path)
        content = bytearray()
        while True:
            size = min(WRITE_CHUNK, max_bytes - len(content))
            fields = {"path": path, "offset": len(content), "size": size}
            try:
                reply = self._channel.request("read", fields, seconds=RESET_S)
            except RequestRefused as refusal:
                if refusal.kind == "missing":
                    raise FileNotFoundError(f"No regular file in the sandbox: {refusal}.") from None
                raise ValueError(f"Cannot read a file of the sandbox: {refusal}.") from None
            except SandboxLost:
                if not self._died_of_memory():
                    raise
                raise FileNotFoundError(f"Cannot read {path!r}. {MEMORY_GONE.strip()}") from None
            try:
                chunk = base64.b64decode(reply["content"], validate=True)
            except (KeyError, TypeError, ValueError):
                raise self._channel.end("a file's content was malformed") from None
            content += chunk[:size]
            if len(chunk) < size or len(content) >= max_bytes:
                return bytes(content)

    def ping(self) -> None:
        """Return when the sandbox answers."""
        self._channel.request("ping", seconds=2.0)

    def reset(self) -> None:
        """Kill every process, wipe every writable place, start a fresh session."""
        try:
            self._channel.request("reset", seconds=RESET_S)
        except RequestRefused as refusal:
            raise self._channel.end(f"it could not be reset, {refusal}") from None

    def close(self) -> None:
        """End the sandbox and free what it holds."""
        if self._closed or self._channel.foreign:
            return
        self._closed = True
        try:
            self._channel.close()
        finally:
            if self._on_close is not None:
                self._on_close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _execute(self, op: str, code: str, timeout_s: float | None) -> Execution:
        timeout = self.limits.timeout_s if timeout_s is None else timeout_s
        if not (timeout > 0 and math.isfinite(timeout)):
            raise ValueError(f"timeout_s must be positive and finite, got {timeout_s!r}.")
        # Counted as it is sent: one character can take twelve bytes.
        if len(code) > CODE_CAP or len(json.dumps(code)) > 2 * CODE_CAP:
            return Execution(
                Status.ERROR,
                f"The code has {len(code)} characters; at most {CODE_CAP} are run, fewer of "
                "those outside ASCII.\n",
            )
        fields = {
            "code": code,
            "timeout_s": timeout,
            "cap": self.limits.output_chars,
            "hard_cap": self.limits.output_hard_mb << 20,
        }
        try:
            reply = self._channel.request(op, fields, seconds=timeout + WATCHDOG_S)
        except RequestRefused as refusal:
            raise self._channel.end(f"it refused to run code, {refusal}") from None
        except SandboxLost:
            # Raised, it would let a policy throw away an episode that it has spoilt.
            if not self._died_of_memory():
                raise
            return Execution(Status.OOM, MEMORY_GONE, state_kept=False)
        if self._watch_memory is not None:
            self._ran_out = self._watch_memory()
        try:
            return _execution(reply)
        except (KeyError, TypeError, ValueError) as error:
            raise self._channel.end(f"a malformed reply, {error!r}") from None

    def _died_of_memory(self) -> bool:
        if self._closed or not self._channel.died:
            return False
        if self._ran_out is not None:
            self._memory_gone = self._ran_out()
            self._ran_out = None  # the engine remembers only for a while
        return self._memory_gone


def _execution(reply: Mapping[str, Any]) -> Execution:
    """Check a reply's shape: it comes from a place that untrusted code shares."""
    output, value, code = reply["output"], reply["value"], reply["exit_code"]
    if not isinstance(output, str) or not isinstance(value, str | None):
        raise TypeError("output and value must be text")
    if not isinstance(code, int | None):
        raise TypeError("exit_code must be a number")
    return Execution(
        status=Status(reply["status"]),
        output=output,
        value=value,
        exit_code=code,
        omitted_chars=int(reply["omitted"]),
        state_kept=bool(reply["state_kept"]),
    )


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not path or path.startswith("/") or "\0" in path or ".." in parts or path.endswith("/"):
        raise ValueError(
            f"A sandbox path is relative and stays below /work, got {path!r}; "
            "give it as 'folder/name'."
        )


def _seen_from_inside(claimed: Capabilities, facts: Mapping[str, Any]) -> Capabilities:
    """Strike out claims that the zygote's own look at its surroundings contradicts."""
    try:
        filtered = int(facts["seccomp_mode"]) == 2 and int(facts["no_new_privs"]) == 1
        alone = set(facts["interfaces"]) <= {"lo"}
        separate = int(facts["uid"]) != 0 and int(facts["capabilities"]) == 0
    except (KeyError, TypeError, ValueError) as error:
        raise SandboxLost(f"The sandbox's first answer is malformed: {error!r}.") from None
    return dataclasses.replace(
        claimed,
        syscalls_filtered=claimed.syscalls_filtered and filtered,
        # Without a namespace of its own, the filter is what refuses internet sockets.
        network_isolated=claimed.network_isolated
        and (filtered if claimed.backend == "process" else alone),
        user_separated=claimed.user_separated and separate,
    )
