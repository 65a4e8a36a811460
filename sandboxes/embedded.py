"""The sandbox for machines without Docker: bubblewrap around the host's own interpreter.

As root, a shell first stages in a private mount namespace what an unprivileged user could not
reach (the interpreter may lie below ``/root``) or not make (in-memory disks capped in files),
joins a control group, and gives up root; bubblewrap is never run by root, whom it would map to
the host's root. As a normal user bubblewrap runs directly, with fewer caps, and says so.

Not here: Docker (``docker.py``), nor the sandbox without namespaces (``process.py``).
"""

from __future__ import annotations

import functools
import glob
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reagent_env.sandboxes.contract import Capabilities, Limits
from reagent_env.sandboxes.control_group import ControlGroup, make_control_group
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

INSIDE_LIBRARIES = "/opt/libraries"
_HOST_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_SYSTEM = ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32")
_SHARED = ("/usr/libexec", "/usr/share")
_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_TERMINALS = 32
_ETC = ("/etc/ld.so.cache", "/etc/alternatives")
# Its user owns the namespaces and could write their settings, which no reset would undo.
_KERNEL_FOLDERS = ("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev")
_PACKAGE_FOLDERS = (
    *("{}/lib/python3*/site-packages", "{}/lib/python3*/dist-packages"),
    *("{}/lib/python3/dist-packages", "{}/lib64/python3*/site-packages"),
)


def interpreter() -> tuple[str, str]:
    """Return the real interpreter and its prefix: no version manager's shim, no virtual env."""
    program = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    return program, os.path.realpath(sys.base_prefix)


@functools.cache
def embedded_problem() -> str | None:
    """Say why bubblewrap sandboxes cannot be had here and which command mends it; None if they can."""
    if platform.system() != "Linux":
        return f"bubblewrap needs Linux, this is {platform.system()}; use Docker."
    bwrap = shutil.which("bwrap", path=_HOST_ENV["PATH"])
    if bwrap is None:
        return "bubblewrap is not installed: `apt-get install bubblewrap` (as root)."
    program, prefix = interpreter()
    if not program.startswith(prefix + "/"):
        return f"the interpreter {program} does not lie below its prefix {prefix}; use Docker."
    listed = subprocess.run([bwrap, "--help"], capture_output=True, text=True, check=False)
    said = listed.stdout + listed.stderr
    if "--disable-userns" not in said or "--size" not in said:
        return "this bubblewrap is older than 0.8: `apt-get install --upgrade bubblewrap`."
    trial = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--as-pid-1"]
    trial += ["--ro-bind", "/usr", "/usr", *_link_arguments(), *_KERNEL_FOLDERS, "/usr/bin/true"]
    if os.geteuid() == 0:
        for tool in ("unshare", "setpriv", "mount"):
            if shutil.which(tool, path=_HOST_ENV["PATH"]) is None:
                return f"{tool} is not installed: `apt-get install util-linux mount` (as root)."
        trial = [*_private_mounts(), "exec " + shlex.join([*_give_up_root(200_000), *trial])]
    done = subprocess.run(
        trial, capture_output=True, text=True, check=False, env=_HOST_ENV, cwd="/", timeout=20
    )
    if done.returncode == 0:
        return None
    return (
        f"bubblewrap cannot make its namespaces ({done.stderr.strip() or done.returncode}): "
        "`sysctl -w user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1 "
        "kernel.apparmor_restrict_unprivileged_userns=0` (as root; where a key is unknown, "
        "leave it out; in a container, start it with --privileged)."
    )


class BubblewrapSandbox(ZygoteSandbox):
    """A sandbox of Linux namespaces around the host's interpreter and a few of its libraries.

    Args:
        limits: What it may use.
        libraries: Distributions of the host's environment that it may import (and what they
            require); nothing else that is installed can be imported inside.
        preload: Those loaded before the first session; all of ``libraries`` by default.
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
        preload: Iterable[str] | None = None,
        lift: Iterable[str] = (),
        boot_timeout_s: float = 60.0,
    ) -> None:
        self._closed = True  # until there is something to close
        limits = limits or Limits()
        libraries = tuple(libraries)
        problem = embedded_problem()
        if problem is not None:
            raise SandboxUnavailable(f"No bubblewrap sandbox: {problem}")
        root = os.geteuid() == 0
        user = OwnUser() if root else None
        group = make_control_group(limits) if root else None
        layout = _Layout(limits, user.uid if user else os.geteuid(), root, group, frozenset(lift))
        config = zygote_config(
            limits,
            preload=libraries if preload is None else preload,
            env={
                "PATH": f"{os.path.dirname(layout.program)}:/usr/bin:/bin",
                "PYTHONPATH": INSIDE_LIBRARIES,
                "USER": "agent",
            },
            lift=lift,
            path=[INSIDE_LIBRARIES],
            nproc=limits.pids,
            # Without a group only each process can be capped; libraries map more than they use.
            address_space=0 if group and group.memory else (limits.memory_mb + 512) << 20,
        )
        passwd, fds = _account_files(layout.uid)
        command = layout.bubblewrap(library_parts(libraries), passwd)
        command += zygote_command(layout.program, config)

        def free() -> None:
            for fd in fds:
                os.close(fd)
            fds.clear()
            if group is not None:
                group.remove()
            if user is not None:
                user.release()

        try:
            transport = SubprocessTransport(layout.outer(command), env=_HOST_ENV, pass_fds=fds)
        except OSError as error:
            free()
            raise SandboxUnavailable(f"No bubblewrap sandbox: {error}.") from error
        try:
            super().__init__(
                transport,
                limits,
                layout.capabilities(),
                boot_timeout_s=boot_timeout_s,
                on_close=free,
                watch_memory=None if group is None else group.watch_memory,
            )
        except SandboxLost as error:
            raise SandboxUnavailable(
                f"The bubblewrap sandbox did not start ({error}): {transport.last_words}"
            ) from error


@dataclass(frozen=True)
class _Layout:
    """How one sandbox's file system and outer commands are put together."""

    limits: Limits
    uid: int
    root: bool
    group: ControlGroup | None
    lift: frozenset[str]
    binds: list[tuple[str, str]] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "binds", [])

    @property
    def program(self) -> str:
        return interpreter()[0]

    @property
    def stage(self) -> str:
        """A folder of the host to mount the stage on, in our own mount namespace only."""
        needed = [interpreter()[1], sys.prefix]
        for folder in ("/mnt", "/media", "/srv", "/tmp"):
            if os.path.isdir(folder) and not any(p.startswith(folder + "/") for p in needed):
                return folder
        raise SandboxUnavailable("No bubblewrap sandbox: none of /mnt, /media, /srv, /tmp exists.")

    def staged(self, source: str) -> str:
        """Return the path under which bubblewrap can reach ``source`` of the host."""
        if not self.root:
            return source
        for known, path in self.binds:
            if known == source:
                return path
        self.binds.append((source, f"{self.stage}/bind{len(self.binds)}"))
        return self.binds[-1][1]

    def disks(self) -> list[tuple[str, str, int]]:
        return [
            ("work", "/work", self.limits.work_mb),
            ("scratch", "/tmp", self.limits.work_mb),
            ("shm", "/dev/shm", self.limits.shm_mb),
        ]

    def bubblewrap(self, libraries: dict[str, Path], account: list[str]) -> list[str]:
        """Return bubblewrap's command up to the program it runs."""
        prefix = interpreter()[1]
        user_namespace = ["--unshare-user", "--disable-userns"]
        out = ["bwrap", "--unshare-all", *user_namespace, "--as-pid-1", "--die-with-parent"]
        if "network" in self.lift:
            out.append("--share-net")
        out += ["--new-session", "--hostname", "sandbox", "--cap-drop", "ALL", "--clearenv"]
        bound = [path for path in (*_SYSTEM, *_SHARED) if os.path.isdir(path)]
        for path in bound:
            if not os.path.islink(path):
                out += ["--ro-bind", path, path]
        out += _link_arguments()
        if prefix == "/usr/local":
            out += ["--ro-bind", "/usr/local/bin", "/usr/local/bin"]
            out += ["--ro-bind", "/usr/local/lib", "/usr/local/lib"]
        elif prefix != "/usr":
            out += ["--ro-bind", self.staged(prefix), prefix]
        for path in self._masks(prefix):
            out += ["--tmpfs", path, "--remount-ro", path]
        for name, source in sorted(libraries.items()):
            out += ["--ro-bind", self.staged(str(source)), f"{INSIDE_LIBRARIES}/{name}"]
        for path in _ETC:
            if os.path.exists(path):
                out += ["--ro-bind", path, path]
        out += account
        out += _KERNEL_FOLDERS
        if self.root:
            out += ["--dev-bind", f"{self.stage}/pts", "/dev/pts"]
        for name, path, size in self.disks():
            if self.root:
                out += ["--bind", f"{self.stage}/{name}", path]
            else:
                out += ["--perms", "0700", "--size", str(size << 20), "--tmpfs", path]
        if self.group is not None and self.group.oom_file is not None:
            out += ["--ro-bind", str(self.group.oom_file), "/run/sandbox/oom"]
        if "host_files" in self.lift:
            out += ["--ro-bind", "/", "/host"]
        return [*out, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/work", "--"]

    def _masks(self, prefix: str) -> list[str]:
        """Folders of installed packages below what is bound: none of them may be imported."""
        found: set[str] = set()
        for base in {prefix, "/usr"}:
            for pattern in _PACKAGE_FOLDERS:
                found.update(glob.glob(pattern.format(glob.escape(base))))
        if prefix == "/usr/local":
            for pattern in _PACKAGE_FOLDERS:
                found.update(glob.glob(pattern.format("/usr/local")))
        own = str(Path(__file__).resolve().parent.parent)
        reachable = [prefix, *_SYSTEM, *_SHARED] if prefix not in ("/usr", "/usr/local") else [
            *_SYSTEM, *_SHARED, "/usr/local/lib"
        ]  # fmt: skip
        if any(own.startswith(path + "/") for path in reachable):
            found.add(own)
        # A link's target is masked where it lies.
        return sorted({os.path.realpath(path) for path in found if os.path.isdir(path)})

    def outer(self, command: list[str]) -> list[str]:
        """Return what the host really starts: a shell that stays, and stages as root."""
        if not self.root:
            # The shell is there to be bubblewrap's parent: `--die-with-parent` means the thread
            # that started it, and a thread of a pool may end long before its sandboxes.
            return ["sh", "-c", '"$@"\nexit $?', "sh", *command]
        limits, stage = self.limits, self.stage
        lines = ["set -e", "umask 022"]
        make = "mount -t tmpfs -o nosuid,nodev,"
        lines.append(f"{make}mode=0755,size=1m,nr_inodes=1024 stage {stage}")
        for name, _, size in self.disks():
            inodes = "" if "inodes" in self.lift else f",nr_inodes={limits.inodes}"
            space = "" if "disk" in self.lift else f",size={size}m"
            owner = f"uid={self.uid},gid={self.uid},mode=0700"
            lines += [
                f"mkdir {stage}/{name}",
                f"{make}{owner}{space}{inodes} {name} {stage}/{name}",
            ]
        # The kernel's stock of terminals is one for all sandboxes: each gets a part of it.
        terminals = f"newinstance,ptmxmode=0666,mode=620,max={_TERMINALS}"
        lines += [
            f"mkdir {stage}/pts",
            f"mount -t devpts -o nosuid,noexec,{terminals} devpts {stage}/pts",
        ]
        for source, target in self.binds:
            place = "mkdir" if os.path.isdir(source) else "touch"
            lines += [f"{place} {target}", f"mount --bind {shlex.quote(source)} {target}"]
        join = self.group.join_script() if self.group is not None else ""
        run = shlex.join([*_give_up_root(self.uid), *command])
        lines += [f"(\n{join}exec {run}\n)", "exit $?"]
        return [*_private_mounts(), "\n".join(lines)]

    def capabilities(self) -> Capabilities:
        group, lift = self.group, self.lift
        return Capabilities(
            backend="bubblewrap",
            network_isolated="network" not in lift,
            filesystem_isolated="host_files" not in lift,
            processes_isolated=True,
            # Without root it stays the host user's own id, though with no rights over it.
            user_separated=self.root,
            syscalls_filtered="seccomp" not in lift,
            memory_limited=group is not None and group.memory,
            # RLIMIT_NPROC counts per user namespace from Linux 5.14 on; as root the user is unique.
            pids_limited="nproc" not in lift and (self.root or _kernel() >= (5, 14)),
            # Bubblewrap's own in-memory disks have no cap on the number of files.
            disk_limited=self.root and not {"disk", "inodes"} & lift,
        )


def _private_mounts() -> list[str]:
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c"]


def _give_up_root(uid: int) -> list[str]:
    identity = ["--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    return ["setpriv", *identity, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]


def _link_arguments() -> list[str]:
    """``/bin`` and its like, as links where the host has links, else bound."""
    out: list[str] = []
    for path in _LINKS:
        if os.path.islink(path):
            out += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            out += ["--ro-bind", path, path]
    for path in _SYSTEM:
        if os.path.islink(path):
            out += ["--symlink", os.readlink(path), path]
    return out


def _account_files(uid: int) -> tuple[list[str], list[int]]:
    """Return arguments that give the sandbox a ``passwd`` and a ``group``, and their descriptors."""
    arguments: list[str] = []
    fds: list[int] = []
    contents = {
        "/etc/passwd": f"root:x:0:0:root:/:/bin/false\nagent:x:{uid}:{uid}:agent:/work:/bin/bash\n",
        "/etc/group": f"root:x:0:\nagent:x:{uid}:\n",
    }
    for path, text in contents.items():
        fd = os.memfd_create(os.path.basename(path))
        os.write(fd, text.encode())
        os.lseek(fd, 0, os.SEEK_SET)
        fds.append(fd)
        arguments += ["--ro-bind-data", str(fd), path]
    return arguments, fds


def _kernel() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)
