"""What may be said of seeds' differences; reference numbers are statsmodels 0.15.0's."""

from __future__ import annotations

import dataclasses
import math

import pytest

from reagent_env.trainers.ablation.inference import (
    Difference,
    detectable,
    holm,
    mean_with_interval,
    paired,
    power,
    seeds_for,
)
from reagent_env.trainers.ablation.verdict import explained, verdict

DIFFERENCES = [0.021, 0.048, -0.012, 0.033, 0.054, 0.017, 0.002, 0.041]


def with_p(*values: float) -> list[Difference]:
    base = paired(DIFFERENCES)
    return [dataclasses.replace(base, p=p, p_holm=p) for p in values]


def test_interval_and_p_are_those_of_the_paired_t_test() -> None:
    found = paired(DIFFERENCES)
    assert found.seeds == 8
    assert found.mean == pytest.approx(0.0255)
    assert (found.low, found.high) == pytest.approx((0.0063678, 0.0446322), abs=1e-6)
    assert found.p == pytest.approx(0.0161149, abs=1e-6)


def test_equivalence_is_two_one_sided_tests() -> None:
    assert paired(DIFFERENCES).p_equivalent == pytest.approx(0.2977075, abs=1e-6)


def test_what_could_be_seen_is_the_power_of_the_t_test() -> None:
    assert power(0.5, 10) == pytest.approx(0.2931757, abs=1e-5)
    found = paired(DIFFERENCES)
    assert found.detectable == pytest.approx(0.0264556, abs=1e-5)
    assert found.seeds_for_margin == 7  # 6.73, in whole seeds
    assert seeds_for(1e-5, 1.0) == math.inf
    assert math.isnan(detectable(1, 0.1))
    for n in (2, 3, 5, 30, 200):  # over a wide range scipy's noncentral t gives numbers
        assert power(detectable(n, 1.0), n) == pytest.approx(0.8, abs=1e-3)


def test_power_is_at_the_level_of_holms_first_step() -> None:
    alone, of_seven = paired(DIFFERENCES), paired(DIFFERENCES, tests=7)
    assert (of_seven.p, of_seven.low) == (alone.p, alone.low)
    assert detectable(10, 1.0, tests=7) == pytest.approx(1.41, abs=0.01)  # 1.00 for one alone
    assert of_seven.detectable > 1.3 * alone.detectable
    assert of_seven.seeds_for_margin > alone.seeds_for_margin


def test_holms_correction() -> None:
    found = [one.p_holm for one in holm(with_p(0.01, 0.04, 0.03, 0.005))]
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_what_was_not_measured_takes_no_part_in_the_correction() -> None:
    found = [one.p_holm for one in holm([*with_p(0.02), paired([0.1]), *with_p(0.03)])]
    assert found[0] == pytest.approx(0.04)
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(0.04)


@pytest.mark.parametrize("differences", [[], [0.1], [0.2, 0.2, 0.2]])
def test_without_a_spread_nothing_is_inferred(differences: list[float]) -> None:
    found = paired(differences)
    assert found.seeds == len(differences)
    assert math.isnan(found.p)
    assert math.isnan(found.low)
    assert verdict(found) in ("not measured", "inconclusive")


def test_mean_with_interval() -> None:
    mean, low, high = mean_with_interval(DIFFERENCES)
    assert (mean, low, high) == pytest.approx((0.0255, 0.0063678, 0.0446322), abs=1e-6)
    assert mean_with_interval([0.5])[0] == 0.5
    assert math.isnan(mean_with_interval([0.5])[1])


@pytest.mark.parametrize(
    ("differences", "word"),
    [
        ([0.10, 0.12, 0.09, 0.11, 0.10], "better"),
        ([-0.10, -0.12, -0.09, -0.11, -0.10], "worse"),
        ([0.004, -0.006, 0.002, -0.001, 0.003], "no difference"),
        ([0.10, -0.12, 0.09, -0.11, 0.02], "inconclusive"),
        ([0.10], "not measured"),
    ],
)
def test_a_verdict_for_each_case(differences: list[float], word: str) -> None:
    assert verdict(paired(differences)) == word
    assert explained(paired(differences), 2).startswith(word)


def test_not_significant_is_not_called_equal() -> None:
    wide = paired([0.05, -0.04, 0.06, -0.05, 0.03, -0.02])
    assert wide.p > 0.5
    assert verdict(wide) == "inconclusive"
    assert "would find 3" in explained(wide, 2)


def test_a_correction_can_take_a_verdict_back() -> None:
    alone = paired(DIFFERENCES)
    assert verdict(alone) == "better"
    [corrected, *_] = holm([alone, *with_p(0.9, 0.9, 0.9)])
    assert verdict(corrected) == "inconclusive"


def test_few_seeds_or_one_cold_start_are_called_a_first_look() -> None:
    five = paired([0.10, 0.12, 0.09, 0.11, 0.10])
    assert "a first look: 5 seeds, 2 cold starts" in explained(five, 2)
    ten = paired([0.10, 0.12, 0.09, 0.11, 0.10] * 2)
    assert "a first look: 10 seeds, 1 cold start)" in explained(ten, 1)
    assert "first look" not in explained(ten, 2)


def test_a_small_difference_that_is_sure_is_called_small() -> None:
    small = paired([0.010, 0.012, 0.009, 0.011, 0.010])
    assert verdict(small) == "better"
    assert "smaller than 3 points" in explained(small, 2)
