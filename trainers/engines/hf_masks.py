"""Causal masks for rows of different lengths, of each kind that a model's layers need."""

from __future__ import annotations

from typing import Any

import torch


class CausalMasks:
    """Masks by position: a token sees those at or before its own place, and within a window.

    Example: ``CausalMasks(config, 2048).at(torch.tensor([[3], [1]]), span=4, dtype=torch.float32)``
    is ``[2, 1, 1, 4]``: zeros in the first row, ``0, 0, min, min`` in the second.
    """

    def __init__(self, config: Any, context_length: int) -> None:
        """Read the kinds of layers from ``config``, a text model's.

        Raises:
            ValueError: attention that takes no mask, or layers that keep something other than keys.
        """
        attention = config._attn_implementation
        if attention not in ("sdpa", "eager"):
            raise ValueError(
                f"The model's attention is {attention!r}; load it with attn_implementation='sdpa'."
            )
        kinds = set(getattr(config, "layer_types", None) or ())
        if unknown := kinds - {"full_attention", "sliding_attention"}:
            raise ValueError(
                f"The model has layers of {', '.join(sorted(unknown))}; the engine knows "
                "full_attention and sliding_attention. Serve it with vLLM instead."
            )
        window = getattr(config, "sliding_window", None)
        if not getattr(config, "use_sliding_window", True) or (window or 0) >= context_length:
            window = None
        self._windows: dict[str, int | None] = {"all": window}
        if kinds:
            self._windows = {
                kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)
            }

    def at(
        self, positions: torch.Tensor, span: int, dtype: torch.dtype
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """What is added to the scores of queries at ``positions`` ``[n, m]`` over ``span`` keys.

        ``[n, 1, m, span]``, or a dictionary by kind of layer where the model's layers differ.
        """
        keys = torch.arange(span, device=positions.device)
        queries = positions[:, None, :, None]
        masks: dict[int | None, torch.Tensor] = {}
        for window in set(self._windows.values()):
            hidden = keys > queries
            if window is not None:
                hidden |= keys <= queries - window
            zeros = torch.zeros(hidden.shape, dtype=dtype, device=positions.device)
            masks[window] = zeros.masked_fill_(hidden, torch.finfo(dtype).min)
        if len(masks) == 1:
            return next(iter(masks.values()))
        return {kind: masks[window] for kind, window in self._windows.items()}
