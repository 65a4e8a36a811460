"""What is compared: named settings of a run that differ in the reward, and in nothing that costs tokens.

Every arm makes as many attempts an update: ``group_size`` episodes of two attempts, or twice as many
of one. Not here: who is compared with whom (``comparisons.py``), budgets and seeds (``plan.py``).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from reagent_env.command_values import read_literal
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.config_fields import annotations_of, coerced
from reagent_env.trainers.recipes import make_config


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of paying, e.g. ``Arm("outcome", "outcome", "the outcome alone", {"attempts": 1})``."""

    name: str
    """What it is called on the command line and in tables."""
    recipe: str
    """What it begins from."""
    meaning: str
    """One line for people."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What it changes."""

    @property
    def one_attempt(self) -> bool:
        """Whether its episodes have one attempt, of which an update then has twice as many."""
        attempts = self.settings.get("attempts", 2 if self.recipe == "reagent-u" else 1)
        return bool(attempts == 1)


_OF_TWO = ("pooled", "per_stage")

_ALL = (
    Arm("outcome", "outcome", "the outcome alone, on twice as many first attempts"),
    Arm("reagent-r", "reagent-r", "outcome + λ·score, on twice as many first attempts"),
    Arm("reagent-u", "reagent-u", "outcome + λ·score, and a second attempt after a critique"),
    Arm(
        "critique",
        "reagent-u",
        "a second attempt after a critique; the score pays nothing",
        {"weight": 0.0},
    ),
    Arm(
        "retry-score",
        "reagent-u",
        "outcome + λ·score, and a second attempt after neutral words",
        {"feedback": "retry"},
    ),
    Arm(
        "retry",
        "outcome",
        "a second attempt after neutral words; no judge",
        {"attempts": 2, "feedback": "retry"},
    ),
    Arm(
        "u-shuffled-critique",
        "reagent-u",
        "as reagent-u with the critique of another task",
        {"feedback": "shuffled"},
    ),
    Arm(
        "u-independent",
        "reagent-u",
        "as reagent-u with two attempts that know nothing of each other",
        {"feedback": "independent"},
    ),
    Arm(
        "u-shuffled-score",
        "reagent-u",
        "as reagent-u with scores dealt out anew in each group",
        {"score_control": "shuffled"},
    ),
    Arm(
        "u-constant-score",
        "reagent-u",
        "as reagent-u with a score of one half for all",
        {"score_control": "constant"},
    ),
    Arm(
        "u-noise-score",
        "reagent-u",
        "as reagent-u with scores drawn at random",
        {"score_control": "noise"},
    ),
    Arm(
        "u-length-score",
        "reagent-u",
        "as reagent-u with what an attempt's number of turns tells of its score",
        {"score_control": "length"},
    ),
    Arm(
        "r-shuffled-score",
        "reagent-r",
        "as reagent-r with scores dealt out anew in each group",
        {"score_control": "shuffled"},
    ),
    Arm(
        "r-noise-score",
        "reagent-r",
        "as reagent-r with scores drawn at random",
        {"score_control": "noise"},
    ),
)

ARMS: Mapping[str, Arm] = MappingProxyType({arm.name: arm for arm in _ALL})
"""Every arm by name."""

CORE = ("outcome", "reagent-r", "retry", "retry-score", "critique", "reagent-u")
"""Score (0, λ) × second attempt after (neutral words, a critique), beside one attempt twice as often."""

CONTROLS = (
    "u-shuffled-critique",
    "u-independent",
    "u-shuffled-score",
    "u-constant-score",
    "u-noise-score",
    "u-length-score",
    "r-shuffled-score",
)
"""What is left of the gain when the score, or the critique, knows nothing."""

SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "core": CORE,
        "controls": ("reagent-u", "reagent-r", *CONTROLS),  # beside what they are controls of
        "headline": (*CORE, *CONTROLS),
    }
)
"""Names that stand for several arms."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Settings that are tried one by one, e.g. ``Sweep("weight", "reagent-u", (0.0, 0.3))``."""

    setting: str
    """A field of ``TrainConfig``."""
    base: str
    """The arm that is changed."""
    values: tuple[Any, ...]
    """What it is set to."""
    also: Callable[[Any], Mapping[str, Any]] = lambda value: {}
    """What a value brings along."""


SWEEPS: Mapping[str, Sweep] = MappingProxyType(
    {
        "lambda": Sweep("weight", "reagent-u", (0.0, 0.1, 0.3, 1.0)),
        "credit": Sweep(
            "credit",
            "reagent-r",
            ("trajectory", "turn"),
            lambda value: {"advantage": "turn" if value == "turn" else "grpo"},
        ),
        "pooling": Sweep("advantage", "reagent-u", ("pooled", "per_stage", "grpo")),
        "apart": Sweep("apart", "reagent-u", (False, True)),
        "std-floor": Sweep("std_floor", "reagent-u", (0.0, 0.1, 0.25)),
        "judge": Sweep("judge", "reagent-u", ("rubric", "tiny-rrm")),
    }
)
"""Sweeps by name; another setting is swept as ``setting=value,value``."""


def chosen_arms(words: Sequence[str]) -> list[Arm]:
    """The arms that words name: arms and sets of them, each once, in order.

    Raises:
        ValueError: no such arm; the message names the nearest.
    """
    names: list[str] = []
    for word in words:
        if word not in ARMS and word not in SETS:
            near = difflib.get_close_matches(word, [*ARMS, *SETS], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"There is no reward {word!r}.{hint} Rewards: {', '.join(ARMS)}; "
                f"sets of them: {', '.join(SETS)}."
            )
        names += SETS.get(word, (word,))
    return [ARMS[name] for name in dict.fromkeys(names)]


def swept_arms(word: str, base: str | None = None) -> list[Arm]:
    """The arms of a sweep: ``lambda``, or ``kl=0,0.01`` with values of one's own.

    Args:
        word: A name of :data:`SWEEPS`, perhaps with ``=`` and values, or a setting with values.
        base: The arm that is changed; a sweep has one of its own.

    Raises:
        ValueError: no such sweep or setting, or fewer than two values.
    """
    name, _, listed = word.partition("=")
    known = annotations_of(TrainConfig)
    setting = name.replace("-", "_")
    if name in SWEEPS:
        sweep = SWEEPS[name]
    elif setting in known and setting not in ("recipe", "seed", "policy", "env_kwargs") and listed:
        sweep = Sweep(setting, "reagent-u", ())
    else:
        raise ValueError(
            f"There is no sweep {word!r}: say one of {', '.join(SWEEPS)}, or a setting with values, "
            "such as kl=0,0.01."
        )
    values = sweep.values
    if listed:
        values = tuple(
            coerced(read_literal(text.strip()), known[sweep.setting]) for text in listed.split(",")
        )
    if len(values) < 2:
        raise ValueError(f"The sweep {word!r} needs two values at least.")
    [origin] = chosen_arms([base or sweep.base])
    return [
        Arm(
            f"{name}={_written(value)}",
            origin.recipe,
            f"{origin.name} with {sweep.setting} = {value!r}",
            {**origin.settings, sweep.setting: value, **sweep.also(value)},
        )
        for value in values
    ]


def arm_config(arm: Arm, common: Mapping[str, Any]) -> TrainConfig:
    """The settings of an arm's runs; ``common`` are those that every arm shares.

    ``group_size`` counts episodes of two attempts: arms of one attempt get twice as many, so that
    an update holds as many attempts of each arm. Two attempts have a baseline each (``per_stage``),
    unless a sweep says otherwise. A judge that an arm does not ask is left out.

    Raises:
        ValueError: settings that ``TrainConfig`` refuses; names the arm.
    """
    shared = dict(common)
    if arm.one_attempt:
        size = shared.get("group_size", TrainConfig.__dataclass_fields__["group_size"].default)
        shared["group_size"] = 2 * size
        if shared.get("advantage") in _OF_TWO:
            shared.pop("advantage")
    else:
        shared.setdefault("advantage", "per_stage")  # `pooled`, as published, would push one down
    if arm.recipe == "outcome":
        for name in ("judge", "weight"):
            shared.pop(name, None)
    try:
        return make_config(arm.recipe, settings={**shared, **arm.settings})
    except ValueError as error:
        raise ValueError(f"Arm {arm.name!r}: {error}") from error


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
