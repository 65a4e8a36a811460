"""Draws one token a row from logits, each row by its own settings and its own random number."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reagent_env.trainers.engines.base import Sampling


def draw(
    logits: torch.Tensor, samplings: Sequence[Sampling], uniforms: Sequence[float]
) -> tuple[list[int], list[float]]:
    """Tokens, and the log-probability of each under the distribution it was drawn from.

    Inverse transform: the first token at which the cumulated probability exceeds the row's number,
    so a row's token depends on its own logits and number alone. A greedy row (temperature 0) takes
    the largest logit; its log-probability is that of the model's own distribution, at temperature 1.

    Args:
        logits: ``[n, vocabulary]``, any floating type; computed on in float32.
        samplings: n settings.
        uniforms: n numbers in [0, 1).
    """
    logits = logits.float()
    temperatures = [one.temperature for one in samplings]
    if any(one not in (0.0, 1.0) for one in temperatures):
        divisors = [one or 1.0 for one in temperatures]
        logits = logits / torch.tensor(divisors, device=logits.device)[:, None]
    if any(one.top_p < 1.0 for one in samplings):
        logits = _nucleus(logits, [one.top_p for one in samplings])
    logprobs = logits.log_softmax(-1)
    if all(one == 0.0 for one in temperatures):
        tokens = logits.argmax(-1)
    else:
        # In float64: cumulated in float32, small probabilities at the end of a large vocabulary
        # would be rounded away.
        cumulated = logprobs.exp().cumsum(-1, dtype=torch.float64)
        numbers = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None]
        tokens = torch.searchsorted(cumulated, numbers * cumulated[:, -1:], right=True)[:, 0]
        tokens = tokens.clamp_(max=logits.shape[-1] - 1)
        if 0.0 in temperatures:
            greedy = torch.tensor([one == 0.0 for one in temperatures], device=logits.device)
            tokens = torch.where(greedy, logits.argmax(-1), tokens)
    chosen = logprobs.gather(-1, tokens[:, None])[:, 0]
    return tokens.tolist(), chosen.tolist()


def _nucleus(logits: torch.Tensor, top_ps: list[float]) -> torch.Tensor:
    """Leave out what lies beyond the smallest set of likeliest tokens of mass ``top_p``."""
    ordered, order = logits.sort(-1, descending=True)
    mass = ordered.softmax(-1)
    before = mass.cumsum(-1) - mass
    limits = torch.tensor(top_ps, device=logits.device)[:, None]
    beyond = (before >= limits) & (limits < 1.0)
    beyond[:, 0] = False
    return logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)
