"""Every attack on every backend: it ends as it must, in time, and nothing of it stays."""

from __future__ import annotations

import os
import socket
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from arena import Arena
from attack_list import ATTACKS, LIBC, LOST, READABLE, Attack, connects, sends

import reagent_env


def expect(arena: Arena, attack: Attack) -> None:
    blow = arena.attack(attack)
    assert blow.outcome in attack.outcomes, blow
    if blow.outcome == LOST:
        return
    assert blow.execution is not None
    # The reply itself is bounded, whatever was printed.
    assert len(blow.execution.output) <= arena.limits.output_chars + 200
    assert len(blow.execution.value or "") <= arena.limits.output_chars + 200
    if attack.value is not None:
        assert blow.execution.value == attack.value, blow
    if attack.output is not None:
        assert attack.output in blow.execution.output, blow


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "_"))
def test_attack(arena: Arena, attack: Attack, attempt: int) -> None:
    expect(arena, attack)


# ------------------------------------------------------------------------ what the host offers


def addresses() -> list[str]:
    """Return the host's own addresses, the loopback first."""
    found = ["127.0.0.1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            found.append(probe.getsockname()[0])
        except OSError:
            pass
    return [*found, "172.17.0.1"]


@pytest.fixture
def listening() -> Iterator[tuple[int, int, str]]:
    """A TCP port, a UDP port and an abstract Unix name that the host listens on."""
    with (
        socket.create_server(("0.0.0.0", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix,
    ):
        udp.bind(("0.0.0.0", 0))
        name = f"attacked-{os.getpid()}"
        unix.bind("\0" + name)
        unix.listen()
        yield tcp.getsockname()[1], udp.getsockname()[1], name


def test_no_service_of_the_host_is_in_reach(
    arena: Arena, listening: tuple[int, int, str], attempt: int
) -> None:
    tcp, udp, name = listening
    hosts = addresses()
    tries = [connects(host, tcp) for host in hosts]
    tries.append(f"does(lambda: socket.socket(1, 1).connect({chr(0) + name!r}))")
    tries += [connects("::1", tcp)]
    # A datagram to the sandbox's own loopback is sent, to nobody; elsewhere there is no route.
    tries += [sends(host, udp) for host in hosts[1:]]
    code = "[" + ", ".join(tries) + "]"
    expect(arena, Attack("host", code, prepare=LIBC, value=str([False] * len(tries)), timeout_s=8))


def test_no_secret_of_the_host_is_in_sight(
    arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    monkeypatch.setenv("ATTACKED_SECRET", "hunter2")
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    secret.chmod(0o644)
    tmp_path.chmod(0o755)
    places = [
        str(secret),
        str(tmp_path),
        "/etc/shadow",
        "/etc/machine-id",
        "/etc/ssh",
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/var/lib/docker",
        str(Path.home() / ".bashrc"),
        str(Path.home() / ".ssh"),
        os.getcwd(),
        str(Path(reagent_env.__file__).parent),
        "/proc/kcore",
        "/proc/kmsg",
        "/dev/mem",
        "/dev/vda",
        "/dev/sda",
        "/sys/kernel/debug",
        "/proc/1/environ",
        "/proc/1/cwd",
        "/proc/1/root/etc",
    ]
    if arena.kind == "docker":
        # The image has an /etc/shadow of its own, which is root's.
        places.append("/etc/gshadow")
    code = f"readable(*{places!r})"
    expect(arena, Attack("host files", code, prepare=READABLE, value="[]"))
    look = textwrap.dedent("""
        import os
        seen = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                for file in ("environ", "cmdline"):
                    try:
                        seen.append(open(f"/proc/{name}/{file}", "rb").read())
                    except OSError:
                        pass
        # In two pieces, so as not to find this very code.
        needle = b"hunter" + b"2"
        any(needle in text for text in seen) or "ATTACKED_SECRET" in os.environ
    """)
    expect(arena, Attack("host variables", look, value="False"))


@pytest.mark.parametrize("module", ["reagent_env", "reasoning_gym", "math_verify", "docker"])
def test_nothing_that_knows_the_answers_is_installed(arena: Arena, module: str) -> None:
    code = f"import importlib.util as u; u.find_spec({module!r}) is None"
    expect(arena, Attack(module, code, value="True"))
    find = f"find / -xdev -name '{module}*' -not -path '/proc/*' 2>/dev/null | head"
    if module != "docker":
        expect(arena, Attack(module, find, "shell", timeout_s=20, output=""))
        with arena.pool.acquire(20) as sandbox:
            assert sandbox.shell(find, 20).output == ""


# ---------------------------------------------------------------------------------- across a reset

LEAVE = textwrap.dedent(
    r"""
    import ctypes, os, signal, socket, subprocess, threading
    libc = ctypes.CDLL(None, use_errno=True)
    for number, arguments in NUMBERS:
        libc.syscall(ctypes.c_long(number), *arguments)
    def attempt(do, *arguments):
        try:
            do(*arguments)
        except OSError:
            pass
    for top in ("/work", "/tmp", "/dev/shm", "/dev/mqueue", "/run", "/var/tmp", "/var/lock", "/dev"):
        attempt(os.mkdir, f"{top}/left")
        attempt(lambda: open(f"{top}/left-file", "w").write("left"))
        attempt(os.setxattr, top, "user.left", b"left")
        # An access list that new files would inherit: user rwx, group none, others none.
        acl = b"\2\0\0\0" + b"".join(
            tag + perm + b"\xff\xff\xff\xff"
            for tag, perm in ((b"\1\0", b"\7\0"), (b"\4\0", b"\0\0"), (b"\x20\0", b"\0\0")))
        attempt(os.setxattr, top, "system.posix_acl_default", acl)
        attempt(os.chmod, top, 0o711)
        attempt(os.utime, top, (12345, 12345))
    for top in ("/work", "/tmp", "/dev/shm"):
        os.chdir(top)
        for name in (b"new\nline", b"-rf", b"--", b"\xff\xfe", b" ", b"*", b"...", b"\x1b[2J", b"$(id)"):
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        os.symlink("/", "root"); os.symlink("/nowhere", "broken"); os.symlink("loop", "loop")
        os.mkfifo("fifo"); os.link("fifo", "fifo2")
        server = socket.socket(socket.AF_UNIX); server.bind("socket")
        for _ in range(60):
            os.mkdir("d" * 200); os.chdir("d" * 200)
        os.chdir(top)
        os.makedirs("locked/inner"); open("locked/inner/file", "w").close()
        os.chmod("locked/inner", 0); os.chmod("locked", 0)
        os.chmod("-rf", 0)
    os.chdir("/work")
    for _ in range(10):
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
    stubborn = "import signal, time\nfor n in range(1, 65):\n    try: signal.signal(n, 1)\n"
    stubborn += "    except (OSError, ValueError): pass\ntime.sleep(1000)"
    subprocess.Popen(["python3", "-c", stubborn], start_new_session=True)
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    if os.fork() == 0:
        while True: os.sched_yield()
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    os.environ["LEFT"] = "1"
    os.nice(5); os.umask(0o777)
    """
)
LOOK = textwrap.dedent(
    r"""
    import os, threading
    def entries(top):
        try:
            return [f"{top}/{name}" for name in os.listdir(top)]
        except OSError:
            return []
    def attributes(top):
        try:
            return [f"{top}: {name}" for name in os.listxattr(top)]
        except OSError:
            return []
    left = []
    for top in ("/work", "/tmp", "/dev/shm", "/dev/mqueue", "/run", "/var/tmp", "/var/lock", "/dev"):
        found = entries(top)
        if top in ("/run", "/dev"):
            found = [place for place in found if "left" in place]
        left += found + attributes(top)
    for name in ("shm", "msg", "sem"):
        left += open(f"/proc/sysvipc/{name}").read().splitlines()[1:]
    left += [n for n in os.listdir("/proc") if n.isdigit() and int(n) not in (1, os.getpid())]
    left += [k for k in os.environ if k == "LEFT"] + [k for k in globals() if k == "LEAVE"]
    left += [oct(mask)] if (mask := os.umask(0o022)) != 0o022 else []
    left += ["threads"] * (threading.active_count() > 1)
    left += [oct(os.stat(top).st_mode) for top in ("/work", "/tmp") if os.stat(top).st_mode & 0o77]
    left += [f"{top}: times" for top in ("/work", "/tmp", "/dev/shm") if os.stat(top).st_mtime == 12345]
    left
    """
)


def test_nothing_crosses_a_reset(arena: Arena, attempt: int) -> None:
    from attack_list import number

    calls = [
        (number("shmget"), (0x1234, 4096, 0o1666)),
        (number("msgget"), (0x1234, 0o1666)),
        (number("semget"), (0x1234, 1, 0o1666)),
        (number("mq_open"), (b"left", 0o102, 0o600, 0)),
    ]
    with arena.pool.acquire(20) as sandbox:
        execution = sandbox.python(LEAVE.replace("NUMBERS", repr(calls)), 20)
        assert execution.status == "ok", execution
        sandbox.reset()
        assert sandbox.python(LOOK).value == "[]"
    arena.look_around(arena.begin())


# ------------------------------------------------------------------------------ the file verbs


def test_links_lead_the_file_verbs_nowhere(arena: Arena, attempt: int) -> None:
    with arena.pool.acquire(20) as sandbox:
        made = sandbox.shell(
            "ln -s /etc/passwd link; ln -s / root; ln -s /tmp out; ln -s loop loop; mkfifo fifo; "
            "mkdir folder; ln -s /proc/self/environ environ; ln -s /dev/zero zero; "
            "ln /work/fifo hard; echo x > locked; chmod 0 locked; "
            "python3 -c \"import socket; socket.socket(1).bind('socket')\""
        )
        assert made.status == "ok", made
        for path in (
            *("link", "root/etc/passwd", "out/x", "loop", "fifo", "folder", "environ", "zero"),
            *("hard", "socket", "root/proc/1/environ"),
        ):
            with pytest.raises((FileNotFoundError, ValueError)):
                sandbox.read_file(path)
            with pytest.raises(ValueError):
                sandbox.write_files({path: b"x"})
        for path in ("../x", "/etc/passwd", "a/../../x", "x/"):
            with pytest.raises(ValueError):
                sandbox.write_files({path: b"x"})
        with pytest.raises(ValueError):
            sandbox.write_files({"big": bytes((arena.limits.work_mb + 1) << 20)})
        assert sandbox.python("6 * 7").value == "42"


def test_a_file_swapped_for_a_link_in_mid_read_gains_nothing(arena: Arena, attempt: int) -> None:
    swap = textwrap.dedent("""
        import os, subprocess
        program = '''
        import os
        while True:
            open("new", "w").write("mine"); os.rename("new", "file")
            os.symlink("/proc/1/environ", "new"); os.rename("new", "file")
            os.symlink("/etc", "new"); os.rename("new", "file"); os.unlink("file")
        '''
        import textwrap
        child = subprocess.Popen(["python3", "-c", textwrap.dedent(program)])
    """)
    with arena.pool.acquire(20) as sandbox:
        assert sandbox.python(swap).status == "ok"
        seen = set()
        for _ in range(100):
            try:
                seen.add(sandbox.read_file("file"))
            except (FileNotFoundError, ValueError):
                continue
        assert seen <= {b"", b"mine"}
        assert sandbox.python("child.poll()").value is None  # it was at it all the time


def test_a_file_that_grows_without_end_is_read_to_its_cap(arena: Arena) -> None:
    with arena.pool.acquire(20) as sandbox:
        sandbox.shell("truncate -s 60T sparse || truncate -s 1G sparse; yes > growing & sleep 0.2")
        assert len(sandbox.read_file("sparse", max_bytes=3_000_000)) == 3_000_000
        assert len(sandbox.read_file("growing", max_bytes=100_000)) <= 100_000
