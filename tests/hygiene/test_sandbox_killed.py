"""A sandbox killed or frozen from outside, in mid-step, is lost in time, and its pool goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reagent_env.sandboxes.channel import WATCHDOG_S
from reagent_env.sandboxes.docker import DockerSandbox
from reagent_env.sandboxes.embedded import BubblewrapSandbox
from reagent_env.sandboxes.engine import connect
from reagent_env.sandboxes.errors import SandboxLost
from reagent_env.sandboxes.pool import Lease, SandboxPool


@pytest.fixture
def pool(sandbox_kind: str) -> Iterator[SandboxPool]:
    kind = {"docker": DockerSandbox, "embedded": BubblewrapSandbox}[sandbox_kind]
    with SandboxPool(lambda: kind(preload=()), max_size=1) as made:
        yield made


def first_process(lease: Lease) -> int:
    """Return the host's number of the sandbox's PID 1."""
    sandbox = lease._sandbox
    if isinstance(sandbox, DockerSandbox):
        return int(connect().inspect_container(sandbox.container_id)["State"]["Pid"])
    user = int(lease.shell("id -u").output)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid == user:
                rows = dict(
                    row.split(":", 1)
                    for row in (folder / "status").read_text().splitlines()
                    if ":" in row
                )
                if rows["NSpid"].split()[-1] == "1":
                    return int(folder.name)
        except OSError:
            continue
    raise AssertionError("no first process")


def lose(lease: Lease, harm: Callable[[], object], timeout_s: float) -> tuple[float, float]:
    """Return the seconds from the step's beginning and from the harm to the loss."""
    done_at = []

    def later() -> None:
        done_at.append(time.monotonic())
        harm()

    timer = threading.Timer(0.2, later)
    began = time.monotonic()
    timer.start()
    with pytest.raises(SandboxLost):
        lease.python("import time; time.sleep(20)", timeout_s)
    ended = time.monotonic()
    timer.join()
    return ended - began, ended - done_at[0]


def assert_it_goes_on(pool: SandboxPool) -> None:
    with pool.acquire(20) as lease:
        assert lease.python("6 * 7").value == "42"
    assert pool.counters.lost == 1


def test_killed_in_mid_step_it_is_lost_within_half_a_second(pool: SandboxPool) -> None:
    with pool.acquire(20) as lease:
        pid = first_process(lease)
        _, after = lose(lease, lambda: os.kill(pid, signal.SIGKILL), 20.0)
        assert after <= 0.5
    assert_it_goes_on(pool)


def test_frozen_in_mid_step_it_is_lost_at_the_watchdog(pool: SandboxPool) -> None:
    with pool.acquire(20) as lease:
        pid = first_process(lease)
        seconds, _ = lose(lease, lambda: os.kill(pid, signal.SIGSTOP), 0.6)
        assert 0.6 + WATCHDOG_S <= seconds <= 0.6 + WATCHDOG_S + 0.5
    assert_it_goes_on(pool)


def test_frozen_while_idle_it_is_replaced_when_next_asked_for(pool: SandboxPool) -> None:
    with pool.acquire(20) as lease:
        pid = first_process(lease)
    with pool.acquire(20):
        pass  # so that it was reset, and is idle
    deadline = time.monotonic() + 5
    while not pool._idle and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    assert_it_goes_on(pool)
    assert time.monotonic() - began <= 10


@pytest.mark.docker
@pytest.mark.parametrize("harm", ["kill", "pause", "remove"])
def test_a_container_harmed_by_the_engine_is_lost_in_time(docker: None, harm: str) -> None:
    with SandboxPool(lambda: DockerSandbox(preload=()), max_size=1) as pool:
        with pool.acquire(20) as lease:
            sandbox = lease._sandbox
            assert isinstance(sandbox, DockerSandbox)
            act = {
                "kill": lambda: connect().kill(sandbox.container_id),
                "pause": lambda: connect().pause(sandbox.container_id),
                "remove": lambda: connect().remove_container(sandbox.container_id, force=True),
            }[harm]
            seconds, after = lose(lease, act, 0.6 if harm == "pause" else 20.0)
            if harm == "pause":
                assert seconds <= 0.6 + WATCHDOG_S + 0.5
            else:
                assert after <= 0.5 + 0.3  # the engine's own work takes its share
        assert_it_goes_on(pool)
