"""The first process of a sandbox: answers the host, and runs untrusted code in a forked child.

Runs inside the sandbox as PID 1 (Python ≥ 3.9, standard library only), delivered as source over
the control stream. It never runs a task's code itself: each *session* is a forked child with
dropped rights. Not here: anything about the host, namespaces or containers; whoever starts the
zygote made those.

Frames both ways: a 4-byte big-endian length, then JSON. A request carries ``id``, ``nonce`` and
``op``; the reply echoes the first two. The session's own result carries another nonce, so that a
left-over process cannot answer in its stead; a frame out of turn ends the sandbox.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import stat
import sys
import time
from typing import Any, NoReturn

from reagent_env.sandboxes.capture import Capture, shorten
from reagent_env.sandboxes.frames import FRAME_CAP, Broken, Json, pack, unpack, write_all
from reagent_env.sandboxes.session import OOM_EXIT, SessionProcess, encode_name
from reagent_env.sandboxes.wipe import wipe

_PIPE_BYTES = 1 << 20
_CHUNK = 65536
_GRACE_S = 0.5
_MARK_CHARS = 100
"""More than :func:`shorten` puts between a head and a tail."""
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
DEVICES = ("/dev/pts", "/dev/pts/ptmx")
"""The session may own these beside its folders."""
_OOM_FILES = (
    "/run/sandbox/oom",
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
)


class Refused(Exception):
    """A request cannot be carried out; the sandbox is fine. ``kind`` says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Session:
    """What the zygote holds of its current child."""

    def __init__(self, pid: int, sock: socket.socket, output: int) -> None:
        self.pid = pid
        self.sock = sock
        self.output = output
        self.inbox = bytearray()
        self.outbox = memoryview(b"")
        self.status: int | None = None

    def close(self) -> None:
        """Drop both descriptors."""
        self.sock.close()
        os.close(self.output)


class Zygote:
    """Answers the host's requests one at a time."""

    def __init__(self, config: Json) -> None:
        self.config = config
        self.lift = frozenset(config.get("lift", ()))
        self.inbox = bytearray()
        self.control_in = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 10)
        self.control_out = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 10)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)
        self.libraries: list[str] = []
        self.oom_fd: int | None = None
        self.session: Session | None = None
        self.facts: Json = {}
        self.devices: list[tuple[str, int]] = []

    # -- start

    def start(self) -> None:
        """Become deaf to signals, load the libraries and fork the first session."""
        for number in range(1, signal.NSIG):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        # As PID 1, signals with a default action are ignored; elsewhere say so.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        own = self.config.get("own_user")
        if os.getpid() != 1 and (own is None or os.getuid() != own or own < 1000):
            # kill(-1) would reach processes that are not the sandbox's.
            raise Broken("not PID 1, and not a user of its own")
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        os.environ.update(
            OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1"
        )  # a forking process must have no threads
        sys.path.extend(self.config.get("path", ()))
        for name in self.config.get("preload", ()):
            try:
                importlib.import_module(name)
            except ImportError:
                continue
            self.libraries.append(name)
            if name == "numpy":
                importlib.import_module("numpy.random")
        for path in self.config.get("oom_files", _OOM_FILES):
            with contextlib.suppress(OSError):
                self.oom_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                break
        if "dumpable" not in self.lift:
            libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        for path in (*DEVICES, *(f"/dev/{name}" for name in os.listdir("/dev"))):
            with contextlib.suppress(OSError):
                mode = os.lstat(path).st_mode
                if path in DEVICES or stat.S_ISCHR(mode):
                    self.devices.append((path, stat.S_IMODE(mode)))
        gc.collect()
        gc.freeze()
        self.fork_session()

    def fork_session(self) -> None:
        """Start a session and wait until it answers."""
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(write_end, 1031, _PIPE_BYTES)  # F_SETPIPE_SZ
        try:
            pid = os.fork()
        except OSError as error:
            raise Broken(f"cannot fork a session: {error}") from None
        if pid == 0:
            try:
                ours.close()
                os.close(read_end)
                process = SessionProcess(self.config, theirs, write_end)
                process.harden()
                process.prepare()
                process.serve()
            except MemoryError:
                os._exit(OOM_EXIT)
            except BaseException as error:
                with contextlib.suppress(BaseException):
                    os.write(write_end, f"session: {error!r}\n".encode())
            finally:
                os._exit(70)
        theirs.close()
        os.close(write_end)
        os.set_blocking(read_end, False)
        ours.setblocking(False)
        session = self.session = Session(pid, ours, read_end)
        nonce = self.send(session, {"op": "ping"})
        limit = time.monotonic() + 10
        frame = None
        while frame is None:
            left = limit - time.monotonic()
            if left <= 0 or not select.select([ours], [], [], left)[0]:
                raise Broken("a new session does not answer")
            frame = self.take_frame(session, limit=_PIPE_BYTES)
            if frame is None and session.status is not None:
                said = os.read(read_end, 1000).decode("utf-8", "replace")
                raise Broken(f"a new session ended at once: {said.strip()}")
        if frame.get("nonce") != nonce:
            raise Broken("a new session answered out of turn")
        self.facts = dict(frame.get("facts") or {})

    # -- the session's two streams

    def send(self, session: Session, request: Json) -> str:
        """Queue a request for the session; returns the nonce its result must carry."""
        nonce = os.urandom(16).hex()
        # A view: cutting off what was sent must not copy the rest each time.
        rest = bytes(session.outbox)
        session.outbox = memoryview(rest + pack({**request, "nonce": nonce}))
        self.push(session)
        return nonce

    def push(self, session: Session) -> None:
        """Send what the socket takes without blocking."""
        while session.outbox:
            try:
                sent = session.sock.send(session.outbox[: 1 << 18])
            except BlockingIOError:
                return
            except OSError:
                session.outbox = memoryview(b"")
                return
            session.outbox = session.outbox[sent:]

    def take_frame(self, session: Session, limit: int) -> Json | None:
        """Return a result frame if a whole one has come; notes the session's end on EOF."""
        while True:
            frame = unpack(session.inbox, limit)
            if frame is not None:
                return frame
            try:
                data = session.sock.recv(_CHUNK)
            except BlockingIOError:
                return None
            except OSError:
                data = b""
            if not data:
                if session.status is None:
                    self.await_exit(session)
                return None
            session.inbox += data

    def await_exit(self, session: Session) -> None:
        """The session closed its socket: wait a moment for its exit, or end it."""
        limit = time.monotonic() + 0.2
        while session.status is None and time.monotonic() < limit:
            self.reap()
            if session.status is None:
                signal.sigtimedwait([signal.SIGCHLD], 0.02)
        if session.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(session.pid, signal.SIGKILL)
            while session.status is None:
                self.reap(block=True)

    def read_output(self, session: Session, capture: Capture | None, budget: int) -> int:
        """Move up to ``budget`` printed bytes into ``capture`` (None: away); returns how many."""
        moved = 0
        while moved < budget:
            try:
                printed = os.read(session.output, _CHUNK)
            except BlockingIOError:
                break
            if not printed:
                break
            moved += len(printed)
            if capture is not None:
                capture.add(printed)
        return moved

    def reap(self, *, block: bool = False) -> bool:
        """Collect dead children; returns False when none is left, dead or alive."""
        while True:
            try:
                pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
            except ChildProcessError:
                if self.session is not None and self.session.status is None:
                    self.session.status = 0
                return False
            if pid == 0:
                return True
            if self.session is not None and pid == self.session.pid:
                self.session.status = status
            block = False

    def kill_all(self) -> int:
        """Kill every other process in the sandbox; returns the number reaped."""
        limit = time.monotonic() + 2
        rounds = 0
        while True:
            rounds += 1
            if "kill" in self.lift:
                if self.session is not None:
                    os.kill(self.session.pid, signal.SIGKILL)
                    os.waitpid(self.session.pid, 0)
                return rounds
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(-1, signal.SIGKILL)
            if not self.reap():
                if os.getpid() != 1:
                    return rounds
                try:
                    os.kill(-1, 0)
                except ProcessLookupError:
                    return rounds
            if time.monotonic() > limit:
                raise Broken("processes outlive SIGKILL")
            signal.sigtimedwait([signal.SIGCHLD], 0.01)

    def oom_kills(self) -> int:
        """The cgroup's count of memory kills, 0 when it cannot be read."""
        if self.oom_fd is None:
            return 0
        with contextlib.suppress(OSError, ValueError):
            for line in os.pread(self.oom_fd, 4096, 0).splitlines():
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
        return 0

    # -- one execution

    def step(self, request: Json) -> Json:
        """Run python or shell code in the session and say how it ended."""
        session = self.session
        assert session is not None
        self.reap()
        self.read_output(session, None, 2 * _PIPE_BYTES)
        cap = int(request["cap"])
        capture = Capture(cap)
        if session.status is None and self.take_frame(session, _PIPE_BYTES) is not None:
            raise Broken("the session sent a result that nobody asked for")
        if session.inbox and session.status is None and "nonce" not in self.lift:
            raise Broken("the session sent part of a result that nobody asked for")
        if session.status is not None:
            # It died between two steps (a thread of its own, for example).
            return self.restart("session_died", capture)
        kills = self.oom_kills()
        nonce = self.send(session, {"op": request["op"], "code": request["code"], "cap": cap})
        now = time.monotonic()
        interrupt_at = now + float(request["timeout_s"])
        kill_at = interrupt_at + _GRACE_S
        hard = int(request["hard_cap"])
        cause = ""
        frame_limit = 16 * cap + 65536
        frame: Json | None = None
        while True:
            now = time.monotonic()
            if cause and now >= kill_at:
                return self.restart("timeout_killed" if cause == "timeout" else cause, capture)
            if not cause and (now >= interrupt_at or capture.total > hard):
                cause = "timeout" if now >= interrupt_at else "output_limit"
                kill_at = now + _GRACE_S
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(session.pid, signal.SIGINT)
            wait = min(0.1, max(0.0, (kill_at if cause else interrupt_at) - now))
            writing: list[Any] = [session.sock] if session.outbox else []
            reading: list[Any] = [session.sock, session.output, self.control_in]
            readable, writable, _ = select.select(reading, writing, [], wait)
            if writable:
                self.push(session)
            if session.output in readable:
                moved = self.read_output(session, capture, 4 * _CHUNK)
                if moved == 0 and session.sock not in readable:
                    # The pipe's end is closed on the far side; only the socket can tell more.
                    signal.sigtimedwait([signal.SIGCHLD], min(wait, 0.01))
            if self.control_in in readable:
                self.fill_inbox()
            if session.sock in readable:
                frame = self.take_frame(session, frame_limit)
                if frame is not None:
                    break
            else:
                self.reap()
            if session.status is not None:
                break
        self.read_output(session, capture, 2 * _PIPE_BYTES)
        if frame is None:
            return self.restart(self.cause_of_death(session, cause, kills), capture)
        if "nonce" not in self.lift:
            if frame.get("nonce") != nonce:
                raise Broken("the session sent a result with the wrong nonce")
            if session.inbox or self.take_frame(session, frame_limit) is not None:
                raise Broken("the session sent more than one result")
        return self.result(frame, capture, cause, kills, cap)

    def result(self, frame: Json, capture: Capture, cause: str, kills: int, cap: int) -> Json:
        """Check a result frame's shape and turn it into the reply."""
        outcome, shown, code = frame.get("outcome"), frame.get("value"), frame.get("exit_code")
        if (
            outcome not in ("ok", "error")
            or not (shown is None or isinstance(shown, str))
            or not (code is None or (isinstance(code, int) and -255 <= code <= 255))
        ):
            raise Broken("the session sent a malformed result")
        if shown is not None and len(shown) > cap + _MARK_CHARS:
            shown = shorten(shown, cap)  # an honest session has cut it already
        status = outcome
        if cause == "timeout":
            status = "timeout_interrupted"
        elif cause:
            status = cause
        elif code in (-9, 137) and self.oom_kills() > kills:
            status = "oom"
        text, omitted = capture.text()
        return {"status": status, "value": shown if status == "ok" else None, "exit_code": code,
                "output": text, "omitted": omitted, "state_kept": True}  # fmt: skip

    def cause_of_death(self, session: Session, cause: str, kills: int) -> str:
        """Name how a session ended that sent no result."""
        status = session.status or 0
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if killed and self.oom_kills() > kills:
            return "oom"
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == OOM_EXIT:
            return "oom"
        if cause:
            return "timeout_killed" if cause == "timeout" else cause
        return "session_died"

    def restart(self, status: str, capture: Capture) -> Json:
        """Kill everything, keep the files, fork a new session; the old one's variables are gone."""
        session = self.session
        assert session is not None
        self.kill_all()
        self.read_output(session, capture, 2 * _PIPE_BYTES)
        session.close()
        with contextlib.suppress(OSError):
            # The old session may have locked the folder that the new one starts in.
            os.chmod(self.config["work"], 0o700)
        self.fork_session()
        text, omitted = capture.text()
        return {"status": status, "value": None, "exit_code": None,
                "output": text, "omitted": omitted, "state_kept": False}  # fmt: skip

    # -- reset

    def reset(self) -> Json:
        """Leave no process, file or shared-memory object; then fork a fresh session."""
        began = time.monotonic()
        self.kill_all()
        if self.session is not None:
            self.session.close()
            self.session = None
        removed = 0
        if "wipe" not in self.lift:
            for folder in self.config["wipe"]:
                removed += wipe(folder)
            for folder in filter(os.path.isdir, self.config.get("wipe_owned", ())):
                removed += wipe(folder, owner=os.getuid())
            # Their modes and times would be a note to the next episode.
            for path, mode in self.devices:
                with contextlib.suppress(OSError):
                    os.utime(path)
                with contextlib.suppress(OSError):
                    os.chmod(path, mode)
        self.fork_session()
        return {"removed": removed, "seconds": time.monotonic() - began}

    # -- files

    def open_parent(self, path: str, *, create: bool) -> tuple[int, bytes]:
        """Walk to a file's folder below the work folder without following a link."""
        parts = [part for part in encode_name(path).split(b"/") if part not in (b"", b".")]
        if not parts or b".." in parts or path.startswith("/") or "\0" in path:
            raise Refused("path", f"{path!r} is not a relative path below the work folder")
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.config["work"], flags)
        try:
            for part in parts[:-1]:
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=fd)
                deeper = os.open(part, flags, dir_fd=fd)
                os.close(fd)
                fd = deeper
        except BaseException:
            os.close(fd)
            raise
        return fd, parts[-1]

    def write_file(self, request: Json) -> Json:
        """Write one chunk of a file; ``offset`` 0 makes or empties it."""
        content = base64.b64decode(request["content"])
        offset = int(request["offset"])
        folder, name = self.open_parent(request["path"], create=True)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name, flags, 0o644, dir_fd=folder)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise Refused("path", f"{request['path']!r} is not a regular file")
                os.ftruncate(fd, offset)
                os.lseek(fd, offset, os.SEEK_SET)
                write_all(fd, content)
            finally:
                os.close(fd)
        finally:
            os.close(folder)
        return {"written": len(content)}

    def read_file(self, request: Json) -> Json:
        """Read one chunk of a regular file."""
        folder, name = self.open_parent(request["path"], create=False)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=folder)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise Refused("missing", f"{request['path']!r} is not a regular file")
                size = min(int(request["size"]), 1 << 20)
                chunk = os.pread(fd, size, int(request["offset"]))
            finally:
                os.close(fd)
        finally:
            os.close(folder)
        return {"content": base64.b64encode(chunk).decode("ascii")}

    # -- the control stream

    def fill_inbox(self) -> None:
        """Take in bytes from the host; its end of file ends everything."""
        try:
            data = os.read(self.control_in, 1 << 18)
        except OSError:
            data = b""
        if not data:
            self.end()
        self.inbox += data

    def end(self) -> NoReturn:
        """Kill all and exit."""
        with contextlib.suppress(BaseException):
            self.kill_all()
        os._exit(0)

    def hello(self) -> Json:
        """What this sandbox looks like from inside."""
        with open("/proc/net/dev") as listing:
            interfaces = [line.split(":")[0].strip() for line in listing if ":" in line]
        session = self.session
        assert session is not None
        with open(f"/proc/{session.pid}/status") as status:
            rows = dict(line.split(":", 1) for line in status if ":" in line)
        return {
            "python": sys.version.split()[0],
            "libraries": self.libraries,
            "interfaces": interfaces,
            "uid": os.getuid(),
            "pid": os.getpid(),
            "seccomp_mode": int(rows.get("Seccomp", "0")),
            "no_new_privs": int(rows.get("NoNewPrivs", "0")),
            "capabilities": int(rows.get("CapEff", "0"), 16),
            "oom_counter": self.oom_fd is not None,
            "problem": self.facts.get("seccomp_problem"),
        }

    def carry_out(self, request: Json) -> Json:
        """Answer one request."""
        op = request.get("op")
        try:
            if op == "hello":
                return self.hello()
            if op == "ping":
                return {}
            if op in ("python", "shell"):
                return self.step(request)
            if op == "write":
                return self.write_file(request)
            if op == "read":
                return self.read_file(request)
            if op == "reset":
                return self.reset()
        except OSError as error:
            full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            missing = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR)
            kind = "space" if error.errno in full else "path"
            if op == "read" and error.errno in missing:
                kind = "missing"
            if op not in ("write", "read"):
                raise Broken(f"{op} failed: {error}") from error
            raise Refused(kind, f"{request.get('path')!r}: {error.strerror}") from None
        raise Broken(f"unknown request {op!r}")

    def serve(self) -> NoReturn:
        """Answer until the host hangs up or the sandbox breaks."""
        while True:
            request = unpack(self.inbox, FRAME_CAP)
            if request is None:
                self.fill_inbox()
                continue
            reply: Json = {"ok": True}
            if request.get("op") == "shutdown":
                self.end()
            broken = False
            try:
                reply.update(self.carry_out(request))
            except Refused as refusal:
                reply = {"ok": False, "error": refusal.kind, "message": str(refusal)}
            except (Broken, OSError, MemoryError) as failure:
                broken = True
                message = str(failure) or type(failure).__name__
                reply = {"ok": False, "error": "broken", "message": message}
            reply["id"], reply["nonce"] = request["id"], request["nonce"]
            try:
                write_all(self.control_out, pack(reply))
            except OSError:
                self.end()
            if broken:
                self.end()


def main(arguments: list[str]) -> NoReturn:
    """Start with the JSON configuration of the command line; never returns."""
    zygote = Zygote(json.loads(arguments[1]))
    # The session is a fork of this process: leave nothing of ours to import in it.
    for name in [name for name in sys.modules if name.split(".")[0] == "reagent_env"]:
        del sys.modules[name]
    try:
        zygote.start()
    except (Broken, OSError, MemoryError) as failure:
        request_id = {"id": 0, "nonce": "", "ok": False, "error": "broken", "message": str(failure)}
        with contextlib.suppress(OSError):
            write_all(zygote.control_out, pack(request_id))
        os._exit(1)
    zygote.serve()


if __name__ == "__main__":
    main(sys.argv)
