"""``table.md``, ``table.json`` and ``curves.png``: what an ablation says so far, for people and programs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reagent_env.agents.summary import nan_as_none
from reagent_env.trainers.ablation.comparisons import Comparison, comparisons_of
from reagent_env.trainers.ablation.inference import (
    ALPHA,
    MARGIN,
    Difference,
    holm,
    mean_with_interval,
    paired,
)
from reagent_env.trainers.ablation.plan import Plan, PlannedRun
from reagent_env.trainers.ablation.results import SHORT, Records, arm_values, by_seed, read_records
from reagent_env.trainers.ablation.tasks import TASKS
from reagent_env.trainers.ablation.verdict import explained, verdict
from reagent_env.trainers.atomic_files import write_json, write_text
from reagent_env.trainers.recipes import JUDGE

FILES = ("table.md", "table.json", "curves.png")
BUDGET_APART = 0.05
"""Mean tokens of two arms further apart than this share are said."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison and what the seeds say of it."""

    comparison: Comparison
    difference: Difference
    starts: tuple[str, ...]
    """Cold starts it rests on."""
    by_start: Mapping[str, float]
    """Mean difference from each of them alone."""


def write_tables(plan: Plan, command: str) -> Path:
    """Write the three files into the plan's folder; returns that of the table.

    Raises:
        ImportError: scipy or matplotlib is not installed.
    """
    from reagent_env.trainers.ablation.picture import draw_curves

    records = read_records(plan)
    compared = compare(plan, records)
    names = [arm.name for arm in plan.arms]
    title = (
        f"{plan.task}: {plan.common['env'].rpartition(':')[2]}, {plan.budget:,} policy tokens a run"
    )
    drawn = draw_curves(plan.root / "curves.png", records.runs, names, title)
    write_json(plan.root / "table.json", table_json(plan, records, compared, command))
    path = plan.root / "table.md"
    write_text(path, table_text(plan, records, compared, command, picture=drawn))
    return path


def compare(plan: Plan, records: Records) -> list[Compared]:
    """The stated comparisons over the seeds that are whole, each family corrected by Holm's method."""
    starts = [start.label for start in plan.starts]
    found = []
    stated = comparisons_of(plan.arms)
    sizes = Counter(one.family for one in stated)
    for comparison in stated:
        differences, used = by_seed(records.runs, comparison, starts)
        apart = {one: _mean(by_seed(records.runs, comparison, [one])[0]) for one in used}
        found.append(
            Compared(
                comparison, paired(differences, tests=sizes[comparison.family]), tuple(used), apart
            )
        )
    families = dict.fromkeys(one.comparison.family for one in found)
    corrected: dict[int, Difference] = {}
    for family in families:
        places = [i for i, one in enumerate(found) if one.comparison.family == family]
        fixed = holm([found[i].difference for i in places])
        corrected.update(zip(places, fixed, strict=True))
    return [
        Compared(one.comparison, corrected[i], one.starts, one.by_start)
        for i, one in enumerate(found)
    ]


def table_text(
    plan: Plan, records: Records, compared: Sequence[Compared], command: str, *, picture: bool
) -> str:
    """The report in Markdown."""
    total = len(records.runs) + len(records.short) + len(records.missing)
    sections = [
        f"# Ablation: {plan.task}",
        f"```bash\n{command}\n```\n\n{plan.common['env'].rpartition(':')[2]}, "
        f"judge `{plan.common.get('judge', JUDGE)}`, {plan.budget:,} policy tokens a run, "
        f"{plan.seeds} seed{'s' if plan.seeds != 1 else ''}, cold starts "
        f"{', '.join(f'`{start.policy}`' for start in plan.starts)}. "
        f"{len(records.runs)} of {total} runs are finished. Success is on the "
        f"{plan.common['held_out_split']} split, {plan.common['held_out_episodes']} tasks, the same "
        "for every arm: one pass, no judge, no critique, tokens drawn at temperature "
        f"{plan.common.get('eval_temperature', 1.0):g}. *Talk* is the share of those answers that speak "
        "of a critique nobody gave, before → after; *second attempts* is their success in the first → "
        "last quarter of training.",
        _state(plan, records),
        "## Verdicts\n\n" + ("\n".join(_verdicts(compared)) or "Nothing is compared yet."),
        f"## Arms\n\n{_arms(plan, records)}",
        f"## Comparisons\n\n{_comparisons(compared)}" if compared else "",
        "## Curves\n\n![curves](curves.png)" if picture else "",
        _how(),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def table_json(
    plan: Plan, records: Records, compared: Sequence[Compared], command: str
) -> dict[str, Any]:
    """Everything the table rests on, every run's number among it."""
    encodable: dict[str, Any] = nan_as_none(
        {
            "command": command,
            "plan": plan.to_json(),
            "seeds": plan.seeds,
            "before": {label: {"success": s, "n": n} for label, (s, n) in records.before.items()},
            "runs": [one.to_json() for one in records.runs],
            "short": [one.to_json() for one in records.short],
            "missing": [str(one) for one in records.missing],
            "failed": records.failed,
            "comparisons": [
                {
                    "name": one.comparison.name,
                    "question": one.comparison.question,
                    "family": one.comparison.family,
                    "weights": dict(one.comparison.weights),
                    "verdict": verdict(one.difference),
                    "words": explained(one.difference, len(one.starts)),
                    "cold_starts": list(one.starts),
                    "by_cold_start": dict(one.by_start),
                    **one.difference.to_json(),
                }
                for one in compared
            ],
        }
    )
    finite: dict[str, Any] = _finite(encodable)
    return finite


def _state(plan: Plan, records: Records) -> str:
    """What a reader must know before believing the table."""
    said = []
    if records.missing:
        said.append(
            f"- **Not finished**: {len(records.missing)} runs are missing: {_listed(records.missing)}."
        )
    if records.failed:
        said.append(
            f"- **Failed**: {len(records.failed)} of those were tried and failed, which may depend on "
            f"the arm: {'; '.join(records.failed)}. `table.json` says how."
        )
    if len(plan.asked) > 1:
        asked = ", then ".join(map(str, plan.asked))
        said.append(f"- Seeds asked for: {asked}. More were added after some were seen.")
    if records.short:
        said.append(
            f"- {len(records.short)} runs made less than {SHORT:.0%} of the budget and are left out."
        )
    most = TASKS[plan.task].most_at_first if plan.task in TASKS else 1.0
    for label, (success, n) in records.before.items():
        text = f"- Cold start `{label}`: {success:.3f} before training (n = {n})."
        if success > most:
            text += f" **More than {most:.2f}**: from here the task is not the sparse one it is meant to be."
        said.append(text)
    tokens = {arm: _mean([r.tokens for r in records.runs if r.arm == arm]) for arm in _names(plan)}
    known = [one for one in tokens.values() if not math.isnan(one)]
    if known and max(known) - min(known) > BUDGET_APART * plan.budget:
        said.append(
            f"- **Budgets differ**: mean policy tokens of the arms lie between {min(known):,.0f} and "
            f"{max(known):,.0f}."
        )
    return "\n".join(said)


def _verdicts(compared: Sequence[Compared]) -> list[str]:
    return [
        f"- *{one.comparison.question}* {one.comparison.name}: **{_word(one)}**{_after_word(one)}."
        for one in compared
    ]


def _word(one: Compared) -> str:
    called = dict(zip(("better", "worse"), one.comparison.words, strict=True))
    return called.get(verdict(one.difference), verdict(one.difference))


def _after_word(one: Compared) -> str:
    words = explained(one.difference, len(one.starts))
    return words.removeprefix(verdict(one.difference))


def _arms(plan: Plan, records: Records) -> str:
    starts = [start.label for start in plan.starts]
    head = [
        "arm",
        "what it is",
        "success",
        "runs",
        "tokens",
        "updates",
        "minutes",
        "second attempts",
        "unscored",
        "talk",
    ]
    if len(starts) > 1:
        head[3:3] = [f"from {start}" for start in starts]
    rows = [head, ["---"] * len(head)]
    for arm in plan.arms:
        mine = [run for run in records.runs if run.arm == arm.name]
        mean, low, high = mean_with_interval(list(arm_values(records.runs, arm.name).values()))
        interval = "" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]"
        row = [f"`{arm.name}`", arm.meaning, "–" if math.isnan(mean) else f"{mean:.3f}{interval}"]
        if len(starts) > 1:
            per = (_mean(list(arm_values(records.runs, arm.name, s).values())) for s in starts)
            row += ["–" if math.isnan(one) else f"{one:.3f}" for one in per]
        row += [
            str(len(mine)),
            _number([run.tokens for run in mine], "{:,.0f}"),
            _number([run.updates for run in mine], "{:.0f}"),
            _number([run.seconds / 60 for run in mine], "{:.1f}"),
            _from_to([run.second for run in mine]),
            _number([run.unscored for run in mine], "{:.1%}"),
            _from_to([(run.talk_before, run.talk) for run in mine], "{:.1%}"),
        ]
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _comparisons(compared: Sequence[Compared]) -> str:
    head = [
        "comparison", "family", "points", "95 %", "p", "Holm", "within ±3", "seeds",
        "detectable", "by cold start",
    ]  # fmt: skip
    rows = [head, ["---"] * len(head)]
    for one in compared:
        d = one.difference
        each = ", ".join(f"{label} {100 * mean:+.1f}" for label, mean in one.by_start.items())
        rows.append(
            [
                one.comparison.name,
                one.comparison.family,
                _points(d.mean),
                "–" if math.isnan(d.low) else f"{_points(d.low)} … {_points(d.high)}",
                _p(d.p),
                _p(d.p_holm),
                _p(d.p_equivalent),
                str(d.seeds),
                "–" if math.isnan(d.detectable) else f"{100 * d.detectable:.1f}",
                each or "–",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _how() -> str:
    return (
        "## How to read it\n\n"
        "A seed's difference is between runs that share tasks, their order, first weights and "
        "budget, averaged over cold starts; intervals and tests are over seeds (paired t), so they "
        "speak of new seeds from these cold starts. *Better* and *worse* are at "
        f"{ALPHA:.0%} after Holm's correction within the family; *no difference* is two one-sided "
        f"tests that both exclude ± {100 * MARGIN:g} points; all else is *inconclusive*. "
        "*Detectable* is the true difference, in points, that as many seeds of that spread find in "
        "four of five experiments, at the level of Holm's first step. The 95 % intervals are each "
        "comparison's own, without the correction, so one may exclude 0 beside *inconclusive*; the "
        "tests of *no difference* are not corrected either. All runs answer the same held-out tasks: "
        "nothing here is about other tasks. *Success* counts every finished run of an arm; a "
        "comparison counts seeds that all of its arms have. A number of seeds that would find a "
        "difference is for planning another experiment: more seeds because of a p-value spoil it."
    )


def _names(plan: Plan) -> list[str]:
    return [arm.name for arm in plan.arms]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _number(values: Sequence[float], form: str) -> str:
    return form.format(_mean(values)) if values else "–"


def _from_to(pairs: Sequence[tuple[float, float]], form: str = "{:.2f}") -> str:
    """Means of both sides, e.g. ``0.17 → 0.45``; of one alone where the other was not measured."""
    sides = [[one for one in side if not math.isnan(one)] for side in zip(*pairs, strict=True)]
    return " → ".join(form.format(_mean(side)) for side in sides if side) or "–"


def _listed(runs: Sequence[PlannedRun]) -> str:
    """Runs by arm and cold start, e.g. ``reagent-u from tiny (2, 3)``."""
    seeds: dict[str, list[str]] = {}
    for run in runs:
        seeds.setdefault(f"{run.arm} from {run.start}", []).append(str(run.seed))
    return "; ".join(f"{name} ({', '.join(those)})" for name, those in seeds.items())


def _points(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:+.1f}"


def _p(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2g}"


def _finite(record: Any) -> Any:
    """None in place of infinities, which JSON does not have either."""
    if isinstance(record, dict):
        return {key: _finite(value) for key, value in record.items()}
    if isinstance(record, list):
        return [_finite(value) for value in record]
    return None if isinstance(record, float) and math.isinf(record) else record
