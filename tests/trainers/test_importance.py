"""The sampler's mismatch: weights by hand, and the bias that they take away, exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reagent_env.trainers.importance import ImportanceSettings, importance_weights
from reagent_env.trainers.losses import LossSettings, PolicyTokens, policy_loss

torch.set_num_threads(1)


def of_ratios(ratios: Tensor, segments: Tensor, settings: ImportanceSettings):  # type: ignore[no-untyped-def]
    return importance_weights(
        ratios.log(), torch.zeros(len(ratios)), segments >= 0, segments, settings
    )


def test_weights_are_ratios_up_to_the_cap() -> None:
    found = of_ratios(
        torch.tensor([0.5, 1.0, 4.0, 9.0]), torch.tensor([0, 0, 0, -1]), ImportanceSettings()
    )
    assert found.weights.tolist() == pytest.approx([0.5, 1.0, 2.0, 0.0])
    assert found.metrics["clipped"] == pytest.approx(1 / 3)
    # (½ + 1 + 2)² / (3·(¼ + 1 + 4)) = 12.25 / 15.75
    assert found.metrics["effective"] == pytest.approx(0.7778, abs=1e-4)
    # Mean of ratio − 1 − ln ratio, before the cap: (0.1931 + 0 + 1.6137) / 3
    assert found.metrics["k3"] == pytest.approx(0.6023, abs=1e-4)


def test_weights_carry_no_gradient() -> None:
    old = torch.zeros(2, requires_grad=True)
    everywhere = torch.ones(2, dtype=torch.bool)
    found = importance_weights(
        old, torch.ones(2), everywhere, torch.zeros(2, dtype=torch.int64), ImportanceSettings()
    )
    assert not found.weights.requires_grad


def test_a_sequence_whose_geometric_mean_ratio_leaves_the_bounds_is_rejected_whole() -> None:
    # √(8·½) = 2 stays; √(8·1) = 2.83 goes; ∛(¼·¼·1) = 0.40 goes.
    ratios = torch.tensor([8.0, 0.499, 8.0, 1.0, 0.25, 0.25, 1.0])
    segments = torch.tensor([0, 0, 1, 1, 2, 2, 2])
    found = of_ratios(ratios, segments, ImportanceSettings(reject=True))
    assert found.mask.tolist() == [True, True] + [False] * 5
    assert found.weights[2:].tolist() == [0.0] * 5
    assert found.metrics["rejected"] == pytest.approx(2 / 3)
    kept = of_ratios(ratios, segments, ImportanceSettings())
    assert kept.mask.all()
    assert kept.metrics["rejected"] == 0


def test_numbers_off_the_mask_do_not_matter() -> None:
    nan = torch.tensor([float("nan"), 0.0])
    segments = torch.tensor([-1, 0])
    found = importance_weights(
        nan, torch.zeros(2), segments >= 0, segments, ImportanceSettings(reject=True)
    )
    assert found.weights.tolist() == [0.0, 1.0]
    assert found.metrics["effective"] == 1.0


def test_without_correction_weights_are_one_and_the_mismatch_is_still_told() -> None:
    found = of_ratios(
        torch.tensor([4.0, 1.0]),
        torch.zeros(2, dtype=torch.int64),
        ImportanceSettings(correct=False),
    )
    assert found.weights.tolist() == [1.0, 1.0]
    assert found.metrics["clipped"] == 0.5
    assert found.metrics["k3"] > 0.5


def test_a_batch_without_a_trained_token_is_no_error() -> None:
    found = of_ratios(torch.tensor([2.0]), torch.tensor([-1]), ImportanceSettings(reject=True))
    assert found.weights.tolist() == [0.0]
    assert set(found.metrics.values()) == {0.0}


def expected_gradient(sampler: Tensor, settings: ImportanceSettings | None) -> Tensor:
    """Of the loss on four logits when answers come from ``sampler``; None is the learner's own."""
    logits = torch.tensor([0.5, 0.0, -0.5, 0.2], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    logprobs = logits.log_softmax(0)
    old = logprobs.detach()
    drawn = old if settings is None else sampler
    mask = torch.ones(4, dtype=torch.bool)
    importance = None
    if settings is not None:
        # Each answer is a sequence of one token, and the expectation is the sum over all four.
        importance = importance_weights(old, drawn, mask, torch.arange(4), settings).weights
    baseline = (old.exp() * reward).sum()
    batch = PolicyTokens(logprobs, old, reward - baseline, mask, torch.arange(4), importance)
    loss, _ = policy_loss("ppo_clip", batch, drawn.exp(), LossSettings())
    [found] = torch.autograd.grad(loss, logits)
    return found


@pytest.mark.parametrize(("shift", "left"), [(0.3, 1e-6), (0.8, 0.5), (1.5, 0.75)])
def test_with_a_perturbed_sampler_the_gradient_s_bias_shrinks_with_the_correction(
    shift: float, left: float
) -> None:
    """A small shift stays below the cap and is mended wholly; a large one is mended in part."""
    logits = torch.tensor([0.5, 0.0, -0.5, 0.2], dtype=torch.float64)
    sampler = (logits + shift * torch.tensor([1.0, -1.0, 0.5, -0.5])).log_softmax(0)
    right = expected_gradient(sampler, None)
    biased = expected_gradient(sampler, ImportanceSettings(correct=False))
    mended = expected_gradient(sampler, ImportanceSettings())
    bias = (biased - right).norm().item()
    assert bias > 0.05 * right.norm().item()
    assert (mended - right).norm().item() <= left * bias


@pytest.mark.parametrize(
    ("options", "name"),
    [({"cap": 0.0}, "cap"), ({"lowest": 1.5}, "lowest"), ({"highest": 0.9}, "highest")],
)
def test_bounds_that_make_no_sense_are_refused(options: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ImportanceSettings(**options)  # type: ignore[arg-type]
