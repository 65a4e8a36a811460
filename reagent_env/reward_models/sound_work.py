"""How unlike sound work an attempt reads, and scores that say so.

A judge that was taught named flaws takes what it was never shown for sound. So a second model, one
that has read the views of sound attempts alone and no flaw, says how surprising a view is, in nats
a token; its rank among those of sound attempts of other tasks says how rare that is among them (a
conformal p-value, as in arXiv 2104.08279). What is rarer lowers the scores. What is wrong with it,
if anything, nobody says here. Not here: how that model is trained (``trainers/judge/sound.py``).
"""

from __future__ import annotations

import bisect
import functools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from reagent_env.judgement import Judgement
from reagent_env.reward_models.base import up_to_attempt
from reagent_env.reward_models.local import load_model, view_of
from reagent_env.trajectory import Trajectory

FOLDER = "sound"
"""In a judge's folder: the model of sound work that goes with it."""
SETTINGS_FILE = "sound.json"
"""In that folder: ``view``, and ``surprisals``, quantiles of those of sound attempts."""
FALL = 0.4
"""The most that scores fall."""
USUAL = 0.5
"""Share of sound attempts; what is as surprising as any of that share costs nothing."""
_BATCH = 64


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
        settings = _stated(self.folder / SETTINGS_FILE)
        self._view = view_of(settings["view"])
        self._surprisals: list[float] = settings["surprisals"]
        self._loaded = load_model(self.folder, device)
        self._newline = self._loaded.tokenizer("\n", add_special_tokens=False)["input_ids"][-1]

    def rarities(self, trajectories: Sequence[Trajectory]) -> list[Rarity | None]:
        """Of the last attempt of each; None where it has no view, or no turn."""
        shown = [self._shown(trajectory) for trajectory in trajectories]
        views = dict.fromkeys(ids for ids in shown if ids is not None)
        found = dict(zip(views, self.surprise(list(views)), strict=True))
        return [
            None if ids is None else self._rarity(ids, found[ids], len(each.attempts[-1].turns))
            for ids, each in zip(shown, trajectories, strict=True)
        ]

    def surprise(self, views: Sequence[Sequence[int]]) -> list[list[float]]:
        """For the tokens of each view but the first: −ln of the probability of each, in nats."""
        import torch

        found: list[list[float]] = [[] for _ in views]
        by_length = sorted(range(len(views)), key=lambda index: len(views[index]))
        for start in range(0, len(views), _BATCH):
            part = by_length[start : start + _BATCH]
            longest = max(len(views[index]) for index in part)
            rows = [[*views[i], *[0] * (longest - len(views[i]))] for i in part]
            ids = torch.tensor(rows, device=self._loaded.model.device)
            with torch.inference_mode():
                logits = self._loaded.model(input_ids=ids).logits[:, :-1].float()
                nats = torch.nn.functional.cross_entropy(
                    logits.transpose(1, 2), ids[:, 1:], reduction="none"
                )
            for index, row in zip(part, nats.tolist(), strict=True):
                found[index] = row[: len(views[index]) - 1]
        return found

    def _shown(self, trajectory: Trajectory) -> tuple[int, ...] | None:
        if not trajectory.attempts or not trajectory.attempts[-1].turns:
            return None
        messages = self._view(trajectory)
        ids = None if messages is None else self._loaded.encode(messages)
        return None if ids is None or len(ids) > self._loaded.context else tuple(ids)

    def _rarity(self, ids: Sequence[int], nats: Sequence[float], turns: int) -> Rarity:
        # Rounded: what else is in a batch changes the last digits.
        as_low = bisect.bisect_left(self._surprisals, round(sum(nats) / len(nats), 4))
        lines = [0.0]
        for token, each in zip(ids[1:], nats, strict=True):
            lines[-1] += each
            if token == self._newline:
                lines.append(0.0)
        of_turns = lines[1 : turns + 1] if len(lines) == turns + 2 else [1.0] * turns
        total = sum(of_turns) or 1.0
        passed = [round(min(1.0, nats / total), 4) for nats in accumulate(of_turns)]
        return Rarity(1 - as_low / len(self._surprisals), (*passed[:-1], 1.0))

    def __reduce__(self) -> tuple[Any, ...]:
        """The folder travels; the copy loads the model itself."""
        return functools.partial(SoundWork, device=self.device), (self.folder,)

    def __repr__(self) -> str:
        """The folder."""
        return f"SoundWork({str(self.folder)!r})"


class SoundWorkJudge:
    """A judge whose scores fall where an attempt is unlike sound work.

    What it writes is kept, and so is what it leaves unscored.

    Example: ``SoundWorkJudge(LocalJudge("judge"), SoundWork("judge/sound")).judge(trajectories)``.
    """

    def __init__(self, judge: Any, sound: SoundWork) -> None:
        """Take the judge and the model of sound work."""
        self.inner = judge
        self.sound = sound
        self.patience_s: float = getattr(judge, "patience_s", 0.0)

    def judge(self, trajectories: Sequence[Trajectory], *, attempt: int = -1) -> list[Judgement]:
        """One judgement a trajectory, in the same order.

        Raises:
            IndexError: a trajectory has attempts, but not this one.
        """
        asked = [up_to_attempt(each, attempt) for each in trajectories]
        said = self.inner.judge(asked)
        began = time.perf_counter()
        rarities = self.sound.rarities(asked)
        each_s = (time.perf_counter() - began) / max(1, len(asked))
        return [
            replace(
                one if rarity is None else lowered(one, rarity), latency_s=one.latency_s + each_s
            )
            for one, rarity in zip(said, rarities, strict=True)
        ]

    def __repr__(self) -> str:
        """Both."""
        return f"SoundWorkJudge({self.inner!r}, {self.sound!r})"


def lowered(judgement: Judgement, rarity: Rarity) -> Judgement:
    """The judgement with its scores lowered by FALL · max(0, 1 − share / USUAL), at least 0.

    Each φ_t falls by the part of that which the turns up to t gave cause for.

    Example: 0.9 of an attempt of which no sound one is as surprising becomes 0.5.
    """
    fall = FALL * max(0.0, 1 - rarity.share / USUAL)
    if judgement.score is None or fall == 0:
        return judgement
    turns = judgement.turn_scores
    return replace(
        judgement,
        score=max(0.0, judgement.score - fall),
        turn_scores=None
        if turns is None
        else tuple(
            None if each is None else max(0.0, each - fall * part)
            for each, part in zip(turns, rarity.by_turn, strict=True)
        ),
    )


def with_sound_work(judge: Any, folder: Path, *, device: str | None = None) -> Any:
    """``judge``, corrected by the model of sound work in its ``folder`` if there is one."""
    sound = folder / FOLDER
    if not (sound / SETTINGS_FILE).is_file():
        return judge
    return SoundWorkJudge(judge, SoundWork(sound, device=device))


def _stated(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"No model of sound work in {str(path.parent)!r}: {path.name} is missing.")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        surprisals = [float(one) for one in settings["surprisals"]]
        view = str(settings["view"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds view and surprisals, a list of numbers: {error}") from error
    if not surprisals or surprisals != sorted(surprisals):
        raise ValueError(f"{path}: surprisals are numbers that rise, and one at least.")
    return {"view": view, "surprisals": surprisals}
