"""Threads that play episodes: what they keep, how they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from reagent_env.agents.workers import Stopped, Workers

SECONDS = 10.0


def workers(
    play: Callable[[int], int], count: int = 2, log: list[str] | None = None
) -> Workers[int, int]:
    @contextmanager
    def seat(stopping: threading.Event) -> Iterator[Callable[[int], int]]:
        told: list[str] = [] if log is None else log
        told.append("entered")
        yield play
        told.append("left")

    return Workers(seat, count)


def test_a_seat_is_taken_at_the_first_job_and_left_at_the_end() -> None:
    log: list[str] = []
    crew = workers(lambda job: job * 2, count=1, log=log)
    assert log == []
    assert [crew.play(job).result(SECONDS) for job in (1, 2, 3)] == [2, 4, 6]
    assert log == ["entered"]
    crew.close()
    crew.close()
    assert log == ["entered", "left"]


def test_what_a_job_raises_comes_out_where_it_is_asked_and_ends_no_thread() -> None:
    crew = workers(lambda job: 1 // job, count=1)
    with pytest.raises(ZeroDivisionError):
        crew.play(0).result(SECONDS)
    assert crew.play(1).result(SECONDS) == 1
    crew.close()


def test_a_seat_that_cannot_be_taken_is_tried_again_by_the_next_job() -> None:
    tries: list[int] = []

    @contextmanager
    def seat(stopping: threading.Event) -> Iterator[Callable[[int], int]]:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not yet")
        yield lambda job: job

    crew: Workers[int, int] = Workers(seat, 1)
    with pytest.raises(OSError, match="not yet"):
        crew.play(1).result(SECONDS)
    assert crew.play(2).result(SECONDS) == 2
    crew.close()


def test_stopping_gives_up_what_waits_and_does_not_wait_for_what_runs() -> None:
    free, running = threading.Event(), threading.Event()

    def wait(job: int) -> int:
        running.set()
        free.wait(SECONDS)
        return job

    crew = workers(wait, count=1)
    first, second = crew.play(1), crew.play(2)
    assert running.wait(SECONDS)
    began = time.monotonic()
    crew.stop()
    crew.close()
    assert time.monotonic() - began < 3.0
    assert crew.stopping.is_set()
    free.set()
    assert first.result(SECONDS) == 1
    with pytest.raises(Stopped):
        second.result(SECONDS)


def test_jobs_run_side_by_side_in_as_many_threads_as_asked_for() -> None:
    meeting: Any = threading.Barrier(3, timeout=SECONDS)
    crew = workers(lambda job: int(meeting.wait() >= 0), count=3)
    assert [one.result(SECONDS) for one in [crew.play(job) for job in range(3)]] == [1, 1, 1]
    crew.close()
