"""Reward models: judges of how an attempt was made, apart from whether its answer is right.

``make_reward_model("rubric")`` finds one by name; each model is a module of its own, loaded on use.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from reagent_env.reward_models.base import JudgeUnavailable, RewardModel, Unscored
    from reagent_env.reward_models.batched import BatchedJudge
    from reagent_env.reward_models.unscored import UnscoredMonitor

__all__ = [
    "BatchedJudge",
    "JudgeUnavailable",
    "RewardModel",
    "Unscored",
    "UnscoredMonitor",
    "make_reward_model",
    "reward_model_names",
]

ENTRY_POINTS = "reagent_env.reward_models"
"""Entry-point group for models of other packages: name = "module:factory"."""

_OURS = {
    "rubric": "reagent_env.reward_models.rubric:RubricJudge",
    "noise": "reagent_env.reward_models.noise:NoiseJudge",
    "constant": "reagent_env.reward_models.noise:ConstantJudge",
}
TINY = "tiny-rrm"
"""The small learned judge; its folder stands beside this module."""
TINY_SINGLE = "tiny-rrm-single"
"""The first of its two judges alone: half the time, and a point less accurate."""
TINY_FOLDER = Path(__file__).with_name("tiny_rrm")
_HOME = {
    "BatchedJudge": "batched",
    "JudgeUnavailable": "base",
    "RewardModel": "base",
    "Unscored": "base",
    "UnscoredMonitor": "unscored",
}


def make_reward_model(name: str, **options: Any) -> RewardModel:
    """Make a reward model, e.g. ``make_reward_model("http://127.0.0.1:8000/v1#agent-rrm")``.

    Args:
        name: ``rubric``; ``tiny-rrm`` (a small learned judge, extra ``train``) or
            ``tiny-rrm-single`` (one of its two judges, in half the time); ``noise`` or
            ``constant`` (controls); the URL of an OpenAI-compatible server with the model's name
            after ``#``; a folder with a transformers model, which then runs in this process (extra
            ``train``); or a name that another package adds under the entry-point group
            ``reagent_env.reward_models``.
        options: Keyword arguments of that model.

    Raises:
        ValueError: no such model, or a URL without a model; the message names the nearest.
        ModuleNotFoundError: a folder, but neither torch nor transformers to run it with.
        NotImplementedError: a model that this version cannot load; the message says what can.
    """
    if name.startswith(("http://", "https://")):
        return _served(name, options)
    if name in _OURS:
        module, _, attribute = _OURS[name].partition(":")
        factory = getattr(importlib.import_module(module), attribute)
        return cast("RewardModel", factory(**options))
    if name in (TINY, TINY_SINGLE):
        return _tiny(options, alone=name == TINY_SINGLE)
    added = _added()
    if name in added:
        factory = cast("Callable[..., RewardModel]", added[name].load())
        return factory(**options)
    if _looks_like_a_folder(name):
        return _local(name, options)
    known = reward_model_names()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"Unknown reward model {name!r}.{hint} Known: {', '.join(known)}, or the URL of a server, "
        "'http://host:8000/v1#model'."
    )


def reward_model_names() -> list[str]:
    """The names that :func:`make_reward_model` takes, besides URLs; sorted."""
    return sorted({*_OURS, TINY, TINY_SINGLE, *_added()})


def _served(url: str, options: dict[str, Any]) -> RewardModel:
    base_url, _, model = url.partition("#")
    if not model or not urllib.parse.urlsplit(base_url).hostname:
        raise ValueError(
            f"A served reward model is 'http://host:8000/v1#model', got {url!r}. "
            "GET /v1/models on the server lists its models."
        )
    from reagent_env.reward_models.served import ServedJudge

    return ServedJudge(base_url, model, **options)


def _added() -> dict[str, importlib.metadata.EntryPoint]:
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {point.name: point for point in found if point.name not in _OURS}


def _looks_like_a_folder(name: str) -> bool:
    return "/" in name or name.startswith(("~", ".")) or Path(name).is_dir()


def _tiny(options: dict[str, Any], *, alone: bool) -> RewardModel:
    if not (TINY_FOLDER / "config.json").is_file():
        raise NotImplementedError(
            f"The weights of {TINY!r} are not in this copy. Until then: 'rubric', or a judge of your "
            "own: `reagent train judge-sft` trains one, and its folder is its name."
        )
    return _local(str(TINY_FOLDER), options, alone=alone)


def _local(folder: str, options: dict[str, Any], *, alone: bool = False) -> RewardModel:
    if not Path(folder).expanduser().is_dir():
        raise ValueError(f"No folder {folder!r}. A reward model's folder holds its weights.")
    from reagent_env.reward_models.local import LocalJudge, members_of

    members = members_of(Path(folder).expanduser())
    judges = [LocalJudge(one, **options) for one in members[: 1 if alone else None]]
    from reagent_env.reward_models.ensemble import EnsembleJudge
    from reagent_env.reward_models.sound_work import with_sound_work

    judge: RewardModel = judges[0] if len(judges) == 1 else EnsembleJudge(judges)
    shared = {key: options[key] for key in ("device", "turn_scores") if key in options}
    return with_sound_work(judge, members[0], **shared)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
