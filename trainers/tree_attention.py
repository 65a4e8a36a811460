"""Attention over a tree of tokens: each token sees those on its own path, and no others.

All tokens of a tree stand in one row; whatever a model does token by token runs over them as they
are, without padding. Attention alone has to know the paths. transformers lets a function take its
place by name: this one gathers, of each sequence, the queries that are its own and the keys of its
whole path, and calls torch's ``scaled_dot_product_attention`` on them. So attention costs no more
than over the sequences apart, no mask is as large as the square of the row, and gradient
checkpointing, adapters and shards work as ever.

Of the last layer nobody reads anything but the states that are asked for, a tenth of all where
observations are long: its attention and its MLP, found by its name, compute no others.

Not here: trees (``token_tree.py``), what is asked of a pass (``layout.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from reagent_env.trainers.token_tree import TokenTree, token_tree

NAME = "reagent_token_tree"
"""Under which transformers knows the function."""
MASK_ELEMENTS = 1 << 24
"""Of one mask; more queries and keys than this go without, by computing their whole path."""
CAUSAL_FROM = 0.75
"""A sequence of which more than this share is its own is computed whole, causally, without a mask."""
PADDED_TO = 1.25
"""Sequences go into one call while padding makes it at most so many times their own work."""
HARMLESS = {
    "cache_position",
    "is_causal",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "position_ids",
    "return_dict",
    "use_cache",
}
"""Arguments of attention functions that change nothing here; any other one is refused."""
PROBE = {True: 1e-4, False: 3e-2}
"""How far states over a tree may be from those apart, as a share: in float32, in other types."""

Column = NDArray[np.int64]


class Part(NamedTuple):
    """One call of attention, for S sequences of like length."""

    queries: Tensor
    """[S, Q] places of tokens in the row."""
    keys: Tensor
    """[S, K] places of tokens in the row."""
    mask: Tensor | None
    """[S, 1, Q, K] True where a query sees a key; None: queries are keys, and causal."""
    kept: Tensor
    """[n] which of the S · Q results count."""


class Parts(NamedTuple):
    """Calls that together give every token its result."""

    calls: tuple[Part, ...]
    """One or more."""
    places: Tensor
    """[n] whose the kept results are, call after call: places in the row."""


class TokenPaths(NamedTuple):
    """Who sees whom, as the attention function takes it."""

    everywhere: Parts
    """For every token of the row."""
    at_last: Parts
    """For those whose states are asked for: all that the last layer has to compute."""
    last_layer: int
    """Its index."""


def token_paths(
    tree: TokenTree, asked: Sequence[Column], last_layer: int, device: torch.device | str
) -> TokenPaths:
    """Who sees whom in ``tree``.

    Args:
        tree: N tokens of S sequences.
        asked: [S] for each, the places in the sequence whose states are asked for.
        last_layer: Index of the model's last layer.
        device: Of the tensors.
    """
    own = [np.arange(same, len(path)) for same, path in zip(tree.shared, tree.paths, strict=True)]
    return TokenPaths(
        _parts(tree.paths, own, device), _parts(tree.paths, asked, device), last_layer
    )


def _parts(paths: Sequence[Column], wanted: Sequence[Column], device: torch.device | str) -> Parts:
    """Calls that give the results of ``wanted``: for each path, which of its tokens."""
    whole, masked = [], []
    for path, columns in zip(paths, wanted, strict=True):
        if not len(columns):
            continue
        path = path[: columns[-1] + 1]
        large = len(columns) * len(path) > MASK_ELEMENTS
        if large or len(columns) > CAUSAL_FROM * len(path):
            whole.append((path, columns))
        else:
            masked.append((path, columns))
    calls, places = [], []
    for some, causal in ((whole, True), (masked, False)):
        for batch in _alike(some, causal=causal):
            calls.append(_call(batch, causal=causal, device=device))
            places += [path[columns] for path, columns in batch]
    where = np.concatenate(places) if places else np.zeros(0, np.int64)
    return Parts(tuple(calls), torch.as_tensor(where, device=device))


def _alike(
    some: list[tuple[Column, Column]], *, causal: bool
) -> Iterator[list[tuple[Column, Column]]]:
    """Sequences in batches of like size."""
    batch: list[tuple[Column, Column]] = []
    work = 0
    for one in sorted(some, key=lambda one: (len(one[0]), len(one[1]))):
        work += len(one[0]) * len(one[0] if causal else one[1])
        keys = len(one[0])  # the newest is the longest
        queries = keys if causal else max(len(columns) for _, columns in [*batch, one])
        padded = (len(batch) + 1) * keys * queries
        if batch and (padded > PADDED_TO * work or (not causal and padded > MASK_ELEMENTS)):
            yield batch
            batch, work = [], len(one[0]) * len(one[0] if causal else one[1])
        batch.append(one)
    if batch:
        yield batch


def _call(batch: list[tuple[Column, Column]], *, causal: bool, device: torch.device | str) -> Part:
    most_keys = max(len(path) for path, _ in batch)
    most = most_keys if causal else max(len(columns) for _, columns in batch)
    keys = np.zeros((len(batch), most_keys), np.int64)
    seen = np.zeros((len(batch), most), np.int64)  # padding sees the first key: any will do
    kept = []
    for row, (path, columns) in enumerate(batch):
        keys[row, : len(path)] = path
        keys[row, len(path) :] = path[0]
        if not causal:
            seen[row, : len(columns)] = columns
        kept.append(row * most + (columns if causal else np.arange(len(columns))))
    queries = keys if causal else np.take_along_axis(keys, seen, 1)
    mask = None
    if not causal:
        columns_seen = torch.as_tensor(seen, device=device)[:, None, :, None]
        mask = torch.arange(most_keys, device=device) <= columns_seen
    return Part(
        torch.as_tensor(queries, device=device),
        torch.as_tensor(keys, device=device),
        mask,
        torch.as_tensor(np.concatenate(kept), device=device),
    )


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    token_paths: TokenPaths | None = None,
    **further: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: of ``[1, heads, N, size]`` the result ``[1, N, heads, size]``.

    A pass that says nothing of paths gets what ``sdpa`` would have given it.

    Raises:
        TypeError: the model asks for something that this function does not do (a window, a bias, …).
    """
    if token_paths is None:
        plain: Any = ALL_ATTENTION_FUNCTIONS["sdpa"]
        found: tuple[Tensor, None] = plain(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **further
        )
        return found
    if unknown := [
        name for name, one in further.items() if one is not None and name not in HARMLESS
    ]:
        raise TypeError(f"attention over a tree knows no {', '.join(sorted(unknown))}")
    last = getattr(module, "layer_idx", None) == token_paths.last_layer
    parts = token_paths.at_last if last else token_paths.everywhere
    heads, size = query.shape[1], value.shape[-1]
    rows = [one[0].transpose(0, 1).flatten(1) for one in (query, key, value)]
    _now.asked = parts.places if last else None
    results = []
    for call in parts.calls:
        queries = _gathered(rows[0], call.queries, heads)
        keys = _gathered(rows[1], call.keys, key.shape[1])
        values = _gathered(rows[2], call.keys, key.shape[1])
        if heads != key.shape[1]:  # several heads of queries to one of keys
            keys = keys.repeat_interleave(heads // key.shape[1], 1)
            values = values.repeat_interleave(heads // key.shape[1], 1)
        result = scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=call.mask,
            dropout_p=dropout,
            is_causal=call.mask is None,
            scale=scaling,
        )
        flat = result.transpose(1, 2).reshape(-1, heads * size)
        results.append(flat.index_select(0, call.kept))
    whole = query.new_zeros(query.shape[2], heads * size)
    if results:
        whole = whole.index_copy(0, parts.places, torch.cat(results))
    return whole.view(1, -1, heads, size), None


def _gathered(flat: Tensor, places: Tensor, heads: int) -> Tensor:
    """``[S, heads, n, size]`` of ``[N, heads · size]``."""
    chosen = flat.index_select(0, places.flatten())
    return chosen.view(*places.shape, heads, -1).transpose(1, 2)


@contextmanager
def attending_to_trees(*models: Any) -> Iterator[None]:
    """Within, passes of ``models`` may be given paths; backward passes belong inside, too."""
    decoders = [_decoder(model) for model in models]
    before = [decoder.config._attn_implementation for decoder in decoders]
    with ExitStack() as hooks:
        for decoder in decoders:
            if (mlp := _last_mlp(decoder)) is not None:
                hooks.callback(mlp.register_forward_pre_hook(_only_asked).remove)
                hooks.callback(mlp.register_forward_hook(_among_all).remove)
        try:
            for decoder in decoders:
                decoder.config._attn_implementation = NAME
            yield
        finally:
            for decoder, name in zip(decoders, before, strict=True):
                decoder.config._attn_implementation = name


class _Now(threading.local):
    """Set by the last layer's attention for the MLP that follows it, in every pass anew."""

    asked: Tensor | None = None
    """[n] places of the tokens whose states are asked for."""
    places: Tensor | None = None
    """The same, while the MLP computes those alone."""
    tokens: int = 0
    """Of the row."""


_now = _Now()


def _last_mlp(decoder: Any) -> nn.Module | None:
    """The last layer's MLP, where it has one under that name that comes after its attention."""
    layers = getattr(decoder, "layers", None)
    if not layers or not hasattr(layers[-1], "post_attention_layernorm"):
        return None
    mlp = getattr(layers[-1], "mlp", None)
    return mlp if isinstance(mlp, nn.Module) else None


def _only_asked(mlp: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Before the MLP: ``[1, n, H]`` of ``[1, N, H]``."""
    asked, _now.asked = _now.asked, None
    _now.places = asked
    if asked is None:
        return None
    _now.tokens = given[0].shape[1]
    return (given[0].index_select(1, asked), *given[1:])


def _among_all(mlp: nn.Module, given: Any, found: Any) -> Any:
    """After it: its results at their places, zeros elsewhere."""
    places, _now.places = _now.places, None
    if places is None:
        return None
    return found.new_zeros(1, _now.tokens, found.shape[2]).index_copy(1, places, found)


def run_over_tree(model: Any, ids: Tensor, positions: Tensor, paths: TokenPaths) -> Tensor:
    """``[1, N, H]`` last hidden states of a tree; only those asked for are what they should be."""
    hidden: Tensor = _decoder(model)(
        input_ids=ids, position_ids=positions, use_cache=False, token_paths=paths
    ).last_hidden_state
    return hidden


def why_no_trees(model: Any, context_length: int) -> str | None:
    """Why ``model`` cannot be run over trees, or None: it can.

    Its settings are looked at for what short sequences would not show; then three that begin alike
    are run both ways. So a model that mixes tokens in a way of its own (recurrent layers, biases by
    distance, positions that are not told) is found out, whatever it is called.

    Args:
        model: A causal language model of transformers, with or without adapters.
        context_length: Tokens of the longest sequence to come.
    """
    decoder = _decoder(model)
    config = decoder.config
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"its attention is {config._attn_implementation!r}, not 'sdpa'"
    if others := set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        return f"it has layers of {', '.join(sorted(others))}"
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) and window and window < context_length:
        return f"its attention has a window of {window} tokens"
    sequences = [[3, 1, 4, 1, 5, 9, 2, 6], [3, 1, 4, 1, 5, 8, 9, 7, 9, 3], [2, 7, 1, 8]]
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), attending_to_trees(model):
            tree = token_tree(sequences)
            asked = [np.arange(len(one) % 3, len(one), 2) for one in sequences]
            found = run_over_tree(
                model,
                torch.tensor([tree.ids], device=device),
                torch.tensor([tree.positions], device=device),
                token_paths(tree, asked, last_layer(model), device),
            )[0]
        if _now.asked is not None and _last_mlp(decoder) is not None:
            return "its last MLP does not follow its attention"
        with torch.no_grad():
            for one, path, columns in zip(sequences, tree.paths, asked, strict=True):
                ids = torch.tensor([one], device=device)
                alone = decoder(input_ids=ids, use_cache=False).last_hidden_state[0, columns]
                shared = found[torch.as_tensor(path[columns], device=device)]
                apart = (shared - alone).norm() / alone.norm()
                if not apart < PROBE[alone.dtype == torch.float32]:
                    return f"its states over a tree are {float(apart):.2g} away from those apart"
    except Exception as error:  # whatever a model of another make does with such a call
        return f"it fails over a tree ({type(error).__name__}: {error})"
    finally:
        model.train(training)
    return None


def last_layer(model: Any) -> int:
    """Index of the last layer, as its attention has it in ``layer_idx``."""
    return int(_decoder(model).config.num_hidden_layers) - 1


def _decoder(model: Any) -> Any:
    """What comes before the head, adapters or not."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.get_decoder()


AttentionInterface.register(NAME, tree_attention)
