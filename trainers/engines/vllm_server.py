"""A vLLM server set up for training, and the learner's weights on their way to it.

Not here: the engine that samples from it (``vllm.py``), what a server is (``agents/serve.py``).

**Tied embeddings.** On a CPU, vLLM packs the output layer for oneDNN when it loads a model, and a
reload renews only layers that the checkpoint names. The output layer of a model that shares it with
the embeddings has no name there, so it would sample from the old one for good, without a word (seen
in 0.32: log-probabilities off by 1 nat). So such a model is served with both written out, by a
folder of links (:func:`write_out_head`), and its weights are pushed like that.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reagent_env.agents.serve import VLLMServer
from reagent_env.trainers.engines.vllm import VLLMEngine

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from reagent_env.trainers.policies.policy import Policy

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Those vLLM sets memory aside for; a rank between two takes the larger."""

_INDEX = "model.safetensors.index.json"
_EMBEDDINGS = "model.embed_tokens.weight"
_HEAD = "lm_head.safetensors"


@contextlib.contextmanager
def training_server(
    model: str | Path, *, lora_rank: int | None = None, **settings: Any
) -> Iterator[VLLMServer]:
    """A running server whose weights can be changed, and whose log-probabilities are those sampled
    under.

    Example::

        with training_server(smollm2_folder(), lora_rank=16, max_model_len=2048) as server:
            engine = VLLMEngine(server.base_url, server.served_name, stop_ids=stop_ids, server=server)

    It listens on loopback only; whoever reaches it can change its weights.

    Args:
        model: A transformers folder or a hub id.
        lora_rank: The adapters' rank; None where all weights are trained.
        settings: Further arguments of :class:`~reagent_env.agents.serve.VLLMServer`.

    Raises:
        ValueError: a rank beyond 512.
        ServerFailed: it does not start.
    """
    arguments = [
        "--enable-prefix-caching",
        *("--logprobs-mode", "processed_logprobs"),
        # Else top-k and penalties of the model's generation_config.json would apply unasked.
        *("--generation-config", "vllm"),
    ]
    if lora_rank is not None:
        fitting = [rank for rank in LORA_RANKS if rank >= lora_rank]
        if not fitting:
            raise ValueError(f"vLLM serves LoRA ranks up to {LORA_RANKS[-1]}, got {lora_rank}.")
        arguments += ["--enable-lora", "--max-lora-rank", str(fitting[0])]
    environment = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    settings["extra_args"] = [*arguments, *settings.get("extra_args", ())]
    settings["environment"] = {**environment, **settings.get("environment", {})}
    settings.setdefault("served_name", Path(model).name)
    with tempfile.TemporaryDirectory(prefix="reagent-served-") as name:
        if Path(model).is_dir():
            model = _untied(Path(model), Path(name))
        with VLLMServer(model, **settings) as server:
            yield server


@contextlib.contextmanager
def served_policy(
    url: str, policy: Policy, stop_ids: Sequence[int]
) -> Iterator[tuple[VLLMEngine, Callable[[int], None]]]:
    """An engine on a running server, and what to call after each update of ``policy``.

    Example::

        with served_policy("http://127.0.0.1:8000/v1", policy, renderer.stop_ids) as (engine, publish):
            publish(0)                 # the server's own weights may be others
            ...                        # rollouts; engine.pause(); an update
            publish(1)                 # pushes the weights and goes on

    The weights pass through ``$TMPDIR``, which a server on another machine must share.

    Args:
        url: Its address, ``#MODEL`` behind it where it serves more than one.
        policy: What is trained; with adapters, the server holds its base model.
        stop_ids: Tokens that end a completion.

    Raises:
        EngineFailed: nobody answers there; from ``publish``, the server refused the weights.
    """
    base_url, _, name = url.partition("#")
    with (
        tempfile.TemporaryDirectory(prefix="reagent-pushed-") as folder,
        VLLMEngine(base_url, name, stop_ids=stop_ids) as engine,
    ):
        yield engine, lambda version: push_weights(engine, policy.model, Path(folder), version)


def push_weights(engine: VLLMEngine, model: PreTrainedModel, folder: Path, version: int) -> None:
    """Write the learner's weights and have the server sample from them: adapters alone if it has any.

    Example: ``push_weights(engine, policy.model, run / "pushed", version=12)`` after update 12.

    Args:
        engine: Whose server reads ``folder``: on one machine, or over a shared file system.
        model: The learner's.
        folder: Holds what is on its way; emptied again.
        version: What to call the weights.

    Raises:
        EngineFailed: the server refused them.
    """
    from reagent_env.trainers.policies.lora import has_adapter, save_adapter

    part = folder / f"{version:06d}"
    part.mkdir(parents=True, exist_ok=True)
    try:
        if has_adapter(model):
            save_adapter(model, part)
            engine.push_lora(part, version)
        else:
            model.save_pretrained(part, safe_serialization=True)
            if _tied_embeddings(part) is not None:
                write_out_head(part, cast("nn.Embedding", model.get_input_embeddings()).weight)
            engine.push_full(part, version)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_out_head(folder: Path, head: torch.Tensor) -> None:
    """Untie the model in ``folder``: its output layer gets a file, its configuration says so.

    Args:
        folder: In transformers' layout; the files themselves are left as they are.
        head: [vocabulary, width] the output layer, which the embeddings have been so far.
    """
    from safetensors.torch import save_file

    config = json.loads((folder / "config.json").read_text("utf-8"))
    _replace_json(folder / "config.json", {**config, "tie_word_embeddings": False})
    save_file({"lm_head.weight": head.detach().contiguous().cpu()}, folder / _HEAD)
    if (folder / _INDEX).exists():  # then only files it names are read
        index = json.loads((folder / _INDEX).read_text("utf-8"))
        index["weight_map"]["lm_head.weight"] = _HEAD
        _replace_json(folder / _INDEX, index)


def _tied_embeddings(folder: Path) -> Path | None:
    """The file of the embeddings where they are the output layer too: that has no name of its own."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            names = weights.keys()
            if "lm_head.weight" in names:
                return None
            if _EMBEDDINGS in names:
                return file
    return None


def _untied(model: Path, folder: Path) -> Path:
    """``model`` itself, or ``folder`` filled with links to its files and a head of its own."""
    from safetensors import safe_open

    source = _tied_embeddings(model)
    if source is None:
        return model
    for file in model.iterdir():
        if file.is_file():
            (folder / file.name).symlink_to(file.resolve())
    with safe_open(source, framework="pt") as weights:
        write_out_head(folder, weights.get_tensor(_EMBEDDINGS))
    return folder


def _replace_json(path: Path, content: Any) -> None:
    """In place of the file or link; what a link points to stays."""
    path.unlink()
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
