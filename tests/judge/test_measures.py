"""Each measure against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reagent_env.agents.judge_eval.measures import (
    auroc,
    balanced_weights,
    brier,
    by_task,
    expected_calibration_error,
    folds,
    isotonic_out_of_fold,
    located,
    mean_by_task,
    preference,
    ranks,
    reliability,
    spearman,
    stratified_auroc,
)


def test_auroc_counts_pairs_and_half_of_the_ties() -> None:
    """Pairs: .9>.5, .9>.1, .5=.5, .5>.1: 3.5 of 4."""
    scores = np.array([0.9, 0.5, 0.5, 0.1])
    assert auroc(scores, np.array([True, True, False, False])) == pytest.approx(3.5 / 4)


def test_auroc_of_one_class_is_not_a_number() -> None:
    assert math.isnan(auroc(np.array([0.1, 0.2]), np.array([True, True])))


def test_ties_share_their_rank() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


def test_stratified_auroc_sees_no_difference_between_strata() -> None:
    """Short ones score .9 and are all right but one; within each length the score says nothing."""
    scores = np.array([0.9, 0.9, 0.9, 0.1, 0.1, 0.1])
    right = np.array([True, True, False, True, False, False])
    assert auroc(scores, right) == pytest.approx((2 * 2 + 0.5 * 2 + 0.5 * 1 * 2) / 9, abs=0.01)
    assert stratified_auroc(scores, right, [1, 1, 1, 2, 2, 2]) == 0.5


def test_balancing_gives_each_side_half() -> None:
    weights = balanced_weights(np.array([True, False, False, False]))
    assert weights.tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])


def test_brier_and_calibration_error_by_hand() -> None:
    """Brier: (.8-1)² .5 + (.4-0)² .5 = .1. ECE: .5·|1-.8| + .5·|0-.4| = .3."""
    scores, event = np.array([0.8, 0.4]), np.array([True, False])
    weights = balanced_weights(event)
    assert brier(scores, event, weights) == pytest.approx(0.1)
    bins = reliability(scores, event, weights)
    assert [(b.score, b.frequency, b.mass) for b in bins] == [(0.4, 0.0, 0.5), (0.8, 1.0, 0.5)]
    assert expected_calibration_error(bins) == pytest.approx(0.3)


def test_a_score_of_one_falls_into_the_last_bin() -> None:
    event = np.array([True, False])
    assert len(reliability(np.array([1.0, 0.95]), event, balanced_weights(event))) == 1


def test_isotonic_mends_a_judge_whose_scores_are_too_high() -> None:
    """Sound ones score .9, flawed ones .7: well ordered, badly calibrated."""
    event = np.array([True, False] * 20)
    scores = np.where(event, 0.9, 0.7)
    weights = balanced_weights(event)
    tasks = [str(i // 2) for i in range(40)]
    fitted = isotonic_out_of_fold(scores, event, weights, tasks)
    assert brier(scores, event, weights) == pytest.approx((0.01 + 0.49) / 2)
    assert brier(fitted, event, weights) == pytest.approx(0.0)


def test_no_task_is_on_both_sides_of_a_fold() -> None:
    tasks = [f"task {i % 7}" for i in range(50)]
    tried = []
    for train, test in folds(tasks):
        assert not {tasks[i] for i in train} & {tasks[i] for i in test}
        tried += test.tolist()
    assert sorted(tried) == list(range(50))


def test_intervals_resample_tasks_not_examples() -> None:
    """Fifty copies of one task's result are one observation: the interval stays wide."""
    values = [1.0] * 50 + [0.0] * 50
    few = mean_by_task(values, ["a"] * 50 + ["b"] * 50)
    many = mean_by_task(values, [str(i) for i in range(100)])
    assert (few.low, few.high) == (0.0, 1.0)
    assert many.high - many.low < 0.25
    assert few.value == many.value == 0.5


def test_any_measure_has_an_interval_by_task() -> None:
    values = np.arange(10.0)
    estimate = by_task(lambda index: float(values[index].mean()), [str(i) for i in range(10)])
    assert estimate.low < estimate.value == 4.5 < estimate.high


@pytest.mark.parametrize(
    ("turn_scores", "turn", "credit"),
    [
        ((0.9, 0.9, 0.3, 0.3), 2, 1.0),
        ((0.9, 0.9, 0.3, 0.3), 1, 0.0),
        ((0.9, 0.6, 0.3), 1, 0.5),
        ((0.5, 0.5, 0.5), 1, 0.0),
        ((0.2, 0.6, 0.9), 1, 0.0),
        ((0.9, None, 0.3), 2, 1.0),
        ((0.9, 0.3), 0, None),
        ((0.9,), 0, None),
    ],
)
def test_the_largest_fall_is_where_the_flaw_is_looked_for(
    turn_scores: tuple[float | None, ...], turn: int, credit: float | None
) -> None:
    found = located(turn_scores, turn)
    assert found == (None if credit is None else pytest.approx(credit))


def test_rank_correlation_by_hand() -> None:
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 900.0])) == pytest.approx(1.0)
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0])) == pytest.approx(-0.5)
    assert math.isnan(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0])))


def test_a_tie_is_half_a_preference() -> None:
    assert [preference(2, 1), preference(1, 1), preference(0, 1)] == [1.0, 0.5, 0.0]
