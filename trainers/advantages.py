"""From returns to advantages: the estimators by name, and the one call that the trainer makes.

::

    found = estimate_advantages("per_stage", batch, AdvantageSettings(), running)
    found.advantages[group][rollout][attempt][turn]

An estimator is a function with the shape of its siblings (:class:`Estimate`). A package of your own
adds one by an entry point in the group ``reagent_env.advantages``: such a function, or an
:class:`Estimator` where it gives turns their own credit. Not here: their formulas
(``advantages_group.py``, ``advantages_turn.py``, ``advantages_gae.py``).
"""

from __future__ import annotations

import difflib
import importlib.metadata
from dataclasses import dataclass, field

from reagent_env.trainers.advantages_base import (
    Advantages,
    AdvantageSettings,
    Batch,
    Estimate,
    GroupReturns,
    RunningStd,
    score_deviations,
)
from reagent_env.trainers.advantages_gae import gae
from reagent_env.trainers.advantages_group import (
    dr_grpo,
    grpo,
    per_stage,
    pooled,
    reinforce_plus_plus,
    rloo,
)
from reagent_env.trainers.advantages_turn import turn, turn_myopic

__all__ = [
    "AdvantageSettings",
    "Advantages",
    "Batch",
    "Estimate",
    "Estimated",
    "Estimator",
    "GroupReturns",
    "RunningStd",
    "check_settings",
    "estimate_advantages",
    "estimator_names",
    "get_estimator",
]

ENTRY_POINTS = "reagent_env.advantages"


@dataclass(frozen=True, slots=True)
class Estimator:
    """An estimator and what it can do, e.g. ``Estimator("turn", turn, credits=("turn",))``."""

    name: str
    """By which it is found."""
    estimate: Estimate
    """The function."""
    credits: tuple[str, ...] = ("trajectory",)
    """How it can share the process out over turns; the first is its own way."""
    options: frozenset[str] = field(default_factory=frozenset)
    """Which of ``apart`` and ``improvement_bonus`` mean something to it."""
    within_group: bool = True
    """False where rollouts of other groups count, so that equal returns can have an advantage."""
    needs_values: bool = False
    """True where the trainer has to train a value head and hand over its estimates."""


@dataclass(frozen=True, slots=True)
class Estimated:
    """Advantages of a batch, and the running std after it, for the next batch and the checkpoint."""

    advantages: Advantages
    """[groups][G][attempts][turns]."""
    running: RunningStd
    """Of the scores, this batch included."""


_APART = frozenset({"apart"})
_ESTIMATORS = {
    one.name: one
    for one in (
        Estimator("dr_grpo", dr_grpo),
        Estimator(
            "gae", gae, credits=("turn", "trajectory"), within_group=False, needs_values=True
        ),
        Estimator("grpo", grpo, options=_APART),
        Estimator("per_stage", per_stage, options=_APART | {"improvement_bonus"}),
        Estimator("pooled", pooled, options=_APART),
        Estimator("reinforce++", reinforce_plus_plus, options=_APART, within_group=False),
        Estimator("rloo", rloo),
        Estimator("turn", turn, credits=("turn",)),
        Estimator("turn_myopic", turn_myopic, credits=("turn",)),
    )
}


def estimator_names() -> list[str]:
    """Ours and those that entry points add, sorted."""
    added = {entry.name for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    return sorted(set(_ESTIMATORS) | added)


def get_estimator(name: str) -> Estimator:
    """The estimator of that name.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    if name in _ESTIMATORS:
        return _ESTIMATORS[name]
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            loaded = entry.load()
            return loaded if isinstance(loaded, Estimator) else Estimator(name, loaded)
    near = difflib.get_close_matches(name, estimator_names(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"Unknown advantage estimator {name!r}.{hint} Known: {', '.join(estimator_names())}."
    )


def check_settings(estimator: Estimator, settings: AdvantageSettings) -> None:
    """Refuse a setting that would silently do nothing.

    Raises:
        ValueError: which, why, and what to choose instead.
    """
    if settings.credit not in ("auto", *estimator.credits):
        others = [one.name for one in _ESTIMATORS.values() if settings.credit in one.credits]
        why = (
            "gives every turn of an attempt the same advantage"
            if settings.credit == "turn"
            else "pays each turn for its own share"
        )
        raise ValueError(
            f'credit="{settings.credit}" would do nothing with the estimator {estimator.name!r}, '
            f"which {why}. Choose one of {', '.join(others)}, or leave credit out."
        )
    asked = {"apart": settings.apart, "improvement_bonus": settings.improvement_bonus > 0}
    for option, wanted in asked.items():
        if wanted and option not in estimator.options:
            others = [one.name for one in _ESTIMATORS.values() if option in one.options]
            raise ValueError(
                f"{option} would do nothing with the estimator {estimator.name!r}. "
                f"Choose one of {', '.join(others)}, or leave {option} out."
            )


def estimate_advantages(
    estimator: str | Estimator,
    batch: Batch,
    settings: AdvantageSettings,
    running: RunningStd | None = None,
    values: Advantages | None = None,
) -> Estimated:
    """Advantages of a batch under the estimator of that name.

    Args:
        estimator: Its name, or itself.
        batch: [groups][G][attempts] returns, masked rollouts left out.
        settings: λ, floor and so on.
        running: What the last call gave back; a new one without it.
        values: [groups][G][attempts][turns] of a value head, for ``gae``.

    Raises:
        ValueError: an unknown name, or a setting that the estimator cannot honour.
    """
    chosen = get_estimator(estimator) if isinstance(estimator, str) else estimator
    check_settings(chosen, settings)
    now = (running or RunningStd()).updated(score_deviations(batch))
    return Estimated(chosen.estimate(batch, settings, running=now, values=values), now)
