"""Policies: what is trained, by name, folder or hub id."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reagent_env.trainers.policies.policy import Policy

POLICY_NAMES = ("smollm2", "tiny")
"""Policies with a name of their own; all else is a folder or a hub id."""

__all__ = ["POLICY_NAMES", "UnknownPolicy", "checkpoint_folder", "load_policy"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class UnknownPolicy(ValueError):
    """No policy has this name; the message says what may be written instead."""


def load_policy(name: str | Path, *, dtype: str = "auto") -> Policy:
    """The policy that ``name`` means, ready to sample and to train.

    Args:
        name: As below.
        dtype: Of its weights, ``float32`` or ``bfloat16``; ``auto`` is bfloat16 on a GPU, float32 on
            a CPU. Adapters are float32 whatever it is.

    Example::

        load_policy("tiny")                                  # shipped in the package
        load_policy("smollm2")                               # fetched and converted once
        load_policy("runs/20261104-120000-reagent-u")        # that run's latest checkpoint
        load_policy("runs/20261104-120000-reagent-u/checkpoints/000040")
        load_policy("HuggingFaceTB/SmolLM2-360M-Instruct")   # from the hub

    Raises:
        UnknownPolicy: no such name, or a folder that holds no model.
        ModelUnavailable: a known one that cannot be fetched or read.
    """
    text = str(name)
    if text == "tiny":
        from reagent_env.trainers.policies import tiny

        return tiny.load_tiny(dtype=dtype)
    if text == "smollm2":
        from reagent_env.trainers.policies.smollm2 import load_smollm2

        return load_smollm2(dtype=dtype)
    from reagent_env.trainers.policies.pretrained import load_pretrained

    if Path(text).is_dir():
        return load_pretrained(checkpoint_folder(Path(text)), name=text, dtype=dtype)
    near = difflib.get_close_matches(text.lower(), POLICY_NAMES, n=1)
    if near or not _HUB_ID.fullmatch(text) or text.startswith(("runs/", "checkpoints/")):
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownPolicy(
            f"There is no policy {text!r}.{hint} Known: {', '.join(POLICY_NAMES)}, the folder of a "
            "model, of a run or of its checkpoint, or a hub id such as "
            "'HuggingFaceTB/SmolLM2-360M-Instruct'."
        )
    return load_pretrained(text, name=text, dtype=dtype)


def checkpoint_folder(folder: Path) -> Path:
    """The folder itself where it holds a model; of a run, its latest checkpoint.

    Example: ``runs/a`` with ``checkpoints/000005`` and ``checkpoints/000010`` gives the latter.

    Raises:
        UnknownPolicy: neither.
    """
    if _holds_a_model(folder):
        return folder
    inside = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    finished = [one for one in inside.iterdir() if one.name.isdigit() and _holds_a_model(one)]
    if not finished:
        raise UnknownPolicy(
            f"{folder} holds no model (config.json and *.safetensors) and is no run with finished "
            "checkpoints (checkpoints/<update>/)."
        )
    return max(finished, key=lambda one: int(one.name))


def _holds_a_model(folder: Path) -> bool:
    configured = (folder / "config.json").exists() or (folder / "adapter_config.json").exists()
    return configured and any(folder.glob("*.safetensors"))
