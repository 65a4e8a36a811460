"""The last resort, only on explicit request: a process of its own user, without namespaces.

It has no network (its system-call filter refuses internet sockets), its own user and rlimits. It
does see the host's world-readable files and its list of processes, and its folder is not
``/work``. Never chosen by ``auto``.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from reagent_env.sandboxes.contract import Capabilities, Limits
from reagent_env.sandboxes.control_group import make_control_group, start_time
from reagent_env.sandboxes.embedded import interpreter
from reagent_env.sandboxes.errors import SandboxLost, SandboxUnavailable
from reagent_env.sandboxes.libraries import library_parts
from reagent_env.sandboxes.own_user import OwnUser
from reagent_env.sandboxes.subprocess_transport import SubprocessTransport
from reagent_env.sandboxes.zygote_sandbox import (
    LIBRARIES,
    ZygoteSandbox,
    zygote_command,
    zygote_config,
)

_HOST_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_SHARED_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue")
_PREFIX = "reagent-sandbox-"


def process_problem() -> str | None:
    """Say why process sandboxes cannot be had here and what mends it; None if they can."""
    if platform.system() != "Linux":
        return f"it needs Linux, this is {platform.system()}; use Docker."
    if os.geteuid() != 0:
        return "it needs root, to give the code a user of its own: `apt-get install bubblewrap`."
    if shutil.which("setpriv", path=_HOST_ENV["PATH"]) is None:
        return "setpriv is not installed: `apt-get install util-linux`."
    if _reachable_interpreter() is None:
        return "no Python that other users may run: `apt-get install python3`."
    return None


class ProcessSandbox(ZygoteSandbox):
    """A sandbox of rlimits, a user of its own and a system-call filter; its folder is temporary.

    Args:
        limits: What it may use; what cannot be enforced is not claimed in ``capabilities``.
        libraries: Distributions offered for import, where this interpreter can be run inside.
        lift: Guards to leave out; only for tests that show a guard matters.
        boot_timeout_s: Seconds until it must answer.

    Raises:
        SandboxUnavailable: It cannot be had here; the message says which command mends that.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        libraries: Iterable[str] = LIBRARIES,
        lift: Iterable[str] = (),
        boot_timeout_s: float = 60.0,
    ) -> None:
        self._closed = True  # until there is something to close
        limits = limits or Limits()
        lift = frozenset(lift)
        problem, program = process_problem(), _reachable_interpreter()
        if problem is not None or program is None:
            raise SandboxUnavailable(f"No process sandbox: {problem}")
        user = OwnUser()
        group = make_control_group(limits)
        _sweep()
        base = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-{start_time(os.getpid())}-")
        os.chmod(base, 0o711)
        self.work = f"{base}/work"
        for folder in (self.work, f"{base}/scratch"):
            os.mkdir(folder, 0o700)
            os.chown(folder, user.uid, user.uid)
        imports: list[str] = []
        if program == interpreter()[0]:
            imports.append(f"{base}/libraries")
            os.mkdir(imports[0])
            for name, source in library_parts(libraries).items():
                os.symlink(source, f"{imports[0]}/{name}")
        config = zygote_config(
            limits,
            work=self.work,
            scratch=f"{base}/scratch",
            wipe=(self.work, f"{base}/scratch"),
            wipe_owned=_SHARED_FOLDERS,
            env={"PATH": f"{os.path.dirname(program)}:/usr/bin:/bin"},
            lift=lift,
            path=imports,
            preload=tuple(libraries) if imports else (),
            inet=False,
            nproc=limits.pids,
            address_space=(limits.memory_mb + 512) << 20,
            file_size=limits.work_mb << 20,
            own_user=user.uid,
            oom_files=[str(group.oom_file)] if group is not None and group.oom_file else [],
        )
        become = _become(user.uid)
        run = shlex.join([*become, *zygote_command(program, config)])
        join = group.join_script() if group is not None else ""

        def free() -> None:
            if group is not None:
                group.remove()
            _kill_user(become)
            shutil.rmtree(base, ignore_errors=True)
            user.release()

        transport = _UserTransport(["sh", "-c", f"set -e\n{join}exec {run}"], become)
        claimed = Capabilities(
            backend="process",
            network_isolated=True,
            filesystem_isolated=False,
            processes_isolated=False,
            user_separated=True,
            syscalls_filtered=True,
            memory_limited=group is not None and group.memory,
            pids_limited="nproc" not in lift,
            disk_limited=False,
        )
        try:
            super().__init__(
                transport, limits, claimed, boot_timeout_s=boot_timeout_s, on_close=free
            )
        except SandboxLost as error:
            raise SandboxUnavailable(
                f"The process sandbox did not start ({error}): {transport.last_words}"
            ) from error


class _UserTransport(SubprocessTransport):
    """Ends every process of the sandbox's user: nothing else holds them together."""

    def __init__(self, argv: Sequence[str], become: Sequence[str]) -> None:
        super().__init__(argv, env=_HOST_ENV)
        self._become = list(become)

    def kill(self) -> None:
        """End the first process and every other of its user."""
        if not self._closed:
            super().kill()
            _kill_user(self._become)


def _become(uid: int) -> list[str]:
    identity = ["--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    return ["setpriv", *identity, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]


def _kill_user(become: list[str]) -> None:
    subprocess.run(
        [*become, "sh", "-c", "kill -KILL -1"],
        env=_HOST_ENV,
        check=False,
        timeout=5,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _sweep() -> None:
    """Remove the folders of sandboxes whose host process was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*-*"):
        pid, started = folder.name[len(_PREFIX) :].split("-")[:2]
        ours = not folder.is_symlink() and folder.is_dir() and folder.stat().st_uid == 0
        if ours and pid.isdigit() and start_time(int(pid)) != started:
            shutil.rmtree(folder, ignore_errors=True)


def _reachable_interpreter() -> str | None:
    """This interpreter if another user may run it, else the system's."""
    program, prefix = interpreter()
    for candidate, root in ((program, prefix), ("/usr/bin/python3", "/usr")):
        if os.path.exists(candidate) and _open_to_all(candidate) and _open_to_all(root):
            return candidate if candidate == program else os.path.realpath(candidate)
    return None


def _open_to_all(path: str) -> bool:
    real = Path(path).resolve()
    return all(place.stat().st_mode & 0o001 for place in (real, *real.parents))
