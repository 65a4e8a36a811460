"""Bubblewrap and process sandboxes keep the contract, and their own promises."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from reagent_env.sandboxes import embedded
from reagent_env.sandboxes.conformance import SandboxConformance
from reagent_env.sandboxes.contract import Limits, Sandbox, Status
from reagent_env.sandboxes.control_group import make_control_group
from reagent_env.sandboxes.embedded import BubblewrapSandbox, embedded_problem
from reagent_env.sandboxes.errors import CapabilityMissing, SandboxLost, SandboxUnavailable
from reagent_env.sandboxes.process import ProcessSandbox, process_problem

needs_bubblewrap = pytest.mark.skipif(
    embedded_problem() is not None, reason=str(embedded_problem())
)
needs_process = pytest.mark.skipif(process_problem() is not None, reason=str(process_problem()))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root")


@needs_bubblewrap
class TestBubblewrap(SandboxConformance):
    def make_sandbox(self, limits: Limits) -> Sandbox:
        return BubblewrapSandbox(limits, libraries=())


@needs_process
class TestProcess(SandboxConformance):
    def make_sandbox(self, limits: Limits) -> Sandbox:
        return ProcessSandbox(limits, libraries=())


def _wait_until_dead(pids: list[int], seconds: float) -> bool:
    """True when none of the processes is left; pidfds tell without asking again and again."""
    limit = time.monotonic() + seconds
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            left = limit - time.monotonic()
            if left <= 0 or not select.select([handle], [], [], left)[0]:
                return False
        finally:
            os.close(handle)
    return True


def _descendants(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *_descendants(int(child))]
    return found


@needs_bubblewrap
def test_the_chosen_libraries_and_only_those_can_be_imported() -> None:
    with BubblewrapSandbox(libraries=("sympy",)) as sandbox:
        assert sandbox.facts["libraries"] == ["sympy"]
        assert sandbox.python("import sympy; sympy.sqrt(8)").value == "2*sqrt(2)"
        assert sandbox.shell("python3 -c 'import mpmath; print(mpmath.mpf(1))'").output == "1.0\n"
        for module in ("numpy", "gymnasium", "reasoning_gym", "reagent_env", "pip"):
            assert "ModuleNotFoundError" in sandbox.python(f"import {module}").output
        seen = sandbox.python("import sys; [m for m in sys.modules if m.startswith('reagent')]")
        assert seen.value == "[]"


@needs_bubblewrap
def test_numpy_draws_other_numbers_in_each_session() -> None:
    with BubblewrapSandbox(libraries=("numpy",)) as sandbox:
        first = sandbox.python("import numpy as np; np.random.rand()").value
        sandbox.reset()
        assert sandbox.python("import numpy as np; np.random.rand()").value != first


@needs_bubblewrap
@pytest.mark.parametrize("kind", [BubblewrapSandbox, ProcessSandbox])
def test_a_sandbox_dies_with_a_host_that_was_killed(kind: type) -> None:
    if kind is ProcessSandbox and process_problem():
        pytest.skip(str(process_problem()))
    program = f"""
        import sys
        from {kind.__module__} import {kind.__name__}
        sandbox = {kind.__name__}(libraries=())
        sandbox.shell("setsid sleep 1000 & sleep 1000 &")
        print("ready", flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "ready\n"
        below = _descendants(host.pid)
        assert len(below) >= 3
        os.kill(host.pid, signal.SIGKILL)
        assert _wait_until_dead(below, seconds=2)


@needs_bubblewrap
def test_a_sandbox_outlives_the_thread_that_made_it() -> None:
    made: list[Sandbox] = []
    maker = threading.Thread(target=lambda: made.append(BubblewrapSandbox(libraries=())))
    maker.start()
    maker.join()
    with made[0] as sandbox:
        assert sandbox.python("6 * 7").value == "42"


@needs_bubblewrap
def test_a_forked_copy_of_the_host_can_neither_use_nor_end_the_sandbox() -> None:
    with BubblewrapSandbox(libraries=()) as sandbox:
        sandbox.python("kept = 1")
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                sandbox.python("kept = 2")
            except SandboxLost as error:
                code = 0 if "make sandboxes after forking" in str(error) else 2
            finally:
                sandbox.close()
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert sandbox.python("kept").value == "1"


@needs_bubblewrap
def test_closing_frees_descriptors_processes_and_control_groups() -> None:
    BubblewrapSandbox(libraries=()).close()

    def held() -> tuple[int, list[int], set[Path]]:
        groups = Path("/sys/fs/cgroup").glob(f"*/reagent/{os.getpid()}-*")
        return len(os.listdir("/proc/self/fd")), _descendants(os.getpid()), set(groups)

    before = held()
    for _ in range(3):
        with BubblewrapSandbox(libraries=()) as sandbox:
            sandbox.shell("setsid sleep 1000 & true")
    assert held() == before


@needs_bubblewrap
@needs_root
def test_as_root_every_sandbox_has_a_user_of_its_own_on_the_host() -> None:
    with BubblewrapSandbox(libraries=()) as one, BubblewrapSandbox(libraries=()) as other:
        users = {one.shell("id -u").output, other.shell("id -u").output}
        assert len(users) == 2
        assert all(int(user) >= 200_000 for user in users)
        seen = {os.stat(f"/proc/{pid}").st_uid for pid in _descendants(os.getpid())}
        assert {int(user) for user in users} <= seen


@needs_bubblewrap
@needs_root
def test_a_normal_user_gets_one_too_and_it_claims_less(tmp_path: Path) -> None:
    system = Path("/usr/bin/python3")
    if not system.exists():
        pytest.skip("no interpreter that another user may run")
    version = [str(system), "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if subprocess.run(version, check=False).returncode:
        pytest.skip("the system's interpreter is too old")
    program = """
        from reagent_env.sandboxes.embedded import BubblewrapSandbox
        with BubblewrapSandbox(libraries=()) as sandbox:
            print(sandbox.python("6 * 7").value)
            print(sandbox.shell("touch /x /usr/x /dev/x; ls /root; echo ok > /work/f").status)
            can = sandbox.capabilities
            print(can.network_isolated, can.filesystem_isolated, can.memory_limited)
            print(can.user_separated, can.disk_limited)
            sandbox.shell("bomb() { bomb | bomb & }; bomb; sleep 60", timeout_s=0.3)
            sandbox.reset()
            print(sandbox.python("6 * 7").value)
    """
    # A copy in a place that the other user can reach: pytest's folders are for their owner alone.
    source = Path(embedded.__file__).parent
    made = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True)
    place = Path(made.stdout.strip())
    try:
        target = place / "reagent_env" / "sandboxes"
        target.mkdir(parents=True)
        (place / "reagent_env" / "__init__.py").touch()
        for file in source.glob("*.py"):
            (target / file.name).write_bytes(file.read_bytes())
        subprocess.run(["chmod", "-R", "a+rX", place], check=True)
        identity = ["--reuid", "65533", "--regid", "65533", "--clear-groups"]
        done = subprocess.run(
            ["setpriv", *identity, system, "-B", "-c", textwrap.dedent(program)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(place)},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        subprocess.run(["rm", "-r", place], check=True)
    said = ["42", "ok", "True True False", "False False", "42"]
    assert done.stdout.splitlines() == said, done.stderr


@needs_bubblewrap
@needs_root
@pytest.mark.parametrize(
    ("guard", "attack", "succeeded"),
    [
        ("host_files", "ls /host/etc/passwd", "/host/etc/passwd\n"),
        ("inodes", "for i in $(seq 2000); do : > $i; done; ls | wc -l", "2000\n"),
        ("disk", "head -c 20M /dev/zero > big; wc -c < big", "20971520\n"),
    ],
)
def test_an_attack_succeeds_once_its_guard_is_lifted(
    guard: str, attack: str, succeeded: str
) -> None:
    limits = Limits(work_mb=8, inodes=512)
    for lift, expected in (((), False), ((guard,), True)):
        with BubblewrapSandbox(limits, libraries=(), lift=lift) as sandbox:
            assert (sandbox.shell(attack).output == succeeded) is expected


@needs_bubblewrap
def test_the_hosts_network_is_in_reach_only_while_its_guard_is_lifted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        attack = (
            "import socket; socket.create_connection("
            f"('127.0.0.1', {server.getsockname()[1]}), timeout=5).fileno() > 0"
        )
        with BubblewrapSandbox(libraries=()) as sandbox:
            assert sandbox.python(attack).status is Status.ERROR
            assert sandbox.capabilities.network_isolated
        with BubblewrapSandbox(libraries=(), lift=("network",)) as sandbox:
            assert sandbox.python(attack).value == "True"
            assert not sandbox.capabilities.network_isolated


@needs_bubblewrap
def test_a_missing_bubblewrap_is_told_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedded, "_HOST_ENV", {"PATH": str(tmp_path)})
    embedded_problem.cache_clear()
    try:
        with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
            BubblewrapSandbox()
    finally:
        embedded_problem.cache_clear()


@needs_bubblewrap
@needs_root
def test_a_broken_start_is_unavailable_and_says_what_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert embedded_problem() is None  # looked into, and kept, before the break
    monkeypatch.setattr(embedded, "_give_up_root", lambda uid: ["no-such-program"])
    with pytest.raises(SandboxUnavailable, match="no-such-program"):
        BubblewrapSandbox(libraries=())


@needs_process
def test_the_process_sandbox_claims_only_what_it_enforces() -> None:
    with ProcessSandbox(libraries=()) as sandbox:
        can = sandbox.capabilities
        assert can.network_isolated
        assert can.user_separated
        for missing in ("filesystem_isolated", "processes_isolated", "disk_limited"):
            with pytest.raises(CapabilityMissing, match=missing):
                can.require([missing])


@needs_process
def test_a_process_sandbox_whose_first_process_is_killed_leaves_nobody_behind() -> None:
    sandbox = ProcessSandbox(libraries=())
    user = int(sandbox.shell("setsid sleep 1000 & id -u").output)
    with pytest.raises(SandboxLost):
        sandbox.python("import os; os.kill(os.getppid(), 9)")
    sandbox.close()
    left = [p for p in Path("/proc").glob("[0-9]*") if p.exists() and p.stat().st_uid == user]
    assert _wait_until_dead([int(p.name) for p in left], seconds=1)
    assert not Path(sandbox.work).exists()


@needs_process
def test_the_folder_of_a_killed_host_goes_when_the_next_sandbox_is_made() -> None:
    program = """
        import os
        from reagent_env.sandboxes.process import ProcessSandbox
        sandbox = ProcessSandbox(libraries=())
        print(sandbox.work, flush=True)
        os.kill(os.getpid(), 9)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    left = Path(done.stdout.strip())
    with ProcessSandbox(libraries=()) as living:
        assert not left.parent.exists()
        with ProcessSandbox(libraries=()) as other:
            assert Path(living.work).exists()
            assert other.python("1").value == "1"


@needs_root
def test_a_control_group_holds_its_caps_and_is_removed() -> None:
    group = make_control_group(Limits(memory_mb=100))
    if group is None:
        pytest.skip("no control group can be made here")
    try:
        if group.memory:
            files = [
                folder / name
                for folder in group.folders
                for name in ("memory.max", "memory.limit_in_bytes")
            ]
            said = [file.read_text().strip() for file in files if file.exists()]
            assert said == [str(100 << 20)]
    finally:
        group.remove()
    assert not any(folder.exists() for folder in group.folders)
