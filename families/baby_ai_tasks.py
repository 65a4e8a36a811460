"""BabyAI's tasks: forty kinds of level as in AgentGym, drawn by seed, split by what they look like."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from reagent_env.families.baby_ai import make_level
from reagent_env.needs import extra, require
from reagent_env.task import Task
from reagent_env.task_sets.lazy import LazyTaskSet
from reagent_env.task_sets.phrasing import content_split

SIZES: Mapping[str, int] = {"train": 4000, "validation": 400, "test": 400}
"""Tasks a split, by default."""

KINDS: Mapping[int, tuple[str, ...]] = {
    1: (
        "GoToRedBallGrey-v0",
        "GoToRedBall-v0",
        "GoToRedBallNoDists-v0",
        "GoToObjS6-v1",
        "GoToLocalS8N7-v0",
        "GoToRedBlueBall-v0",
        "GoToDoor-v0",
        "GoToObjDoor-v0",
    ),
    2: (
        "OpenRedDoor-v0",
        "OpenDoorLoc-v0",
        "OpenRedBlueDoorsDebug-v0",
        "OpenDoorsOrderN4-v0",
        "PickupDistDebug-v0",
        "ActionObjDoor-v0",
        "PutNextLocalS6N4-v0",
        "UnlockLocalDist-v0",
        "KeyInBox-v0",
    ),
    3: (
        "OneRoomS20-v0",
        "Unlock-v0",
        "UnlockPickupDist-v0",
        "BlockedUnlockPickup-v0",
        "UnlockToUnlock-v0",
        "PickupAbove-v0",
        "PutNextS7N4Carrying-v0",
        "MoveTwoAcrossS8N9-v0",
        "GoToSeqS5R2-v0",
        "SynthS5R2-v0",
    ),
    4: (
        "GoToObjMazeS7-v0",
        "GoToImpUnlock-v0",
        "Open-v0",
        "Pickup-v0",
        "UnblockPickup-v0",
        "PickupLoc-v0",
        "FindObjS7-v0",
        "KeyCorridorS6R3-v0",
        "SynthLoc-v0",
        "SynthSeq-v0",
        "MiniBossLevel-v0",
        "BossLevel-v0",
        "BossLevelNoUnlock-v0",
    ),
}
"""Level of difficulty → minigrid's levels: one room to go about in; one room with doors, things to
move, keys; two rooms or a few; mazes of rooms and missions in several parts."""
DEFAULT_LEVELS = (1, 2)
_SEEDS_A_TASK = 400


def baby_ai(
    split: str | None = None,
    *,
    levels: Sequence[int] = DEFAULT_LEVELS,
    kinds: Sequence[str] | None = None,
    sizes: Mapping[str, int] = SIZES,
) -> LazyTaskSet:
    """Missions in small worlds; kinds take turns.

    Example: ``baby_ai("test", levels=(1, 2, 3, 4))`` or ``baby_ai(kinds=("GoToObjS6-v1",))``.

    Args:
        split: ``train``, ``validation``, ``test``, or None for all.
        levels: Of difficulty, 1 to 4 (:data:`KINDS`).
        kinds: minigrid's names without ``BabyAI-``, in place of ``levels``.
        sizes: Tasks in each split.

    Raises:
        NeedMissing: minigrid is not installed.
        ValueError: an unknown split, level or kind.
    """
    known = [kind for level in KINDS for kind in KINDS[level]]
    unknown: list[object] = [kind for kind in kinds or () if kind not in known]
    unknown += [level for level in levels if level not in KINDS]
    chosen = tuple(kinds if kinds is not None else (k for n in levels for k in KINDS.get(n, ())))
    if unknown or not chosen:
        raise ValueError(
            f"Unknown or no levels or kinds: {unknown}; levels: 1 to 4; kinds: {', '.join(known)}."
        )
    require("reagent/BabyAI-v0", extra("babyai", "minigrid"))
    return LazyTaskSet("baby_ai", sizes, functools.partial(_make, chosen), split)


SMALL = ("GoToDoor-v0", "OpenRedBlueDoorsDebug-v0", "UnlockLocalDist-v0", "KeyInBox-v0")
"""Kinds with little in sight, of which the expert takes about 2, 7, 8 and 12 turns."""


def baby_ai_small(split: str | None = None) -> LazyTaskSet:
    """Missions of the kinds :data:`SMALL`: for a tiny policy with its short context.

    Name ``baby_ai_small``, e.g. ``gym.make("reagent/BabyAI-v0", tasks="baby_ai_small")``.
    """
    return baby_ai(split, kinds=SMALL)


def level_of(kind: str) -> int:
    """The difficulty of a kind."""
    return next(level for level, kinds in KINDS.items() if kind in kinds)


def _make(kinds: tuple[str, ...], split: str, index: int) -> Task:
    """The first seed of those set aside for ``index`` whose world belongs to the split."""
    kind = kinds[index % len(kinds)]
    first = index // len(kinds) * _SEEDS_A_TASK
    for seed in range(first, first + _SEEDS_A_TASK):
        level = make_level(f"BabyAI-{kind}", seed, blind=True)
        if content_split(f"{level.mission}/{level.hash(64)}") == split:
            return Task(
                f"Your goal: {level.mission}",
                None,
                "simulator",
                {},
                {
                    "level_id": f"BabyAI-{kind}",
                    "seed": seed,
                    "kind": kind,
                    "level": level_of(kind),
                    "split": split,
                },
            )
    raise ValueError(
        f"None of {_SEEDS_A_TASK} worlds of {kind} belongs to split {split!r}; ask for fewer tasks."
    )
