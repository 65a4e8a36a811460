"""The Docker sandbox: the shared conformance suite, its flags, and what ends it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reagent_env.sandboxes import engine
from reagent_env.sandboxes.conformance import SandboxConformance
from reagent_env.sandboxes.contract import Limits, Sandbox, Status
from reagent_env.sandboxes.docker import DockerSandbox, DockerTransport, container_settings
from reagent_env.sandboxes.engine import connect, docker_problem
from reagent_env.sandboxes.errors import SandboxLost, SandboxUnavailable
from reagent_env.sandboxes.image import ensure_image
from reagent_env.sandboxes.owner import owner_labels
from reagent_env.sandboxes.zygote_sandbox import WATCHDOG_S

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(docker_problem() is not None, reason=f"no Docker: {docker_problem()}"),
]


@pytest.fixture
def sandbox() -> Iterator[DockerSandbox]:
    with DockerSandbox() as made:
        yield made


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def containers(**labels: str) -> list[str]:
    filters = [f"reagent_env.{name}={value}" for name, value in labels.items()]
    return [found["Id"] for found in connect().containers(all=True, filters={"label": filters})]


def exists(container: str) -> bool:
    return bool(connect().containers(all=True, filters={"id": container}))


class TestDockerConforms(SandboxConformance):
    def make_sandbox(self, limits: Limits) -> Sandbox:
        return DockerSandbox(limits)


def test_every_guard_is_in_force_on_the_container(sandbox: DockerSandbox) -> None:
    details = connect().inspect_container(sandbox.container_id)
    host = details["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["Privileged"] is False
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["PidsLimit"] == 64
    assert host["Memory"] == host["MemorySwap"] == 256 << 20
    assert host["NanoCpus"] == 10**9
    assert host["IpcMode"] == "none"
    assert host["LogConfig"]["Type"] == "none"
    assert host["AutoRemove"] is True
    assert host["Init"] is False
    assert {limit["Name"]: limit["Hard"] for limit in host["Ulimits"]} == {
        "nofile": 256,
        "core": 0,
    }
    assert not details["Mounts"]  # no folder of the host
    assert not host["Binds"]
    for place, inodes in (("/work", 4096), ("/tmp", 4096), ("/dev/shm", 1024)):
        options = host["Tmpfs"][place].split(",")
        assert f"nr_inodes={inodes}" in options
        assert {"nosuid", "nodev"} <= set(options)
        assert any(option.startswith("size=") for option in options)
    uid = int(details["Config"]["User"].split(":")[0])
    assert 200_000 <= uid < 300_000
    assert sandbox.shell("id -u").output == f"{uid}\n"


def test_two_sandboxes_are_two_users() -> None:
    with DockerSandbox() as one, DockerSandbox() as other:
        assert one.shell("id -u").output != other.shell("id -u").output


@pytest.mark.parametrize(
    ("guard", "key", "value"),
    [
        ("network", "NetworkMode", "none"),
        ("pids", "PidsLimit", 64),
        ("memory", "Memory", 256 << 20),
        ("read_only", "ReadonlyRootfs", True),
    ],
)
def test_lifting_a_guard_removes_exactly_that_one(guard: str, key: str, value: object) -> None:
    def settings(lift: frozenset[str]) -> dict[str, object]:
        made = container_settings("i", ["c"], Limits(), user=200_001, labels={}, lift=lift)
        return dict(made["HostConfig"])

    whole, lifted = settings(frozenset()), settings(frozenset({guard}))
    assert whole[key] == value
    assert lifted[key] != value
    different = {name for name in whole if whole[name] != lifted[name]}
    assert different <= {key, "MemorySwap"}


def test_the_read_only_root_is_what_keeps_a_task_from_writing_outside_its_folders() -> None:
    attempt = "open('/var/probe', 'w').close()"
    with DockerSandbox() as guarded:
        assert "Read-only file system" in guarded.python(attempt).output
    with DockerSandbox(lift=("read_only",)) as lifted:
        # Still refused, by the user's lack of rights: two walls, not one.
        assert "Permission denied" in lifted.python(attempt).output


def test_an_inode_bomb_is_stopped_by_the_inode_cap() -> None:
    bomb = textwrap.dedent(
        """
        import os
        made = 0
        try:
            for made in range(20_000):
                os.close(os.open(f"/work/{made}", os.O_CREAT))
        except OSError as error:
            print(error.strerror)
        made
        """
    )
    with DockerSandbox() as guarded:
        execution = guarded.python(bomb)
        assert execution.output == "No space left on device\n"
        assert int(execution.value or 0) < 4096
        guarded.reset()
        assert guarded.python("1").value == "1"
    with DockerSandbox(lift=("inodes",)) as lifted:
        assert lifted.python(bomb).value == "19999"


def test_a_container_killed_in_mid_step_is_lost_within_half_a_second(
    sandbox: DockerSandbox,
) -> None:
    killed_at = []

    def kill() -> None:
        killed_at.append(time.monotonic())
        connect().kill(sandbox.container_id)

    timer = threading.Timer(0.5, kill)
    timer.start()
    with pytest.raises(SandboxLost):
        sandbox.python("import time; time.sleep(20)")
    assert time.monotonic() - killed_at[0] <= 0.5 + 0.2  # the engine's own kill takes its share
    timer.join()
    with pytest.raises(SandboxLost):
        sandbox.python("1")


def test_a_container_paused_in_mid_step_is_lost_at_the_watchdog(sandbox: DockerSandbox) -> None:
    timer = threading.Timer(0.2, lambda: connect().pause(sandbox.container_id))
    began = time.monotonic()
    timer.start()
    with pytest.raises(SandboxLost):
        sandbox.python("import time; time.sleep(20)", timeout_s=0.6)
    assert time.monotonic() - began <= 0.6 + WATCHDOG_S + 0.5
    timer.join()
    assert wait_until(lambda: not exists(sandbox.container_id), 5.0)


def test_closing_removes_the_container(sandbox: DockerSandbox) -> None:
    assert exists(sandbox.container_id)
    sandbox.close()
    sandbox.close()
    assert wait_until(lambda: not exists(sandbox.container_id), 3.0)


OWNER = """
import os, sys, threading, time
from reagent_env.sandboxes.docker import DockerSandbox
from reagent_env.sandboxes.owner import run_id
made = [DockerSandbox() for _ in range({count})]
print(run_id(), flush=True)
{then}
time.sleep(600)
"""


def start_owner(count: int, then: str = "") -> tuple[subprocess.Popen[str], str]:
    program = OWNER.format(count=count, then=then)
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert owner.stdout is not None
    return owner, owner.stdout.readline().strip()


def end(owner: subprocess.Popen[str]) -> None:
    owner.send_signal(signal.SIGKILL)
    owner.wait(10)
    assert owner.stdout is not None
    owner.stdout.close()


def test_an_owner_that_is_killed_leaves_no_container() -> None:
    owner, run = start_owner(3)
    assert len(containers(run=run)) == 3
    end(owner)
    assert wait_until(lambda: not containers(run=run), 2.0)


def test_a_busy_session_does_not_outlive_its_owner() -> None:
    owner, run = start_owner(1, "made[0].python('while True: pass', timeout_s=300)")
    end(owner)
    assert wait_until(lambda: not containers(run=run), 2.0)


def test_a_forked_child_neither_keeps_nor_kills_its_parents_container() -> None:
    with DockerSandbox() as sandbox:
        sandbox.python("x = 1")
        child = os.fork()
        if child == 0:
            try:
                sandbox.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert sandbox.python("x").value == "1"
    # A child that lives on must not hold the stream open.
    forking = "if os.fork() == 0:\n    time.sleep(30); os._exit(0)\nprint('forked', flush=True)"
    owner, run = start_owner(1, forking)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "forked\n"
    end(owner)
    try:
        assert wait_until(lambda: not containers(run=run), 2.0)
    finally:
        os.killpg(owner.pid, signal.SIGKILL)


def test_a_flood_costs_the_host_no_memory_and_no_log(sandbox: DockerSandbox) -> None:
    def resident() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    sandbox.python("1")
    before = resident()
    execution = sandbox.shell("head -c 1000000000 /dev/zero", timeout_s=20)
    assert execution.status is Status.OUTPUT_LIMIT
    assert len(execution.output) < 40_000
    assert resident() - before <= 4 << 20
    assert connect().inspect_container(sandbox.container_id)["LogPath"] == ""


def test_frames_of_the_engine_are_taken_apart_wherever_they_are_cut() -> None:
    def frame(stream: int, payload: bytes) -> bytes:
        return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload

    whole = frame(1, b"abc") + frame(2, b"warning") + frame(1, b"") + frame(1, b"defg")
    for size in (1, 2, 3, 7, 8, 9, len(whole)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            transport = detached_transport(ours)
            received = b""
            for start in range(0, len(whole), size):
                theirs.sendall(whole[start : start + size])
                try:
                    while True:
                        received += transport.receive(time.monotonic())
                except TimeoutError:
                    pass
            theirs.close()
            assert transport.receive(time.monotonic() + 1) == b""
            assert received == b"abcdefg"
            assert transport.diagnostics() == "warning"


def test_a_malformed_stream_of_the_engine_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 500 oh dear")
        with pytest.raises(OSError, match="malformed"):
            detached_transport(ours).receive(time.monotonic() + 1)


def detached_transport(stream: socket.socket) -> DockerTransport:
    """A transport over a given stream, without a container."""
    stream.setblocking(False)
    transport = DockerTransport.__new__(DockerTransport)
    transport._socket = stream
    transport._stream, transport._left, transport._inbox = 0, 0, bytearray()
    transport._errors = DockerTransport.new_error_tail()
    return transport


def test_an_image_that_is_not_there_is_unavailable_and_says_so() -> None:
    with pytest.raises(SandboxUnavailable, match="No such image"):
        DockerSandbox(image="reagent-sandbox:none-such")


def test_a_program_that_cannot_start_leaves_no_container() -> None:
    labels = {**owner_labels(), "reagent_env.run": f"bad-{os.getpid()}"}
    with pytest.raises(SandboxUnavailable):
        DockerTransport(ensure_image(), ["/none/such"], Limits(), labels=labels)
    assert wait_until(lambda: not containers(run=f"bad-{os.getpid()}"), 3.0)


def test_no_engine_is_told_at_once_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    began = time.monotonic()
    problem = docker_problem()
    assert problem is not None
    assert "scripts/ensure-docker" in problem or "Docker Desktop" in problem
    assert time.monotonic() - began < 2.0


def test_an_engine_that_stalls_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(tmp_path / "stalled.sock"))
        silent.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/stalled.sock")
        monkeypatch.setattr(engine, "PROBE_TIMEOUT_S", 0.3)
        began = time.monotonic()
        problem = docker_problem()
        assert problem is not None
        assert "did not answer in time" in problem
        assert time.monotonic() - began < 3.0


def test_importing_the_package_does_not_load_the_docker_sdk() -> None:
    program = (
        "import json, sys, reagent_env.sandboxes, reagent_env.sandboxes.docker as d;"
        "print(json.dumps('docker' in sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(run.stdout) is False
