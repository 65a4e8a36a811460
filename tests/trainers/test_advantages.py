"""Advantages, by hand and by exact enumeration of small policies."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import json
import math
import random
from collections.abc import Callable, Sequence
from statistics import mean, pstdev
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reagent_env.trainers.advantages import (
    AdvantageSettings,
    Batch,
    Estimator,
    RunningStd,
    estimate_advantages,
    estimator_names,
    get_estimator,
)
from reagent_env.trainers.advantages_gae import (
    discounted_advantages,
    token_rewards,
    turn_rewards,
)
from reagent_env.trainers.advantages_group import grpo
from reagent_env.trainers.advantages_report import advantage_summary, is_degenerate
from reagent_env.trainers.sample import AttemptReturn

OURS = [
    "dr_grpo",
    "gae",
    "grpo",
    "per_stage",
    "pooled",
    "reinforce++",
    "rloo",
    "turn",
    "turn_myopic",
]
WHOLE = [name for name in OURS if get_estimator(name).credits == ("trajectory",)]


def attempt(outcome: float, *turn_scores: float | None) -> AttemptReturn:
    return AttemptReturn(outcome, turn_scores or (None,))


def single(*attempts: AttemptReturn) -> list[tuple[AttemptReturn, ...]]:
    return [(one,) for one in attempts]


def estimated(name: str, batch: Batch, value: float = 0.0, **options: Any) -> Any:
    values = [[[[value] * one.turns for one in rollout] for rollout in group] for group in batch]
    return estimate_advantages(name, batch, AdvantageSettings(**options), values=values).advantages


def firsts(name: str, group: Sequence[tuple[AttemptReturn, ...]], **options: Any) -> list[float]:
    """The advantage of each rollout's first attempt's first turn."""
    return [rollout[0][0] for rollout in estimated(name, [group], **options)[0]]


def close(numbers: Sequence[float], places: float = 1e-3) -> Any:
    return pytest.approx(list(numbers), abs=places)


# Each formula, worked by hand from its paper's equation.

ONE_OF_FOUR = single(attempt(1), attempt(0), attempt(0), attempt(0))


def test_grpo_divides_what_is_above_the_mean_by_the_population_std() -> None:
    # mean 1/4, std √(3/16) = 0.433
    assert firsts("grpo", ONE_OF_FOUR) == close([1.732, -0.577, -0.577, -0.577])


def test_dr_grpo_divides_by_nothing() -> None:
    assert firsts("dr_grpo", ONE_OF_FOUR) == close([0.75, -0.25, -0.25, -0.25])


def test_rloo_compares_with_the_mean_of_the_others() -> None:
    assert firsts("rloo", ONE_OF_FOUR) == close([1.0, -0.333, -0.333, -0.333])


def test_reinforce_plus_plus_normalises_over_the_batch_not_the_group() -> None:
    # Outcomes 1, 1 | 1, 0: mean 3/4, std 0.433; the first group has an advantage although it is even.
    found = estimated(
        "reinforce++", [single(attempt(1), attempt(1)), single(attempt(1), attempt(0))]
    )
    assert [rollout[0][0] for group in found for rollout in group] == close(
        [0.577, 0.577, 0.577, -1.732]
    )


def test_pooled_takes_both_attempts_of_all_rollouts_as_one_group() -> None:
    # Returns 1, 1 | 0, 1 with λ·score 0.3, 0 | 0, 0: r = 1.3, 1 | 0, 1; mean 0.825, std 0.492.
    group = [(attempt(1, 1.0), attempt(1, 0.0)), (attempt(0, 0.0), attempt(1, 0.0))]
    found = estimated("pooled", [group])[0]
    assert [value for rollout in found for [value] in rollout] == close(
        [0.966, 0.356, -1.678, 0.356]
    )


def test_per_stage_has_a_mean_for_each_attempt_and_one_std_of_what_is_left() -> None:
    # First attempts 1, 0; second 1, 1: deviations ±½ and 0, 0; std √(½/4) = 0.354.
    group = [(attempt(1), attempt(1)), (attempt(0), attempt(1))]
    found = estimated("per_stage", [group])[0]
    assert found[0] == [close([1.414]), close([0.0])]
    assert found[1] == [close([-1.414]), close([0.0])]


def test_the_improvement_bonus_reaches_second_attempts_only() -> None:
    # R² + ½·(R² − R¹) = 1, 1.5: second attempts' deviations ∓¼, firsts' ±½; std √(0.625/4) = 0.395.
    group = [(attempt(1), attempt(1)), (attempt(0), attempt(1))]
    found = estimated("per_stage", [group], improvement_bonus=0.5)[0]
    assert found[0] == [close([1.265]), close([-0.632])]
    assert found[1] == [close([-1.265]), close([0.632])]


def test_turn_pays_each_turn_for_what_is_still_to_come() -> None:
    # To come at turn 1: 0.9, 0.6, 0.3; at turn 2: 0.5, 0.4 and no third, so turn 2 compares φ_T with
    # the others' mean φ_T: 0.9 − 0.45 and 0.6 − 0.6. λ = 0.3, outcomes equal.
    group = single(attempt(0, 0.4, 0.9), attempt(0, 0.2, 0.6), attempt(0, 0.3))
    found = estimated("turn", [group])[0]
    assert found[0][0] == close([0.3 * 0.45, 0.3 * 0.45])
    assert found[1][0] == close([0.0, 0.0])
    assert found[2][0] == close([0.3 * -0.45])


def test_turn_compares_with_those_that_reached_the_turn() -> None:
    # Turn 2 of the first: 0.9 − 0.4 = 0.5 to come, against 0.4 and 0.1 of two others that got there.
    group = single(attempt(0, 0.4, 0.9), attempt(0, 0.2, 0.6), attempt(0, 0.2, 0.3))
    assert estimated("turn", [group])[0][0][0][1] == pytest.approx(0.3 * (0.5 - 0.25))


def test_turn_myopic_pays_the_difference_at_once() -> None:
    # Differences at turn 1: 0.4, 0.2, 0.2; at turn 2: 0.5, 0.4, 0.1.
    group = single(attempt(0, 0.4, 0.9), attempt(0, 0.2, 0.6), attempt(0, 0.2, 0.3))
    assert estimated("turn_myopic", [group])[0][0][0] == close([0.3 * 0.2, 0.3 * 0.25])


def test_gae_is_the_discounted_sum_of_surprises() -> None:
    # δ = 0 + 0.9·0.6 − 0.5 = 0.04 and 1 − 0.6 = 0.4; A_1 = 0.04 + 0.9·0.5·0.4.
    found = discounted_advantages([0.0, 1.0], [0.5, 0.6], gamma=0.9, gae_lambda=0.5)
    assert found == close([0.22, 0.4])


def test_gae_with_lambda_one_is_the_return_less_the_value_and_with_zero_one_step() -> None:
    rewards, values = [0.1, 0.2, 1.0], [0.3, 0.4, 0.5]
    whole = discounted_advantages(rewards, values, gamma=1.0, gae_lambda=1.0)
    assert whole == close([1.3 - 0.3, 1.2 - 0.4, 1.0 - 0.5])
    one_step = discounted_advantages(rewards, values, gamma=1.0, gae_lambda=0.0)
    assert one_step == close([0.1 + 0.4 - 0.3, 0.2 + 0.5 - 0.4, 1.0 - 0.5])


# Process reward.


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=6),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_turn_rewards_sum_to_the_outcome_and_lambda_times_the_score(
    before: list[float | None], score: float, outcome: float
) -> None:
    rewards = turn_rewards(AttemptReturn(outcome, (*before, score)), AdvantageSettings())
    assert sum(rewards) == pytest.approx(outcome + 0.3 * score)


def test_an_unscored_turn_in_between_earns_nothing() -> None:
    assert turn_rewards(attempt(1, 0.5, None, 1.0), AdvantageSettings()) == close([0.15, 0.0, 1.15])


def test_credit_by_trajectory_pays_all_of_it_at_the_end() -> None:
    found = turn_rewards(attempt(1, 0.5, 1.0), AdvantageSettings(credit="trajectory"))
    assert found == close([0.0, 1.3])


def test_an_unscored_last_turn_leaves_the_process_unscored() -> None:
    assert turn_rewards(attempt(1, 0.5, None), AdvantageSettings()) == [0.0, 1.0]


def test_a_token_level_reward_sits_on_the_last_token_the_policy_wrote_in_the_turn() -> None:
    #             prompt    turn 0   observation  turn 1
    turn_of = [-1, -1, 0, 0, -1, -1, 1, 1, -1]
    rewards, ends = token_rewards([attempt(1, 0.5, 1.0)], turn_of, AdvantageSettings())
    assert rewards == close([0, 0, 0, 0.15, 0, 0, 0, 1.15, 0])
    assert [position for position, end in enumerate(ends) if end] == [7]


def test_a_turn_cut_off_before_its_first_token_leaves_its_reward_to_the_one_before() -> None:
    rewards, ends = token_rewards([attempt(1, 0.5, 1.0)], [-1, 0, 0, -1], AdvantageSettings())
    assert rewards == close([0, 0, 1.3, 0])
    assert ends == [False, False, True, False]


# Unscored judgements.


def test_without_a_score_the_outcome_keeps_its_advantage_and_the_process_adds_nothing() -> None:
    group = single(attempt(1, 0.9), attempt(0, None), attempt(0, 0.5), attempt(0, 0.1))
    # Scored members are centred among themselves: 0.9, 0.5, 0.1 about 0.5.
    assert firsts("dr_grpo", group) == close([0.75 + 0.12, -0.25, -0.25, -0.25 - 0.12])


@pytest.mark.parametrize("name", [name for name in OURS if name != "gae"])
def test_a_single_score_in_the_group_is_compared_with_nobody(name: str) -> None:
    scored = single(attempt(1, 0.9), attempt(0, None), attempt(0, None))
    blank = single(attempt(1, None), attempt(0, None), attempt(0, None))
    assert firsts(name, scored) == close(firsts(name, blank), 1e-12)


def test_leaving_unscored_rollouts_out_would_blunt_the_lesson_that_keeping_them_teaches() -> None:
    """Bad-long rollouts fail the judge in 60 % of cases, others in 5 %: what pushes them down?"""
    chance = random.Random(0)
    signal = {"all scored": 0.0, "kept": 0.0, "left out": 0.0}
    for _ in range(1500):
        bad = [chance.random() < 0.5 for _ in range(8)]
        outcome = [float(chance.random() < (0.2 if one else 0.6)) for one in bad]
        score = [0.3 * chance.random() if one else 0.7 + 0.3 * chance.random() for one in bad]
        failed = [chance.random() < (0.6 if one else 0.05) for one in bad]
        full = single(*(attempt(o, s) for o, s in zip(outcome, score, strict=True)))
        holed = single(
            *(
                attempt(o, None if lost else s)
                for o, s, lost in zip(outcome, score, failed, strict=True)
            )
        )
        kept = [i for i, lost in enumerate(failed) if not lost]
        for case, group, members in (
            ("all scored", full, list(range(8))),
            ("kept", holed, list(range(8))),
            ("left out", [full[i] for i in kept], kept),
        ):
            for i, advantage in zip(members, firsts("grpo", group), strict=True):
                signal[case] += advantage * (0.5 - bad[i])
    lost_by_keeping = 1 - signal["kept"] / signal["all scored"]
    lost_by_leaving_out = 1 - signal["left out"] / signal["all scored"]
    assert lost_by_keeping < 0.15
    assert lost_by_leaving_out > 0.3


# The floor, and outcome and process apart.


def all_wrong(spread: float, size: int, chance: random.Random) -> list[tuple[AttemptReturn, ...]]:
    return single(*(attempt(0, 0.5 + chance.gauss(0, spread)) for _ in range(size)))


@pytest.mark.parametrize(("floor", "size"), [(0.0, 0.83), (0.1, 0.11)])
def test_a_spread_of_five_hundredths_in_an_all_wrong_group(floor: float, size: float) -> None:
    chance = random.Random(0)
    found = [
        abs(advantage)
        for _ in range(1000)
        for advantage in firsts("grpo", all_wrong(0.05, 8, chance), std_floor=floor)
    ]
    assert mean(found) == pytest.approx(size, abs=0.01)


@pytest.mark.parametrize("name", ["grpo", "pooled", "per_stage"])
def test_apart_noise_of_a_hundredth_in_an_all_wrong_group_stays_below_a_twentieth(
    name: str,
) -> None:
    noise = single(*(attempt(0, 0.5 + 0.01 * (-1) ** i) for i in range(8)))
    spread = single(*(attempt(i % 2, i / 8) for i in range(8)))
    found = estimated(name, [noise, spread], apart=True)
    assert max(abs(rollout[0][0]) for rollout in found[0]) <= 0.05


def test_apart_noise_with_nothing_else_in_the_batch_meets_the_floor() -> None:
    noise = single(*(attempt(0, 0.5 + 0.01 * (-1) ** i) for i in range(8)))
    # 0.3·0.01 / max(0.01, 0.1)
    assert [abs(a) for a in firsts("grpo", noise, apart=True)] == close([0.03] * 8)


def test_without_apart_or_a_floor_that_noise_becomes_an_advantage_of_one() -> None:
    noise = single(*(attempt(0, 0.5 + 0.01 * (-1) ** i) for i in range(8)))
    assert [abs(a) for a in firsts("grpo", noise, std_floor=0.0)] == close([1.0] * 8)


def test_apart_the_process_is_divided_by_the_whole_batch_s_std_and_keeps_lambda() -> None:
    wide = single(attempt(0, 0.0), attempt(0, 0.8))  # ±0.4
    narrow = single(attempt(0, 0.4), attempt(0, 0.6))  # ±0.1; std of both groups √0.085 = 0.292
    found = estimated("grpo", [wide, narrow], apart=True)
    assert [rollout[0][0] for rollout in found[1]] == close([-0.103, 0.103])


def test_the_running_std_remembers_and_survives_a_checkpoint() -> None:
    running = RunningStd().updated([-0.1, 0.1])
    assert running.std == pytest.approx(0.1)
    later = running.updated([-0.3, 0.3])
    # (0.9·0.1·0.01 + 0.1·0.09) / (0.9·0.1 + 0.1) = 0.0521
    assert later.std == pytest.approx(math.sqrt(0.0099 / 0.19))
    assert RunningStd(**json.loads(json.dumps(dataclasses.asdict(later)))) == later
    assert later.updated([]) == later


def test_estimating_hands_back_the_running_std_for_the_next_batch() -> None:
    batch = [single(attempt(0, 0.4), attempt(0, 0.6))]
    first = estimate_advantages("grpo", batch, AdvantageSettings(apart=True))
    second = estimate_advantages("grpo", batch, AdvantageSettings(apart=True), first.running)
    assert first.running.std == second.running.std == pytest.approx(0.1)
    assert second.running.weight > first.running.weight


# Every estimator learns something.


@pytest.mark.parametrize("name", OURS)
def test_every_turn_of_a_success_among_failures_is_pushed_up(name: str) -> None:
    success, failure = attempt(1, None, None, None), attempt(0, None, None)
    found = estimated(name, [single(success, failure, failure)])[0]
    assert len(found[0][0]) == 3
    assert min(found[0][0]) > 0.3
    assert max(found[1][0]) <= 0


@pytest.mark.parametrize("name", OURS)
def test_equal_returns_have_no_advantage(name: str) -> None:
    # 0.1 has no exact binary form: rounding must not become an advantage, even without a floor.
    group = [(attempt(0.1, 0.7), attempt(0.1, 0.7))] * 3
    found = estimated(name, [group], value=0.1 + 0.3 * 0.7, std_floor=0.0)[0]
    assert all(abs(a) < 1e-6 for rollout in found for turns in rollout for a in turns)


@pytest.mark.parametrize("name", [name for name in OURS if name != "gae"])
def test_a_rollout_alone_has_nobody_to_be_compared_with(name: str) -> None:
    assert firsts(name, single(attempt(1, 0.3, 0.9))) == [0.0]


returns = st.builds(
    AttemptReturn,
    st.floats(0, 1),
    st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=4).map(tuple),
)
groups = st.lists(st.tuples(returns, returns), min_size=2, max_size=5)


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=30, deadline=None)
@given(group=groups)
def test_advantages_of_whole_attempts_sum_to_zero_and_repeat_over_turns(
    name: str, group: list[tuple[AttemptReturn, ...]]
) -> None:
    found = estimated(name, [group])[0]
    assert all(len(set(turns)) == 1 for rollout in found for turns in rollout)
    assert sum(turns[0] for rollout in found for turns in rollout) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", OURS)
@settings(max_examples=30, deadline=None)
@given(group=groups)
def test_the_order_of_rollouts_does_not_matter(
    name: str, group: list[tuple[AttemptReturn, ...]]
) -> None:
    there, back = estimated(name, [group])[0], estimated(name, [group[::-1]])[0][::-1]
    for one, other in zip(there, back, strict=True):
        assert [close(turns, 1e-6) for turns in one] == other


# Credit turn by turn, by exact enumeration.

FIRST = (0.5, 0.3, 0.2)
"""Turn 1: search well, search badly, give up at once (no second turn)."""
SECOND = (0.6, 0.4)
"""Turn 2: answer, ramble."""


def causal(a: int, b: int | None) -> tuple[float, ...]:
    quality = (0.7, 0.2, 0.1)[a]
    return (quality,) if b is None else (quality, quality + (0.3, -0.1)[b])


def hindsight(a: int, b: int | None) -> tuple[float, ...]:
    levels = causal(a, b)
    return levels if len(levels) == 1 else (levels[1] * 0.9, levels[1])


def moments(
    name: str, judge: Callable[[int, int | None], tuple[float, ...]], size: int = 4
) -> tuple[list[float], float]:
    """Expected policy gradient by the five logits, and its summed variance, over every group."""
    plans = [
        *(((a, b), FIRST[a] * SECOND[b]) for a in (0, 1) for b in (0, 1)),
        ((2, None), FIRST[2]),
    ]
    expected, square = [0.0] * 5, 0.0
    for members in itertools.product(plans, repeat=size):
        chance = math.prod(p for _, p in members)
        group = single(*(attempt(0, *judge(*plan)) for plan, _ in members))
        gradient = [0.0] * 5
        for (plan, _), rollout in zip(members, estimated(name, [group])[0], strict=True):
            for z in range(3):
                gradient[z] += rollout[0][0] * ((plan[0] == z) - FIRST[z]) / size
            if plan[1] is not None:
                for z in range(2):
                    gradient[3 + z] += rollout[0][1] * ((plan[1] == z) - SECOND[z]) / size
        expected = [e + chance * g for e, g in zip(expected, gradient, strict=True)]
        square += chance * sum(g * g for g in gradient)
    return expected, square - sum(e * e for e in expected)


def test_turn_credit_has_trajectory_credit_s_gradient_and_less_variance_if_causal() -> None:
    by_turn, variance = moments("turn", causal)
    by_trajectory, larger = moments("rloo", causal)
    assert by_turn == close(by_trajectory, 1e-12)
    assert variance < 0.85 * larger  # 0.82 of it


def test_scores_given_in_hindsight_lose_that_gradient() -> None:
    by_turn, _ = moments("turn", hindsight)
    by_trajectory, _ = moments("rloo", hindsight)
    # The second turn's lesson is in φ_1 already, and is subtracted from what is to come.
    assert abs(by_turn[3]) < 0.2 * abs(by_trajectory[3])


# Two attempts.


def test_pooling_shifts_first_attempts_down_by_half_the_improvement() -> None:
    group = [(attempt(first), attempt(first + 0.4)) for first in (0.2, 0.4, 0.5, 0.3)]
    sigma = pstdev([one.outcome for rollout in group for one in rollout])
    summary = advantage_summary([group], estimated("pooled", [group]))
    assert summary["advantage/attempt_1"] == pytest.approx(-0.4 / (2 * sigma))
    assert summary["advantage/attempt_2"] == pytest.approx(+0.4 / (2 * sigma))
    apart = advantage_summary([group], estimated("per_stage", [group]))
    assert apart["advantage/attempt_1"] == pytest.approx(0, abs=1e-9)


BETTER_AFTER_FAILING = {0.0: 0.9, 1.0: 0.5}
"""Chance that the second attempt is right, by the first one's outcome."""


def push_to_try(advantages_of: Callable[[Batch], Any]) -> float:
    """Expected gradient on the logit of trying, for a policy that tries half the time, and is then
    right with chance 0.6; it can also fail on purpose. Exact, over groups of three."""
    plans = []
    for tried, first, chance in ((1, 1.0, 0.3), (1, 0.0, 0.2), (0, 0.0, 0.5)):
        right = BETTER_AFTER_FAILING[first]
        plans += [
            (tried, first, 1.0, chance * right),
            (tried, first, 0.0, chance * (1 - right)),
        ]
    push = 0.0
    for members in itertools.product(plans, repeat=3):
        group = [(attempt(first), attempt(second)) for _, first, second, _ in members]
        chance = math.prod(plan[3] for plan in members)
        for (tried, *_), rollout in zip(members, advantages_of([group])[0], strict=True):
            push += chance * rollout[0][0] * (tried - 0.5)
    return push


@pytest.mark.parametrize("name", OURS)
def test_failing_the_first_attempt_on_purpose_gains_nothing(name: str) -> None:
    assert push_to_try(lambda batch: estimated(name, batch)) > 0.05


def test_nor_does_it_with_the_improvement_bonus() -> None:
    assert push_to_try(lambda batch: estimated("per_stage", batch, improvement_bonus=2.0)) > 0.05


def test_it_would_gain_if_a_return_ran_on_across_the_boundary() -> None:
    def summed(batch: Batch) -> Any:
        whole = [[(attempt(b.outcome + 2 * (b.outcome - a.outcome)),) for a, b in g] for g in batch]
        return grpo(whole, AdvantageSettings())

    assert push_to_try(summed) < -0.05


def test_gae_lets_nothing_cross_from_the_second_attempt_to_the_first() -> None:
    rewards, values = [0.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]
    ends = [False, True, False, True]
    apart = discounted_advantages(rewards, values, ends, gamma=1.0, gae_lambda=1.0)
    assert apart == close([-0.5, -0.5, 0.5, 0.5])
    without = discounted_advantages(rewards, values, gamma=1.0, gae_lambda=1.0)
    assert without[0] == pytest.approx(0.5)


def test_tokens_of_two_attempts_end_apart() -> None:
    turn_of = [-1, 0, 0, -1, 1, 1, -1]
    rewards, ends = token_rewards([attempt(0), attempt(1)], turn_of, AdvantageSettings())
    assert rewards == [0, 0, 0, 0, 0, 1.0, 0]
    assert [position for position, end in enumerate(ends) if end] == [2, 5]


# Dynamic sampling and the log.


def test_a_group_all_right_is_kept_where_scores_rank_it() -> None:
    ranked = single(attempt(1, 0.9), attempt(1, 0.4))
    even = single(attempt(1, 0.9), attempt(1, 0.9))
    assert not is_degenerate(ranked, AdvantageSettings())
    assert is_degenerate(even, AdvantageSettings())
    assert is_degenerate(ranked, AdvantageSettings(weight=0.0))


def test_what_is_degenerate_depends_on_who_is_compared() -> None:
    improved = [(attempt(0), attempt(1)), (attempt(0), attempt(1))]
    assert is_degenerate(improved, AdvantageSettings(), "per_stage")
    assert not is_degenerate(improved, AdvantageSettings(), "pooled")
    # Equal at the end, reached differently: turns can still be told apart.
    ways = single(attempt(1, 0.1, 0.8), attempt(1, 0.7, 0.8), attempt(1, 0.7, 0.8))
    assert is_degenerate(ways, AdvantageSettings(), "grpo")
    assert not is_degenerate(ways, AdvantageSettings(), "turn")
    assert not is_degenerate(ways, AdvantageSettings(), "reinforce++")


def test_the_summary_reports_the_unscored_by_length_and_outcome() -> None:
    group = single(attempt(1, 0.9), attempt(0, 0.1), attempt(0, 0.2, None), attempt(1, 0.2, 0.3))
    summary = advantage_summary([group], estimated("grpo", [group]))
    assert summary["unscored"] == 0.25
    assert summary["unscored/right"] == 0
    assert summary["unscored/wrong"] == 0.5
    assert summary["unscored/short"] == 0
    assert summary["unscored/long"] == 0.5
    assert summary["advantage/zero"] == 0


# Names and refusals.


def test_our_estimators_are_found_by_name() -> None:
    assert [name for name in estimator_names() if name in OURS] == OURS
    assert [name for name in OURS if get_estimator(name).needs_values] == ["gae"]


def test_a_wrong_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'per_stge'\. Did you mean 'per_stage'\?"):
        get_estimator("per_stge")


def test_an_entry_point_adds_a_plain_function(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint(
        "mine", "reagent_env.trainers.advantages_group:dr_grpo", "reagent_env.advantages"
    )
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [entry] if "advantages" in group else []
    )
    assert "mine" in estimator_names()
    assert firsts("mine", ONE_OF_FOUR) == close([0.75, -0.25, -0.25, -0.25])
    assert get_estimator("mine").credits == ("trajectory",)


@pytest.mark.parametrize("name", WHOLE)
def test_turn_credit_is_refused_where_it_would_silently_do_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=r"would do nothing .* Choose one of gae, turn"):
        estimated(name, [ONE_OF_FOUR], credit="turn")


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("turn", {"credit": "trajectory"}, "pays each turn for its own share"),
        ("rloo", {"apart": True}, "Choose one of grpo, per_stage, pooled"),
        ("grpo", {"improvement_bonus": 0.5}, "Choose one of per_stage"),
    ],
)
def test_options_that_mean_nothing_to_an_estimator_are_refused(
    name: str, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        estimated(name, [ONE_OF_FOUR], **options)


def test_gae_without_values_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="value head"):
        estimate_advantages("gae", [ONE_OF_FOUR], AdvantageSettings())
    with pytest.raises(ValueError, match="2 rewards, 1 values"):
        discounted_advantages([0.0, 1.0], [0.0], gamma=1.0, gae_lambda=1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"weight": -1.0},
        {"weight": math.nan},
        {"std_floor": math.inf},
        {"gamma": 1.5},
        {"credit": "step"},
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(ValueError, match=name):
        AdvantageSettings(**options)


def test_an_estimator_of_your_own_is_used_as_it_is() -> None:
    mine = Estimator("mine", grpo)
    found = estimate_advantages(mine, [ONE_OF_FOUR], AdvantageSettings()).advantages
    assert found[0][0][0] == close([1.732])
