"""Each guard has a twin: the same attack with that guard lifted succeeds, so the probe can fail.

Where two walls stand one behind the other, the twin lifts both and a second look shows that each
alone still holds. Every guard against taking too much is lifted inside an outer cap only.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from arena import Arena, make_victim, wait_until
from attack_list import (
    COMPAT_CALL,
    FILL,
    FORK_UNTIL_REFUSED,
    HOARD,
    HOARD_IN_MANY,
    IGNORE,
    LIBC,
    LOST,
    MAKE_FILES,
    OPEN_FIRST_PROCESS,
    THREADS_UNTIL_REFUSED,
    WRITE_ROOT,
    connects,
    number,
)
from outer_cap import edit_bubblewrap, edit_container, edit_zygote, outer_cap

from reagent_env.sandboxes import embedded, zygote_sandbox
from reagent_env.sandboxes.conformance import SEND_FORGED
from reagent_env.sandboxes.contract import Sandbox
from reagent_env.sandboxes.docker import DockerSandbox
from reagent_env.sandboxes.engine import connect


def unconfined(patch: pytest.MonkeyPatch) -> None:
    """Lift the engine's own system-call filter, which stands behind ours."""
    edit_container(
        patch, lambda body: body["HostConfig"]["SecurityOpt"].append("seccomp=unconfined")
    )


def open_namespaces(patch: pytest.MonkeyPatch) -> None:
    unconfined(patch)
    edit_bubblewrap(patch, lambda argv: [word for word in argv if word != "--disable-userns"])


def many_descriptors(patch: pytest.MonkeyPatch) -> None:
    edit_container(patch, lambda body: body["HostConfig"].pop("Ulimits"))


def nothing(patch: pytest.MonkeyPatch) -> None:
    """Lift nothing beyond the names."""


@dataclass(frozen=True)
class Twin:
    """One attack, and what lifts the guard that stops it."""

    name: str
    code: str
    prepare: str = LIBC
    lift: tuple[str, ...] = ()
    """Guards left out by name."""
    limits: dict[str, Any] = field(default_factory=dict)
    """Limits set so high that they do not matter."""
    edit: Callable[[pytest.MonkeyPatch], None] = nothing
    """What else must go."""
    succeeded: str = "True"
    """The value that says so."""
    cap: tuple[int, int] = (512, 250)
    """MiB of memory and processes of the outer cap."""
    lacking: Callable[[], str | None] = lambda: None
    """Says what the kernel lacks, whatever the guards."""


def no_family(family: int, kind: int) -> Callable[[], str | None]:
    def lacking() -> str | None:
        try:
            socket.socket(family, kind).close()
        except OSError as error:
            return f"this kernel refuses family {family} even to the host's root: {error.strerror}"
        return None

    return lacking


def no_compat() -> str | None:
    if platform.machine() != "x86_64":
        return "only x86_64 has a 32-bit table"
    probe = subprocess.run(
        ["python3", "-c", COMPAT_CALL], capture_output=True, check=False, timeout=20
    )
    return None if probe.returncode == 0 else "this kernel has no 32-bit calls"


def setting(name: str, closed: tuple[str, ...]) -> Callable[[], str | None]:
    def lacking() -> str | None:
        path = Path("/proc/sys") / name
        said = path.read_text().strip() if path.exists() else "absent"
        return f"this kernel refuses it by itself: {name} = {said}" if said in closed else None

    return lacking


BIG = {"memory_mb": 4096}
MANY = {"pids": 2000}
SEE = "does(lambda: os.stat('/host/etc/passwd')) and open('/host/etc/passwd').read(4) == 'root'"


def bind_host(patch: pytest.MonkeyPatch) -> None:
    edit_container(patch, lambda body: body["HostConfig"].update(Binds=["/:/host:ro"]))


def leak(patch: pytest.MonkeyPatch) -> None:
    edit_container(patch, lambda body: body["Env"].append("ATTACKED=hunter2"))
    edit_bubblewrap(patch, lambda argv: [*argv[:-1], "--setenv", "ATTACKED", "hunter2", argv[-1]])


def leak_through(patch: pytest.MonkeyPatch) -> None:
    leak(patch)
    edit_zygote(patch, "session", ("os.environ.clear()", "pass"))


def dump_core(patch: pytest.MonkeyPatch) -> None:
    edit_container(patch, lambda body: body["HostConfig"].pop("Ulimits"))
    edit_zygote(
        patch,
        "session",
        (
            "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
            "resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))",
        ),
    )


def leave_core(patch: pytest.MonkeyPatch) -> None:
    edit_zygote(patch, "session", ("resource.setrlimit(resource.RLIMIT_CORE, (0, 0))", "pass"))


CORE = """
def core():
    child = os.fork()
    if child == 0:
        os.chdir("/work"); os.abort()
    _, status = os.waitpid(child, 0)
    return os.WCOREDUMP(status)
"""
TRACE_ME = f"""
def traced():
    child = os.fork()
    if child == 0:
        os._exit(0 if call({number("ptrace")}, 0, 0, 0, 0) == 0 else 1)
    return os.waitpid(child, 0)[1] == 0
"""
NEW_USER = f"""
def made(flags, and_then=lambda: True):
    child = os.fork()
    if child == 0:
        done = call({number("unshare")}, flags) == 0 and and_then()
        os._exit(0 if done else 1)
    return os.waitpid(child, 0)[1] == 0
"""
MOUNT = f"lambda: call({number('mount')}, b'x', b'/tmp', b'tmpfs', 0, 0) == 0"

TWINS = (
    Twin("pids", FORK_UNTIL_REFUSED, lift=("pids",), limits=MANY),
    Twin("pids, threads", THREADS_UNTIL_REFUSED, lift=("pids",), limits=MANY),
    Twin("memory", HOARD, lift=("memory",), limits=BIG, cap=(700, 200)),
    Twin("memory, many processes", HOARD_IN_MANY, lift=("memory",), limits=BIG, cap=(900, 200)),
    *(
        Twin(f"size of {folder}", f"fill({folder!r}, 100)", FILL, limits=limits, lift=lift)
        for folder, limits, lift in (
            ("/work", {"work_mb": 150}, ("disk",)),
            ("/tmp", {"work_mb": 150}, ("disk",)),
            ("/dev/shm", {"shm_mb": 150}, ("disk",)),
        )
    ),
    *(
        Twin(f"inodes of {folder}", f"make({folder!r}, 6000)", MAKE_FILES, lift=("inodes",))
        for folder in ("/work", "/tmp", "/dev/shm")
    ),
    Twin(
        "open files",
        "len([os.dup(0) for _ in range(1000)]) == 1000",
        lift=("open_files",),
        edit=many_descriptors,
    ),
    Twin("dumpable", "reached()", OPEN_FIRST_PROCESS, lift=("dumpable",)),
    Twin("ptrace", "traced()", LIBC + TRACE_ME, lift=("ptrace",)),
    Twin("arch", COMPAT_CALL, lift=("arch",), lacking=no_compat),
    Twin("nonce", "forge('0' * 32)", SEND_FORGED, lift=("nonce",), succeeded="forged"),
    Twin(
        "vsock",
        "does(lambda: socket.socket(40, socket.SOCK_STREAM).bind((0xFFFFFFFF, 0xFFFFFFFF)))",
        lift=("vsock",),
        lacking=no_family(40, socket.SOCK_STREAM),
    ),
    Twin("netlink", "does(lambda: socket.socket(16, socket.SOCK_RAW))", lift=("netlink",)),
    Twin(
        "packet",
        "family(17, socket.SOCK_RAW)",
        lift=("packet",),
        succeeded="'EPERM'",  # past the filter, to the next wall: the missing CAP_NET_RAW
    ),
    Twin(
        "alg",
        "does(lambda: socket.socket(38, socket.SOCK_SEQPACKET))",
        lift=("alg",),
        lacking=no_family(38, socket.SOCK_SEQPACKET),
    ),
    Twin(
        "io_uring",
        f"isinstance(call({number('io_uring_setup')}, 1, ctypes.create_string_buffer(120)), int)",
        lift=("io_uring",),
        lacking=setting("kernel/io_uring_disabled", ("1", "2")),
        edit=unconfined if platform.machine() == "never" else nothing,
    ),
    Twin(
        "keyring",
        f"isinstance(call({number('keyctl')}, 0, -3, 1), int)",
        lift=("keyring",),
        edit=unconfined,
    ),
    Twin(
        "userfaultfd",
        f"isinstance(call({number('userfaultfd')}, 1), int)",
        lift=("userfaultfd",),
        edit=unconfined,
    ),
    Twin(
        "perf",
        # struct perf_event_attr: type software, size 64, config task-clock, user side only
        "isinstance(call("
        f"{number('perf_event_open')}, ctypes.create_string_buffer(bytes.fromhex("
        "'01000000 40000000 0100000000000000') + bytes(24) + (0x60).to_bytes(8, 'little'), 64),"
        " 0, -1, ctypes.c_long(-1), 0), int)",
        lift=("perf",),
        edit=unconfined,
        lacking=setting("kernel/perf_event_paranoid", ("3", "4")),
    ),
    Twin(
        "bpf",
        f"isinstance(call({number('bpf')}, 0, ctypes.create_string_buffer(bytes.fromhex("
        "'02000000 04000000 04000000 01000000'), 128), 128), int)",
        lift=("bpf",),
        edit=unconfined,
        lacking=setting("kernel/unprivileged_bpf_disabled", ("1", "2")),
    ),
    Twin(
        "namespaces",
        "made(0x10000000) and made(0x50020000)",
        LIBC + NEW_USER,
        lift=("namespaces",),
        edit=open_namespaces,
    ),
    Twin(
        "mount",
        f"made(0x10020000, {MOUNT})",
        LIBC + NEW_USER,
        lift=("namespaces", "mount"),
        edit=open_namespaces,
    ),
    Twin("core dumps", "core()", LIBC + CORE, edit=dump_core),
    Twin("host files", SEE, lift=("host_files",), edit=bind_host),
    Twin("host variables", "os.environ.get('ATTACKED') == 'hunter2'", edit=leak_through),
)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


@pytest.fixture
def lifted(
    arena: Arena, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Twin], Sandbox]:
    """Makes a sandbox of the arena's kind with a twin's guard lifted, inside an outer cap."""

    def make(twin: Twin) -> Sandbox:
        memory_mb, pids = twin.cap
        stack.enter_context(outer_cap(monkeypatch, arena.kind, memory_mb=memory_mb, pids=pids))
        twin.edit(monkeypatch)
        limits = dataclasses.replace(arena.limits, **twin.limits)
        return stack.enter_context(make_victim(arena.kind, limits, twin.lift))

    return make


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name.replace(" ", "_"))
def test_the_attack_succeeds_once_its_guard_is_lifted(
    arena: Arena, twin: Twin, lifted: Callable[[Twin], Sandbox]
) -> None:
    if (fact := twin.lacking()) is not None:
        pytest.skip(fact)
    with arena.pool.acquire(20) as guarded:
        assert guarded.python(twin.prepare).status == "ok"
        blow = arena.strike(guarded, "python", twin.code, 10.0)
        value = blow.execution.value if blow.execution else LOST
        assert value != twin.succeeded, "the guard does not hold"
    sandbox = lifted(twin)
    assert sandbox.python(twin.prepare).status == "ok"
    execution = sandbox.python(twin.code, 10.0)
    assert execution.value == twin.succeeded, execution


@pytest.mark.parametrize("wall", ["filter", "surroundings"])
@pytest.mark.parametrize("name", ["namespaces", "keyring", "host variables", "core dumps"])
def test_of_two_walls_each_alone_holds(
    arena: Arena, lifted: Callable[[Twin], Sandbox], name: str, wall: str
) -> None:
    twin = next(twin for twin in TWINS if twin.name == name)
    alone: dict[str, Any] = {"edit": nothing} if wall == "filter" else {"lift": ()}
    if name == "keyring" and arena.kind == "embedded":
        pytest.skip("one wall there: bubblewrap has no filter of its own")
    if name == "host variables":
        alone = {"edit": leak if wall == "surroundings" else nothing}
    if name == "core dumps":
        if arena.kind == "embedded":
            pytest.skip("one wall there: the limit of the session's own process")
        alone = {"edit": {"filter": many_descriptors, "surroundings": leave_core}[wall]}
    sandbox = lifted(dataclasses.replace(twin, **alone))
    assert sandbox.python(twin.prepare).status == "ok"
    assert sandbox.python(twin.code, 10.0).value == "False"


# ------------------------------------------------------------------------------------ the network


def test_the_host_is_in_reach_once_the_network_is_shared(
    arena: Arena, lifted: Callable[[Twin], Sandbox]
) -> None:
    name = f"\0attacked-twin-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix,
    ):
        unix.bind(name)
        unix.listen()
        attack = (
            f"[{connects('127.0.0.1', tcp.getsockname()[1])}, "
            f"does(lambda: socket.socket(1, 1).connect({name!r}))]"
        )
        with arena.pool.acquire(20) as guarded:
            guarded.python(LIBC)
            assert guarded.python(attack).value == "[False, False]"
        sandbox = lifted(Twin("network", attack, lift=("network",)))
        sandbox.python(LIBC)
        assert sandbox.python(attack).value == "[True, True]"
        assert not sandbox.capabilities.network_isolated


# ------------------------------------------------------------------------------ the user, the root


def test_the_hosts_secrets_are_read_once_it_is_the_hosts_root(
    arena: Arena, lifted: Callable[[Twin], Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's user and bubblewrap's ``setpriv`` are the same guard: never the host's root."""
    if os.geteuid() != 0:
        pytest.skip("only root can leave root on")
    attack = "does(lambda: open('/host/etc/shadow').read(1))"
    seen = Twin("files alone", attack, lift=("host_files",), edit=bind_host)
    sandbox = lifted(seen)
    sandbox.python(LIBC)
    assert sandbox.python(attack).value == "False"  # in sight, and still not its to read
    if arena.kind == "embedded":
        monkeypatch.setattr(embedded, "_give_up_root", lambda uid: ["env"])
        monkeypatch.setattr(embedded._Layout, "disks", _roots_disks)
    sandbox = lifted(dataclasses.replace(seen, lift=("host_files", "user")))
    sandbox.python(LIBC)
    assert sandbox.python(attack).value == "True"
    assert not sandbox.capabilities.user_separated


def _roots_disks(layout: Any) -> list[tuple[str, str, int]]:
    object.__setattr__(layout, "uid", 0)
    return [("work", "/work", 8), ("scratch", "/tmp", 8), ("shm", "/dev/shm", 8)]


@pytest.mark.parametrize(
    ("lift", "written"),
    [(("read_only",), "False"), (("user",), "False"), (("read_only", "user"), "True")],
)
def test_the_root_is_written_once_it_is_writable_and_its_own(
    docker_arena: Arena, lift: tuple[str, ...], written: str
) -> None:
    with DockerSandbox(preload=(), lift=lift) as sandbox:
        sandbox.python(WRITE_ROOT)
        assert sandbox.python("written()").value == written


# ------------------------------------------------------------------------------ output and the log


def test_a_flood_is_swallowed_whole_once_the_hard_limit_is_lifted(
    arena: Arena, lifted: Callable[[Twin], Sandbox]
) -> None:
    flood = "head -c 200000000 /dev/zero"
    with arena.pool.acquire(20) as guarded:
        assert guarded.shell(flood, 20).status == "output_limit"
    execution = lifted(Twin("hard", flood, limits={"output_hard_mb": 2000})).shell(flood, 20)
    assert execution.status == "ok"
    assert execution.omitted_chars == 200_000_000 - arena.limits.output_chars


def test_the_reply_grows_with_the_output_once_its_cap_is_lifted(
    arena: Arena, lifted: Callable[[Twin], Sandbox]
) -> None:
    long = "print('x' * 2_000_000)"
    with arena.pool.acquire(20) as guarded:
        assert len(guarded.python(long).output) < 40_000
    execution = lifted(Twin("cap", long, limits={"output_chars": 4_000_000})).python(long)
    assert len(execution.output) == 2_000_001


def test_the_engines_log_grows_once_it_is_on(docker_arena: Arena) -> None:
    """The default log would hold every reply; of a plain container, every byte it prints."""

    with DockerSandbox(preload=()) as sandbox:
        sandbox.python("print('x' * 30_000)")
        assert connect().inspect_container(sandbox.container_id)["LogPath"] == ""
    with DockerSandbox(preload=(), lift=("log",)) as sandbox:
        sandbox.python("print('x' * 30_000)")
        log = Path(connect().inspect_container(sandbox.container_id)["LogPath"])
        assert wait_until(lambda: log.exists() and log.stat().st_size > 16_000, 5.0)


# --------------------------------------------------------------------------------------- deadlines


def test_without_the_interrupt_a_sleeper_loses_its_state(
    arena: Arena, lifted: Callable[[Twin], Sandbox]
) -> None:
    def edit(patch: pytest.MonkeyPatch) -> None:
        edit_zygote(
            patch,
            "zygote",
            ("os.killpg(session.pid, signal.SIGINT)", "os.killpg(session.pid, 0)"),
        )

    execution = lifted(Twin("interrupt", "", edit=edit)).python("import time; time.sleep(60)", 0.3)
    assert execution.status == "timeout_killed"
    assert not execution.state_kept


def test_without_the_kill_the_hosts_watchdog_ends_who_ignores_the_interrupt(
    arena: Arena, lifted: Callable[[Twin], Sandbox]
) -> None:
    def edit(patch: pytest.MonkeyPatch) -> None:
        edit_zygote(patch, "zygote", ("_GRACE_S = 0.5", "_GRACE_S = 60"))

    sandbox = lifted(Twin("kill", "", edit=edit))
    blow = arena.strike(sandbox, "python", IGNORE + "time.sleep(60)", 0.3)
    assert blow.outcome == LOST
    assert 0.3 + 1.5 <= blow.seconds <= 0.3 + 1.5 + 1.0


def test_without_the_watchdog_either_the_host_waits(
    arena: Arena, lifted: Callable[[Twin], Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(patch: pytest.MonkeyPatch) -> None:
        edit_zygote(patch, "zygote", ("_GRACE_S = 0.5", "_GRACE_S = 60"))

    monkeypatch.setattr(zygote_sandbox, "WATCHDOG_S", 3.5)
    sandbox = lifted(Twin("watchdog", "", edit=edit))
    blow = arena.strike(sandbox, "python", IGNORE + "time.sleep(60)", 0.3)
    assert blow.seconds >= 0.3 + 3.5


def test_a_plain_pipe_waits_for_whoever_holds_it() -> None:
    """What a sandbox that reads to the end of the pipe would do with ``sleep & echo done``."""
    began = time.monotonic()
    subprocess.run(["bash", "-c", "sleep 1 & echo done"], capture_output=True, check=True)
    assert time.monotonic() - began >= 1.0


# ------------------------------------------------------------------------------ the first process


def test_a_first_process_with_pythons_own_handlers_dies_of_an_interrupt(
    arena: Arena, lifted: Callable[[Twin], Sandbox]
) -> None:
    def edit(patch: pytest.MonkeyPatch) -> None:
        edit_zygote(
            patch,
            "zygote",
            ("for number in range(1, signal.NSIG):", "for number in ():"),
            ("for number in (signal.SIGINT, signal.SIGHUP,", "for number in () and (1,"),
        )

    attack = "import os, signal, time; os.kill(1, signal.SIGINT); time.sleep(0.3); 6 * 7"
    with arena.pool.acquire(20) as guarded:
        assert guarded.python(attack).value == "42"
    assert (
        arena.strike(lifted(Twin("signals", "", edit=edit)), "python", attack, 1.0).outcome == LOST
    )


# -------------------------------------------------------------------------------- across a reset

LEFT_OVERS = {
    "wipe": ("open('/work/left', 'w').close()", "os.path.exists('/work/left')"),
    "kill": (
        "import subprocess\nchild = subprocess.Popen(['sleep', '1000'], start_new_session=True)",
        "any(open(f'/proc/{n}/comm').read() == 'sleep\\n' for n in os.listdir('/proc')"
        " if n.isdigit())",
    ),
    "sysv_ipc": (
        f"call({number('shmget')}, 0x1234, 4096, 0o1666)",
        "len(open('/proc/sysvipc/shm').readlines()) > 1",
    ),
}


@pytest.mark.parametrize("guard", LEFT_OVERS)
def test_left_overs_cross_a_reset_once_the_guard_is_lifted(
    arena: Arena, lifted: Callable[[Twin], Sandbox], guard: str
) -> None:
    leave, look = LEFT_OVERS[guard]

    def crossed(sandbox: Sandbox) -> str | None:
        sandbox.python(LIBC)
        sandbox.python(leave)
        sandbox.reset()
        sandbox.python("import os")
        return sandbox.python(look).value

    with arena.pool.acquire(20) as guarded:
        assert crossed(guarded) == "False"
    assert crossed(lifted(Twin(guard, "", lift=(guard,)))) == "True"


def test_a_link_is_followed_once_the_flag_is_gone(
    arena: Arena, lifted: Callable[[Twin], Sandbox]
) -> None:
    def edit(patch: pytest.MonkeyPatch) -> None:
        edit_zygote(
            patch,
            "zygote",
            ("os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK", "os.O_RDONLY | os.O_NONBLOCK"),
        )

    with arena.pool.acquire(20) as guarded:
        guarded.shell("ln -s /etc/passwd link")
        with pytest.raises(FileNotFoundError):
            guarded.read_file("link")
    sandbox = lifted(Twin("links", "", edit=edit))
    sandbox.shell("ln -s /etc/passwd link")
    assert sandbox.read_file("link").startswith(b"root:")
