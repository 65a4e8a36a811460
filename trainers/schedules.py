"""How many turns an episode may have as training goes on, and which environment comes next.

Both are pure functions of a number: a run that is resumed asks again and gets the same answer.
Not here: applying them (``rollout.py``).
"""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass

_FIXED = re.compile(r"fixed:([0-9]+)")
_GROWING = re.compile(r"([0-9]+(?:>[0-9]+)*)@([0-9]+)")
_NAMED = re.compile(r"(scaling-inter:[a-z]+)@([0-9]+)")
_HOW = (
    "Write fixed:8 for one limit, 5>8>10@100 for limits that grow every 100 steps, or "
    "scaling-inter:searchqa@12 for published limits with phases of 12 steps"
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Turn limits in phases, e.g. ``Schedule((5, 8, 10), every=100)`` (ScalingInter, arXiv 2509.08755).

    Raises:
        ValueError: no limit, one below 1, one that shrinks, or a phase without length.
    """

    turns: tuple[int, ...]
    """Most turns of an attempt, phase by phase; the last stays."""
    every: int
    """Steps (updates of the policy) that a phase lasts."""

    def __post_init__(self) -> None:
        if not self.turns or min(self.turns) < 1 or list(self.turns) != sorted(self.turns):
            raise ValueError(f"Turn limits must be 1 or more and not shrink, got {self.turns!r}.")
        if self.every < 1:
            raise ValueError(f"A phase must last 1 step or more, got {self.every!r}.")


PUBLISHED = {
    "scaling-inter:babyai": Schedule((6, 13, 20), 100),
    "scaling-inter:sciworld": Schedule((10, 20, 30), 100),
    "scaling-inter:searchqa": Schedule((5, 8, 10), 100),
    "scaling-inter:textcraft": Schedule((10, 20, 30), 100),
    "scaling-inter:webarena": Schedule((8, 12, 15), 80),
}
"""Those of the paper (arXiv 2509.08755)."""


def turns_at(schedule: Schedule, step: int) -> int:
    """h at a step counted from 0: phase ⌊step / every⌋, or the last; nothing else is remembered.

    Example: ``turns_at(get_schedule("5>8>10@100"), 150)`` is 8.

    Raises:
        ValueError: a step below 0.
    """
    if step < 0:
        raise ValueError(f"Steps are counted from 0, got {step!r}.")
    return schedule.turns[min(step // schedule.every, len(schedule.turns) - 1)]


def get_schedule(spec: str) -> Schedule:
    """A published schedule by name, ``fixed:8``, or limits of your own: ``5>8>10@100``.

    A published one lasts some 300 steps; ``scaling-inter:textcraft@12`` has phases of 12.

    Raises:
        ValueError: neither; the message names the nearest, or how to write one.
    """
    spec = re.sub("^scalinginter-", "scaling-inter:", spec.strip())  # as it was once written
    if spec in PUBLISHED:
        return PUBLISHED[spec]
    if (found := _NAMED.fullmatch(spec)) and found[1] in PUBLISHED:
        return Schedule(PUBLISHED[found[1]].turns, int(found[2]))
    if found := _FIXED.fullmatch(spec):
        return Schedule((int(found[1]),), every=1)
    if found := _GROWING.fullmatch(re.sub(r"\s+", "", spec)):
        return Schedule(tuple(int(turns) for turns in found[1].split(">")), int(found[2]))
    near = difflib.get_close_matches(spec.partition("@")[0], PUBLISHED, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"Unknown schedule {spec!r}.{hint} {_HOW}, or name one: {', '.join(PUBLISHED)}."
    )


def unreached(spec: str, updates: int) -> str:
    """What to say of a schedule whose last limit a run of ``updates`` never gets to; else nothing.

    Example: ``unreached("scaling-inter:textcraft", 60)`` names ``scaling-inter:textcraft@20``.
    """
    schedule = get_schedule(spec)
    phases = len(schedule.turns)
    if (phases - 1) * schedule.every < updates:
        return ""
    fitting = max(1, updates // phases)
    limits = ">".join(map(str, schedule.turns))
    other = f"{spec.partition('@')[0]}@{fitting}" if spec in PUBLISHED else f"{limits}@{fitting}"
    return (
        f"Its last limit, {schedule.turns[-1]}, is never reached: phases of {schedule.every} updates, "
        f"{updates} updates in all. {other} fits."
    )


@dataclass(frozen=True, slots=True)
class Mixture:
    """Environments to draw tasks from, e.g. ``Mixture(("reagent/SearchQA-v0",), (1.0,))``."""

    ids: tuple[str, ...]
    """As ``gym.make`` takes them; each once."""
    shares: tuple[float, ...]
    """Of each; they sum to 1."""


def parse_mixture(spec: str) -> Mixture:
    """``id=0.7,id2=0.3``; weights need not sum to 1, and an id alone weighs 1.

    Example: ``parse_mixture("reagent/SearchQA-v0=3,reagent/FileQA-v0=1").shares`` is ``(0.75, 0.25)``.

    Raises:
        ValueError: an empty or doubled id, or a weight that is not a number above 0.
    """
    weights: dict[str, float] = {}
    for part in spec.split(","):
        name, equals, written = (piece.strip() for piece in part.partition("="))
        if not name:
            raise ValueError(
                f"An environment without an id in {spec!r}; write id=0.7,id2=0.3, or one id."
            )
        if name in weights:
            raise ValueError(f"{name!r} stands twice in {spec!r}; give it one weight.")
        try:
            weight = float(written) if equals else 1.0
        except ValueError:
            weight = float("nan")
        if not 0 < weight < float("inf"):
            raise ValueError(
                f"The weight of {name!r} must be a number above 0, got {written!r}; "
                "write id=0.7,id2=0.3."
            )
        weights[name] = weight
    total = sum(weights.values())
    return Mixture(tuple(weights), tuple(weight / total for weight in weights.values()))


def environment_at(mixture: Mixture, seed: int, index: int) -> str:
    """The id of group ``index`` in a run with ``seed``: the same in every process, and after a resume."""
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in zip(mixture.ids, mixture.shares, strict=True):
        if point < share:
            return name
        point -= share
    return mixture.ids[-1]  # what rounding left over
