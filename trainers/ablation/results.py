"""What the finished runs of an ablation came to, read from their folders alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reagent_env.trainers import metric_names as names
from reagent_env.trainers.ablation.comparisons import Comparison
from reagent_env.trainers.ablation.plan import Plan, PlannedRun
from reagent_env.trainers.ablation.processes import failure_of
from reagent_env.trainers.run_folder import read_config, read_metrics

SHORT = 0.9
"""A run that made less than this share of the budget is no run of the experiment."""

AXES = {
    names.TOKENS: "policy tokens",
    names.TURNS_MADE: "environment turns",
    names.JUDGE_TOKENS: "tokens of the judge",
    names.JUDGED: "judged attempts",
    names.SECONDS: "seconds of training",
}
"""What a curve may go by: counted up over the log, but for the seconds, which are so already."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One finished run, e.g. ``RunRecord("reagent-u", "tiny", 0, 0.81, 1000, 80123, …)``."""

    arm: str
    start: str
    seed: int
    success: float
    """On the held-out tasks after training: one pass, no judge."""
    n: int
    """Held-out tasks; masked ones left out."""
    tokens: int
    """Policy tokens sampled for updates."""
    updates: int
    seconds: float
    """Of training."""
    unscored: float
    """Share of judgements without a score."""
    talk: float = math.nan
    """Share of held-out answers that speak of a critique nobody gave; NaN where not measured."""
    talk_before: float = math.nan
    """The same of the cold start."""
    second: tuple[float, float] = (math.nan, math.nan)
    """Success of second attempts in the first and in the last quarter of training; NaN without any."""
    curve: dict[str, list[float]] = field(default_factory=dict)
    """``success`` of first attempts in training, ``second`` of second ones where there are any, and
    ``turns`` an episode by update; and the axes of :data:`AXES`."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict, without the curve."""
        return {name: value for name, value in asdict(self).items() if name != "curve"}


@dataclass(frozen=True, slots=True)
class Records:
    """What is there, and what is not."""

    runs: tuple[RunRecord, ...]
    short: tuple[RunRecord, ...]
    """Runs that ended before the budget was spent; in no comparison."""
    missing: tuple[PlannedRun, ...]
    before: dict[str, tuple[float, int]]
    """Cold start → success before training, episodes."""
    failed: dict[str, str] = field(default_factory=dict)
    """Of those missing, the ones that were tried: run → how it failed."""


def read_records(plan: Plan) -> Records:
    """Read what is finished of a plan.

    Raises:
        ValueError: a run's log is damaged, or it was made with other settings than planned.
    """
    runs, short, missing, failed = [], [], [], {}
    for planned in plan.runs():
        record = _record(planned)
        if record is None:
            missing.append(planned)
            if (failure := failure_of(planned)) is not None:
                failed[str(planned)] = failure
        elif record.tokens < SHORT * plan.budget:
            short.append(record)
        else:
            runs.append(record)
    before = {}
    for measured in plan.measurements():
        found = _summary(measured.path)
        if found is not None:
            before[measured.start] = (
                float(found["held_out"]["after"]),
                int(found["held_out"]["n"]),
            )
    return Records(tuple(runs), tuple(short), tuple(missing), before, failed)


def by_seed(
    runs: Sequence[RunRecord], comparison: Comparison, starts: Sequence[str]
) -> tuple[list[float], list[str]]:
    """The comparison's difference for each seed that has all its runs, and those cold starts used.

    A seed's number is the mean over cold starts: seeds are what the interval is over, so that it
    speaks of these cold starts and of new seeds. Cold starts without a single whole seed are left out.
    """
    success = {(one.arm, one.start, one.seed): one.success for one in runs}
    seeds = sorted({one.seed for one in runs})
    table: dict[str, dict[int, float]] = {}
    for start in starts:
        for seed in seeds:
            if all((arm, start, seed) in success for arm in comparison.weights):
                table.setdefault(start, {})[seed] = sum(
                    weight * success[arm, start, seed] for arm, weight in comparison.weights.items()
                )
    used = [start for start in starts if start in table]
    whole = [seed for seed in seeds if used and all(seed in table[start] for start in used)]
    return [float(np.mean([table[start][seed] for start in used])) for seed in whole], used


def arm_values(runs: Sequence[RunRecord], arm: str, start: str | None = None) -> dict[int, float]:
    """Seed → success of an arm, mean over cold starts where none is said."""
    found: dict[int, list[float]] = {}
    for one in runs:
        if one.arm == arm and start in (None, one.start):
            found.setdefault(one.seed, []).append(one.success)
    return {seed: float(np.mean(values)) for seed, values in sorted(found.items())}


def _record(planned: PlannedRun) -> RunRecord | None:
    summary = _summary(planned.path)
    if summary is None or summary["held_out"]["after"] is None:
        return None
    if (planned.path / "config.json").exists():
        there, mine = read_config(planned.path).to_json(), planned.config.to_json()
        if differing := sorted(name for name in mine if there.get(name) != mine[name]):
            raise ValueError(
                f"{planned.path} was made with other settings than planned: {', '.join(differing)}. "
                "Move it away, or give another --out."
            )
    lines = [line for line in read_metrics(planned.path) if names.SUCCESS in line]
    return RunRecord(
        arm=planned.arm,
        start=planned.start,
        seed=planned.seed,
        success=float(summary["held_out"]["after"]),
        n=int(summary["held_out"]["n"]),
        tokens=int(lines[-1][names.TOKENS_TOTAL]) if lines else 0,
        updates=int(summary["updates"]),
        seconds=float(summary["train_seconds"]),
        unscored=float(summary["unscored_rate"] or 0.0),
        talk=_talk(planned.path, "after"),
        talk_before=_talk(planned.path, "before"),
        second=_first_and_last([line[names.SECOND] for line in lines if names.SECOND in line]),
        curve=_curve(lines),
    )


def _talk(path: Path, when: str) -> float:
    file = path / "leakage.json"
    measured = json.loads(file.read_text("utf-8")).get(when) if file.exists() else None
    return math.nan if measured is None else float(measured["speaks"]["mean"])


def _first_and_last(values: Sequence[float]) -> tuple[float, float]:
    """Means of the first and the last quarter."""
    if not values:
        return math.nan, math.nan
    quarter = max(1, len(values) // 4)
    return float(np.mean(values[:quarter])), float(np.mean(values[-quarter:]))


def _curve(lines: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"success": [float(line[names.SUCCESS]) for line in lines]}
    if lines and all(names.SECOND in line for line in lines):
        found["second"] = [float(line[names.SECOND]) for line in lines]
    found["turns"] = [float(line.get(names.TURNS) or 0.0) for line in lines]
    for axis in AXES:
        values = [float(line.get(axis) or 0.0) for line in lines]
        found[axis] = values if axis == names.SECONDS else np.cumsum(values).tolist()
    return found


def _summary(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads((path / "summary.json").read_text("utf-8")))
    except FileNotFoundError:
        return None
