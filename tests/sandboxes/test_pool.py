"""The pool: order, deadlines, replacement, reservations, forks. With a small real sandbox class."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from reagent_env.sandboxes.contract import Capabilities, Execution, Limits, Sandbox, Status
from reagent_env.sandboxes.docker import DockerSandbox
from reagent_env.sandboxes.engine import docker_problem
from reagent_env.sandboxes.errors import SandboxLost, SandboxUnavailable
from reagent_env.sandboxes.pool import SandboxPool, default_size, memory_bytes

CAPABILITIES = Capabilities("notebook", *([False] * 8))


class Notebook(Sandbox):
    """A sandbox that runs nothing: its code is a word that says what happens."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.written: list[str] = []
        self.resets = 0
        self.closed = False
        self.answers = True
        self.resettable = True
        self.reset_gate: threading.Event | None = None

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def python(self, code: str, timeout_s: float | None = None) -> Execution:
        if code == "lose":
            raise SandboxLost("it is gone")
        if code == "oom":
            return Execution(Status.OOM, "")
        self.written.append(code)
        return Execution(Status.OK, "", value=",".join(self.written))

    def shell(self, command: str, timeout_s: float | None = None) -> Execution:
        return self.python(command)

    def write_files(self, files: Mapping[str, bytes]) -> None:
        self.written += files

    def read_file(self, path: str, max_bytes: int = 1_048_576) -> bytes:
        return b""

    def ping(self) -> None:
        if not self.answers:
            raise SandboxLost("no answer")

    def reset(self) -> None:
        if self.reset_gate is not None:
            self.reset_gate.wait(10)
        if not self.resettable:
            raise SandboxLost("it could not be wiped")
        self.written.clear()
        self.resets += 1

    def close(self) -> None:
        self.closed = True


class Factory:
    """Makes notebooks and remembers them."""

    def __init__(self) -> None:
        self.made: list[Notebook] = []
        self.failing = 0
        self.lock = threading.Lock()
        self.making = 0
        self.most_at_once = 0
        self.delay = 0.0

    def __call__(self) -> Notebook:
        with self.lock:
            self.making += 1
            self.most_at_once = max(self.most_at_once, self.making)
        try:
            if self.delay:
                threading.Event().wait(self.delay)
            with self.lock:
                if self.failing > 0:
                    self.failing -= 1
                    raise OSError("the engine is on holiday")
                made = Notebook()
                self.made.append(made)
                return made
        finally:
            with self.lock:
                self.making -= 1


@pytest.fixture
def factory() -> Factory:
    return Factory()


@pytest.fixture
def make_pool(factory: Factory) -> Iterator[Callable[..., SandboxPool]]:
    pools: list[SandboxPool] = []

    def make(max_size: int = 2, **settings: object) -> SandboxPool:
        pools.append(SandboxPool(factory, max_size=max_size, **settings))  # type: ignore[arg-type]
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


MakePool = Callable[..., SandboxPool]


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_nothing_is_made_before_it_is_needed(make_pool: MakePool, factory: Factory) -> None:
    pool = make_pool(8)
    assert factory.made == []
    with pool.acquire() as sandbox:
        sandbox.python("a")
    assert len(factory.made) == pool.size == 1


def test_the_next_user_finds_nothing_of_the_last(make_pool: MakePool, factory: Factory) -> None:
    pool = make_pool(1)
    for _ in range(20):
        with pool.acquire() as sandbox:
            assert sandbox.python("mine").value == "mine"
    assert len(factory.made) == 1
    assert wait_until(lambda: factory.made[0].resets == 20)
    assert pool.counters.acquired == 20


def test_a_lease_that_was_given_back_reaches_nobodys_sandbox(make_pool: MakePool) -> None:
    pool = make_pool(1)
    lease = pool.acquire()
    lease.release()
    lease.release()
    for use in (lease.ping, lease.reset, lambda: lease.python("x")):
        with pytest.raises(RuntimeError, match="given back"):
            use()
    with pool.acquire() as other:
        assert other.python("alone").value == "alone"


def test_a_forgotten_lease_gives_its_sandbox_back(make_pool: MakePool) -> None:
    pool = make_pool(1)
    lease = pool.acquire()
    del lease
    gc.collect()
    with pool.acquire(timeout_s=5) as sandbox:
        assert sandbox.python("x").value == "x"


def test_who_asked_first_is_served_first(make_pool: MakePool) -> None:
    pool = make_pool(1)
    held = pool.acquire()
    served: list[int] = []

    def ask(number: int) -> None:
        with pool.acquire(timeout_s=10):
            served.append(number)

    threads = []
    for number in range(8):
        threads.append(threading.Thread(target=ask, args=(number,)))
        threads[-1].start()
        assert wait_until(lambda: len(pool._waiters) == len(threads))
    held.release()
    for thread in threads:
        thread.join(10)
    assert served == list(range(8))


def test_hundreds_of_threads_share_few_sandboxes(make_pool: MakePool, factory: Factory) -> None:
    pool = make_pool(4, episodes_per_sandbox=10_000)
    failures: list[str] = []

    def work(number: int) -> None:
        for turn in range(5):
            with pool.acquire(timeout_s=30) as sandbox:
                name = f"{number}.{turn}"
                if sandbox.python(name).value != name:
                    failures.append(name)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(factory.made) <= 4
    assert pool.counters.acquired == 1000


def test_at_the_deadline_the_error_says_why(make_pool: MakePool) -> None:
    pool = make_pool(1)
    with pool.acquire():
        began = time.monotonic()
        with pytest.raises(SandboxUnavailable, match=r"1 of at most 1 are in use"):
            pool.acquire(timeout_s=0.1)
        assert time.monotonic() - began < 1.0
    assert pool.counters.timeouts == 1
    pool.acquire(timeout_s=5).release()  # who gave up left no place in line behind


def test_an_idle_sandbox_is_had_while_another_is_being_reset(
    make_pool: MakePool, factory: Factory
) -> None:
    pool = make_pool(2)
    first, second = pool.acquire(), pool.acquire()
    gate = threading.Event()
    for notebook in factory.made:
        if notebook is first._member.sandbox:  # type: ignore[union-attr]
            notebook.reset_gate = gate
    second.release()
    assert wait_until(lambda: len(pool._idle) == 1)
    began = time.monotonic()
    first.release()
    assert time.monotonic() - began < 0.5  # nor does giving back wait for the reset
    with pool.acquire(timeout_s=5):
        assert not gate.is_set()
    gate.set()


def test_nobody_waits_long_for_a_reset_that_is_stuck(make_pool: MakePool, factory: Factory) -> None:
    pool = make_pool(2)
    gate = threading.Event()
    with pool.acquire():
        factory.made[0].reset_gate = gate
    began = time.monotonic()
    with pool.acquire(timeout_s=8):
        assert time.monotonic() - began < 4
        with pytest.raises(SandboxUnavailable, match=r"1 of at most 2 are in use, 1 are being res"):
            pool.acquire(timeout_s=0.1)
    gate.set()


@pytest.mark.parametrize(("code", "counter"), [("lose", "lost"), ("oom", "recycled")])
def test_a_sandbox_that_was_lost_or_ran_out_of_memory_is_replaced(
    make_pool: MakePool, factory: Factory, code: str, counter: str
) -> None:
    pool = make_pool(1)
    with pool.acquire() as sandbox:
        try:
            sandbox.python(code)
        except SandboxLost:
            assert code == "lose"
    with pool.acquire(timeout_s=5) as sandbox:
        sandbox.python("x")
    assert factory.made[0].closed
    assert len(factory.made) == 2
    assert getattr(pool.counters, counter) == 1


def test_a_sandbox_that_cannot_be_wiped_is_replaced(make_pool: MakePool, factory: Factory) -> None:
    pool = make_pool(1)
    with pool.acquire() as sandbox:
        sandbox.python("secret")
        factory.made[0].resettable = False
    with pool.acquire(timeout_s=5) as sandbox:
        assert sandbox.python("x").value == "x"
    assert factory.made[0].closed


def test_a_sandbox_that_does_not_answer_is_replaced_before_it_is_lent(
    make_pool: MakePool, factory: Factory
) -> None:
    pool = make_pool(1)
    pool.acquire().release()
    assert wait_until(lambda: len(pool._idle) == 1)
    factory.made[0].answers = False
    with pool.acquire(timeout_s=5) as sandbox:
        assert sandbox.python("x").value == "x"
    assert factory.made[0].closed
    assert pool.counters.lost == 1


def test_a_sandbox_is_replaced_after_enough_episodes(make_pool: MakePool, factory: Factory) -> None:
    pool = make_pool(1, episodes_per_sandbox=10)
    for _ in range(40):
        pool.acquire(timeout_s=5).release()
    assert 4 <= len(factory.made) <= 6
    assert sum(notebook.closed for notebook in factory.made) >= 3


def test_failures_to_make_one_are_tried_again(make_pool: MakePool, factory: Factory) -> None:
    factory.failing = 2
    pool = make_pool(1)
    with pool.acquire(timeout_s=10) as sandbox:
        sandbox.python("x")
    assert pool.counters.create_failed == 2
    assert pool.counters.created == 1


def test_a_backend_that_keeps_failing_is_asked_seldom_and_named_at_the_deadline(
    make_pool: MakePool, factory: Factory
) -> None:
    factory.failing = 10**6
    pool = make_pool(64)
    errors: list[str] = []

    def ask() -> None:
        try:
            pool.acquire(timeout_s=1.5)
        except SandboxUnavailable as error:
            errors.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(errors) == 32
    assert all("the engine is on holiday" in error for error in errors)
    assert pool.counters.create_failed < 16  # not 32 threads times every moment


def test_not_too_many_are_made_at_once(make_pool: MakePool, factory: Factory) -> None:
    factory.delay = 0.05
    pool = make_pool(40)
    threads = [threading.Thread(target=lambda: pool.acquire(20)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert 1 < factory.most_at_once <= 2 * (os.cpu_count() or 1)


def test_spares_are_kept_ready_where_asked_for(make_pool: MakePool) -> None:
    pool = make_pool(4, min_idle=2)
    with pool.acquire():
        assert wait_until(lambda: len(pool._idle) == 2)


def test_members_that_could_starve_each_other_are_refused_when_made(make_pool: MakePool) -> None:
    pool = make_pool(4)
    pool.reserve(3)
    with pytest.raises(SandboxUnavailable, match=r"of 4 3 are reserved"):
        pool.reserve(2)
    pool.unreserve(3)
    pool.reserve(4)


def test_closing_ends_lent_and_idle_ones_and_refuses_who_waits(
    make_pool: MakePool, factory: Factory
) -> None:
    pool = make_pool(2)
    pool.acquire().release()
    held = pool.acquire(), pool.acquire()
    errors: list[SandboxUnavailable] = []

    def ask() -> None:
        try:
            pool.acquire(timeout_s=30)
        except SandboxUnavailable as error:
            errors.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    assert wait_until(lambda: len(pool._waiters) == 1)
    pool.close()
    pool.close()
    waiting.join(5)
    assert "closed" in str(errors[0])
    assert all(notebook.closed for notebook in factory.made)
    with pytest.raises(SandboxUnavailable, match="closed"):
        pool.acquire()
    for lease in held:
        lease.release()


def in_child(check: Callable[[], bool]) -> bool:
    """Fork, run ``check`` in the child, return whether it held there."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if check() else 1
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_an_empty_pool_and_leaves_its_parents_sandboxes(
    make_pool: MakePool, factory: Factory
) -> None:
    pool = make_pool(1)
    lease = pool.acquire()
    lease.python("parent's")

    def child() -> bool:
        try:
            lease.python("child's")
        except SandboxLost:
            pass
        else:
            return False
        with pool.acquire(timeout_s=5) as sandbox:  # though the parent holds the only one
            fresh = sandbox.python("x").value == "x"
        pool.close()
        return fresh and not factory.made[0].closed

    assert in_child(child)
    assert lease.python("still").value == "parent's,still"
    lease.release()


def test_the_size_follows_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REAGENT_SANDBOX_MEMORY_MB", "1000")
    assert default_size(Limits(memory_mb=256)) == 3
    assert default_size(Limits(memory_mb=4096)) == 1
    monkeypatch.setenv("REAGENT_SANDBOX_MEMORY_MB", "much")
    with pytest.raises(ValueError, match="REAGENT_SANDBOX_MEMORY_MB"):
        default_size(Limits())
    monkeypatch.delenv("REAGENT_SANDBOX_MEMORY_MB")
    assert default_size(Limits()) == max(1, int(0.75 * (memory_bytes() >> 20)) // 256)


@pytest.mark.parametrize(
    ("group", "file"),
    [
        ("0::/box/inner\n", "sys/fs/cgroup/box/memory.max"),
        ("4:memory:/box\n0::/\n", "sys/fs/cgroup/memory/box/memory.limit_in_bytes"),
    ],
)
def test_a_cgroups_limit_counts_where_it_is_less_than_the_machine(
    tmp_path: Path, group: str, file: str
) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("proc/meminfo", "MemTotal:        8000000 kB\nMemFree: 1 kB\n")
    write("proc/self/cgroup", group)
    assert memory_bytes(tmp_path) == 8_000_000 * 1024
    write(file, "max\n")
    assert memory_bytes(tmp_path) == 8_000_000 * 1024
    write(file, "1073741824\n")
    assert memory_bytes(tmp_path) == 1 << 30


@pytest.mark.docker
@pytest.mark.skipif(docker_problem() is not None, reason=f"no Docker: {docker_problem()}")
def test_real_containers_are_wiped_between_users_and_replaced_when_killed() -> None:
    with SandboxPool(DockerSandbox, max_size=2) as pool:
        for _ in range(10):
            with pool.acquire() as sandbox:
                assert sandbox.python("'x' in globals()").value == "False"
                assert sandbox.shell("ls -A /work").output == ""
                sandbox.python("x = open('/work/left', 'w').write('over')")
        assert pool.counters.created <= 2
        with pool.acquire() as sandbox:
            sandbox.python("import os; os.fork() or __import__('time').sleep(100)", 0.5)
            for member in pool._members:
                assert isinstance(member.sandbox, DockerSandbox)
                member.sandbox._transport.kill()
            with pytest.raises(SandboxLost):
                sandbox.python("1")
        with pool.acquire(timeout_s=20) as sandbox:
            assert sandbox.python("1").value == "1"
