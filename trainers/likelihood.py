"""What the learner's model says of sampled tokens: log-probability, entropy, and the state behind it.

Only the positions that are asked for go through the vocabulary, which is most of the work in models
whose turns are short and whose observations are long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reagent_env.trainers.layout import Layout
from reagent_env.trainers.tree_attention import run_over_tree


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of the N tokens that a pass was asked for."""

    logprobs: Tensor
    """[N] float32 log π(token | everything before it), under the processed distribution."""
    entropy: Tensor
    """[N] float32 entropy of the whole distribution in nats; its gradient only where asked for."""
    states: Tensor
    """[N, H] the model's last hidden state before each token; what a value head reads."""


def likelihood(
    model: Any,
    layout: Layout,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    entropy_gradient: bool = False,
) -> Likelihood:
    """The likelihood of ``layout.tokens`` in one causal pass.

    Args:
        model: A causal language model of transformers, with or without LoRA adapters.
        layout: What it reads and what is asked for; a tree within ``attending_to_trees`` only.
        temperature: At which the tokens were sampled.
        top_p: Nucleus from which they were sampled. A token outside the learner's own nucleus keeps
            its log-probability under the whole distribution: it cannot be −∞.
        entropy_gradient: Whether the entropy will be part of a loss.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = inner.get_output_embeddings()
    if layout.paths is None or layout.positions is None:
        hidden = inner.get_decoder()(input_ids=layout.ids, use_cache=False).last_hidden_state
    else:
        hidden = run_over_tree(model, layout.ids, layout.positions, layout.paths)
    states = hidden.flatten(0, 1).index_select(0, layout.before)
    logits = head(states).float()
    cap = getattr(inner.config, "final_logit_softcapping", None)
    if cap:
        logits = torch.tanh(logits / cap) * cap
    scale = getattr(inner.config, "logits_scaling", None) or getattr(
        inner.config, "logit_scale", None
    )
    if isinstance(scale, int | float) and scale != 1:
        raise ValueError(
            f"{type(inner).__name__} scales its logits, which the trainer does not know how to "
            "follow; train another model."
        )
    if temperature not in (0.0, 1.0):
        logits = logits / temperature
    everything = torch.log_softmax(logits, dim=-1)
    chosen = layout.tokens.unsqueeze(-1)
    logprobs = everything.gather(-1, chosen).squeeze(-1)
    if top_p < 1.0:
        mass = _nucleus_mass(everything.detach(), chosen, top_p)
        logprobs = logprobs - mass.log()
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropy = -(everything.exp() * everything).sum(-1)
    return Likelihood(logprobs, entropy, states)


def _nucleus_mass(logprobs: Tensor, chosen: Tensor, top_p: float) -> Tensor:
    """[N] probability of the fewest likeliest tokens that reach ``top_p``; 1 for a token outside."""
    ordered, order = logprobs.exp().sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    inside = before < top_p
    mass = (ordered * inside).sum(-1)
    rank = (order == chosen).int().argmax(-1, keepdim=True)
    return torch.where(inside.gather(-1, rank).squeeze(-1), mass, torch.ones_like(mass))
