"""What every sandbox must do, as tests to inherit: one class, one hook.

Imports pytest, so the library itself never imports this module. Example::

    class TestMySandbox(SandboxConformance):
        def make_sandbox(self, limits):
            return MySandbox(limits)
"""

from __future__ import annotations

import os
import socket
import tempfile
import textwrap
import time
from pathlib import Path
from typing import ClassVar

import pytest

from reagent_env.sandboxes.contract import Execution, Limits, Sandbox, Status
from reagent_env.sandboxes.errors import SandboxLost
from reagent_env.sandboxes.zygote_sandbox import ZygoteSandbox

GRACE_S = 0.5
SLACK_S = 1.0
"""Seconds beyond deadline and grace that an answer may take on a busy machine."""

SEND_FORGED = """
import os, socket, stat, struct, json
def forge(nonce):
    body = json.dumps({"outcome": "ok", "value": "forged", "nonce": nonce}).encode()
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, struct.pack(">I", len(body)) + body)
        except OSError:
            pass
"""

COUNT_PROCESSES = """
import os
def processes():
    mine, found = os.getuid(), 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                rows = dict(l.split(":", 1) for l in open(f"/proc/{name}/status") if ":" in l)
            except OSError:
                continue
            found += int(rows["Uid"].split()[0]) == mine
    return found
"""


class SandboxConformance:
    """Inherit, say how a sandbox is made, and run: each test is one promise of the contract."""

    limits: ClassVar[Limits] = Limits(
        memory_mb=256,
        pids=48,
        work_mb=24,
        shm_mb=8,
        inodes=1024,
        output_chars=4096,
        output_hard_mb=4,
        timeout_s=20.0,
    )
    """Small on purpose, so that a test reaches them soon."""

    def make_sandbox(self, limits: Limits) -> Sandbox:
        """Return a new sandbox with ``limits``."""
        raise NotImplementedError("Override make_sandbox in your test class.")

    _shared: ClassVar[Sandbox | None] = None

    @classmethod
    def teardown_class(cls) -> None:
        """Close the sandbox that the class's tests shared."""
        if cls._shared is not None:
            cls._shared.close()
            cls._shared = None

    @pytest.fixture
    def sandbox(self) -> Sandbox:
        """A freshly reset sandbox, one for the class; replaced when a test before lost it."""
        owner = type(self)
        if owner._shared is not None:
            try:
                owner._shared.reset()
            except SandboxLost:
                owner._shared.close()
                owner._shared = None
        if owner._shared is None:
            owner._shared = self.make_sandbox(self.limits)
        return owner._shared

    # -- python

    def test_variables_stay_between_executions(self, sandbox: Sandbox) -> None:
        sandbox.python("x = 6 * 7\ndef double(n):\n    return 2 * n")
        assert sandbox.python("double(x)").value == "84"

    def test_a_last_expression_is_the_value_and_a_statement_has_none(
        self, sandbox: Sandbox
    ) -> None:
        assert sandbox.python("'a' + 'b'") == Execution(Status.OK, "", value="'ab'")
        assert sandbox.python("y = 3").value is None
        assert sandbox.python("None").value is None
        assert sandbox.python("").status is Status.OK

    def test_an_exception_is_an_error_that_shows_the_users_lines_alone(
        self, sandbox: Sandbox
    ) -> None:
        sandbox.python("def half(n):\n    return n / 0  # here")
        execution = sandbox.python("before = 1\nhalf(4)")
        assert execution.status is Status.ERROR
        assert "return n / 0  # here" in execution.output
        assert "ZeroDivisionError: division by zero" in execution.output
        assert "session" not in execution.output
        assert sandbox.python("before").value == "1"

    def test_a_syntax_error_is_an_error_with_its_line(self, sandbox: Sandbox) -> None:
        execution = sandbox.python("a = 1\nb = = 2")
        assert execution.status is Status.ERROR
        assert "b = = 2" in execution.output
        assert "SyntaxError" in execution.output
        assert execution.output.startswith('  File "<step-')

    def test_exceptions_that_fight_being_shown_are_errors_too(self, sandbox: Sandbox) -> None:
        hostile = "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E"
        assert sandbox.python(hostile).status is Status.ERROR
        hostile = "class R:\n    def __repr__(self): raise KeyError(1)\nR()"
        assert sandbox.python(hostile).status is Status.ERROR
        assert sandbox.python("1").value == "1"

    def test_sys_exit_ends_the_code_and_not_the_session(self, sandbox: Sandbox) -> None:
        sandbox.python("kept = 5")
        assert sandbox.python("import sys; sys.exit(0)").status is Status.OK
        stopped = sandbox.python("import sys; sys.exit('enough')")
        assert (stopped.status, stopped.output) == (Status.ERROR, "enough\n")
        assert sandbox.python("kept").value == "5"

    def test_code_that_forks_answers_once(self, sandbox: Sandbox) -> None:
        assert sandbox.python("import os\npid = os.fork()\npid >= 0").value == "True"
        assert sandbox.python("pid > 0").value == "True"

    def test_reading_standard_input_ends_at_once(self, sandbox: Sandbox) -> None:
        assert "EOFError" in sandbox.python("input()").output

    # -- output

    def test_prints_to_both_streams_arrive_in_order(self, sandbox: Sandbox) -> None:
        code = """
            import os, sys
            print("1", end=" ")
            print("2", end=" ", file=sys.stderr)
            print("3")
            os.system("echo 4; echo 5 >&2")
            print("6")
        """
        assert sandbox.python(textwrap.dedent(code)).output == "1 2 3\n4\n5\n6\n"
        assert sandbox.shell("echo 1; echo 2 >&2; echo 3").output == "1\n2\n3\n"

    def test_long_output_keeps_head_and_tail_and_counts_the_rest(self, sandbox: Sandbox) -> None:
        execution = sandbox.python("for i in range(20_000): print(i)")
        printed = sum(len(str(i)) + 1 for i in range(20_000))
        assert execution.status is Status.OK
        assert execution.output.startswith("0\n1\n2\n")
        assert execution.output.endswith("19998\n19999\n")
        assert execution.omitted_chars == printed - self.limits.output_chars
        assert len(execution.output) < self.limits.output_chars + 100

    def test_a_value_too_long_is_shortened(self, sandbox: Sandbox) -> None:
        value = sandbox.python("'x' * 1_000_000").value
        assert value is not None
        assert len(value) < self.limits.output_chars + 100

    def test_a_flood_is_stopped(self, sandbox: Sandbox) -> None:
        began = time.monotonic()
        assert sandbox.shell("yes").status is Status.OUTPUT_LIMIT
        assert sandbox.python("while True: print('y' * 1000)").status is Status.OUTPUT_LIMIT
        assert time.monotonic() - began < 10
        assert sandbox.python("1").value == "1"

    def test_unusual_text_survives(self, sandbox: Sandbox) -> None:
        text = "NUL \0, lone \ud800, emoji \U0001f600, line \u2028"
        assert sandbox.python(f"text = {text!r}\nprint(text, end='')").output == text
        assert sandbox.python("len('\U0001f600é')").value == "2"
        assert sandbox.shell("printf '\U0001f600 \\0 \\377'").output == "\U0001f600 \0 \ufffd"

    @pytest.mark.parametrize("text", ["\0", "'\ud800'", "1 \0 + 1"])
    def test_text_that_cannot_be_code_is_an_ordinary_result(
        self, sandbox: Sandbox, text: str
    ) -> None:
        assert sandbox.python(text).status in (Status.OK, Status.ERROR)
        assert sandbox.shell(text).status in (Status.OK, Status.ERROR)
        sandbox.ping()

    # -- shell

    def test_a_commands_exit_code_decides_its_status(self, sandbox: Sandbox) -> None:
        assert sandbox.shell("true") == Execution(Status.OK, "", exit_code=0)
        assert sandbox.shell("echo no; exit 3") == Execution(Status.ERROR, "no\n", exit_code=3)
        assert sandbox.shell("kill -TERM $$").exit_code == -15
        assert sandbox.shell("if").status is Status.ERROR

    def test_shell_and_python_share_files_folder_and_variables(self, sandbox: Sandbox) -> None:
        sandbox.shell("mkdir -p inner && cd inner && echo 42 > number; export COLOUR=blue; X=1")
        assert sandbox.python("open('number').read()").value == r"'42\n'"
        assert sandbox.python("import os; os.environ['COLOUR']").value == "'blue'"
        sandbox.python("os.chdir('..'); os.environ['SHAPE'] = 'round'")
        read = sandbox.shell("cat inner/number; echo $SHAPE $COLOUR $X")
        assert read.output == "42\nround blue\n"
        sandbox.shell("cd inner; unset COLOUR")
        assert sandbox.shell("cd - > /dev/null; ls; echo [$COLOUR]").output == "inner\n[]\n"

    def test_a_very_long_command_runs(self, sandbox: Sandbox) -> None:
        assert sandbox.shell(": " + "x" * 300_000 + "\necho end").output == "end\n"

    # -- typed endings

    def test_an_interrupt_at_the_deadline_keeps_the_state(self, sandbox: Sandbox) -> None:
        sandbox.python("kept = 1")
        for verb, text in (
            (sandbox.python, "while True: pass"),
            (sandbox.python, "import time; time.sleep(60)"),
            (sandbox.shell, "echo begun; sleep 60"),
        ):
            began = time.monotonic()
            execution = verb(text, 0.3)
            assert time.monotonic() - began < 0.3 + GRACE_S + SLACK_S
            assert execution.status is Status.TIMEOUT_INTERRUPTED
            assert execution.state_kept
        assert execution.output == "begun\n"
        assert sandbox.python("kept").value == "1"

    def test_who_ignores_the_interrupt_is_killed_and_files_stay(self, sandbox: Sandbox) -> None:
        sandbox.python("kept = 1; open('file', 'w').write('stays')")
        ignore = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
        for verb, text in ((sandbox.python, ignore), (sandbox.shell, "trap '' INT; sleep 60")):
            began = time.monotonic()
            execution = verb(text, 0.3)
            assert time.monotonic() - began < 0.3 + GRACE_S + SLACK_S
            assert execution.status is Status.TIMEOUT_KILLED
            assert not execution.state_kept
        assert sandbox.python("kept").status is Status.ERROR
        assert sandbox.shell("cat file").output == "stays"

    @pytest.mark.parametrize(
        "code",
        [
            "import os; print('last', flush=True); os._exit(3)",
            "import ctypes; print('last', flush=True); ctypes.string_at(0)",
            "import os; print('last', flush=True); os.closerange(3, 256)",
            "import os; print('last', flush=True); os.kill(os.getpid(), 9)",
        ],
    )
    def test_a_session_that_ends_itself_is_replaced(self, sandbox: Sandbox, code: str) -> None:
        sandbox.shell("echo stays > file")
        execution = sandbox.python(code)
        assert execution.status is Status.SESSION_DIED
        assert execution.output == "last\n"
        assert not execution.state_kept
        assert sandbox.shell("cat file").output == "stays\n"

    def test_a_session_that_dies_between_two_executions_is_reported(self, sandbox: Sandbox) -> None:
        sandbox.python(
            "import threading, os, time\n"
            "threading.Thread(target=lambda: (time.sleep(0.05), os._exit(1))).start()"
        )
        deadline = time.monotonic() + 5
        statuses = set()
        while Status.SESSION_DIED not in statuses and time.monotonic() < deadline:
            statuses.add(sandbox.python("1").status)
        assert statuses <= {Status.OK, Status.SESSION_DIED}
        assert Status.SESSION_DIED in statuses
        assert sandbox.python("1").value == "1"

    def test_taking_all_memory_ends_as_oom(self, sandbox: Sandbox) -> None:
        if not sandbox.capabilities.memory_limited:
            pytest.skip("this sandbox has no memory cap, and says so")
        execution = sandbox.python("hoard = [bytearray(1 << 20) for _ in range(400)]")
        assert execution.status is Status.OOM
        assert not execution.state_kept
        in_a_child = sandbox.shell("python3 -c 'b = [bytearray(1<<20) for _ in range(400)]'")
        assert in_a_child.status in (Status.OOM, Status.ERROR)
        assert sandbox.python("1").value == "1"

    def test_a_memory_error_is_a_plain_error(self, sandbox: Sandbox) -> None:
        execution = sandbox.python("bytearray(1 << 60)")
        assert execution.status is Status.ERROR
        assert "MemoryError" in execution.output
        assert execution.state_kept

    # -- left-overs

    def test_a_background_process_that_holds_the_output_does_not_delay(
        self, sandbox: Sandbox
    ) -> None:
        began = time.monotonic()
        assert sandbox.shell("sleep 30 & echo done").output == "done\n"
        assert (
            sandbox.python("import subprocess; p = subprocess.Popen(['sleep', '30'])").value is None
        )
        assert time.monotonic() - began < 5

    def test_what_a_left_over_process_printed_is_not_the_next_ones_output(
        self, sandbox: Sandbox
    ) -> None:
        sandbox.shell("(while [ ! -e go ]; do sleep 0.01; done; echo late; touch printed) & true")
        sandbox.write_files({"go": b""})
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                sandbox.read_file("printed")
                break
            except FileNotFoundError:
                continue
        assert sandbox.shell("ls printed").output == "printed\n"

    def test_reset_leaves_no_process_file_or_variable(self, sandbox: Sandbox) -> None:
        sandbox.python(COUNT_PROCESSES)
        alone = sandbox.python("processes()").value
        mess = r"""
            import os
            os.environ["LEFT"] = "1"
            os.makedirs("a/b/c"); open("a/b/c/file", "w").close(); os.chmod("a/b", 0)
            for name in (b"new\nline", b"-rf", b"\xff\xfe", b" ", b"*", b"..."):
                open(name, "w").close()
            os.symlink("/", "root"); os.mkfifo("fifo"); os.symlink("nowhere", "broken")
            os.link("fifo", "fifo2")
            here = os.getcwd()
            for _ in range(300):
                os.mkdir("d" * 200); os.chdir("d" * 200)
            os.chdir(here)
            for folder in (os.environ["TMPDIR"], "/dev/shm"):
                os.mkdir(f"{folder}/left"); open(f"{folder}/left/over", "w").close()
                os.chmod(f"{folder}/left", 0)
            if os.path.isdir("/dev/mqueue"):
                open("/dev/mqueue/left", "w").close()
        """
        assert sandbox.python(textwrap.dedent(mess)).output == ""
        sandbox.shell("for i in 1 2 3; do setsid sleep 100 & done; (trap '' INT TERM; sleep 100) &")
        sandbox.reset()
        look = """
            import os, sys
            left = os.listdir() + os.listdir(os.environ["TMPDIR"])
            left += [e.name for e in os.scandir("/dev/shm") if e.stat().st_uid == os.getuid()]
            left += os.listdir("/dev/mqueue") if os.path.isdir("/dev/mqueue") else []
            left += ["variable"] if "LEFT" in os.environ or "processes" in globals() else []
        """
        sandbox.python(textwrap.dedent(look))
        assert sandbox.python("left").value == "[]"
        sandbox.python(COUNT_PROCESSES)
        assert sandbox.python("processes()").value == alone

    def test_locked_writable_folders_do_not_stop_a_reset(self, sandbox: Sandbox) -> None:
        sandbox.shell('echo x > left; chmod 0 "$HOME" "$TMPDIR" /dev/shm 2>/dev/null')
        sandbox.reset()
        assert sandbox.shell("ls; echo works > file; cat file").output == "works\n"

    def test_nothing_outside_the_wiped_folders_can_be_written(self, sandbox: Sandbox) -> None:
        if not sandbox.capabilities.filesystem_isolated:
            pytest.skip("this sandbox shares the host's file system, and says so")
        wiped = "-path /work -o -path /tmp -o -path /dev/shm -o -path /dev/mqueue"
        own = "-o -path '/proc/[0-9]*' -o -path '/proc/self*' -o -path '/proc/thread-self*'"
        own += " -o -path /proc/pressure -o -path '/dev/pts*'"
        look = f"find / \\( {wiped} {own} \\) -prune -o -writable ! -type l -print 2>/dev/null"
        found = sandbox.shell(
            f'{look} | while read -r path; do [ -c "$path" ] || echo "$path"; done'
        )
        assert found.output == ""

    def test_sessions_do_not_draw_the_same_random_numbers(self, sandbox: Sandbox) -> None:
        drawn = set()
        for _ in range(3):
            sandbox.reset()
            drawn.add(sandbox.python("import random; random.random()").value)
        assert len(drawn) == 3

    def test_a_fork_bomb_is_contained(self, sandbox: Sandbox) -> None:
        if not sandbox.capabilities.pids_limited:
            pytest.skip("this sandbox does not cap processes, and says so")
        began = time.monotonic()
        sandbox.shell("bomb() { bomb | bomb & }; bomb; sleep 60", timeout_s=0.5)
        assert time.monotonic() - began < 0.5 + GRACE_S + SLACK_S
        sandbox.reset()
        assert sandbox.python("2 + 2").value == "4"

    # -- capabilities are true

    def test_the_network_is_refused(self, sandbox: Sandbox) -> None:
        if not sandbox.capabilities.network_isolated:
            pytest.skip("this sandbox does not isolate the network, and says so")
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            execution = sandbox.python(
                f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2)"
            )
        assert execution.status is Status.ERROR
        assert "OSError" in execution.output or "Refused" in execution.output

    def test_host_files_are_out_of_reach(self, sandbox: Sandbox) -> None:
        if not sandbox.capabilities.filesystem_isolated:
            pytest.skip("this sandbox does not isolate the file system, and says so")
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            path = Path(folder) / "secret"
            path.write_text("secret")
            path.chmod(0o644)
            for place in (str(path), "/etc/shadow", "/var/run/docker.sock", "/run/docker.sock"):
                answer = sandbox.python(f"open({place!r}).read()")
                assert answer.status is Status.ERROR, place
        assert "No such file" in answer.output

    def test_nothing_that_knows_the_answers_can_be_imported(self, sandbox: Sandbox) -> None:
        if not sandbox.capabilities.filesystem_isolated:
            pytest.skip("this sandbox does not isolate the file system, and says so")
        for module in ("reagent_env", "reasoning_gym", "pydantic"):
            assert "ModuleNotFoundError" in sandbox.python(f"import {module}").output
            assert sandbox.shell(f"python3 -c 'import {module}'").exit_code == 1
        found = "find / -name 'reasoning_gym*' -not -path '/proc/*' 2>/dev/null"
        assert sandbox.shell(found).output == ""

    def test_host_processes_are_out_of_sight(self, sandbox: Sandbox) -> None:
        if not sandbox.capabilities.processes_isolated:
            pytest.skip("this sandbox does not isolate processes, and says so")
        seen = sandbox.shell("ls /proc | grep -c '^[0-9]'").output
        assert int(seen) <= 8

    def test_the_first_process_cannot_be_harmed(self, sandbox: Sandbox) -> None:
        if not sandbox.capabilities.processes_isolated:
            pytest.skip("without a namespace the first process is a process like others")
        attempts = """
            import os, signal, resource
            done = []
            for attempt in (
                lambda: os.listdir("/proc/1/fd"),
                lambda: open("/proc/1/mem", "rb"),
                lambda: open("/proc/1/environ", "rb").read(),
                lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (3, 3)),
                lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
                lambda: os.sched_setaffinity(1, {0}),
            ):
                try:
                    done.append(attempt())
                except OSError:
                    pass
            for number in range(1, 65):
                os.kill(1, number)
        """
        assert sandbox.python(textwrap.dedent(attempts)).output == ""
        assert sandbox.python("done").value == "[]"
        sandbox.ping()

    def test_it_is_nobody_special(self, sandbox: Sandbox) -> None:
        if not sandbox.capabilities.user_separated:
            pytest.skip("this sandbox has no user of its own, and says so")
        assert sandbox.shell("id -u").output != "0\n"
        status = sandbox.shell("grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status").output
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status

    def test_system_calls_that_no_task_needs_are_refused(self, sandbox: Sandbox) -> None:
        if not sandbox.capabilities.syscalls_filtered:
            pytest.skip("this sandbox does not filter system calls, and says so")
        assert "Seccomp:\t2" in sandbox.shell("grep Seccomp: /proc/self/status").output
        code = """
            import ctypes, errno, platform, socket
            libc = ctypes.CDLL(None, use_errno=True)
            x86 = platform.machine() == "x86_64"
            calls = {"unshare": (272, 97), "io_uring_setup": (425, 425), "bpf": (321, 280),
                     "shmget": (29, 194), "msgget": (68, 186), "keyctl": (250, 219),
                     "mount": (165, 40), "mq_open": (240, 180), "setns": (308, 268)}
            got = {}
            for name, numbers in calls.items():
                ctypes.set_errno(0)
                libc.syscall(numbers[0 if x86 else 1], 0, 0, 0, 0, 0)
                got[name] = errno.errorcode.get(ctypes.get_errno())
            for family in (16, 17, 38, 40):
                try:
                    socket.socket(family, socket.SOCK_DGRAM if family != 38 else 5)
                    got[family] = "made"
                except OSError as error:
                    got[family] = errno.errorcode[error.errno]
        """
        sandbox.python(textwrap.dedent(code))
        assert sandbox.python("set(got.values())").value in (
            "{'EPERM', 'EAFNOSUPPORT'}",
            "{'EAFNOSUPPORT', 'EPERM'}",
        ), sandbox.python("got").value

    def test_disks_are_capped_in_bytes_and_files(self, sandbox: Sandbox) -> None:
        if not sandbox.capabilities.disk_limited:
            pytest.skip("this sandbox does not cap its disks, and says so")
        full = sandbox.shell("head -c 100M /dev/zero > big")
        assert "No space left" in full.output
        sandbox.reset()
        made = sandbox.python(
            "import os\nn = 0\ntry:\n    for n in range(100_000): os.mkdir(f'd{n}')\n"
            "except OSError as e: pass\nn"
        )
        assert int(made.value or 0) <= self.limits.inodes
        sandbox.reset()
        assert sandbox.shell("echo ok > file; cat file").output == "ok\n"

    # -- files

    def test_files_go_in_and_out_unchanged(self, sandbox: Sandbox) -> None:
        every_byte = bytes(range(256)) * 41_000
        files = {"a/b/c.bin": every_byte, "empty": b"", "naïve \U0001f600": b"x", ".hidden": b"y"}
        sandbox.write_files(files)
        for name, content in files.items():
            assert sandbox.read_file(name, max_bytes=20_000_000) == content
        assert sandbox.read_file("a/b/c.bin", max_bytes=300) == every_byte[:300]
        assert sandbox.shell("wc -c < a/b/c.bin").output.strip() == str(len(every_byte))
        sandbox.write_files({"empty": b"longer", "a/b/c.bin": b"short"})
        assert sandbox.read_file("empty") == b"longer"
        assert sandbox.read_file("a/b/c.bin") == b"short"
        sandbox.shell("echo more >> empty")
        assert sandbox.read_file("empty") == b"longermore\n"

    @pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a\0b", "a/", ".."])
    def test_a_path_that_leaves_the_work_folder_is_refused(
        self, sandbox: Sandbox, path: str
    ) -> None:
        with pytest.raises(ValueError):
            sandbox.write_files({path: b"x"})
        with pytest.raises(ValueError):
            sandbox.read_file(path)

    def test_links_are_not_followed(self, sandbox: Sandbox) -> None:
        sandbox.shell(
            "ln -s /etc/passwd link; ln -s /etc folder; ln -s /tmp out; mkfifo fifo; mkdir d"
        )
        for path in ("link", "folder/passwd", "fifo", "d", "absent", "absent/too"):
            with pytest.raises(FileNotFoundError):
                sandbox.read_file(path)
        for path in ("link", "out/file", "fifo", "d"):
            with pytest.raises(ValueError):
                sandbox.write_files({path: b"x"})
        assert sandbox.shell("ls /tmp/file").status is Status.ERROR

    def test_contents_that_do_not_fit_are_refused(self, sandbox: Sandbox) -> None:
        if not sandbox.capabilities.disk_limited:
            pytest.skip("this sandbox does not cap its disks, and says so")
        with pytest.raises(ValueError, match="space"):
            sandbox.write_files({"big": bytes(self.limits.work_mb + 1 << 20)})
        sandbox.reset()
        sandbox.ping()

    # -- the sandbox itself

    def test_a_result_that_nobody_asked_for_ends_the_sandbox(self, sandbox: Sandbox) -> None:
        if not isinstance(sandbox, ZygoteSandbox):
            pytest.skip("the protocol is the zygote's")
        sandbox.python(SEND_FORGED)
        with pytest.raises(SandboxLost, match="nonce"):
            sandbox.python("forge('0' * 32)")
        with pytest.raises(SandboxLost):
            sandbox.python("1")

    def test_a_result_sent_between_two_executions_ends_the_sandbox(self, sandbox: Sandbox) -> None:
        if not isinstance(sandbox, ZygoteSandbox):
            pytest.skip("the protocol is the zygote's")
        sandbox.python(SEND_FORGED)
        later = """
            import threading
            def wait_and_forge():
                while not os.path.exists("go"):
                    pass
                forge("x")
                open("sent", "w").close()
            threading.Thread(target=wait_and_forge, daemon=True).start()
        """
        sandbox.python(textwrap.dedent(later))
        sandbox.write_files({"go": b""})
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                sandbox.read_file("sent")
                break
            except FileNotFoundError:
                continue
        with pytest.raises(SandboxLost):
            sandbox.python("1")

    def test_a_killed_sandbox_is_lost_at_once(self) -> None:
        with self.make_sandbox(self.limits) as sandbox:
            if not isinstance(sandbox, ZygoteSandbox):
                pytest.skip("how to kill it is not known")
            sandbox._transport.kill()
            began = time.monotonic()
            with pytest.raises(SandboxLost):
                sandbox.python("import time; time.sleep(30)")
            with pytest.raises(SandboxLost):
                sandbox.ping()
            assert time.monotonic() - began < 0.5

    def test_closing_twice_is_fine_and_use_after_it_is_not(self) -> None:
        sandbox = self.make_sandbox(self.limits)
        assert sandbox.python("1").value == "1"
        sandbox.close()
        sandbox.close()
        for use in (sandbox.ping, sandbox.reset, lambda: sandbox.python("1")):
            with pytest.raises(SandboxLost, match="closed"):
                use()

    @pytest.mark.parametrize("timeout", [0, -1.0, float("inf"), float("nan")])
    def test_a_senseless_deadline_is_refused(self, sandbox: Sandbox, timeout: float) -> None:
        with pytest.raises(ValueError, match="timeout_s"):
            sandbox.python("1", timeout_s=timeout)
