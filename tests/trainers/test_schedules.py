"""Turn limits that grow, and mixtures of environments, both by a number alone."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reagent_env.trainers.schedules import (
    PUBLISHED,
    Mixture,
    Schedule,
    environment_at,
    get_schedule,
    parse_mixture,
    turns_at,
    unreached,
)


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("scaling-inter:webarena", {0: 8, 79: 8, 80: 12, 159: 12, 160: 15, 9999: 15}),
        ("scaling-inter:searchqa", {0: 5, 99: 5, 100: 8, 199: 8, 200: 10, 9999: 10}),
        ("scaling-inter:textcraft", {0: 10, 100: 20, 200: 30, 9999: 30}),
        ("scaling-inter:sciworld", {0: 10, 100: 20, 200: 30, 9999: 30}),
        ("scaling-inter:babyai", {0: 6, 100: 13, 200: 20, 9999: 20}),
        ("scaling-inter:textcraft@12", {0: 10, 11: 10, 12: 20, 24: 30, 9999: 30}),
        ("scalinginter-textcraft", {0: 10, 100: 20}),
        ("fixed:8", {0: 8, 100: 8, 9999: 8}),
        ("5>8>10@100", {0: 5, 100: 8, 200: 10}),
        (" 2 > 3 @ 1 ", {0: 2, 1: 3, 2: 3}),
        ("4@10", {0: 4, 10: 4}),
    ],
)
def test_the_limit_at_a_step_of(name: str, limits: dict[int, int]) -> None:
    schedule = get_schedule(name)
    assert {step: turns_at(schedule, step) for step in limits} == limits


def test_all_published_schedules_are_there() -> None:
    assert len(PUBLISHED) == 5


def test_a_run_resumed_in_a_later_phase_skips_none() -> None:
    schedule = get_schedule("scaling-inter:searchqa")
    straight = [turns_at(schedule, step) for step in range(300)]
    resumed = [turns_at(schedule, step) for step in range(150)]
    resumed += [turns_at(get_schedule("scaling-inter:searchqa"), step) for step in range(150, 300)]
    assert resumed == straight


@given(st.sampled_from(sorted(PUBLISHED)), st.integers(0, 1000), st.integers(0, 1000))
def test_limits_never_shrink(name: str, one: int, other: int) -> None:
    early, late = sorted((one, other))
    assert turns_at(PUBLISHED[name], early) <= turns_at(PUBLISHED[name], late)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("scaling-inter:serchqa", "Did you mean 'scaling-inter:searchqa'"),
        ("scaling-inter:serchqa@12", "Did you mean 'scaling-inter:searchqa'"),
        ("scaling-inter:searchqa@0", "1 step or more"),
        ("growing", "Write fixed:8 for one limit, 5>8>10@100"),
        ("8", "fixed:8"),
        ("5>8>10", "5>8>10@100"),
        ("fixed:0", "1 or more"),
        ("10>5@100", "not shrink"),
        ("5>8@0", "1 step or more"),
        ("-5>8@10", "Unknown schedule"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_refused_with_the_way_to_write_one(
    spec: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        get_schedule(spec)


def test_a_schedule_that_a_run_is_too_short_for_says_which_fits() -> None:
    told = unreached("scaling-inter:textcraft", 60)
    assert "last limit, 30, is never reached" in told
    assert told.endswith("scaling-inter:textcraft@20 fits.")
    assert unreached("scaling-inter:textcraft@20", 60) == ""
    assert unreached("5>8>10@30", 60).endswith("5>8>10@20 fits.")
    assert unreached("fixed:8", 1) == ""
    assert unreached("scaling-inter:searchqa", 201) == ""  # one update at the last limit


def test_steps_are_counted_from_zero() -> None:
    with pytest.raises(ValueError, match="counted from 0, got -1"):
        turns_at(Schedule((5,), 1), -1)


def test_a_mixture_is_read_with_its_weights() -> None:
    assert parse_mixture("reagent/SearchQA-v0=0.7, reagent/FileQA-v0=0.3") == Mixture(
        ("reagent/SearchQA-v0", "reagent/FileQA-v0"), (0.7, 0.3)
    )
    assert parse_mixture("my.module:My/Env-v0") == Mixture(("my.module:My/Env-v0",), (1.0,))
    assert parse_mixture("a=3,b").shares == (0.75, 0.25)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "without an id"),
        ("a=1,,b=1", "without an id"),
        ("a=1,a=2", "'a' stands twice"),
        ("a=half", "weight of 'a' .* got 'half'"),
        ("a=0", "above 0"),
        ("a=nan", "above 0"),
        ("a=", "above 0"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_mixture(spec)


def test_environments_come_up_by_their_weights() -> None:
    mixture = parse_mixture("a=0.7,b=0.3")
    seen = Counter(environment_at(mixture, 0, index) for index in range(4000))
    assert seen["a"] / 4000 == pytest.approx(0.7, abs=0.02)


def test_the_draw_depends_on_the_seed_and_the_number_and_on_nothing_else() -> None:
    mixture = parse_mixture("a=1,b=1,c=1")
    here = "".join(environment_at(mixture, 5, index) for index in range(30))
    assert here != "".join(environment_at(mixture, 6, index) for index in range(30))
    program = (
        "from reagent_env.trainers.schedules import *;"
        "print(''.join(environment_at(parse_mixture('a=1,b=1,c=1'), 5, i) for i in range(30)))"
    )
    for hash_seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": hash_seed},
        )
        assert found.stdout.strip() == here
