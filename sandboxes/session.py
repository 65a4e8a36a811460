"""The session: a forked child of the zygote, without rights, that runs a task's code.

Runs inside the sandbox (Python ≥ 3.9, standard library only; shipped with ``zygote.py``). It
shares its process with untrusted code, so nothing it says is trusted: deadlines, caps and the
checks of its answers are the zygote's.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import json
import linecache
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import traceback
import types
from typing import NoReturn

from reagent_env.sandboxes import seccomp
from reagent_env.sandboxes.capture import shorten
from reagent_env.sandboxes.frames import FRAME_CAP, Json, unpack, write_all

OOM_EXIT = 77
"""Exit status of a session that ran out of memory outside the user's code."""
_CHUNK = 65536
_STATE_BYTES = 1 << 20
_OWN_FILE = "<session>"
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


class SessionProcess:
    """The forked child: runs requests from its socket until the socket or the process ends."""

    def __init__(self, config: Json, sock: socket.socket, output: int) -> None:
        self.config = config
        self.sock = sock
        self.output = output
        self.pid = os.getpid()
        self.running = False
        self.count = 0
        self.libc = ctypes.CDLL(None)
        self.facts: Json = {}
        self.memfds: tuple[int, int] | None = None

    def harden(self) -> None:
        """Give up rights for good: limits, priority, privileges, system calls."""
        config, lift = self.config, frozenset(self.config.get("lift", ()))
        os.setsid()
        # The parent is not dumpable; without this, /proc/self would belong to root here.
        self.libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
        self.libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as adjustment:
            adjustment.write("1000")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for name, key in (("RLIMIT_NOFILE", "open_files"), ("RLIMIT_NPROC", "nproc"),
                          ("RLIMIT_AS", "address_space"), ("RLIMIT_FSIZE", "file_size")):  # fmt: skip
            if config.get(key) and key not in lift:
                limit = int(config[key])
                hard = resource.getrlimit(getattr(resource, name))[1]
                limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
                resource.setrlimit(getattr(resource, name), (limit, limit))
        os.nice(0 if "nice" in lift else 10)
        os.umask(0o022)
        self.libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if "seccomp" not in lift:
            try:
                seccomp.install(lift, inet=bool(config.get("inet", True)))
            except (OSError, ValueError) as error:
                self.facts["seccomp_problem"] = str(error)

    def prepare(self) -> None:
        """Set up standard streams, folders, signal handling and the namespace."""
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(self.output, 1)
        os.dup2(self.output, 2)
        keep = {0, 1, 2, self.sock.fileno(), self.output}
        for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
            if fd not in keep:
                with contextlib.suppress(OSError):
                    os.close(fd)
        for number in range(1, signal.NSIG):
            with contextlib.suppress(OSError, ValueError):
                if signal.getsignal(number) not in (None, signal.SIG_DFL):
                    signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGINT, self._interrupt)
        os.environ.clear()
        os.environ.update(self.config["env"])
        os.chdir(self.config["work"])
        sys.argv = [""]
        sys.path.insert(0, "")
        self._open_streams()
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        self.namespace = module.__dict__
        self.namespace["__builtins__"] = __builtins__
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:
            # Sessions forked of one parent would otherwise draw the same numbers.
            numpy_random.seed(int.from_bytes(os.urandom(4), "big"))

    def _open_streams(self) -> None:
        # One object for both keeps the order of prints to either; lines leave at once.
        self.stream = open(  # noqa: SIM115
            1, "w", buffering=_CHUNK, encoding="utf-8", errors="surrogatepass", closefd=False
        )
        self.stream.reconfigure(line_buffering=True)
        sys.stdout = sys.stderr = self.stream
        sys.__stdout__ = sys.__stderr__ = self.stream  # type: ignore[misc]
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.__stdin__ = sys.stdin  # type: ignore[misc]

    def _interrupt(self, signum: int, frame: types.FrameType | None) -> None:
        if self.running:
            raise KeyboardInterrupt

    def serve(self) -> NoReturn:
        """Answer requests until the zygote closes the socket."""
        dumps = json.JSONEncoder().encode
        inbox = bytearray()
        while True:
            request = unpack(inbox, FRAME_CAP)
            if request is None:
                data = self.sock.recv(_CHUNK)
                if not data:
                    os._exit(0)
                inbox += data
                continue
            reply = self._answer(request)
            if os.getpid() != self.pid:
                # A forked copy came out of the user's code at the end; it has no say.
                os._exit(0)
            reply["nonce"] = request["nonce"]
            body = dumps(reply).encode("ascii")
            self.sock.sendall(struct.pack(">I", len(body)) + body)

    def _answer(self, request: Json) -> Json:
        if request["op"] == "ping":
            return {"outcome": "ok", "facts": self.facts}
        os.dup2(self.output, 1)
        os.dup2(self.output, 2)
        if self.stream.closed:
            self._open_streams()
        signal.signal(signal.SIGINT, self._interrupt)
        self.count += 1
        reply: Json = {"outcome": "error"}
        try:
            try:
                if request["op"] == "python":
                    self._python(request, reply)
                else:
                    self._shell(request, reply)
            except BaseException as error:
                self.running = False
                self._report(error, reply)
            self.running = False
            for stream in (sys.stdout, self.stream):
                with contextlib.suppress(Exception):
                    stream.flush()
            self.libc.fflush(None)
        except KeyboardInterrupt:
            self.running = False
        return reply

    def _report(self, error: BaseException, reply: Json) -> None:
        if isinstance(error, SystemExit):
            if error.code is None or error.code == 0:
                reply["outcome"] = "ok"
            elif not isinstance(error.code, int):
                print(error.code, file=self.stream)
            return
        try:
            report = traceback.TracebackException.from_exception(error)
            hide_own_frames(report)
            text = "".join(report.format())
        except BaseException as second:
            text = f"{type(error).__name__} (its report failed: {type(second).__name__})\n"
        with contextlib.suppress(Exception):
            self.stream.write(text)

    def _python(self, request: Json, reply: Json) -> None:
        code, filename = request["code"], f"<step-{self.count}>"
        lines = code.splitlines(True)
        linecache.cache[filename] = (len(code), None, lines, filename)
        # Not ast.parse: its own frame would show in the report of a syntax error.
        tree = compile(code, filename, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        assert isinstance(tree, ast.Module)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body[-1].value)
            del tree.body[-1]
        body = compile(tree, filename, "exec", dont_inherit=True)
        final = compile(last, filename, "eval", dont_inherit=True) if last else None
        self.running = True
        exec(body, self.namespace)
        if final is not None:
            shown = eval(final, self.namespace)
            text = None if shown is None else repr(shown)
            self.running = False
            reply["value"] = None if text is None else shorten(str(text), int(request["cap"]))
        self.running = False
        reply["outcome"] = "ok"

    def _shell(self, request: Json, reply: Json) -> None:
        command = encode_name(request["code"])
        if b"\0" in command:
            self.stream.write("bash: the command contains a NUL byte\n")
            reply["exit_code"] = 126
            return
        prologue, state = self._shell_memfds()
        os.ftruncate(state, 0)
        environment = dict(os.environ)
        if "BASH_ENV" in environment:
            environment["REAGENT_BASH_ENV"] = environment["BASH_ENV"]
        environment["BASH_ENV"] = f"/proc/self/fd/{prologue}"
        environment["REAGENT_STATE"] = f"/proc/self/fd/{state}"
        script = None
        arguments: list[str | bytes] = ["bash", "-c", command]
        if len(command) > 100_000:
            # One argument holds 128 KiB at most.
            script = os.memfd_create("script")
            write_all(script, command)
            arguments = ["bash", f"/proc/self/fd/{script}"]
        fds = [prologue, state] + ([script] if script is not None else [])
        self.running = True
        try:
            process = subprocess.Popen(
                arguments, env=environment, pass_fds=fds, stdin=subprocess.DEVNULL
            )
            while True:
                try:
                    exit_code = process.wait()
                    break
                except KeyboardInterrupt:
                    # Bash got the same signal; if it stays, the zygote kills everything.
                    continue
        finally:
            self.running = False
            if script is not None:
                os.close(script)
        reply["exit_code"] = exit_code
        reply["outcome"] = "ok" if exit_code == 0 else "error"
        self._take_over(os.pread(state, _STATE_BYTES, 0))

    def _shell_memfds(self) -> tuple[int, int]:
        if self.memfds is None:
            env = shutil.which("env", path="/usr/bin:/bin") or "env"
            self.memfds = os.memfd_create("prologue"), os.memfd_create("state")
            prologue = (
                "__state=$REAGENT_STATE; unset REAGENT_STATE BASH_ENV\n"
                'if [ -n "$REAGENT_BASH_ENV" ]; then export BASH_ENV="$REAGENT_BASH_ENV"; '
                "unset REAGENT_BASH_ENV; fi\n"
                f'trap \'{{ printf "%s\\0" "$PWD"; {env} -0; }} >"$__state" 2>/dev/null\' EXIT\n'
            )
            write_all(self.memfds[0], prologue.encode())
        return self.memfds

    def _take_over(self, state: bytes) -> None:
        """Make the shell's last folder and exported variables the session's own."""
        folder, found, rest = state.partition(b"\0")
        if not found:
            return
        with contextlib.suppress(OSError):
            os.chdir(folder)
        variables = dict(
            entry.split(b"=", 1) for entry in rest.split(b"\0") if entry.find(b"=") > 0
        )
        if not variables:
            return  # more of them than one program can be given: those before stay
        for dropped in (b"_", b"SHLVL"):
            variables.pop(dropped, None)
        for name in set(os.environb) - set(variables):
            with contextlib.suppress(OSError, ValueError):
                del os.environb[name]
        for name, text in variables.items():
            if os.environb.get(name) != text:
                os.environb[name] = text


def hide_own_frames(report: traceback.TracebackException) -> None:
    """Leave only the user's frames in a report and in those it was raised from."""
    todo: list[traceback.TracebackException | None] = [report]
    seen = set()
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        kept = [frame for frame in one.stack if frame.filename != _OWN_FILE]
        one.stack = traceback.StackSummary.from_list(kept)
        todo += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]


def encode_name(text: str) -> bytes:
    """Return the bytes of a path or command, lone surrogates included."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
