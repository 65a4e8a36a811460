"""How unlike sound work an attempt reads, and scores that say so.

A judge that was taught named flaws takes what it was never shown for sound. So a second model, one
that has read the views of sound attempts alone and no flaw, says how surprising a view is, in nats
a token; its rank among those of sound attempts of other tasks with the same tools says how rare that
is (the idea of conformal p-values, arXiv 2104.08279). What is rare lowers the scores. What is wrong
with it, if anything, nobody says here. Not here: how that model is trained (``trainers/judge/sound.py``).
"""

from __future__ import annotations

import bisect
import functools
import json
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from reagent_env.judgement import Judgement
from reagent_env.reward_models.base import RewardModel, prefixes_of, up_to_attempt
from reagent_env.reward_models.batched import PATIENCE_S
from reagent_env.reward_models.local import load_model, view_of
from reagent_env.reward_models.marks import tool_names
from reagent_env.trajectory import Trajectory

FOLDER = "sound"
"""In a judge's folder: the model of sound work that goes with it."""
SETTINGS_FILE = "sound.json"
"""In that folder: ``view``, and ``surprisals``, quantiles of those of sound attempts by tool set."""
ANY_TOOLS = ""
"""Stands for the tool sets that have no quantiles of their own."""
FALL = 0.3
"""The most that scores fall, as a share of them."""
USUAL = 0.5
"""What at least that share of sound attempts surprises as much as costs nothing."""
_BATCH_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class Rarity:
    """How rare an attempt is among sound ones, e.g. ``Rarity(0.02, (0.1, 0.9, 1.0))``."""

    share: float
    """Of sound attempts that are at least as surprising, in [0, 1]."""
    by_turn: tuple[float, ...]
    """[T] share of the turns' surprise that had come by each turn; the last is 1."""


class SoundWork:
    """A model of sound work: a causal language model of their views.

    Example: ``SoundWork("judge/sound").rarities([trajectory])`` gives ``[Rarity(0.31, (0.4, 1.0))]``.
    """

    def __init__(self, folder: str | Path, *, device: str | None = None) -> None:
        """Load the model, its tokenizer and what it found of sound attempts.

        Args:
            folder: What ``trainers/judge/sound.py`` leaves.
            device: Where it computes; by default ``cuda`` where there is one, else ``cpu``.

        Raises:
            ValueError: the folder holds no such model.
        """
        self.folder = Path(folder)
        self.device = device
        view, self._surprisals = _stated(self.folder / SETTINGS_FILE)
        self._view = view_of(view)
        self._loaded = load_model(self.folder, device)
        self._alone = threading.Lock()

    def rarities(self, trajectories: Sequence[Trajectory]) -> list[Rarity | None]:
        """Of the last attempt of each; None where it has no view, or no turn."""
        shown = [self._shown(trajectory) for trajectory in trajectories]
        views = list(dict.fromkeys(ids for ids in shown if ids is not None))
        with self._alone:
            nats = surprise(self._loaded.model, views)
        lines = {
            ids: by_line(ids, of, self._loaded.tokenizer)
            for ids, of in zip(views, nats, strict=True)
        }
        return [
            None if ids is None else self._rarity(lines[ids], each)
            for ids, each in zip(shown, trajectories, strict=True)
        ]

    def _shown(self, trajectory: Trajectory) -> tuple[int, ...] | None:
        if not trajectory.attempts or not trajectory.attempts[-1].turns:
            return None
        messages = self._view(trajectory)
        ids = None if messages is None else self._loaded.encode(messages)
        return None if ids is None or len(ids) > self._loaded.context else tuple(ids)

    def _rarity(self, lines: Sequence[Sequence[float]], trajectory: Trajectory) -> Rarity:
        usual = self._surprisals.get(tool_set(trajectory), self._surprisals[ANY_TOOLS])
        # Rounded: what else is in a batch changes the last digits.
        as_low = bisect.bisect_left(usual, round(surprisal(lines), 4))
        turns = len(trajectory.attempts[-1].turns)
        of_turns = [sum(line) for line in lines[1:-1]]
        if len(of_turns) != turns:
            of_turns = [1.0] * turns
        total = sum(of_turns) or 1.0
        passed = [round(min(1.0, so_far / total), 4) for so_far in accumulate(of_turns)]
        return Rarity(1 - as_low / len(usual), (*passed[:-1], 1.0))

    def __reduce__(self) -> tuple[Any, ...]:
        """The folder travels; the copy loads the model itself."""
        return functools.partial(SoundWork, device=self.device), (self.folder,)

    def __repr__(self) -> str:
        """The folder."""
        return f"SoundWork({str(self.folder)!r})"


def surprise(model: Any, views: Sequence[Sequence[int]]) -> list[list[float]]:
    """For the tokens of each view but the first: −ln of the probability of each, in nats.

    Raises:
        ValueError: one is no finite number: the model is broken.
    """
    import torch

    found: list[list[float]] = [[] for _ in views]
    waiting = sorted(range(len(views)), key=lambda index: -len(views[index]))
    while waiting:
        longest = len(views[waiting[0]])
        count = max(1, _BATCH_TOKENS // longest)
        part, waiting = waiting[:count], waiting[count:]
        rows = [[*views[i], *[0] * (longest - len(views[i]))] for i in part]
        ids = torch.tensor(rows, device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
            nats = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), ids[:, 1:], reduction="none"
            )
        for index, row in zip(part, nats.tolist(), strict=True):
            found[index] = row[: len(views[index]) - 1]
            if not all(map(math.isfinite, found[index])):
                raise ValueError("The model of sound work gives no finite probabilities.")
    return found


def by_line(ids: Sequence[int], nats: Sequence[float], tokenizer: Any) -> list[list[float]]:
    """The surprise of a view's tokens by its lines: the question's, one a turn, the end's."""
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"][-1]
    lines: list[list[float]] = [[]]
    for token, each in zip(ids[1:], nats, strict=True):
        lines[-1].append(each)
        if token == newline:
            lines.append([])
    return lines


def surprisal(lines: Sequence[Sequence[float]]) -> float:
    """Nats a token; the question's line counts too, since it says what of it was used, and when."""
    told = [each for line in lines for each in line]
    return sum(told) / max(1, len(told))


def tool_set(trajectory: Trajectory) -> str:
    """The names of the tools at hand, e.g. ``browse,search``: what is usual depends on them."""
    return ",".join(sorted(tool_names(trajectory)))


class SoundWorkJudge:
    """A judge whose scores fall where an attempt is unlike sound work.

    What it writes is kept, and so is what it leaves unscored.

    Example: ``SoundWorkJudge(LocalJudge("judge"), SoundWork("judge/sound")).judge(trajectories)``.
    """

    def __init__(self, judge: RewardModel, sound: SoundWork, *, turn_scores: str = "own") -> None:
        """Take the judge and the model of sound work.

        Args:
            judge: Whose scores fall.
            sound: What they fall by.
            turn_scores: As the judge's (``local.py``): ``prefixes`` where φ_t is its score of the
                first t turns; then those turns alone say how far it falls.
        """
        self.inner = judge
        self.sound = sound
        self.turn_scores = turn_scores
        self.patience_s: float = getattr(judge, "patience_s", PATIENCE_S)

    def judge(self, trajectories: Sequence[Trajectory], *, attempt: int = -1) -> list[Judgement]:
        """One judgement a trajectory, in the same order.

        Raises:
            IndexError: a trajectory has attempts, but not this one.
        """
        asked = [up_to_attempt(each, attempt) for each in trajectories]
        said = list(self.inner.judge(asked))
        began = time.perf_counter()
        scored = [index for index, one in enumerate(said) if one.score is not None]
        if self.turn_scores == "prefixes":
            for index in scored:
                said[index] = _each_lowered(said[index], self._prefixes(asked[index]))
        else:
            rarities = self.sound.rarities([asked[index] for index in scored])
            for index, rarity in zip(scored, rarities, strict=True):
                said[index] = said[index] if rarity is None else lowered(said[index], rarity)
        took = time.perf_counter() - began
        return [replace(one, latency_s=one.latency_s + took) for one in said]

    def _prefixes(self, trajectory: Trajectory) -> list[Rarity | None]:
        return self.sound.rarities(list(prefixes_of(trajectory)))

    def close(self) -> None:
        """Close the judge, where it can be closed."""
        close = getattr(self.inner, "close", None)
        if close is not None:
            close()

    def __repr__(self) -> str:
        """Both."""
        return f"SoundWorkJudge({self.inner!r}, {self.sound!r})"


def lowered(judgement: Judgement, rarity: Rarity) -> Judgement:
    """The judgement with every score s as s · (1 − FALL · max(0, 1 − share / USUAL)).

    φ_t falls by the part of that which the turns up to t gave cause for. The order of scores of
    attempts equally rare is kept.

    Example: 0.9 of an attempt of which no sound one is as surprising becomes 0.63.
    """
    fall = _fall(rarity)
    if judgement.score is None or fall == 0:
        return judgement
    turns = judgement.turn_scores
    return replace(
        judgement,
        score=judgement.score * (1 - fall),
        turn_scores=None
        if turns is None
        else tuple(
            None if each is None else each * (1 - fall * part)
            for each, part in zip(turns, rarity.by_turn, strict=True)
        ),
    )


def _each_lowered(judgement: Judgement, rarities: Sequence[Rarity | None]) -> Judgement:
    """The judgement with each φ_t lowered by the rarity of the first t turns."""
    factors = [1.0 if one is None else 1 - _fall(one) for one in rarities]
    turns = judgement.turn_scores or (None,) * len(factors)
    fallen = [
        None if each is None else each * factor for each, factor in zip(turns, factors, strict=True)
    ]
    score = None if judgement.score is None else judgement.score * factors[-1]
    return replace(
        judgement, score=score, turn_scores=tuple(fallen) if judgement.turn_scores else None
    )


def _fall(rarity: Rarity) -> float:
    return FALL * max(0.0, 1 - rarity.share / USUAL)


def with_sound_work(
    judge: RewardModel, folder: Path, *, device: str | None = None, turn_scores: str = "own"
) -> RewardModel:
    """``judge``, corrected by the model of sound work in its ``folder`` if there is one."""
    sound = folder / FOLDER
    if not (sound / SETTINGS_FILE).is_file():
        return judge
    return SoundWorkJudge(judge, SoundWork(sound, device=device), turn_scores=turn_scores)


def _stated(path: Path) -> tuple[str, dict[str, list[float]]]:
    """The view, and by tool set the surprisals of sound attempts, rising."""
    if not path.is_file():
        raise ValueError(f"No model of sound work in {str(path.parent)!r}: {path.name} is missing.")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        view, stated = str(settings["view"]), dict(settings["surprisals"])
        if not all(isinstance(of, list) for of in stated.values()):
            raise TypeError("Something else than a list stands there.")
        surprisals = {tools: [float(one) for one in of] for tools, of in stated.items()}
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{path} holds view, and surprisals: by tool set a list of numbers. {error}"
        ) from error
    rising = all(
        of and of == sorted(of) and all(map(math.isfinite, of)) for of in surprisals.values()
    )
    if ANY_TOOLS not in surprisals or not rising:
        raise ValueError(
            f"{path}: each of surprisals is numbers that rise, and one is of {ANY_TOOLS!r}."
        )
    return view, surprisals
