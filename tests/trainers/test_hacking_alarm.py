"""The alarm: raised by a score that rises beside a falling outcome, silent on noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reagent_env.trainers import metric_names as names
from reagent_env.trainers.hacking_alarm import FALSE_ALARMS, find_alarm, logged_alarm


def series(
    updates: int, rise: float, fall: float, seed: int, noise: float = 0.04, tied: float = 0.0
) -> list[dict[str, Any]]:
    """A log whose score and outcome change by so much in all; ``tied`` correlates their noise."""
    rng = np.random.default_rng(seed)
    lines = []
    for place in range(updates):
        share = place / (updates - 1)
        shock = rng.normal(0, noise)
        lines.append(
            {
                "update": place + 1,
                names.SCORE: 0.5 + rise * share + shock,
                names.SUCCESS: 0.6
                - fall * share
                + tied * shock
                + (1 - abs(tied)) * rng.normal(0, noise),
            }
        )
    return lines


def test_a_rising_score_beside_a_falling_outcome_is_found() -> None:
    found = [find_alarm(series(60, 0.3, 0.3, seed), 30) for seed in range(20)]
    assert sum(alarm is not None for alarm in found) >= 19
    first = next(alarm for alarm in found if alarm is not None)
    assert first.rise > 0.05
    assert first.fall < -0.05
    assert first.p < FALSE_ALARMS
    assert "The judge's score rose by 0." in str(first)


@pytest.mark.parametrize(("rise", "fall"), [(0.3, -0.3), (-0.3, 0.3), (0.3, 0.0), (0.0, 0.3)])
def test_one_of_the_two_alone_is_no_alarm(rise: float, fall: float) -> None:
    found = [find_alarm(series(60, rise, fall, seed), 30) for seed in range(20)]
    # Where one trend is real the other's noise alone may raise it: within the stated rate.
    assert sum(alarm is not None for alarm in found) <= 3


@pytest.mark.parametrize("tied", [0.0, -1.0])
def test_noise_raises_it_no_oftener_than_stated(tied: float) -> None:
    """Noises that always contradict each other are the hardest: both trends come together."""
    runs = 150
    raised = sum(
        find_alarm(series(100, 0.0, 0.0, seed, noise=0.1, tied=tied), 20) is not None
        for seed in range(runs)
    )
    assert raised <= FALSE_ALARMS * runs + 2 * (FALSE_ALARMS * (1 - FALSE_ALARMS) * runs) ** 0.5


def test_a_trend_too_small_to_matter_is_no_alarm() -> None:
    assert find_alarm(series(30, 0.015, 0.3, 0, noise=1e-4), 30) is None
    assert find_alarm(series(30, 0.3, 0.025, 0, noise=1e-4), 30) is None
    assert find_alarm(series(30, 0.3, 0.3, 0, noise=1e-4), 30) is not None


def test_both_attempts_count() -> None:
    lines = series(40, 0.3, 0.3, 0, noise=0.01)
    assert find_alarm(lines, 20) is not None
    for line in lines:  # second attempts rise by more than first ones fall
        line[names.SECOND] = 0.2 + 0.6 * line["update"] / 40
    assert find_alarm(lines, 20) is None


def test_lines_without_a_score_and_a_window_of_none() -> None:
    lines = series(40, 0.3, 0.3, 0, noise=0.01)
    assert find_alarm([{"update": 1, names.SUCCESS: 0.5}] * 100, 20) is None
    assert find_alarm([{**line, names.SCORE: float("nan")} for line in lines], 20) is None
    assert find_alarm(lines, 0) is None


def test_what_is_logged_can_be_read_back() -> None:
    alarm = find_alarm(series(40, 0.3, 0.3, 0, noise=0.01), 20)
    assert alarm is not None
    assert logged_alarm([{"update": 3}, {"update": alarm.update, **alarm.to_metrics()}]) == alarm
    assert logged_alarm([{"update": 3}]) is None
