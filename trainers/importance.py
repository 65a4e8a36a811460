"""Puts right that tokens were sampled by an engine whose probabilities are not quite the learner's.

The ratio of the loss is π_θ / π_old with π_old recomputed by the learner; what is left between π_old
and the sampler is a weight on each token, truncated and without gradient (truncated importance
sampling). Not here: the loss (``losses.py``), which multiplies by these weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST_LOG = 20.0
"""exp of it is 5e8: beyond, a ratio says no more than that it is large."""


@dataclass(frozen=True, slots=True)
class ImportanceSettings:
    """How far the sampler is trusted, e.g. ``ImportanceSettings(cap=2.0, reject=True)``.

    Raises:
        ValueError: a bound out of its range.
    """

    correct: bool = True
    """False leaves every weight at 1; the mismatch is still reported."""
    cap: float = 2.0
    """No weight is larger."""
    reject: bool = False
    """Leave sequences out whose geometric-mean ratio leaves [lowest, highest]."""
    lowest: float = 0.5
    """Of the geometric mean of π_old / π_sampler over a sequence."""
    highest: float = 2.0
    """Of the same."""

    def __post_init__(self) -> None:
        if not 0 < self.cap < math.inf:
            raise ValueError(f"cap must be finite and above 0, got {self.cap!r}.")
        if not 0 < self.lowest < 1 < self.highest < math.inf:
            raise ValueError(
                f"lowest and highest must lie on either side of 1, e.g. 0.5 and 2, "
                f"got {self.lowest!r} and {self.highest!r}."
            )


@dataclass(frozen=True, slots=True)
class Corrected:
    """What :func:`importance_weights` gives back."""

    weights: Tensor
    """[…] w per token, detached; 0 where a token is not trained."""
    mask: Tensor
    """[…] True where a token is trained: the mask given, less the rejected sequences."""
    metrics: dict[str, float]
    """``k3``, ``effective`` (sample size, a share of 1), ``clipped``, ``rejected``: all by token, but
    the last, which is by sequence."""


def importance_weights(
    old_logprobs: Tensor,
    sampled_logprobs: Tensor,
    mask: Tensor,
    segments: Tensor,
    settings: ImportanceSettings,
) -> Corrected:
    """w = min(π_old / π_sampler, cap), token by token.

    Example: ratios (0.5, 1, 4) with cap 2 give weights (0.5, 1, 2), of which a third is clipped.

    Args:
        old_logprobs: […] log π_old as the learner computes it.
        sampled_logprobs: […] as the engine returned them.
        mask: […] True where the policy is trained.
        segments: […] int64, which sequence (attempt) each token belongs to, −1 for none.
        settings: Cap and rejection.
    """
    log_ratio = (old_logprobs - sampled_logprobs).detach().masked_fill(~mask, 0.0)
    log_ratio = log_ratio.clamp(-_LARGEST_LOG, _LARGEST_LOG)
    ratio = log_ratio.exp()
    tokens = int(mask.sum())
    numbers = segments[mask]
    _, index = torch.unique(numbers, return_inverse=True)
    sequences = int(index.max()) + 1 if tokens else 0
    logs = log_ratio[mask].float()
    counts = logs.new_zeros(sequences).index_add_(0, index, torch.ones_like(logs))
    means = logs.new_zeros(sequences).index_add_(0, index, logs) / counts
    out = (means < math.log(settings.lowest)) | (means > math.log(settings.highest))
    kept = mask.clone()
    if settings.reject and tokens:
        kept[mask] = ~out[index]
    capped = ratio.clamp(max=settings.cap) if settings.correct else torch.ones_like(ratio)
    weights = capped * kept
    inside = weights[kept].double()
    metrics = {
        "k3": _mean((ratio - 1 - log_ratio)[mask]),
        "effective": float(inside.sum() ** 2 / (inside.square().sum() * len(inside)))
        if len(inside)
        else 0.0,
        "clipped": _mean((ratio > settings.cap)[mask].float()),
        "rejected": _mean(out.float()) if settings.reject else 0.0,
    }
    return Corrected(weights, kept, metrics)


def _mean(numbers: Tensor) -> float:
    return float(numbers.double().mean()) if numbers.numel() else 0.0
