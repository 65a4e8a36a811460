"""The zygote's parts, the channel against a hostile far side, and guards that can be lifted."""

from __future__ import annotations

import ast
import json
import os
import platform
import socket
import struct
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reagent_env.sandboxes import capture, channel, frames, seccomp, wipe
from reagent_env.sandboxes.channel import Channel, RequestRefused
from reagent_env.sandboxes.conformance import SEND_FORGED
from reagent_env.sandboxes.contract import Limits, Status
from reagent_env.sandboxes.embedded import BubblewrapSandbox, embedded_problem
from reagent_env.sandboxes.errors import SandboxLost

needs_bubblewrap = pytest.mark.skipif(
    embedded_problem() is not None, reason=str(embedded_problem())
)

# ---------------------------------------------------------------------------------- captured text


@given(
    text=st.text(alphabet="aé€\U0001f600\n", max_size=300),
    cap=st.integers(min_value=2, max_value=80),
)
def test_a_capture_keeps_head_and_tail_of_whole_characters(text: str, cap: int) -> None:
    printed = capture.Capture(cap)
    encoded = text.encode()
    for start in range(0, len(encoded), 7):
        printed.add(encoded[start : start + 7])
    kept, omitted = printed.text()
    if not omitted:
        assert kept == text
        return
    head, tail = kept.split(f"\n[... {omitted} bytes omitted ...]\n")
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head.encode()) + omitted + len(tail.encode()) == len(encoded)
    assert "\ufffd" not in kept


@given(st.text())
def test_text_goes_through_a_frame_unchanged(text: str) -> None:
    inbox = bytearray(frames.pack({"text": text}) + b"rest")
    pairs_joined = json.loads(json.dumps(text))
    assert frames.unpack(inbox, 1 << 20) == {"text": pairs_joined}
    assert inbox == b"rest"


@pytest.mark.parametrize("bad", [b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x01{", b"\0\0\0\0"])
def test_a_malformed_frame_breaks_the_sandbox(bad: bytes) -> None:
    with pytest.raises(frames.Broken):
        frames.unpack(bytearray(bad), 1 << 20)


def test_output_bytes_that_are_not_text_are_replaced_one_by_one() -> None:
    raw = b"a\xff\xed\xa0\x80\xe2\x82z"
    assert raw.decode("utf-8", "keep-surrogates") == "a\ufffd\ud800\ufffd\ufffdz"


# ------------------------------------------------------------------------------------------ wipe


def test_wiping_empties_deep_trees_locked_folders_and_odd_names(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("deep", dir_fd=fd)
        deeper = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    (tmp_path / "many").mkdir()
    for number in range(3000):
        (tmp_path / "many" / str(number)).mkdir()
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "file").touch()
    (tmp_path / "locked").chmod(0)
    outside = tmp_path.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "stays").touch()
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "many" / "link").symlink_to(outside)
    os.mkfifo(tmp_path / "fifo")
    assert wipe.wipe(str(tmp_path)) > 4200
    assert os.listdir(tmp_path) == []
    assert (outside / "stays").exists()


def test_wiping_one_owners_entries_leaves_those_of_others(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    assert wipe.wipe(str(tmp_path), owner=os.getuid() + 1) == 0
    assert wipe.wipe(str(tmp_path), owner=os.getuid()) == 1


# ------------------------------------------------------------------------- the filter, on paper


def _run_filter(program: list[tuple[int, int, int, int]], words: dict[int, int]) -> int:
    """Interpret classic BPF over the words of struct seccomp_data; returns the verdict."""
    accumulator, at = 0, 0
    while True:
        op, jt, jf, k = program[at]
        at += 1
        if op == 0x20:
            accumulator = words.get(k, 0)
        elif op == 0x06:
            return k
        else:
            tests = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}
            at += jt if tests[op] else jf


ALLOW, KILL, EPERM, ENOSYS, NO_FAMILY = 0x7FFF0000, 0x80000000, 0x50001, 0x50026, 0x50061


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_the_filter_decides_as_its_table_says(machine: str, column: int) -> None:
    program = seccomp.assemble(machine)
    assert len(program) < 4096
    arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]

    def verdict(call: str, *arguments: int, of: int = arch) -> int:
        number = seccomp._CALLS[call][column]
        assert number is not None
        words = {0: number, 4: of} | {16 + 8 * i: word for i, word in enumerate(arguments)}
        return _run_filter(program, words)

    for calls in seccomp.GUARDS.values():
        for call in calls:
            if seccomp._CALLS[call][column] not in (None, 0xFFFFFFFF):
                assert verdict(call) == EPERM, call
    assert verdict("clone3") == ENOSYS
    assert verdict("clone", 0x10000000) == EPERM
    assert verdict("clone", 0x00000100) == ALLOW
    assert verdict("ioctl", 0, 0x5412) == EPERM
    assert verdict("ioctl", 0, 0x5401) == ALLOW
    assert [verdict("socket", family) for family in (1, 2, 10)] == [ALLOW] * 3
    assert [verdict("socket", family) for family in (16, 17, 38, 40)] == [NO_FAMILY] * 4
    assert [verdict("prlimit64", pid) for pid in (0, 1, 7)] == [ALLOW, EPERM, EPERM]
    assert [verdict("setpriority", 0, who) for who in (0, 1)] == [ALLOW, EPERM]
    assert verdict("setpriority", 2, 0) == EPERM
    assert [verdict("sched_setaffinity", pid) for pid in (0, 1)] == [ALLOW, EPERM]
    assert verdict("socket", 1, of=0x40000003) == KILL
    if machine == "x86_64":
        assert _run_filter(program, {0: 0x40000000 | 39, 4: arch}) == EPERM
    no_inet = seccomp.assemble(machine, inet=False)
    number = seccomp._CALLS["socket"][column] or 0
    assert _run_filter(no_inet, {0: number, 4: arch, 16: 2}) == NO_FAMILY
    assert _run_filter(no_inet, {0: number, 4: arch, 16: 1}) == ALLOW


def test_lifting_a_guard_opens_that_guard_alone() -> None:
    for lifted, calls in seccomp.GUARDS.items():
        program = seccomp.assemble("x86_64", frozenset([lifted]))
        for guard, others in seccomp.GUARDS.items():
            for call in others:
                words = {0: seccomp._CALLS[call][0] or 0, 4: 0xC000003E}
                expected = ALLOW if guard == lifted else EPERM
                assert _run_filter(program, words) == expected, (lifted, call)
        assert calls


def test_an_unknown_machine_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="sparc"):
        seccomp.assemble("sparc")


def test_what_is_shipped_runs_on_python_3_9_and_imports_only_the_standard_library() -> None:
    for name in channel.SHIPPED:
        source = Path(str(channel.__file__)).with_name(f"{name}.py").read_text()
        tree = ast.parse(source, feature_version=(3, 9))
        imported = {
            (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        roots = {name.split(".")[0] for name in imported} - {"reagent_env"}
        assert roots <= set(sys.stdlib_module_names) | {"__future__"}


# ---------------------------------------------------------------- the channel, hostile far sides


class SocketTransport:
    """A transport whose far side is a thread of the test."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.killed = False

    def send(self, payload: bytes, deadline: float) -> None:
        self.near.settimeout(max(deadline - time.monotonic(), 0.01))
        self.near.sendall(payload)

    def receive(self, deadline: float) -> bytes:
        self.near.settimeout(max(deadline - time.monotonic(), 0.0001))
        return self.near.recv(65536)

    def kill(self) -> None:
        self.killed = True

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def transport() -> Iterator[SocketTransport]:
    made = SocketTransport()
    yield made
    made.close()


def _answer(
    transport: SocketTransport, make: Callable[[dict[str, Any]], bytes]
) -> threading.Thread:
    def serve() -> None:
        inbox = bytearray()
        while (request := frames.unpack(inbox, 1 << 20)) is None:
            inbox += transport.far.recv(65536)
        transport.far.sendall(make(request))

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def _frame(request: dict[str, Any], **fields: Any) -> bytes:
    return frames.pack({"ok": True, "id": request["id"], "nonce": request["nonce"], **fields})


def test_a_reply_reaches_its_request(transport: SocketTransport) -> None:
    thread = _answer(transport, lambda r: _frame(r, text="\ud800\0", op=r["op"]))
    assert Channel(transport).request("ping", seconds=5)["text"] == "\ud800\0"
    thread.join()


def test_a_refusal_is_not_a_loss(transport: SocketTransport) -> None:
    thread = _answer(transport, lambda r: _frame(r, ok=False, error="space", message="full"))
    line = Channel(transport)
    with pytest.raises(RequestRefused, match="full"):
        line.request("write", seconds=5)
    thread.join()
    assert line.lost is None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (lambda r: _frame(r, nonce="0" * 32), "belong"),
        (lambda r: _frame(r, id=99), "belong"),
        (lambda r: _frame(r) + _frame(r), "more than one"),
        (lambda r: struct.pack(">I", 1 << 31), "cap"),
        (lambda r: struct.pack(">I", 4) + b"nope", "not JSON"),
        (lambda r: struct.pack(">I", 2) + b"[]", "not an object"),
        (lambda r: _frame(r, ok=False, error="broken", message="no forks"), "no forks"),
    ],
)
def test_any_other_reply_ends_the_sandbox(
    transport: SocketTransport, reply: Callable[[dict[str, Any]], bytes], reason: str
) -> None:
    thread = _answer(transport, reply)
    line = Channel(transport)
    with pytest.raises(SandboxLost, match=reason):
        line.request("ping", seconds=5)
    thread.join()
    assert transport.killed
    with pytest.raises(SandboxLost):
        line.request("ping", seconds=5)


def test_a_frame_before_any_request_ends_the_sandbox(transport: SocketTransport) -> None:
    transport.far.sendall(frames.pack({"ok": True, "id": 1, "nonce": ""}))
    with pytest.raises(SandboxLost, match="out of turn"):
        Channel(transport).request("ping", seconds=5)


def test_silence_ends_the_sandbox_at_the_watchdog(transport: SocketTransport) -> None:
    began = time.monotonic()
    with pytest.raises(SandboxLost, match=r"within 0\.2 s"):
        Channel(transport).request("ping", seconds=0.2)
    assert 0.2 <= time.monotonic() - began < 1.0
    assert transport.killed


def test_a_far_side_that_hangs_up_is_lost(transport: SocketTransport) -> None:
    transport.far.close()
    with pytest.raises(SandboxLost, match="not there"):
        Channel(transport).request("ping", seconds=5)


def test_the_shipped_source_states_its_own_length() -> None:
    source = channel.zygote_source()
    assert int.from_bytes(source[:4], "big") == len(source) - 4
    compile(source[4:], "<shipped>", "exec")


# ------------------------------------------------- guards: each attack succeeds once it is lifted

CALLS = """
    import ctypes, os, socket, resource
    libc = ctypes.CDLL(None, use_errno=True)
    def call(number, *arguments):
        ctypes.set_errno(0)
        return libc.syscall(number, *arguments) >= 0 or ctypes.get_errno() not in (1, 97)
    def works(attempt):
        try:
            attempt()
        except OSError:
            return False
        return True
"""


@needs_bubblewrap
@pytest.mark.skipif(platform.machine() != "x86_64", reason="call numbers of x86_64")
@pytest.mark.parametrize(
    ("guard", "attack"),
    [
        ("io_uring", "call(425, 1, 0)"),
        ("sysv_ipc", "call(29, 0, 4096, 0o1600)"),
        ("keyring", "call(250, 0, -3, 1)"),
        ("bpf", "call(321, 99, 0, 0)"),
        ("perf", "call(298, 0, 0, -1, -1, 0)"),
        ("userfaultfd", "call(323, 1)"),
        ("mqueue", "call(240, b'name', 0o102, 0o600, 0)"),
        ("netlink", "works(lambda: socket.socket(16, socket.SOCK_RAW))"),
        ("vsock", "works(lambda: socket.socket(40, socket.SOCK_STREAM))"),
        ("alg", "works(lambda: socket.socket(38, socket.SOCK_SEQPACKET))"),
        ("peers", "works(lambda: resource.prlimit(1, resource.RLIMIT_NOFILE))"),
        ("dumpable", "works(lambda: os.listdir('/proc/1/fd'))"),
        ("open_files", "[os.dup(0) for _ in range(300)] != [] "),
    ],
)
def test_an_attack_works_only_while_its_guard_is_lifted(guard: str, attack: str) -> None:
    outcomes = {}
    for lift in ((), (guard,)):
        with BubblewrapSandbox(Limits(), libraries=(), lift=lift) as sandbox:
            sandbox.python(textwrap.dedent(CALLS))
            outcomes[lift] = sandbox.python(attack).value == "True"
    if not outcomes[(guard,)] and guard in ("vsock", "alg", "netlink", "bpf"):
        pytest.skip("this kernel lacks it, guard or no guard")
    assert outcomes == {(): False, (guard,): True}


@needs_bubblewrap
def test_a_forged_result_is_believed_only_while_the_nonce_is_lifted() -> None:
    with BubblewrapSandbox(libraries=(), lift=("nonce",)) as sandbox:
        sandbox.python(SEND_FORGED)
        assert sandbox.python("forge('0' * 32)").value == "forged"
    with BubblewrapSandbox(libraries=()) as sandbox:
        sandbox.python(SEND_FORGED)
        with pytest.raises(SandboxLost):
            sandbox.python("forge('0' * 32)")


@needs_bubblewrap
@pytest.mark.parametrize("guard", ["kill", "wipe"])
def test_left_overs_survive_a_reset_only_while_the_guard_is_lifted(guard: str) -> None:
    leave = (
        "setsid sleep 1000 >/dev/null 2>&1 & echo x > /dev/shm/left;"
        "until pgrep -x sleep >/dev/null; do :; done"
    )
    look = "{ pgrep -x sleep; ls /dev/shm; } | wc -l"
    counts = []
    for lift in ((), (guard,)):
        with BubblewrapSandbox(libraries=(), lift=lift) as sandbox:
            assert sandbox.shell(leave).status is Status.OK
            sandbox.reset()
            counts.append(sandbox.shell(look).output.strip())
    assert counts == ["0", "1"]
