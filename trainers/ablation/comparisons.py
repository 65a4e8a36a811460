"""Who is compared with whom: stated here, before any run, so that nobody picks the winner afterwards."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from reagent_env.trainers.ablation.arms import Arm


@dataclass(frozen=True, slots=True)
class Comparison:
    """A difference of arms, e.g. ``Comparison("U − R", "…", {"reagent-u": 1, "reagent-r": -1})``."""

    name: str
    question: str
    """What the difference answers."""
    weights: Mapping[str, float]
    """Arm → its weight; they sum to 0."""
    family: str = "headline"
    """Comparisons of one family share Holm's correction."""
    words: tuple[str, str] = ("better", "worse")
    """What a difference above and below 0 is called."""

    def __post_init__(self) -> None:
        if abs(sum(self.weights.values())) > 1e-9:
            raise ValueError(f"The weights of {self.name!r} must sum to 0: {dict(self.weights)}.")


def _pair(first: str, second: str, question: str, family: str) -> Comparison:
    return Comparison(f"{first} − {second}", question, {first: 1.0, second: -1.0}, family)


STATED = (
    _pair("reagent-u", "outcome", "Do score and critique together help?", "headline"),
    _pair("reagent-r", "outcome", "Does the score help, one attempt each?", "headline"),
    _pair("reagent-u", "reagent-r", "Does the critique add to the score?", "headline"),
    Comparison(
        "score (main effect)",
        "Does the score help, over both kinds of second attempts?",
        {"reagent-u": 0.5, "retry-score": 0.5, "critique": -0.5, "retry": -0.5},
        "headline",
    ),
    Comparison(
        "critique (main effect)",
        "Does a critique help more than a second try, with and without the score?",
        {"reagent-u": 0.5, "critique": 0.5, "retry-score": -0.5, "retry": -0.5},
        "headline",
    ),
    Comparison(
        "score × critique",
        "Does one help more where the other is there?",
        {"reagent-u": 1.0, "retry": 1.0, "critique": -1.0, "retry-score": -1.0},
        "headline",
        ("more together", "less together"),
    ),
    _pair("retry", "outcome", "Does a second try alone help?", "headline"),
    _pair("reagent-u", "u-shuffled-critique", "Is it what the critique says?", "controls"),
    _pair("reagent-u", "u-independent", "Is it that the second attempt follows one?", "controls"),
    _pair("reagent-u", "u-shuffled-score", "Is it which attempt scores high?", "controls"),
    _pair("reagent-u", "u-constant-score", "Is it that scores differ at all?", "controls"),
    _pair("reagent-u", "u-noise-score", "Is it more than noise in the reward?", "controls"),
    _pair("reagent-u", "u-length-score", "Is it more than what length tells?", "controls"),
    _pair("reagent-r", "r-shuffled-score", "Is it which attempt scores high?", "controls"),
    _pair("reagent-r", "r-noise-score", "Is it more than noise in the reward?", "controls"),
)
"""All of them; an ablation makes those whose arms it has."""


def comparisons_of(arms: Sequence[Arm]) -> list[Comparison]:
    """The stated comparisons among these arms; of the arms of a sweep, each with the one before it."""
    names = [arm.name for arm in arms]
    found = [one for one in STATED if set(one.weights) <= set(names)]
    swept: dict[str, list[str]] = {}
    for name in names:
        if "=" in name:
            swept.setdefault(name.partition("=")[0], []).append(name)
    for setting, members in swept.items():
        for before, after in pairwise(members):
            found.append(_pair(after, before, f"Does {setting} matter here?", f"sweep {setting}"))
    lonely = _not_compared(names, found)
    if lonely and len(names) > 1:
        first = names[0]
        found += [
            _pair(name, first, "Not among the stated comparisons.", "unstated")
            for name in lonely
            if name != first
        ]
    return found


def _not_compared(names: Sequence[str], found: Collection[Comparison]) -> list[str]:
    compared = {arm for one in found for arm in one.weights}
    return [name for name in names if name not in compared]
