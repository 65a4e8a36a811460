"""Checkpoints: a model that transformers loads, and beside it all that training needs to go on exactly.

::

    checkpoints/000012/
        config.json model.safetensors tokenizer.json …   or adapter_*.*, with LoRA
        training/state.json                              the trainer's state, random numbers, settings of Adam
        training/optimizer.safetensors                   Adam's moments
        training/random.safetensors                      torch's random numbers
        training/extra.safetensors                       further weights, such as a value head

Servers read every ``*.safetensors`` beside a model, so the optimiser's stand in a folder of their own.
Not here: what the trainer's state is (``train.py``).
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from reagent_env.trainers.atomic_files import remove_folder, whole_folder

FORMAT = 1
"""Written into every checkpoint; a reader refuses a newer one."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds besides the model, which ``load_policy(folder)`` reads."""

    folder: Path
    """Its folder."""
    update: int
    """Updates made when it was written."""
    state: dict[str, Any]
    """What the trainer gave: seeds, running statistics, place in the tasks, tokens seen."""
    optimizer: dict[str, Any]
    """For ``optimizer.load_state_dict``."""
    random_state: dict[str, Any]
    """For :func:`restore_random_state`."""
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    """Further tensors by name."""


def save_checkpoint(
    run: Path,
    update: int,
    *,
    save_policy: Callable[[Path], None],
    optimizer: Mapping[str, Any],
    state: Mapping[str, Any],
    extra: Mapping[str, torch.Tensor] | None = None,
    keep: int = 0,
) -> Path:
    """Write ``checkpoints/<update>`` of a run, whole or not at all, then remove the oldest.

    Args:
        run: The run's folder.
        update: Updates made.
        save_policy: Writes model and tokenizer into a folder, such as :func:`policy_saver`'s.
        optimizer: ``optimizer.state_dict()``.
        state: JSON-encodable; comes back as :attr:`Checkpoint.state`, floats exactly.
        extra: Further tensors.
        keep: How many of the newest stay; 0 keeps all.

    Raises:
        OSError: it could not be written (a full disk); names the checkpoint. Older ones are untouched.
    """
    target = run / "checkpoints" / f"{update:06d}"
    tensors, settings = _flat_optimizer(optimizer)
    numbers, random_settings = _flat_random_state()
    record = {
        "format": FORMAT,
        "update": update,
        "state": state,
        "optimizer": settings,
        "random": random_settings,
    }
    with whole_folder(target, run / ".unfinished") as folder, _safetensors_errors(target):
        save_policy(folder)
        training = folder / "training"
        training.mkdir()
        save_file(tensors, training / "optimizer.safetensors")
        save_file(numbers, training / "random.safetensors")
        if extra:
            save_file(_apart(extra), training / "extra.safetensors")
        (training / "state.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    if keep:
        for old in checkpoint_folders(run)[:-keep]:
            remove_folder(old, run / ".unfinished")
    return target


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote, the model aside.

    Raises:
        ValueError: it is no checkpoint, is damaged, or was written by a newer version.
    """
    training = folder / "training"
    try:
        record = json.loads((training / "state.json").read_text("utf-8"))
        if record["format"] > FORMAT:
            raise ValueError(f"it has format {record['format']}; this version reads up to {FORMAT}")
        extra = training / "extra.safetensors"
        return Checkpoint(
            folder=folder,
            update=record["update"],
            state=record["state"],
            optimizer=_optimizer(
                load_file(training / "optimizer.safetensors"), record["optimizer"]
            ),
            random_state={
                "tensors": load_file(training / "random.safetensors"),
                **record["random"],
            },
            extra=load_file(extra) if extra.exists() else {},
        )
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"The checkpoint {folder} cannot be read: {error}.") from error


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run whose files are whole, or None."""
    return next((one for one in reversed(checkpoint_folders(run)) if is_whole(one)), None)


def checkpoint_folders(run: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    inside = run / "checkpoints"
    found = [one for one in inside.glob("*") if one.name.isdigit() and one.is_dir()]
    return sorted(found, key=lambda one: int(one.name))


def is_whole(folder: Path) -> bool:
    """Whether the state can be read and every safetensors file has the length its header says."""
    try:
        json.loads((folder / "training" / "state.json").read_text("utf-8"))
        files = [*folder.glob("*.safetensors"), *folder.glob("training/*.safetensors")]
        return any(file.parent == folder for file in files) and all(map(_has_its_length, files))
    except (OSError, ValueError, struct.error):
        return False


def policy_saver(model: Any, tokenizer: Any) -> Callable[[Path], None]:
    """Writes the model (of one with LoRA, the adapters alone) and its tokenizer into a folder."""

    def save(folder: Path) -> None:
        from reagent_env.trainers.policies.lora import has_adapter, save_adapter

        with _without_bars():
            if has_adapter(model):
                save_adapter(model, folder)
            else:
                model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    return save


def restore_random_state(random_state: Mapping[str, Any]) -> None:
    """Set the random numbers of Python, NumPy and torch as a checkpoint kept them."""
    tensors = random_state["tensors"]
    torch.set_rng_state(tensors["torch"])
    for device in range(torch.cuda.device_count()):
        if f"cuda{device}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda{device}"], device)
    version, words, gauss = random_state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, place, has_gauss, cached = random_state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), place, has_gauss, cached))


def _flat_random_state() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        for device, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"cuda{device}"] = state
    version, words, gauss = random.getstate()
    name, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    return tensors, {
        "python": [version, list(words), gauss],
        "numpy": [name, [int(key) for key in keys], int(place), int(has_gauss), float(cached)],
    }


def _flat_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors by ``<parameter>/<name>``, and all else as JSON."""
    tensors: dict[str, torch.Tensor] = {}
    rest: dict[str, dict[str, Any]] = {}
    for parameter, values in state["state"].items():
        rest[str(parameter)] = {}
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{parameter}/{name}"] = value
            else:
                rest[str(parameter)][name] = value
    groups = [{name: _packed(value) for name, value in g.items()} for g in state["param_groups"]]
    return _apart(tensors), {"state": rest, "param_groups": groups}


def _optimizer(tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {
        int(parameter): dict(values) for parameter, values in settings["state"].items()
    }
    for key, tensor in tensors.items():
        parameter, _, name = key.partition("/")
        state[int(parameter)][name] = tensor
    groups = [
        {name: _unpacked(v) for name, v in group.items()} for group in settings["param_groups"]
    ]
    return {"state": state, "param_groups": groups}


def _packed(value: Any) -> Any:
    """JSON has no tuples, and Adam's betas are one."""
    if isinstance(value, torch.Tensor):
        return {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    return {"tuple": list(value)} if isinstance(value, tuple) else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict) and "tuple" in value:
        return tuple(value["tuple"])
    if isinstance(value, dict) and "tensor" in value:
        return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
    return value


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous copies that share no memory, as safetensors wants them."""
    return {name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}


def _has_its_length(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says: 8 bytes, the header, the tensors."""
    with open(file, "rb") as opened:
        (header_length,) = struct.unpack("<Q", opened.read(8))
        if header_length > file.stat().st_size:
            return False
        header = json.loads(opened.read(header_length))
    ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
    return file.stat().st_size == 8 + int(header_length) + max(ends, default=0)


@contextmanager
def _safetensors_errors(target: Path) -> Iterator[None]:
    """Turn safetensors' own error into the ``OSError`` that it stands for."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{target} could not be written: {error}") from error


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar for every file, in the midst of ours."""
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()
