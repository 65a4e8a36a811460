"""An engine in lock-step is told of every conversation that is to come, and of no other."""

from __future__ import annotations

from typing import Any

from reagent_env.trainers.lockstep import Lockstep


class Counting:
    """Counts conversations: those open and those it expects, as ``HFEngine`` does."""

    context_length = 10
    deterministic = True

    def __init__(self) -> None:
        self.expected = self.opened = 0

    def expect(self, more: int) -> None:
        self.expected = max(0, self.expected + more)

    def open(self, seed: int) -> Any:
        self.expected = max(0, self.expected - 1)
        self.opened += 1
        return self

    def close(self) -> None:
        self.opened -= 1

    @property
    def both(self) -> int:
        return self.expected + self.opened


def test_open_and_expected_are_together_the_seats_that_will_be_taken() -> None:
    engine: Any = Counting()
    lockstep = Lockstep(engine, seats=3)
    lockstep.announce(2)
    assert engine.both == 2
    lockstep.announce(3)
    assert engine.both == 3
    for left in (4, 3, 2, 1, 0):
        with lockstep.seat() as seated:
            conversation = seated.open(1)
            assert (engine.opened, engine.both) == (1, min(3, left + 1))
            conversation.close()
            assert engine.opened == 1  # until its seat knows who follows
            seated.open(2)  # an independent attempt
            assert (engine.opened, engine.both) == (1, min(3, left + 1))
        assert (engine.opened, engine.both) == (0, min(3, left))


def test_an_episode_that_never_opens_one_is_not_waited_for() -> None:
    engine: Any = Counting()
    lockstep = Lockstep(engine, seats=2)
    lockstep.announce(3)
    for left in (2, 1, 0):
        with lockstep.seat():
            pass
        assert engine.both == left


def test_any_other_engine_is_left_alone() -> None:
    engine: Any = Counting()
    engine.deterministic = False
    lockstep = Lockstep(engine, seats=2)
    lockstep.announce(3)
    with lockstep.seat() as seated:
        assert seated is engine
    assert engine.expected == 0
