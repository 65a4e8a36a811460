"""AdamW over a policy's trainable weights, with warm-up and a bound on the gradient's norm."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def make_optimiser(
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
) -> torch.optim.AdamW:
    """AdamW; weight decay for matrices only, as usual."""
    trained = [one for one in parameters if one.requires_grad]
    matrices = [one for one in trained if one.ndim >= 2]
    others = [one for one in trained if one.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": weight_decay}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=lr, betas=betas, foreach=True)


def falling_rate(lr: float, step: int, steps: int, decay: float) -> float:
    """``lr``, but over the last ``decay`` share of ``steps`` it falls linearly to a tenth.

    Example: of ten steps with ``decay=0.5``, step 4 has the whole rate, and step 7 three fifths of it.
    """
    left = (steps - step) / steps
    return lr if decay == 0 or left > decay else lr * max(0.1, left / decay)


def optimiser_step(
    optimiser: torch.optim.Optimizer, *, lr: float, warmup: int, step: int, max_grad_norm: float
) -> float:
    """Scale the gradient to ``max_grad_norm`` at most, step, clear; returns the norm before.

    A gradient that is not finite changes nothing: the step is skipped, and the norm says so.

    Args:
        optimiser: Of the policy.
        lr: After the warm-up.
        warmup: Steps over which it rises linearly.
        step: Steps made before this one.
        max_grad_norm: L2, over all weights.
    """
    trained = [one for group in optimiser.param_groups for one in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(trained, max_grad_norm))
    if norm == norm and norm != float("inf"):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / warmup) if warmup else lr
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return norm
