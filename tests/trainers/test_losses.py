"""Losses against numbers worked by hand, and the same gradient whatever the cut into micro-batches."""

from __future__ import annotations

import importlib.metadata
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from reagent_env.trainers.losses import (
    AGGREGATIONS,
    LossSettings,
    PolicyTokens,
    entropy_of,
    get_loss,
    gspo,
    k3,
    loss_means,
    loss_names,
    mean_by_attempt,
    policy_loss,
    ppo_clip,
    token_weights,
    value_loss,
)

torch.set_num_threads(1)


def tokens(ratios: list[float], advantages: list[float], **more: Any) -> PolicyTokens:
    """One attempt whose tokens have these ratios π_θ/π_old."""
    old = torch.full((len(ratios),), -1.0)
    return PolicyTokens(
        (old + torch.tensor(ratios).log()).requires_grad_(),
        old,
        torch.tensor(advantages),
        torch.ones(len(ratios), dtype=torch.bool),
        torch.zeros(len(ratios), dtype=torch.int64),
        **more,
    )


# PPO-clip.


def test_ppo_takes_the_lower_of_plain_and_clipped_gain() -> None:
    # ε 0.2 below, 0.28 above.  ρ 1.5, A 1 → 1.28; ρ 0.5, A 1 → 0.5; ρ 1.5, A −1 → −1.5; ρ 0.5, A −1 → −0.8
    loss, clipped = ppo_clip(tokens([1.5, 0.5, 1.5, 0.5], [1, 1, -1, -1]), LossSettings())
    assert loss.tolist() == pytest.approx([-1.28, -0.5, 1.5, 0.8])
    assert clipped.tolist() == [True, False, False, True]


def test_a_higher_upper_clip_lets_an_unlikely_token_grow_further() -> None:
    narrow, _ = ppo_clip(tokens([1.25], [1]), LossSettings(clip_low=0.2, clip_high=0.2))
    wide, _ = ppo_clip(tokens([1.25], [1]), LossSettings(clip_low=0.2, clip_high=0.28))
    assert [-narrow.item(), -wide.item()] == pytest.approx([1.2, 1.25])


def test_a_clipped_token_has_no_gradient_and_the_others_have_ratio_times_advantage() -> None:
    batch = tokens([1.5, 1.0, 1.1], [1, 2, -1])
    loss, _ = ppo_clip(batch, LossSettings())
    loss.sum().backward()
    assert batch.logprobs.grad is not None
    assert batch.logprobs.grad.tolist() == pytest.approx([0.0, -2.0, 1.1])


def test_a_ratio_that_overflows_stays_finite() -> None:
    batch = tokens([1.0], [-1])
    far = PolicyTokens(
        torch.tensor([0.0], requires_grad=True),
        torch.tensor([-1e4]),
        batch.advantages,
        batch.mask,
        batch.segments,
    )
    loss, sums = policy_loss("ppo_clip", far, torch.ones(1), LossSettings())
    assert math.isfinite(loss.item())
    assert all(math.isfinite(value) for value in sums.values())


# GSPO.


def test_gspo_raises_every_token_by_the_geometric_mean_of_its_attempt() -> None:
    # Ratios e^0.1 and e^0.3: s = e^0.2 = 1.2214, within a wide clip.
    batch = tokens([math.exp(0.1), math.exp(0.3)], [1, 1])
    loss, clipped = gspo(batch, LossSettings(clip_low=0.5, clip_high=0.5))
    assert loss.tolist() == pytest.approx([-1.2214, -1.2214], abs=1e-4)
    assert clipped.tolist() == [False, False]


def test_gspo_s_own_clip_is_a_few_ten_thousandths() -> None:
    loss, clipped = gspo(tokens([math.exp(0.1), math.exp(0.3)], [1, 1]), LossSettings())
    assert loss.tolist() == pytest.approx([-1.0004, -1.0004], abs=1e-6)
    assert clipped.tolist() == [True, True]


def test_gspo_in_token_form_has_the_sequence_form_s_value_and_gradient() -> None:
    torch.manual_seed(0)
    old, advantage = torch.randn(5), 0.7
    new = (old + 0.1 * torch.randn(5)).requires_grad_()
    segments, mask = torch.tensor([0, 0, 0, 1, 1]), torch.ones(5, dtype=torch.bool)
    batch = PolicyTokens(new, old, torch.full((5,), advantage), mask, segments)
    wide = LossSettings(clip_low=0.9, clip_high=9.0)
    loss, _ = policy_loss("gspo", batch, token_weights("seq_mean", mask, segments), wide)
    [by_token] = torch.autograd.grad(loss, new)
    direct = (
        -sum(
            ((new - old)[segments == s].mean().exp() * advantage for s in (0, 1)),
            start=torch.tensor(0.0),
        )
        / 2
    )
    [by_sequence] = torch.autograd.grad(direct, new)
    assert loss.item() == pytest.approx(direct.item())
    assert torch.allclose(by_token, by_sequence, atol=1e-6)


def test_gspo_keeps_attempts_of_one_row_apart() -> None:
    mask = torch.tensor([True, True, False, True])
    segments = torch.tensor([0, 0, -1, 1])
    logs = torch.tensor([0.2, 0.4, 9.0, 0.0])
    batch = PolicyTokens(logs, torch.zeros(4), torch.ones(4), mask, segments)
    loss, _ = gspo(batch, LossSettings(clip_low=0.9, clip_high=9.0))
    assert loss[mask].tolist() == pytest.approx([-math.exp(0.3), -math.exp(0.3), -1.0])


# Aggregation.

MASK = torch.tensor([[True, False, False, False], [False, True, True, True]])
SEGMENTS = torch.tensor([[0, -1, -1, -1], [-1, 1, 1, 1]])


@pytest.mark.parametrize(
    ("aggregation", "short", "long"),
    [("token_mean", 1 / 4, 1 / 4), ("seq_mean", 1 / 2, 1 / 6), ("fixed_length", 1 / 20, 1 / 20)],
)
def test_tokens_of_a_short_and_a_long_attempt_weigh(
    aggregation: str, short: float, long: float
) -> None:
    weights = token_weights(aggregation, MASK, SEGMENTS, fixed_length=10)
    assert weights[0].tolist() == pytest.approx([short, 0, 0, 0])
    assert weights[1].tolist() == pytest.approx([0, long, long, long])


def test_two_attempts_in_one_row_are_two_sequences() -> None:
    mask = torch.tensor([[True, False, True, True]])
    weights = token_weights("seq_mean", mask, torch.tensor([[0, -1, 1, 1]]))
    assert weights[0].tolist() == pytest.approx([0.5, 0, 0.25, 0.25])


def test_a_batch_without_a_trained_token_weighs_nothing() -> None:
    for aggregation in AGGREGATIONS:
        none = torch.zeros(1, 3, dtype=torch.bool)
        assert (
            token_weights(aggregation, none, torch.full((1, 3), -1), fixed_length=5).sum().item()
            == 0
        )


def gradient(loss: str, aggregation: str, cut: int, *, each_alone: bool = False) -> Tensor:
    """Of a small model's weights on six rows, ``cut`` rows at a time."""
    torch.manual_seed(3)
    rows, length = 6, 7
    features = torch.randn(rows, length, 4)
    old = torch.randn(rows, length) * 0.1 - 1
    advantages = torch.randn(rows, length)
    importance = torch.rand(rows, length) + 0.5
    turn = torch.arange(length).expand(rows, length)
    mask = (torch.rand(rows, length) < 0.7) & (turn > 0)
    segments = (2 * torch.arange(rows)[:, None] + (turn > 3)).masked_fill(~mask, -1)
    model = torch.zeros(4, requires_grad=True)
    settings = LossSettings(kl_weight=0.1, entropy_weight=0.01)
    whole = token_weights(aggregation, mask, segments, fixed_length=9)
    for start in range(0, rows, cut):
        part = slice(start, start + cut)
        logprobs = features[part] @ model - 1
        micro = PolicyTokens(
            logprobs,
            old[part],
            advantages[part],
            mask[part],
            segments[part],
            importance[part],
            old[part] + 0.05,
            logprobs.square(),
        )
        weights = whole[part]
        if each_alone:
            weights = token_weights(aggregation, mask[part], segments[part], fixed_length=9)
            weights = weights * cut / rows
        total, _ = policy_loss(loss, micro, weights, settings)
        total.backward()
    assert model.grad is not None
    return model.grad


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("loss", ["gspo", "ppo_clip"])
def test_one_and_several_micro_batches_give_the_same_gradient(loss: str, aggregation: str) -> None:
    whole = gradient(loss, aggregation, 6)
    assert whole.abs().max() > 0.001
    for cut in (1, 2, 4):
        assert torch.allclose(gradient(loss, aggregation, cut), whole, rtol=1e-5, atol=1e-7)


def test_means_taken_in_each_micro_batch_would_not() -> None:
    whole = gradient("ppo_clip", "token_mean", 6)
    alone = gradient("ppo_clip", "token_mean", 1, each_alone=True)
    assert not torch.allclose(alone, whole, rtol=1e-2, atol=1e-4)


# KL, entropy, value.


def test_k3_is_never_negative_and_zero_where_both_agree() -> None:
    # log π_ref/π = ln 2: 2 − 1 − ln 2 = 0.3069; ln ½: ½ − 1 + ln 2 = 0.1931.
    here = torch.zeros(3)
    there = torch.tensor([2.0, 0.5, 1.0]).log()
    found = k3(here, there, torch.ones(3, dtype=torch.bool))
    assert found.tolist() == pytest.approx([0.3069, 0.1931, 0.0], abs=1e-4)


def test_k3_of_a_policy_far_from_its_reference_stays_finite() -> None:
    found = k3(torch.tensor([-200.0]), torch.tensor([0.0]), torch.ones(1, dtype=torch.bool))
    assert math.isfinite(found.item())


def test_k3_estimates_the_divergence_in_expectation() -> None:
    policy, reference = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    expected = (policy * k3(policy.log(), reference.log(), torch.ones(3, dtype=torch.bool))).sum()
    assert expected.item() == pytest.approx((policy * (policy / reference).log()).sum().item())


def test_the_reference_costs_its_weight() -> None:
    batch = tokens([1.0], [0.0], ref_logprobs=torch.tensor([-1.0]) + math.log(2))
    loss, sums = policy_loss("ppo_clip", batch, torch.ones(1), LossSettings(kl_weight=0.5))
    assert loss.item() == pytest.approx(0.5 * 0.3069, abs=1e-4)
    assert sums["ref_kl"] == pytest.approx(0.3069, abs=1e-4)


def test_importance_weights_scale_the_policy_s_part_alone() -> None:
    batch = tokens([1.0], [2.0], importance=torch.tensor([0.5]), ref_logprobs=torch.tensor([-1.0]))
    loss, _ = policy_loss("ppo_clip", batch, torch.ones(1), LossSettings(kl_weight=1.0))
    assert loss.item() == pytest.approx(-1.0)


def test_entropy_is_that_of_the_distribution_and_is_rewarded() -> None:
    assert entropy_of(torch.zeros(2, 4)).tolist() == pytest.approx([math.log(4)] * 2)
    batch = tokens([1.0], [0.0], entropy=torch.tensor([math.log(4)]))
    loss, _ = policy_loss("ppo_clip", batch, torch.ones(1), LossSettings(entropy_weight=0.1))
    assert loss.item() == pytest.approx(-0.1 * math.log(4))


def test_the_value_loss_takes_the_worse_of_plain_and_clipped_error() -> None:
    # Old 0, target 1. V 0.5: plain ½·0.25, clipped at 0.2 ½·0.64 counts. V −1: plain ½·4 counts.
    values = torch.tensor([0.5, -1.0], requires_grad=True)
    one = torch.ones(2)
    found = value_loss(values, torch.zeros(2), one, one * 0.5)
    assert found.item() == pytest.approx(0.5 * (0.32 + 2.0))
    plain = value_loss(values, torch.zeros(2), one, one * 0.5, clip=None)
    assert plain.item() == pytest.approx(0.5 * (0.125 + 2.0))


# What is logged.


def test_sums_over_micro_batches_make_means_by_token() -> None:
    first, second = tokens([1.5, 1.0], [1, 1]), tokens([1.0, 1.0], [1, 1])
    sums = [
        policy_loss("ppo_clip", part, torch.full((2,), 0.25), LossSettings())[1]
        for part in (first, second)
    ]
    means = loss_means(sums)
    assert means["clip_fraction"] == 0.25
    assert means["ratio"] == pytest.approx(4.5 / 4)
    assert means["approx_kl"] == pytest.approx((0.5 - math.log(1.5)) / 4, abs=1e-6)


def test_likelihood_is_told_apart_by_attempt() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -9.0, -4.0])
    mask = torch.tensor([True, True, False, True])
    found = mean_by_attempt(logprobs, mask, torch.tensor([0, 0, 0, 1]))
    assert found == {"attempt_1": -1.5, "attempt_2": -4.0}


def test_numbers_off_the_mask_do_not_matter() -> None:
    torch.manual_seed(0)
    mask, segments = torch.tensor([True, False]), torch.tensor([0, -1])
    found = []
    for rubbish in (0.0, math.nan, 50.0):
        new = torch.tensor([-1.0, rubbish], requires_grad=True)
        batch = PolicyTokens(
            new, torch.tensor([-1.1, 0.0]), torch.tensor([1.0, 7.0]), mask, segments
        )
        loss, sums = policy_loss("ppo_clip", batch, torch.tensor([1.0, 0.0]), LossSettings())
        loss.backward()
        assert new.grad is not None
        found.append((loss.item(), new.grad.tolist(), sums))
    assert found[0] == found[1] == found[2]


def test_nor_do_they_spoil_any_token_s_own_number() -> None:
    nan = torch.tensor([math.nan, -1.0])
    batch = PolicyTokens(
        nan, nan, torch.ones(2), torch.tensor([False, True]), torch.tensor([-1, 0])
    )
    for loss in (ppo_clip, gspo):
        assert loss(batch, LossSettings())[0].tolist() == [-1.0, -1.0]
    error = value_loss(nan, nan, torch.tensor([math.nan, 0.0]), torch.tensor([0.0, 1.0]))
    assert error.item() == 0.5


def test_importance_weights_learn_nothing_themselves() -> None:
    weight = torch.ones(1, requires_grad=True)
    loss, _ = policy_loss(
        "ppo_clip", tokens([1.0], [1.0], importance=weight), torch.ones(1), LossSettings()
    )
    loss.backward()
    assert weight.grad is None


# Names and refusals.


def test_our_losses_are_found_by_name_and_a_wrong_one_is_told_the_nearest() -> None:
    assert {"gspo", "ppo_clip"} <= set(loss_names())
    with pytest.raises(ValueError, match=r"'ppo-clip'\. Did you mean 'ppo_clip'\?"):
        get_loss("ppo-clip")
    with pytest.raises(ValueError, match=r"'seqmean'\. Did you mean 'seq_mean'\?"):
        token_weights("seqmean", MASK, SEGMENTS)


def test_an_entry_point_adds_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint(
        "mine", "reagent_env.trainers.losses:gspo", "reagent_env.losses"
    )
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [entry] if "losses" in group else []
    )
    assert get_loss("mine") is gspo
    assert "mine" in loss_names()


def test_a_weight_without_its_input_is_refused() -> None:
    batch = tokens([1.0], [1.0])
    with pytest.raises(ValueError, match="give ref_logprobs"):
        policy_loss("ppo_clip", batch, torch.ones(1), LossSettings(kl_weight=0.1))
    with pytest.raises(ValueError, match="give entropy"):
        policy_loss("ppo_clip", batch, torch.ones(1), LossSettings(entropy_weight=0.1))
    with pytest.raises(ValueError, match="give fixed_length="):
        token_weights("fixed_length", MASK, SEGMENTS)


@pytest.mark.parametrize(
    "options", [{"clip_low": 1.5}, {"clip_high": -0.1}, {"kl_weight": math.nan}]
)
def test_settings_out_of_range_are_refused(options: dict[str, float]) -> None:
    [name] = options
    with pytest.raises(ValueError, match=name):
        LossSettings(**options)
