"""What a sweep removes, and above all what it leaves alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from reagent_env.sandboxes import owner
from reagent_env.sandboxes.docker import DockerSandbox
from reagent_env.sandboxes.engine import connect, docker_problem
from reagent_env.sandboxes.image import ensure_image
from reagent_env.sandboxes.owner import (
    is_abandoned,
    is_alive,
    owner_labels,
    start_time,
)
from reagent_env.sandboxes.sweep import sweep


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_a_living_owner_is_never_abandoned(sleeper: subprocess.Popen[bytes]) -> None:
    labels = owner_labels(sleeper.pid)
    labels["reagent_env.deadline"] = "0"  # not even past its deadline
    assert not is_abandoned(labels, running=True)
    assert not is_abandoned(labels, running=False)


def test_a_dead_owner_is_noticed_even_before_anyone_reaps_it(
    sleeper: subprocess.Popen[bytes],
) -> None:
    labels = owner_labels(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while start_time(sleeper.pid) == labels["reagent_env.owner_start"]:
        assert time.monotonic() < deadline
    assert is_abandoned(labels, running=True)  # a zombie
    sleeper.wait()
    assert is_abandoned(labels, running=True)


def test_a_pid_that_was_used_again_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    labels = {**owner_labels(sleeper.pid), "reagent_env.owner_start": "12345"}
    assert is_abandoned(labels, running=True)
    assert not is_alive(sleeper.pid, "12345")


def test_the_start_time_is_found_behind_any_process_name() -> None:
    name = b"a) S 1 (b"
    program = f"import ctypes, time; ctypes.CDLL(None).prctl(15, {name!r}); print(1, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program + "; time.sleep(60)"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = start_time(process.pid)
        process.kill()
    assert started is not None
    assert int(started) > 0


def test_labels_that_are_not_ours_are_left_alone() -> None:
    assert not is_abandoned({}, running=True)
    assert not is_abandoned({"reagent_env.sandbox": "1"}, running=True)
    broken = {**owner_labels(), "reagent_env.owner_pid": "many"}
    assert not is_abandoned(broken, running=True)


@pytest.mark.parametrize("place", ["reagent_env.boot", "reagent_env.pid_namespace"])
def test_an_owner_that_cannot_be_judged_from_here_has_until_the_deadline(place: str) -> None:
    labels = {**owner_labels(), "reagent_env.owner_pid": "999999999", place: "elsewhere"}
    assert not is_abandoned(labels, running=True)
    late = {**labels, "reagent_env.deadline": str(int(time.time()) - 1)}
    assert is_abandoned(late, running=True)


def test_a_stopped_container_of_another_boot_is_abandoned() -> None:
    labels = {**owner_labels(), "reagent_env.boot": "an earlier one"}
    assert is_abandoned(labels, running=False)
    assert not is_abandoned(labels, running=True)


def test_the_deadline_lies_in_the_future() -> None:
    assert float(owner_labels()["reagent_env.deadline"]) > time.time() + owner.LIFETIME_S - 60


def container_of(labels: dict[str, str], *, start: bool) -> str:
    client = connect()
    made = client.create_container(
        ensure_image(),
        command=["sleep", "600"],
        labels=labels,
        host_config=client.create_host_config(
            network_mode="none", log_config={"Type": "none"}, init=False
        ),
    )
    if start:
        client.start(made["Id"])
    return str(made["Id"])


def exists(container: str) -> bool:
    return bool(connect().containers(all=True, filters={"id": container}))


@pytest.mark.docker
@pytest.mark.skipif(docker_problem() is not None, reason=f"no Docker: {docker_problem()}")
class TestOnTheEngine:
    def test_a_sweep_removes_the_dead_ones_and_only_those(
        self, sleeper: subprocess.Popen[bytes]
    ) -> None:
        dead = {**owner_labels(sleeper.pid), "reagent_env.owner_start": "12345"}
        mid_create = container_of(dead, start=False)
        running = container_of(dead, start=True)
        paused = container_of(dead, start=True)
        connect().pause(paused)
        others = container_of(owner_labels(sleeper.pid), start=True)
        strangers = container_of({}, start=False)
        try:
            with DockerSandbox() as mine:
                report = sweep()
                assert {mid_create, running, paused} <= set(report.removed)
                assert others not in report.removed
                assert report.kept >= 2
                assert report.failed == {}
                assert not any(map(exists, (mid_create, running, paused)))
                assert exists(others)
                assert exists(strangers)
                assert mine.python("1").value == "1"
        finally:
            for container in (mid_create, running, paused, others, strangers):
                if exists(container):
                    connect().remove_container(container, force=True)

    def test_owners_killed_at_any_moment_leave_nothing_after_a_sweep(self) -> None:
        program = (
            "from reagent_env.sandboxes.docker import DockerSandbox\n"
            "from reagent_env.sandboxes.owner import run_id\n"
            "print(run_id(), flush=True)\n"
            "made = []\n"
            "while len(made) < 8: made.append(DockerSandbox())\n"
            "import time; time.sleep(60)"
        )
        runs = []
        for moment in range(8):
            with subprocess.Popen(
                [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
            ) as process:
                assert process.stdout is not None
                runs.append(process.stdout.readline().strip())
                time.sleep(0.03 + 0.05 * moment)  # somewhere in the middle of making one
                process.kill()
        time.sleep(0.5)  # what the engine was asked to do before, it still does

        def left() -> list[str]:
            return [
                found["Id"]
                for run in runs
                for found in connect().containers(
                    all=True, filters={"label": f"reagent_env.run={run}"}
                )
            ]

        deadline = time.monotonic() + 5
        while left() and time.monotonic() < deadline:
            sweep()
        assert left() == []
