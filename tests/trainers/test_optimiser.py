"""The learning rate: constant, or falling over the last updates."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from reagent_env.trainers.optimiser import falling_rate


def test_without_decay_the_rate_is_constant_to_the_end_and_beyond() -> None:
    assert [falling_rate(0.5, step, 10, 0.0) for step in (0, 9, 12)] == [0.5, 0.5, 0.5]


def test_the_rate_falls_linearly_over_the_last_share_and_never_below_a_tenth() -> None:
    assert falling_rate(1.0, 4, 10, 0.5) == 1.0
    assert falling_rate(1.0, 7, 10, 0.5) == pytest.approx(0.6)
    assert falling_rate(1.0, 9, 10, 0.5) == pytest.approx(0.2)
    assert falling_rate(1.0, 11, 10, 0.5) == pytest.approx(0.1)
