"""From advantages to a loss: the policy losses by name, and how tokens are weighed in the mean.

Weights are computed for the whole batch first (:func:`token_weights`), so that the sum of the
micro-batches' losses is the batch's loss whatever the cut::

    weights = token_weights("seq_mean", mask, segments)              # [N, T], once
    for rows in cut:
        tokens = PolicyTokens(logprobs(rows), old[rows], advantages[rows], mask[rows], segments[rows])
        loss, sums = policy_loss("ppo_clip", tokens, weights[rows], settings)
        loss.backward()

A loss is a function with the shape of its siblings (:class:`TokenLoss`); an entry point in the group
``reagent_env.losses`` adds one. Not here: log-probabilities (the learner), the sampler's correction
(``importance.py``).
"""

from __future__ import annotations

import difflib
import importlib.metadata
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

ENTRY_POINTS = "reagent_env.losses"
AGGREGATIONS = ("fixed_length", "seq_mean", "token_mean")
_LARGEST_LOG = 20.0
"""exp of it is 5e8: past it a ratio says only that it is large, and its square still fits a float32."""


@dataclass(frozen=True, slots=True)
class LossSettings:
    """How the policy is moved, e.g. ``LossSettings(clip_low=0.2, clip_high=0.28, kl_weight=0.001)``.

    Raises:
        ValueError: a value out of its range.
    """

    clip_low: float | None = None
    """ε below 1 for the ratio; None is the loss's own: 0.2 (PPO), 3e-4 (GSPO)."""
    clip_high: float | None = None
    """ε above 1; larger than ``clip_low`` lets unlikely tokens grow. None: 0.28 (DAPO), 4e-4 (GSPO)."""
    kl_weight: float = 0.0
    """β: how much k3(π_θ ‖ reference) costs; needs ``ref_logprobs``."""
    entropy_weight: float = 0.0
    """How much entropy is worth; needs ``entropy``."""

    def __post_init__(self) -> None:
        if self.clip_low is not None and not 0 <= self.clip_low <= 1:
            raise ValueError(f"clip_low must lie in [0, 1], got {self.clip_low!r}.")
        if self.clip_high is not None and not 0 <= self.clip_high < math.inf:
            raise ValueError(f"clip_high must be finite and not negative, got {self.clip_high!r}.")
        for name in ("kl_weight", "entropy_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} must be finite and not negative, got {getattr(self, name)!r}."
                )


@dataclass(frozen=True, slots=True)
class PolicyTokens:
    """Tokens of a micro-batch, all […] of one shape, [B, T] or flat; numbers off the mask don't matter."""

    logprobs: Tensor
    """[…] log π_θ, with its gradient."""
    old_logprobs: Tensor
    """[…] log π_old, recomputed by the learner before the first update on the batch."""
    advantages: Tensor
    """[…] of the token's turn."""
    mask: Tensor
    """[…] True where the policy is trained."""
    segments: Tensor
    """[…] int64, which attempt of the batch each token belongs to; −1 off the mask. ``gspo`` takes the
    ratio of all of a segment's tokens here, so a segment must not be cut between micro-batches."""
    importance: Tensor | None = None
    """[…] w, detached; None is 1."""
    ref_logprobs: Tensor | None = None
    """[…] of the reference policy, where ``kl_weight`` > 0."""
    entropy: Tensor | None = None
    """[…] of π_θ at each token, where ``entropy_weight`` > 0 or it is to be reported."""


class TokenLoss(Protocol):
    """The shape that all policy losses share."""

    def __call__(self, tokens: PolicyTokens, settings: LossSettings) -> tuple[Tensor, Tensor]:
        """[…] the loss of each token, and […] True where its gradient was clipped away."""
        ...


def ppo_clip(tokens: PolicyTokens, settings: LossSettings) -> tuple[Tensor, Tensor]:
    """−min(ρA, clip(ρ, 1 − ε_low, 1 + ε_high)·A), ρ = π_θ/π_old (PPO, arXiv 1707.06347; ε_high: DAPO).

    Example: A = 1, ρ = 1.5: −1.28 and clipped; A = −1, ρ = 1.5: 1.5.
    """
    ratio = _log_ratio(tokens).exp()
    return _clipped(ratio, tokens.advantages, settings, low=0.2, high=0.28)


def gspo(tokens: PolicyTokens, settings: LossSettings) -> tuple[Tensor, Tensor]:
    """PPO-clip with a sequence's ratio s = (π_θ(y)/π_old(y))^(1/|y|) (GSPO, arXiv 2507.18071, token form).

    s_t = sg[s]·π_θ/sg[π_θ] has the value s and each token's own gradient; with one advantage for the
    whole sequence and ``seq_mean`` it is GSPO's sequence loss, value and gradient.
    """
    log_ratio = _log_ratio(tokens)
    inside = tokens.mask
    _, index = torch.unique(tokens.segments[inside], return_inverse=True)
    own = log_ratio.detach()[inside]
    count = int(index.max()) + 1 if index.numel() else 0
    total = own.new_zeros(count).index_add_(0, index, own)
    length = own.new_zeros(count).index_add_(0, index, torch.ones_like(own))
    mean = torch.zeros_like(log_ratio)
    mean[inside] = (total / length)[index]
    ratio = (mean + log_ratio - log_ratio.detach()).exp()
    return _clipped(ratio, tokens.advantages, settings, low=3e-4, high=4e-4)


_LOSSES: dict[str, TokenLoss] = {"gspo": gspo, "ppo_clip": ppo_clip}


def loss_names() -> list[str]:
    """Ours and those that entry points add, sorted."""
    added = {entry.name for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    return sorted(set(_LOSSES) | added)


def get_loss(name: str) -> TokenLoss:
    """The policy loss of that name.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    if name in _LOSSES:
        return _LOSSES[name]
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            loaded: TokenLoss = entry.load()
            return loaded
    raise ValueError(_unknown("policy loss", name, loss_names()))


def token_weights(
    aggregation: str, mask: Tensor, segments: Tensor, *, fixed_length: int | None = None
) -> Tensor:
    """[…] how much each token of the *whole batch* counts; the loss is Σ weight · token loss.

    Example, attempts of 1 and 3 tokens: ``token_mean`` gives ¼ each; ``seq_mean`` ½, and ⅙ three times;
    ``fixed_length`` of 10 gives 1/20 each.

    Args:
        aggregation: ``token_mean`` (DAPO), ``seq_mean`` (GRPO, Reagent: mean over attempts of the mean
            over their tokens) or ``fixed_length`` (Dr. GRPO: every attempt is divided by one constant).
        mask: […] True where the policy is trained, rejected sequences left out.
        segments: […] int64, the attempt of each token; its number is its own in the whole batch.
        fixed_length: The constant, such as the most tokens an attempt can have.

    Raises:
        ValueError: an unknown aggregation, or ``fixed_length`` without its constant.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(_unknown("aggregation", aggregation, list(AGGREGATIONS)))
    weights = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    _, index, lengths = torch.unique(segments[mask], return_inverse=True, return_counts=True)
    attempts = max(len(lengths), 1)
    if aggregation == "token_mean":
        weights[mask] = 1.0 / max(int(mask.sum()), 1)
    elif aggregation == "seq_mean":
        weights[mask] = 1.0 / (lengths[index].float() * attempts)
    else:
        if fixed_length is None or fixed_length < 1:
            raise ValueError(
                f"aggregation fixed_length divides by a constant: give fixed_length=, such as the most "
                f"tokens an attempt can have; got {fixed_length!r}."
            )
        weights[mask] = 1.0 / (fixed_length * attempts)
    return weights


def policy_loss(
    loss: str | TokenLoss, tokens: PolicyTokens, weights: Tensor, settings: LossSettings
) -> tuple[Tensor, dict[str, float]]:
    """The micro-batch's part of the batch's loss, and sums for the log (:func:`loss_means`).

    Args:
        loss: Its name, or itself.
        tokens: Of the micro-batch.
        weights: […] of the same tokens, from :func:`token_weights` over the whole batch.
        settings: Clip, β, entropy.

    Returns:
        A scalar with its gradient; and sums over trained tokens: ``tokens``, ``clip_fraction``,
        ``approx_kl`` (k3 of π_old ‖ π_θ), ``ratio``, and ``ref_kl`` and ``entropy`` where known.

    Raises:
        ValueError: β or the entropy's worth is above 0 and its input is missing.
    """
    by_token, clipped = (get_loss(loss) if isinstance(loss, str) else loss)(tokens, settings)
    if tokens.importance is not None:
        by_token = by_token * tokens.importance.detach()
    measured = {"clip_fraction": clipped.float()}
    with torch.no_grad():
        log_ratio = _log_ratio(tokens)
        measured["ratio"] = log_ratio.exp()
        measured["approx_kl"] = measured["ratio"] - 1 - log_ratio
    if tokens.ref_logprobs is not None:
        penalty = k3(tokens.logprobs, tokens.ref_logprobs, tokens.mask)
        by_token = by_token + settings.kl_weight * penalty
        measured["ref_kl"] = penalty.detach()
    elif settings.kl_weight > 0:
        raise ValueError("kl_weight is above 0: give ref_logprobs, or set it to 0.")
    if tokens.entropy is not None:
        by_token = by_token - settings.entropy_weight * tokens.entropy
        measured["entropy"] = tokens.entropy.detach()
    elif settings.entropy_weight > 0:
        raise ValueError("entropy_weight is above 0: give entropy, or set it to 0.")
    total = (by_token.masked_fill(~tokens.mask, 0.0) * weights).sum()
    sums = {name: float(found[tokens.mask].double().sum()) for name, found in measured.items()}
    return total, {"tokens": float(tokens.mask.sum()), **sums}


def loss_means(sums: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Means by token over micro-batches, e.g. ``[{"tokens": 2, "ratio": 2.2}]`` → ``{"ratio": 1.1}``."""
    total: dict[str, float] = {}
    for one in sums:
        for name, value in one.items():
            total[name] = total.get(name, 0.0) + value
    tokens = total.pop("tokens", 0.0)
    return {name: value / max(tokens, 1.0) for name, value in total.items()}


def k3(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """[…] π_ref/π − 1 − log(π_ref/π) ≥ 0, an unbiased estimate of KL(π ‖ π_ref) at tokens drawn from π."""
    log_ratio = (ref_logprobs - logprobs).masked_fill(~mask, 0.0)
    log_ratio = log_ratio.clamp(-_LARGEST_LOG, _LARGEST_LOG)
    return log_ratio.exp() - 1 - log_ratio


def value_loss(
    values: Tensor, old_values: Tensor, targets: Tensor, weights: Tensor, clip: float | None = 0.2
) -> Tensor:
    """½·max((V − target)², (V_old ± clip − target)²), PPO's: a step past the clip earns nothing more.

    Args:
        values: […] of the value head, with its gradient.
        old_values: […] before the first update on the batch.
        targets: […] A + V_old.
        weights: […] of the whole batch, as for the policy; 0 where there is no value.
        clip: None for the plain squared error.
    """
    error = (values - targets).square()
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (near - targets).square())
    return (0.5 * error.masked_fill(weights == 0, 0.0) * weights).sum()


def entropy_of(logits: Tensor) -> Tensor:
    """[…] entropy in nats of softmax(logits) over the last dimension [… , V]."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def mean_by_attempt(numbers: Tensor, mask: Tensor, attempt_of: Tensor) -> dict[str, float]:
    """Mean over trained tokens of first and of second attempts: ``{"attempt_1": …, "attempt_2": …}``.

    Args:
        numbers: […] log-probability, entropy, or anything else a token has.
        mask: […] True where the policy is trained.
        attempt_of: […] int64, 0 for first attempts and 1 for second ones.
    """
    found = {}
    for k in torch.unique(attempt_of[mask]).tolist():
        found[f"attempt_{int(k) + 1}"] = float(numbers[mask & (attempt_of == k)].double().mean())
    return found


def _log_ratio(tokens: PolicyTokens) -> Tensor:
    """log π_θ/π_old, 0 off the mask."""
    log_ratio = (tokens.logprobs - tokens.old_logprobs).masked_fill(~tokens.mask, 0.0)
    return log_ratio.clamp(-_LARGEST_LOG, _LARGEST_LOG)


def _clipped(
    ratio: Tensor, advantages: Tensor, settings: LossSettings, *, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """PPO's pessimistic minimum with the settings' clip, or the loss's own."""
    below = 1 - (low if settings.clip_low is None else settings.clip_low)
    above = 1 + (high if settings.clip_high is None else settings.clip_high)
    plain, bounded = ratio * advantages, ratio.clamp(below, above) * advantages
    return -torch.minimum(plain, bounded), bounded < plain


def _unknown(kind: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(known)}."
