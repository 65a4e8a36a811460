"""Threads that can be given up on: what they answer, and that they are used again."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from reagent_env.daemon_threads import run_in_thread


def test_the_answer_comes_as_often_as_it_is_asked_for() -> None:
    pending = run_in_thread(lambda: 7)
    assert [pending.result(5.0), pending.result(0.0), pending.result()] == [7, 7, 7]
    assert pending.done()


def test_an_error_is_raised_where_the_answer_is_waited_for() -> None:
    def fail() -> None:
        raise KeyError("gone")

    pending = run_in_thread(fail)
    for _ in range(2):
        with pytest.raises(KeyError, match="gone"):
            pending.result(5.0)


def test_a_wait_ends_before_the_work_does_and_the_answer_may_still_come() -> None:
    go_on = threading.Event()
    pending = run_in_thread(lambda: go_on.wait(20.0))
    with pytest.raises(TimeoutError):
        pending.result(0.01)
    assert not pending.done()
    go_on.set()
    assert pending.result(5.0) is True


def test_a_thread_that_answered_takes_the_next_call_and_one_that_hangs_is_not_waited_for() -> None:
    first = run_in_thread(threading.get_ident).result(5.0)
    assert run_in_thread(threading.get_ident).result(5.0) == first
    go_on = threading.Event()
    hung = run_in_thread(lambda: (go_on.wait(20.0), threading.get_ident())[1])
    assert run_in_thread(threading.get_ident).result(5.0) != first
    go_on.set()
    assert hung.result(5.0) == first


def test_an_error_and_what_it_saw_are_let_go_without_a_collection() -> None:
    class Seen: ...

    seen = Seen()
    watched = weakref.ref(seen)

    def fail(held: Seen) -> None:
        raise ValueError("torn")

    pending = run_in_thread(lambda held=seen: fail(held))
    gc.disable()
    try:
        with pytest.raises(ValueError, match="torn") as caught:
            pending.result(5.0)
        run_in_thread(int).result(5.0)  # the thread has let go of the work before
        del caught, pending, seen
        assert watched() is None
    finally:
        gc.enable()
