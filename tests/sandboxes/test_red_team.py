"""Holes that an attempt to break in found, and that stay closed, on each backend."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from reagent_env.sandboxes import control_group, docker, seccomp
from reagent_env.sandboxes.contract import Sandbox, Status
from reagent_env.sandboxes.docker import DockerSandbox, docker_problem
from reagent_env.sandboxes.embedded import BubblewrapSandbox, embedded_problem
from reagent_env.sandboxes.engine import connect
from reagent_env.sandboxes.errors import SandboxLost

BACKENDS = {
    "docker": (docker_problem, lambda: DockerSandbox(preload=())),
    "bubblewrap": (embedded_problem, lambda: BubblewrapSandbox(libraries=())),
}
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="call numbers of x86_64")


@pytest.fixture(scope="module", params=BACKENDS)
def made(request: pytest.FixtureRequest) -> Iterator[list[Sandbox]]:
    if (problem := BACKENDS[request.param][0]()) is not None:
        pytest.skip(str(problem))
    kept = [BACKENDS[request.param][1]()]
    yield kept
    kept[0].close()


@pytest.fixture
def sandbox(made: list[Sandbox], request: pytest.FixtureRequest) -> Sandbox:
    try:
        made[0].reset()
    except SandboxLost:  # one hole must not hide the others
        made[0].close()
        made[0] = BACKENDS[request.node.callspec.params["made"]][1]()
    return made[0]


def run(sandbox: Sandbox, code: str, timeout_s: float = 5.0) -> str | None:
    done = sandbox.python(textwrap.dedent(code), timeout_s)
    assert done.status is Status.OK, done
    return done.value


def test_a_locked_work_folder_does_not_cost_the_sandbox_when_its_session_dies(
    sandbox: Sandbox,
) -> None:
    sandbox.write_files({"kept": b"1"})
    died = sandbox.python("import os; os.chmod('/work', 0); os._exit(1)", 5.0)
    assert died.status is Status.SESSION_DIED
    assert run(sandbox, "import os; os.getcwd(), os.listdir()") == "('/work', ['kept'])"


MEMORY_IN_SOCKETS = """
import os, socket
sent = 0
with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
    held = []
    for _ in range(100):
        held.append(socket.create_connection(listener.getsockname()))
        held.append(listener.accept()[0])
        held[-2].setblocking(False)
        try:
            while True:
                sent += held[-2].send(bytes(1 << 16))
        except BlockingIOError:
            pass
sent >> 20
"""


def test_buffers_of_sockets_are_within_the_memory_cap(sandbox: Sandbox) -> None:
    done = sandbox.python(MEMORY_IN_SOCKETS, 10.0)
    assert done.status is Status.OOM or int(done.value or 999) < 150, done


FLAGS_OF = """
import array, fcntl, os
def flags(set_to=None):
    fd = os.open("/work", os.O_RDONLY)
    try:
        word = array.array("l", [0 if set_to is None else set_to])
        fcntl.ioctl(fd, 0x80086601 if set_to is None else 0x40086602, word)
        return word[0]
    except OSError:
        return 0
    finally:
        os.close(fd)
"""


@x86
def test_flags_of_a_folder_are_no_note_to_the_next_episode(sandbox: Sandbox) -> None:
    if run(sandbox, FLAGS_OF + "flags(0xC0); flags()") == "0":
        pytest.skip("this kernel has no flags on disks in memory")
    sandbox.reset()
    assert run(sandbox, FLAGS_OF + "flags()") == "0"


def test_modes_and_times_of_devices_are_no_note_to_the_next_episode(sandbox: Sandbox) -> None:
    names = "names = ['/dev/pts', '/dev/pts/ptmx', '/dev/null', '/dev/zero', '/dev/full']\n"
    look = names + "import os\n[oct(os.stat(name).st_mode) for name in names]"
    before = run(sandbox, look)
    mark = """
        for name in names:
            for change in (lambda: os.utime(name, (1, 2)), lambda: os.chmod(name, 0o700)):
                try:
                    change()
                except OSError:
                    pass
    """
    run(sandbox, textwrap.dedent(mark))
    sandbox.reset()
    assert run(sandbox, look) == before
    assert run(sandbox, "[name for name in names if os.stat(name).st_mtime == 2]") == "[]"


@x86
@pytest.mark.parametrize(
    ("what", "attack"),
    [
        ("priority of the first process", "(251, 1, 1, 3 << 13)"),
        ("priority of all of a user's processes", "(251, 3, 0, 3 << 13)"),
        ("the host's stock of asynchronous requests", "(206, 20000, ctypes.byref(context))"),
        ("sight of who opens the host's files", "(294, 0)"),
        ("sight of who opens the host's files, the old call", "(253,)"),
        ("flushing one of the host's disks", "(306, os.open('/usr', os.O_RDONLY))"),
    ],
)
def test_what_reaches_beyond_the_sandbox_is_refused(
    sandbox: Sandbox, what: str, attack: str
) -> None:
    code = f"""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        context = ctypes.c_ulong(0)
        libc.syscall(*{attack}), ctypes.get_errno()
    """
    assert run(sandbox, code) == "(-1, 1)", what


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(("call", "flag"), [("mmap", 0x40000), ("memfd_create", 4)])
def test_huge_pages_are_refused_and_nothing_else_of_those_calls(
    machine: str, call: str, flag: int
) -> None:
    def tests(lift: frozenset[str]) -> list[tuple[int, int, int, int]]:
        return seccomp.assemble(machine, lift)

    number = seccomp._CALLS[call][0 if machine == "x86_64" else 1]
    program = tests(frozenset())
    at = next(i for i, (op, _, _, k) in enumerate(program) if op == 0x15 and k == number)
    assert program[at + 2] == (0x45, 0, 1, flag)
    assert program[at + 3] == (0x06, 0, 0, 0x5000C)  # not enough memory
    assert all(k != number for op, _, _, k in tests(frozenset(["huge_pages"])) if op == 0x15)


def test_a_value_is_cut_whatever_the_session_says_of_its_length(sandbox: Sandbox) -> None:
    code = """
        class Long(str):
            def __str__(self): return self
            def __len__(self): return 5
        class Shown:
            def __repr__(self): return Long("y" * 500_000)
        Shown()
    """
    assert len(run(sandbox, code) or "") < sandbox.limits.output_chars + 200


def test_one_exported_variable_too_large_for_a_program_does_not_take_the_others(
    sandbox: Sandbox,
) -> None:
    assert sandbox.shell("export KEPT=1").status is Status.OK
    assert sandbox.shell("export BIG=$(head -c 140000 /dev/zero | tr '\\0' x)", 5.0).exit_code == 0
    assert sandbox.shell("echo $KEPT $HOME", 5.0).output == "1 /work\n"


def test_code_is_measured_as_it_is_sent(sandbox: Sandbox) -> None:
    refused = sandbox.python("#" + "\U0001f600" * 5_000_000, 5.0)
    assert refused.status is Status.ERROR
    assert "at most" in refused.output
    assert run(sandbox, "#" + "\U0001f600" * 500_000 + "\n6 * 7", 5.0) == "42"


def test_a_pseudo_terminal_can_still_be_had_where_their_number_is_capped(sandbox: Sandbox) -> None:
    if sandbox.capabilities.backend == "docker":
        pytest.skip("none can be had, see below")
    assert run(sandbox, "import os; os.isatty(os.openpty()[1])") == "True"


def test_a_result_sent_byte_by_byte_does_not_delay_the_answer(sandbox: Sandbox) -> None:
    code = """
        import os, signal, socket, stat, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for name in os.listdir("/proc/self/fd"):
            try:
                if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    found = int(name)
            except OSError:
                pass
        for byte in (1 << 16).to_bytes(4, "big") + bytes(1000):
            os.write(found, bytes([byte]))
            time.sleep(0.02)
    """
    assert sandbox.python(textwrap.dedent(code), 0.3).status is Status.TIMEOUT_KILLED
    assert run(sandbox, "6 * 7") == "42"


def test_one_sandbox_cannot_hold_every_pseudo_terminal_of_the_machine(sandbox: Sandbox) -> None:
    if not sandbox.capabilities.user_separated:
        pytest.skip("a user cannot mount terminals with a cap")
    code = """
        import os
        held = []
        try:
            while len(held) < 200:
                held.append(os.open("/dev/ptmx", os.O_RDWR))
                os.ttyname(held[-1]) if os.isatty(held[-1]) else held.pop().missing
        except (OSError, AttributeError):
            pass
        len(held)
    """
    assert run(sandbox, code) == ("0" if sandbox.capabilities.backend == "docker" else "32")


TAKE_EVERYTHING = """
import os
open("/proc/self/oom_score_adj", "w").write("0")
for place in ("/work", "/tmp", "/dev/shm"):
    with open(place + "/filled", "wb", 0) as file:
        try:
            for _ in range(64):
                file.write(bytes(1 << 20))
        except OSError:
            pass
os.remove("/tmp/filled")
os.mkfifo("/tmp/pipe")
for name in os.listdir("/proc/self/fd"):
    if os.path.exists("/proc/self/fd/" + name):
        os.set_inheritable(int(name), True)
hoard = "(printf -v x '%5000000s' ''; read -t 20 y <>/tmp/pipe) &"
loop = f"i=0; while [ $i -lt 45 ]; do i=$((i+1)); {hoard} done; wait"
"""


@pytest.mark.parametrize(
    "start",
    [
        'os.execv("/bin/bash", ["bash", "-c", loop])',
        'os.spawnv(os.P_NOWAIT, "/bin/bash", ["bash", "-c", "sleep 0.3;" + loop])',
    ],
    ids=["in a step", "between two steps"],
)
def test_having_the_first_process_killed_for_memory_ends_as_oom_and_not_as_lost(
    sandbox: Sandbox, start: str
) -> None:
    if not sandbox.capabilities.memory_limited:
        pytest.skip("no cap on memory can be set here")
    done = sandbox.python(TAKE_EVERYTHING + start, 6.0)
    for _ in range(25):  # filling the memory takes a second, and many on a busy machine
        if done.status is Status.OOM:
            break
        done = sandbox.python("import time; time.sleep(1)", 6.0)
    assert (done.status, done.state_kept) == (Status.OOM, False)
    if sandbox.lost is not None:  # type: ignore[attr-defined]
        assert sandbox.python("6 * 7").status is Status.OOM
        with pytest.raises(FileNotFoundError, match="memory"):
            sandbox.read_file("filled")
        with pytest.raises(SandboxLost):
            sandbox.reset()


def test_without_a_cap_on_their_buffers_there_are_no_internet_sockets_in_docker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if (problem := docker_problem()) is not None:
        pytest.skip(problem)
    if str(connect().info().get("CgroupVersion")) == "2":
        pytest.skip("this engine's kernel counts them as memory")
    monkeypatch.setattr(control_group, "ROOT", tmp_path)
    monkeypatch.setattr(docker, "_engines_without_socket_cap", set())
    code = "import socket; socket.socketpair(); socket.socket(socket.AF_INET)"
    for _ in range(2):  # found out, then known
        with DockerSandbox(preload=()) as sandbox:
            assert "Errno 97" in sandbox.python(code).output
            assert sandbox.capabilities.memory_limited
    assert docker._engines_without_socket_cap
