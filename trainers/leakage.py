"""Leakage: single-pass answers that talk of a critique nobody gave them.

Training with second attempts may teach first attempts the words of second ones. Two signs are
counted in held-out episodes, which have one attempt and no judge: they *speak* of feedback or of an
earlier attempt (``agents/refine.py`` has the words), or they *echo* six words in a row of a critique
that training showed. Not here: counting while training (``held_out.py`` logs the first sign).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reagent_env.agents.refine import speaks_of_critique
from reagent_env.agents.summary import Rate, mcnemar, nan_as_none, rate
from reagent_env.trainers.report import HELD_OUT
from reagent_env.trajectory import Attempt, Trajectory
from reagent_env.trajectory_file import settled_trajectories

ECHO = 6
"""Words in a row that a critique and an answer share by more than chance."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Talk:
    """How often attempts talk of a critique, e.g. ``Talk(Rate(0.0, (0.0, 0.01), 500), None, ())``."""

    speaks: Rate
    """Share that refers to feedback or to an earlier attempt."""
    echoes: Rate | None
    """Share that repeats words of a critique; None where no critique is known."""
    examples: tuple[str, ...]
    """Up to three completions that do either."""


@dataclass(frozen=True, slots=True)
class Leakage:
    """Before and after training on the same tasks, and where a critique was really given."""

    before: Talk | None
    """None where the run has no evaluation before training."""
    after: Talk
    second: Talk | None
    """Second attempts in training, which have read a critique: what talk of one looks like."""
    critiques: int
    """Different critiques that training showed."""
    begun: int
    """Tasks whose answer talks after training and did not before."""
    ended: int
    """Tasks the other way round."""
    p: float | None
    """Of no change: McNemar's exact test on those two; None without an evaluation before."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict."""
        record: dict[str, Any] = nan_as_none(asdict(self))
        return record


def leakage_of(run: Path, before: Path | None = None) -> Leakage:
    """Measure a run's saved trajectories.

    Args:
        run: A run folder with held-out episodes.
        before: Another run's folder whose evaluation before training counts, where ``run`` has none:
            a cold start's.

    Raises:
        FileNotFoundError: no held-out episodes; says what makes some.
        ImportError: scipy is not installed.
    """
    first, last = _held_out_files(run)
    if last is None:
        raise FileNotFoundError(
            f"{run} has no held-out episodes of after training (trajectories/{HELD_OUT}-*.jsonl): "
            "train with held_out_episodes above 0."
        )
    if before is not None:
        first = _held_out_files(before)[0]
        if first is None:
            raise FileNotFoundError(f"{before} has no trajectories/{HELD_OUT}-000000.jsonl.")
    seconds = [
        attempt
        for file in sorted((run / "trajectories").glob("[0-9]*.jsonl"))
        for trajectory in settled_trajectories(file)
        for attempt in trajectory.attempts[1:]
    ]
    shown = {attempt.feedback for attempt in seconds if attempt.feedback}
    known = word_runs(shown) if shown else None
    after = settled_trajectories(last)
    old = settled_trajectories(first) if first is not None else []
    begun, ended = _changes(old, after, known)
    return Leakage(
        before=None if first is None else talk_of(_firsts(old), known),
        after=talk_of(_firsts(after), known),
        second=talk_of([(None, attempt) for attempt in seconds], known) if seconds else None,
        critiques=len(shown),
        begun=begun,
        ended=ended,
        p=None if first is None else mcnemar(begun, ended),
    )


def talk_of(
    attempts: Sequence[tuple[Trajectory | None, Attempt]],
    critiques: frozenset[tuple[str, ...]] | None,
) -> Talk:
    """Count both signs over attempts, each with its trajectory, whose prompt is no echo.

    Args:
        attempts: What to look at.
        critiques: Of :func:`word_runs`; None where no critique is known.
    """
    speaks = [speaks_of_critique(attempt) for _, attempt in attempts]
    echoes = [_echoes(trajectory, one, critiques or frozenset()) for trajectory, one in attempts]
    examples = [
        turn.completion
        for (_, attempt), said, echoed in zip(attempts, speaks, echoes, strict=True)
        if said or echoed
        for turn in attempt.turns[-1:]
    ]
    return Talk(
        speaks=rate([float(one) for one in speaks]),
        echoes=None if critiques is None else rate([float(one) for one in echoes]),
        examples=tuple(examples[:3]),
    )


def word_runs(texts: Iterable[str]) -> frozenset[tuple[str, ...]]:
    """Every :data:`ECHO` words in a row of the texts, without case and punctuation."""
    return frozenset(run for text in texts for run in _runs(text))


def lines_of(found: Leakage) -> list[str]:
    """The measure in words, for a terminal."""
    lines = []
    for when, talk in (("before", found.before), ("after", found.after)):
        if talk is not None:
            echoes = f"; echo one: {talk.echoes}" if talk.echoes is not None else ""
            lines.append(
                f"{when:<7} single-pass answers that speak of a critique: {talk.speaks}{echoes}"
            )
    if found.second is not None:
        lines.append(
            f"where a critique was given ({found.critiques} different ones), second attempts that "
            f"speak of it: {found.second.speaks}; echo it: {found.second.echoes}"
        )
    if found.p is not None:
        lines.append(
            f"tasks that talk only after: {found.begun}, only before: {found.ended}; "
            f"McNemar's exact p = {found.p:.2g}"
        )
    lines += [f"  e.g. {' '.join(text.split())[:160]}" for text in found.after.examples]
    return lines


def _held_out_files(run: Path) -> tuple[Path | None, Path | None]:
    files = sorted((run / "trajectories").glob(f"{HELD_OUT}-*.jsonl"))
    by_update = {int(file.stem.rpartition("-")[2]): file for file in files}
    first = by_update.pop(0, None)
    return first, by_update[max(by_update)] if by_update else None


def _firsts(trajectories: Sequence[Trajectory]) -> list[tuple[Trajectory | None, Attempt]]:
    return [(one, one.attempts[0]) for one in trajectories if _counts(one)]


def _counts(trajectory: Trajectory) -> bool:
    return bool(trajectory.attempts) and trajectory.infrastructure_error is None


def _changes(
    before: Sequence[Trajectory],
    after: Sequence[Trajectory],
    critiques: frozenset[tuple[str, ...]] | None,
) -> tuple[int, int]:
    """Tasks that began, and that ended, to talk of a critique."""
    known = critiques or frozenset()

    def talks(one: Trajectory) -> bool:
        attempt = one.attempts[0]
        return speaks_of_critique(attempt) or _echoes(one, attempt, known)

    old = {one.task.id: talks(one) for one in before if _counts(one)}
    pairs = [(old[one.task.id], talks(one)) for one in after if _counts(one) and one.task.id in old]
    return sum(b > a for a, b in pairs), sum(a > b for a, b in pairs)


def _echoes(
    trajectory: Trajectory | None, attempt: Attempt, critiques: frozenset[tuple[str, ...]]
) -> bool:
    written = {run for turn in attempt.turns for run in _runs(turn.completion)} & critiques
    if not written or trajectory is None:
        return bool(written)
    read = [trajectory.prompt, *(turn.observation for turn in attempt.turns)]
    return bool(written - word_runs(read))


def _runs(text: str) -> list[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return [tuple(words[i : i + ECHO]) for i in range(len(words) - ECHO + 1)]
