"""What hostile code may try, and how each attempt must end.

An attack is code and the outcomes that are right for it. A probe is an attack whose last value says
whether it succeeded: ``False`` with the guard in force, ``True`` in the twin that lifts it
(``test_twins.py``).
"""

from __future__ import annotations

import platform
import textwrap
from dataclasses import dataclass

from reagent_env.sandboxes import seccomp
from reagent_env.sandboxes.conformance import SEND_FORGED

LOST = "sandbox_lost"
"""The outcome beside those of ``Status``: the verb raised :class:`SandboxLost`."""


@dataclass(frozen=True)
class Attack:
    """One hostile piece of code, e.g. ``Attack("sleep", "sleep 60", "shell", outcomes=...)``."""

    name: str
    code: str
    verb: str = "python"
    """``python`` or ``shell``."""
    outcomes: frozenset[str] = frozenset({"ok"})
    """The typed outcomes that are right."""
    value: str | None = None
    """What the last expression must be, where that matters."""
    output: str | None = None
    """Text that must be in the output, where that matters."""
    timeout_s: float = 1.0
    """Seconds the step is given."""
    prepare: str = ""
    """Python run beforehand; it must succeed."""
    then: str | None = None
    """Python run afterwards in the same episode; it must answer, however it ends."""
    then_value: str | None = None
    """What that must give."""
    then_outcome: str | None = None
    """How that must end."""


def outcomes(*names: str) -> frozenset[str]:
    return frozenset(names)


def dedent(code: str) -> str:
    return textwrap.dedent(code).strip()


def number(call: str) -> int:
    """Return a system call's number on this machine."""
    found = seccomp._CALLS[call][0 if platform.machine() == "x86_64" else 1]
    assert found is not None
    return found


INTERRUPTED = outcomes("timeout_interrupted")
KILLED = outcomes("timeout_killed")

LIBC = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    answer = libc.syscall(ctypes.c_long(number), *arguments)
    return answer if answer >= 0 else errno.errorcode[ctypes.get_errno()]
def family(*arguments):
    try:
        return socket.socket(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
def does(attempt):
    try:
        attempt()
    except OSError:
        return False
    return True
"""

# ------------------------------------------------------------------------------- taking too much

FORK_UNTIL_REFUSED = dedent("""
    import os, signal
    made = []
    try:
        while len(made) < 300:
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            made.append(child)
    except OSError:
        pass
    len(made) >= 100
""")
THREADS_UNTIL_REFUSED = dedent("""
    import threading
    stop, made = threading.Event(), []
    try:
        while len(made) < 300:
            made.append(threading.Thread(target=stop.wait, daemon=True))
            made[-1].start()
    except RuntimeError:
        pass
    stop.set()
    len(made) >= 100
""")
HOARD = "hoard = bytearray(400 << 20)\nlen(hoard) > 0"
HOARD_IN_MANY = dedent("""
    import os, signal
    ready, told = os.pipe()
    children = []
    for _ in range(20):
        child = os.fork()
        if child == 0:
            os.close(ready)
            kept = bytearray(20 << 20)
            os.write(told, b"x")
            signal.pause()
            os._exit(0)
        children.append(child)
    os.close(told)
    alive = 0
    while alive < 20 and (more := os.read(ready, 20)):
        alive += len(more)
        if os.waitpid(-1, os.WNOHANG)[0]:
            break
    alive == 20
""")
FILL = dedent("""
    import errno
    def fill(folder, mib):
        block = bytes(1 << 20)
        try:
            with open(f"{folder}/fill", "wb", buffering=0) as file:
                for _ in range(mib):
                    assert file.write(block) == len(block)
        except (OSError, AssertionError):
            return False
        return True
""")
MAKE_FILES = dedent("""
    import os
    def make(folder, count):
        try:
            for n in range(count):
                os.close(os.open(f"{folder}/{n}", os.O_CREAT | os.O_WRONLY))
        except OSError:
            return False
        return True
""")

RESOURCES = (
    Attack(
        "fork bomb of the shell",
        "bomb() { bomb | bomb & }; bomb; wait; sleep 60",
        "shell",
        outcomes("timeout_interrupted", "timeout_killed", "error", "ok"),
    ),
    Attack(
        "fork bomb of python",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        outcomes=outcomes("timeout_interrupted", "timeout_killed"),
    ),
    Attack("forks are capped", FORK_UNTIL_REFUSED, value="False", timeout_s=5),
    Attack("threads are capped", THREADS_UNTIL_REFUSED, value="False", timeout_s=5),
    Attack("memory bomb", HOARD, outcomes=outcomes("oom"), timeout_s=10),
    Attack(
        "memory bomb of many small processes",
        HOARD_IN_MANY,
        outcomes=outcomes("ok", "oom"),
        timeout_s=10,
    ),
    Attack(
        "memory bomb that hides from the memory killer",
        'open("/proc/self/oom_score_adj", "w").write("0")\n' + HOARD,
        outcomes=outcomes("oom"),
        timeout_s=10,
    ),
    Attack(
        "memory bomb beside full disks",
        "[fill(f, 1000) for f in ('/work', '/tmp', '/dev/shm')]\nhoard = bytearray(200 << 20)",
        prepare=FILL,
        outcomes=outcomes("oom"),
        timeout_s=10,
    ),
    *(
        Attack(
            f"filling {folder}",
            f"fill({folder!r}, 100)",
            prepare=FILL,
            value="False",
            timeout_s=10,
        )
        for folder in ("/work", "/tmp", "/dev/shm")
    ),
    *(
        Attack(
            f"inode bomb on {folder}",
            f"make({folder!r}, 20_000)",
            prepare=MAKE_FILES,
            value="False",
            timeout_s=10,
        )
        for folder in ("/work", "/tmp", "/dev/shm")
    ),
    Attack(
        "thousands of descriptors",
        "import os\nheld = []\ntry:\n    while len(held) < 4000: held.append(os.dup(0))\n"
        "except OSError: pass\nlen(held) >= 300",
        value="False",
        timeout_s=5,
    ),
    Attack(
        "thousands of descriptors in many processes",
        dedent("""
            import os, signal
            for _ in range(40):
                if os.fork() == 0:
                    try:
                        while True: os.pipe()
                    except OSError:
                        signal.pause()
            signal.pause()
        """),
        outcomes=outcomes("timeout_interrupted", "timeout_killed"),
        timeout_s=0.5,
    ),
)

# --------------------------------------------------------------------------------- printing too much

OUTPUT = (
    Attack(
        "one gigabyte of output",
        "head -c 1000000000 /dev/zero",
        "shell",
        outcomes("output_limit"),
        timeout_s=20,
    ),
    Attack("endless output", "yes", "shell", outcomes("output_limit"), timeout_s=20),
    Attack(
        "endless output on stderr, interrupts ignored",
        "trap '' INT; yes >&2",
        "shell",
        outcomes("output_limit"),
        timeout_s=20,
    ),
    Attack(
        "a flood of tiny lines",
        "import os\nwhile True: os.write(1, b'x\\n')",
        outcomes=INTERRUPTED,
        timeout_s=0.5,
    ),
    Attack("one line of ten megabytes", "print('x' * 10_000_000)", output="omitted", timeout_s=5),
    Attack(
        "binary output",
        "import os; os.write(1, bytes(range(256)) * 64); os.write(1, b'\\xff\\xfe\\0')",
        output="\ufffd",
        value="3",
    ),
    Attack(
        "terminal escapes",
        r"print('\x1b[2J\x1b]0;title\x07\x1b[8m\x9b31m')",
        output="\x1b[2J",
    ),
    Attack(
        "a value of a hundred megabytes",
        "'x' * 100_000_000",
        outcomes=outcomes("ok", "oom"),
        timeout_s=5,
    ),
    Attack(
        "a file of bytes that look like a reply",
        'print(\'\\0\\0\\0\\x40{"ok": true, "id": 1, "nonce": ""}\')',
        output='"ok": true',
    ),
)

# ----------------------------------------------------------------------------- taking too long

IGNORE = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
TIME = (
    Attack("sleep", "sleep 60", "shell", INTERRUPTED, timeout_s=0.4),
    Attack("busy loop", "while True: pass", outcomes=INTERRUPTED, timeout_s=0.4),
    Attack("ignoring SIGINT", IGNORE + "time.sleep(60)", outcomes=KILLED, timeout_s=0.4),
    Attack("ignoring SIGINT, busy", IGNORE + "while True: pass", outcomes=KILLED, timeout_s=0.4),
    Attack(
        "ignoring SIGINT in the shell",
        "trap '' INT TERM HUP; while :; do sleep 60; done",
        "shell",
        KILLED,
        timeout_s=0.4,
    ),
    Attack(
        "catching every interrupt",
        "import time\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass",
        outcomes=KILLED,
        timeout_s=0.4,
    ),
    Attack("a loop within C", "sum(range(10**12))", outcomes=KILLED, timeout_s=0.4),
    Attack(
        "stopping itself",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        outcomes=KILLED,
        timeout_s=0.4,
    ),
    Attack(
        "stopping everybody",
        "import os, signal; os.fork(); os.kill(-1, signal.SIGSTOP); signal.pause()",
        outcomes=KILLED | INTERRUPTED,
        timeout_s=0.4,
    ),
    Attack("output held by a background child", "sleep 1000 & echo done", "shell", output="done"),
    Attack(
        "output held by a child in a session of its own",
        "import subprocess; p = subprocess.Popen(['sleep', '1000'], start_new_session=True)",
    ),
)

# ------------------------------------------------------------------------- deceiving, or breaking it

OWN_NONCE = dedent("""
    import sys
    def own_nonce():
        frame = sys._getframe()
        while frame is not None:
            request = frame.f_locals.get("request")
            if isinstance(request, dict) and "nonce" in request:
                return request["nonce"]
            frame = frame.f_back
""")
FORGE_LATER = dedent("""
    import threading, time
    def later():
        time.sleep(0.05)
        forge("x")
    threading.Thread(target=later, daemon=True).start()
""")
KILL_FIRST = dedent("""
    import os
    for number in range(1, 65):
        try:
            os.kill(1, number)
        except OSError:
            pass
""")
OPEN_FIRST_PROCESS = dedent("""
    import os
    def reached():
        for attempt in (
            lambda: os.listdir("/proc/1/fd"),
            lambda: open("/proc/1/mem", "r+b"),
            lambda: open("/proc/1/environ", "rb").read(),
            lambda: open("/proc/1/fd/1", "wb"),
            lambda: os.readlink("/proc/1/root"),
            lambda: os.readlink("/proc/1/ns/net"),
        ):
            try:
                attempt()
            except OSError:
                continue
            return True
        return False
""")
VANDALISE = dedent("""
    import builtins, gc, json, os, select, signal, socket, struct, subprocess, sys, threading, traceback
    def refuse(*args, **kwargs):
        raise SystemExit("no")
    for place, names in (
        (json, ("dumps", "loads", "JSONEncoder")), (os, ("read", "write", "dup2", "getpid", "fork")),
        (socket, ("socket",)), (struct, ("pack", "unpack_from")), (signal, ("signal", "pthread_sigmask")),
        (subprocess, ("Popen", "run")), (traceback, ("TracebackException",)), (gc, ("collect",)),
    ):
        for name in names:
            setattr(place, name, refuse)
    sys.stdout = sys.stderr = sys.__stdout__ = None
    sys.modules.clear(); sys.meta_path.clear(); sys.path.clear()
    for name in ("print", "open", "exec", "eval", "compile", "isinstance", "len", "repr", "str"):
        setattr(builtins, name, refuse)
    builtins.__import__ = refuse
""")
COMPAT_CALL = dedent("""
    import ctypes, mmap, os
    # mov eax, 20 (getpid of the 32-bit table); int 0x80; ret
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("b814000000cd80c3"))
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0
""")

DECEIT: tuple[Attack, ...] = (
    Attack("every signal to the first process", KILL_FIRST, then="6 * 7", then_value="42"),
    Attack(
        "every signal to the first process, from the shell",
        "for n in $(seq 1 64); do kill -$n 1; done; true",
        "shell",
    ),
    Attack(
        "kill -1 of python",
        "import os; os.fork(); os.kill(-1, 9)",
        outcomes=outcomes("ok", "error", "session_died"),
        then="6 * 7",
        then_value="42",
    ),
    Attack("kill -1 of the shell", "kill -9 -1", "shell", outcomes("session_died")),
    Attack("its own death", "import os; os._exit(0)", outcomes=outcomes("session_died")),
    Attack(
        "a crash of the interpreter",
        "import ctypes; ctypes.string_at(0)",
        outcomes=outcomes("session_died"),
        then="import os; [n for n in os.listdir('/work') if 'core' in n]",
        then_value="[]",
    ),
    Attack(
        "a core dump",
        "import os, resource\n"
        "try: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))\n"
        "except (OSError, ValueError): pass\nos.abort()",
        outcomes=outcomes("session_died"),
        then="import os; [n for n in os.listdir('/work') if 'core' in n]",
        then_value="[]",
    ),
    Attack(
        "a stack overflow within C",
        "class A: pass\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
        outcomes=outcomes("error", "session_died"),
        timeout_s=5,
    ),
    Attack("a parser bomb", "(" * 100_000, outcomes=outcomes("error", "session_died"), timeout_s=5),
    Attack(
        "a result frame with a made-up nonce",
        "forge('0' * 32)",
        prepare=SEND_FORGED,
        outcomes=outcomes(LOST),
    ),
    Attack(
        "garbage to every inherited descriptor",
        dedent("""
            import os
            for name in os.listdir("/proc/self/fd"):
                try:
                    os.write(int(name), b"\\0\\0\\0\\x02[]")
                except OSError:
                    pass
        """),
        outcomes=outcomes(LOST),
    ),
    Attack(
        "a length of four gigabytes",
        dedent("""
            import os, stat
            for name in os.listdir("/proc/self/fd"):
                try:
                    if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                        os.write(int(name), b"\\xff\\xff\\xff\\xff")
                except OSError:
                    pass
        """),
        outcomes=outcomes(LOST),
    ),
    Attack(
        "two results with the right nonce",
        # The code may say what it likes of itself, once; the second result ends the sandbox.
        "nonce = own_nonce(); forge(nonce); forge(nonce)",
        prepare=SEND_FORGED + OWN_NONCE,
        outcomes=outcomes("ok", LOST),
        then="1",
        then_outcome=LOST,
    ),
    Attack(
        "a result for the next step, written before it",
        FORGE_LATER,
        prepare=SEND_FORGED,
        then="import time; time.sleep(0.3)",
    ),
    Attack("opening the first process", "reached()", prepare=OPEN_FIRST_PROCESS, value="False"),
    Attack(
        "writing to the first process's streams",
        "for n in $(seq 0 30); do echo x > /proc/1/fd/$n; done 2>/dev/null; true",
        "shell",
    ),
    Attack(
        "tracing the first process",
        f"call({number('ptrace')}, 16, 1, 0, 0)",
        prepare=LIBC,
        value="'EPERM'",
    ),
    Attack(
        "changing every part of the session",
        VANDALISE,
        outcomes=outcomes("ok", "error", "session_died", LOST),
        then="6 * 7",
    ),
    Attack(
        "closing every descriptor",
        "import os; os.closerange(0, 256)",
        outcomes=outcomes("session_died"),
        then="6 * 7",
        then_value="42",
    ),
    Attack(
        "replacing its streams",
        "import os\nfor fd in (1, 2): os.dup2(os.open('/dev/null', os.O_RDWR), fd)",
        then="print('seen')\n6 * 7",
        then_value="42",
    ),
    Attack(
        "answering from forked copies",
        "import os\nfor _ in range(4): os.fork()\nos.getpid() > 0",
        value="True",
        then="6 * 7",
        then_value="42",
    ),
)

if platform.machine() == "x86_64":
    DECEIT += (
        Attack("a call of the 32-bit table", COMPAT_CALL, outcomes=outcomes("session_died")),
    )

# ----------------------------------------------------------------------------------- getting out

WRITE_ROOT = dedent("""
    import glob, os, sys, sysconfig
    def written():
        places = [os.__file__, sysconfig.get_path("stdlib") + "/planted.py", "/usr/lib/planted",
                  "/usr/bin/planted", "/var/planted", "/planted", "/etc/planted", sys.executable]
        for place in places:
            try:
                os.close(os.open(place, os.O_WRONLY | (0 if os.path.exists(place) else os.O_CREAT)))
            except OSError:
                continue
            return True
        return False
""")
WRITE_PROC = dedent("""
    import os
    def written():
        places = ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches",
                  "/proc/sys/kernel/hostname", "/proc/sys/fs/file-max", "/proc/sys/kernel/modprobe",
                  "/proc/1/oom_score_adj", "/proc/1/comm", "/proc/1/coredump_filter",
                  "/proc/1/autogroup", "/sys/kernel/uevent_helper", "/sys/power/state",
                  "/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/pids/pids.max",
                  "/sys/fs/cgroup/release_agent", "/run/sandbox/oom", "/proc/acpi/x"]
        done = []
        for place in places:
            try:
                fd = os.open(place, os.O_WRONLY)
            except OSError:
                continue
            try:
                os.write(fd, b"0")
                done.append(place)
            except OSError:
                pass
            finally:
                os.close(fd)
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("-500")
            done.append("oom_score_adj")
        except OSError:
            pass
        return done
""")
NEW_NAMESPACES = (
    f"[call({number('unshare')}, flag) == 0 for flag in (0x10000000, 0x10020000, 0x40000000)]"
)
SETNS = (
    f"[call({number('setns')}, os.open(f'/proc/self/ns/{{n}}', os.O_RDONLY), 0) "
    "for n in ('mnt', 'net', 'user')]"
)
MOUNTS = f"[call({number('mount')}, b'x', b'/work', b'tmpfs', 0, 0)]"
READABLE = dedent("""
    import os
    def readable(*places):
        found = []
        for place in places:
            try:
                seen = os.listdir(place) if os.path.isdir(place) else open(place, "rb").read(64)
            except OSError:
                continue
            if seen:
                found.append((place, seen))
        return found
""")

ESCAPE = (
    Attack(
        "a namespace of its own",
        NEW_NAMESPACES,
        prepare=LIBC,
        value="[False, False, False]",
    ),
    Attack(
        "a namespace of its own, from the shell",
        "unshare -Ur true || unshare -n true || unshare -m true",
        "shell",
        outcomes("error"),
    ),
    Attack("entering a namespace", SETNS, prepare=LIBC, value="['EPERM', 'EPERM', 'EPERM']"),
    Attack("mounting", MOUNTS, prepare=LIBC, value="['EPERM']"),
    Attack("mounting, from the shell", "mount -t tmpfs x /work", "shell", outcomes("error")),
    Attack(
        "rights by a set-user-id program",
        "for program in $(find /usr/bin /usr/lib -perm /6000 -type f 2>/dev/null); do"
        ' timeout 0.2 "$program" root -c "id -u" </dev/null; done 2>/dev/null | grep -c "^0$"',
        "shell",
        outcomes("error"),
        output="0\n",
        timeout_s=20,
    ),
    Attack(
        "becoming root",
        "import os\ntry: os.setuid(0)\nexcept OSError: pass\nos.getuid() == 0",
        value="False",
    ),
    Attack(
        "a device of its own",
        "import os, stat\ndef made(place):\n"
        "    try: os.mknod(place, 0o666 | stat.S_IFBLK, os.makedev(254, 0))\n"
        "    except OSError: return False\n    return True\n[made('/work/d'), made('/tmp/d')]",
        value="[False, False]",
    ),
    Attack(
        "io_uring",
        f"call({number('io_uring_setup')}, 1, bytes(120))",
        prepare=LIBC,
        value="'EPERM'",
    ),
    Attack("keyrings", f"call({number('keyctl')}, 0, -3, 1)", prepare=LIBC, value="'EPERM'"),
    Attack("bpf", f"call({number('bpf')}, 0, bytes(128), 128)", prepare=LIBC, value="'EPERM'"),
    Attack(
        "performance counters",
        f"call({number('perf_event_open')}, bytes(128), 0, -1, -1, 0)",
        prepare=LIBC,
        value="'EPERM'",
    ),
    Attack("userfaultfd", f"call({number('userfaultfd')}, 1)", prepare=LIBC, value="'EPERM'"),
    Attack("writing below the root", "written()", prepare=WRITE_ROOT, value="False"),
    Attack(
        "deleting the interpreter and its libraries",
        "rm -rf /usr /lib /opt /root /bin /etc 2>/dev/null; python3 -c 'import json' && echo lives",
        "shell",
        output="lives",
        timeout_s=20,
        then="import subprocess; 6 * 7",
        then_value="42",
    ),
    Attack("writing to /proc and /sys", "written()", prepare=WRITE_PROC, value="[]"),
)

# ----------------------------------------------------------------------------------- talking outside


def connects(address: str, port: int) -> str:
    return (
        "does(lambda: socket.create_connection"
        f"(({address!r}, {port}), timeout=1).close() if socket else 0)"
    )


def sends(address: str, port: int) -> str:
    return f"does(lambda: socket.socket(2, 2).sendto(b'x', ({address!r}, {port})))"


FAMILY_PROBES = {
    "vsock": "family(40, socket.SOCK_STREAM)",
    "netlink": "family(16, socket.SOCK_RAW)",
    "packet": "family(17, socket.SOCK_RAW)",
    "alg": "family(38, socket.SOCK_SEQPACKET)",
}

NETWORK = (
    *(
        Attack(f"an AF_{name.upper()} socket", code, prepare=LIBC, value="'EAFNOSUPPORT'")
        for name, code in FAMILY_PROBES.items()
    ),
    Attack(
        "a packet to the internet",
        f"[{sends('192.0.2.1', 53)}, {connects('192.0.2.1', 80)}]",
        prepare=LIBC,
        value="[False, False]",
        timeout_s=4,
    ),
    Attack(
        "a name looked up",
        "does(lambda: socket.getaddrinfo('example.com', 80))",
        prepare=LIBC,
        value="False",
        timeout_s=4,
    ),
)

ATTACKS = RESOURCES + OUTPUT + TIME + DECEIT + ESCAPE + NETWORK
assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
