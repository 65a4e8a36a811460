"""``report.md``: what a run came to, for a person, written from the files of its folder alone.

Works on a run that was cut short too. Not here: the picture (``curves.py``).
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reagent_env.agents.summary import Rate, mcnemar, summarise
from reagent_env.trainers import metric_names as names
from reagent_env.trainers.atomic_files import write_text
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.config_fields import defaults_of
from reagent_env.trainers.curves import draw_curves
from reagent_env.trainers.hacking_alarm import logged_alarm
from reagent_env.trainers.progress import duration
from reagent_env.trainers.run_folder import read_config, read_metrics
from reagent_env.trajectory import Trajectory
from reagent_env.trajectory_file import settled_trajectories

HELD_OUT = "held-out"
"""Kind of the trajectories of the evaluation before (update 0) and after training."""

ROWS = 12
"""Lines of the table of curves."""

SAMPLES = 3
"""Tasks whose episodes before and after are shown."""

_LONGEST = 400
"""Characters of a completion or an observation that are shown."""

_COLUMNS = (
    (names.SUCCESS, "success", "{:.3f}"),
    (names.SECOND, "second attempts", "{:.3f}"),
    (names.SCORE, "score", "{:.3f}"),
    (names.UNSCORED, "unscored", "{:.1%}"),
    (names.HELD_OUT, "held out", "{:.3f}"),
    (names.ENTROPY, "entropy", "{:.3f}"),
    (names.TURNS, "turns", "{:.2f}"),
    (names.IMITATION, "loss", "{:.4f}"),
    (names.SPEED, "tokens/s", "{:,.0f}"),
)


def write_report(run: Path) -> Path:
    """Write ``report.md`` and ``curves.png`` of a run, whatever it has so far.

    Raises:
        NotARun: the folder has no settings.
        OSError: it could not be written; names the file.
    """
    config = read_config(run)
    title = f"{config.recipe} on {config.env} ({config.policy})"
    try:
        drawn = draw_curves(run / "curves.png", read_metrics(run), title)
        picture = "![curves](curves.png)" if drawn else "Nothing was measured yet."
    except ImportError:
        picture = "The curves need matplotlib: `pip install matplotlib`."
    path = run / "report.md"
    write_text(path, report_text(run, picture))
    return path


def report_text(run: Path, picture: str = "") -> str:
    """The report in Markdown; ``picture`` stands above the table of curves.

    Raises:
        NotARun: the folder has no settings.
    """
    config = read_config(run)
    lines = read_metrics(run)
    summary = _summary(run)
    before, after = _held_out(run)
    sections = [
        f"# {config.recipe} on {config.env}",
        _head(config, lines, summary),
        *_held_out_section(config, summary, before, after),
        f"## Curves\n\n{picture}\n\n{_table(lines)}".rstrip(),
        *_alarm_section(run, lines),
        f"## Left out\n\n{_left_out(lines, summary)}",
        *_samples(before, after),
        f"## What next\n\n{_next(run, config)}",
        f"## Settings\n\n{_settings(config)}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(config: TrainConfig, lines: Sequence[Mapping[str, Any]], summary: Any) -> str:
    done = lines[-1]["update"] if lines else 0
    seconds = (summary or {}).get("train_seconds") or (lines[-1].get(names.SECONDS) if lines else 0)
    judge = f"judge `{config.judge}`, λ = {config.weight:g}" if config.needs_judge else "no judge"
    text = (
        f"Policy `{config.policy}`, {judge}, seed {config.seed}. "
        f"{done} updates in {duration(seconds or 0)} of training"
    )
    tokens = next(
        (one[names.TOKENS_TOTAL] for one in reversed(lines) if names.TOKENS_TOTAL in one), 0
    )
    text += f", {tokens:,} tokens sampled." if tokens else "."
    if summary is None:
        text += f" **Not finished**: {config.updates} updates were asked for."
    return text


def _held_out_section(
    config: TrainConfig,
    summary: Any,
    before: Sequence[Trajectory],
    after: Sequence[Trajectory],
) -> Iterator[str]:
    measured = (summary or {}).get("held_out") or {}
    if not before and not after and measured.get("after") is None:
        return
    rates = {"before": summarise(before), "after": summarise(after)}
    rows = []
    for name, one in rates.items():
        if one.outcome.n:
            rows.append(f"| {name} | {_rate(one.outcome)} | {one.outcome.n} | {one.masked} |")
        elif measured.get(name) is not None:
            interval = measured.get("ci") if name == "after" else None
            shown = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
            rows.append(f"| {name} | {measured[name]:.3f}{shown} | {measured['n']} | |")
    text = (
        f"## Held-out success\n\nTasks of the split `{config.held_out_split}`, one pass, no judge, "
        f"temperature {config.eval_temperature:g}; 95 % intervals (Wilson's).\n\n"
        "| | success | n | masked |\n|---|---|---|---|\n" + "\n".join(rows)
    )
    old = {one.task.id: one.outcome for one in before if one.outcome is not None}
    pairs = [(old[one.task.id], one.outcome) for one in after if one.task.id in old]
    gained = sum(last == 1.0 and first != 1.0 for first, last in pairs if last is not None)
    lost = sum(last != 1.0 and first == 1.0 for first, last in pairs if last is not None)
    if pairs:
        text += (
            f"\n\nOf the same tasks {gained} became right and {lost} wrong: McNemar's exact "
            f"p = {mcnemar(gained, lost):.2g}."
        )
    kinds = sorted({*rates["before"].by_kind, *rates["after"].by_kind})
    if len(kinds) > 1:
        none = Rate(float("nan"), (0.0, 0.0), 0)
        text += "\n\n| kind | before | after |\n|---|---|---|\n" + "\n".join(
            f"| {kind} | {_rate(rates['before'].by_kind.get(kind, none))} "
            f"| {_rate(rates['after'].by_kind.get(kind, none))} |"
            for kind in kinds
        )
    yield text


def _rate(rate: Rate) -> str:
    return f"{rate.mean:.3f} [{rate.interval[0]:.3f}, {rate.interval[1]:.3f}]" if rate.n else "–"


def _table(lines: Sequence[Mapping[str, Any]]) -> str:
    """About :data:`ROWS` lines, the first and the last among them, and each with an evaluation."""
    if not lines:
        return ""
    stride = max(1, round(len(lines) / ROWS))
    chosen = [
        line
        for place, line in enumerate(lines)
        if place % stride == 0 or place == len(lines) - 1 or names.HELD_OUT in line
    ]
    columns = [column for column in _COLUMNS if any(column[0] in line for line in chosen)]
    head = ["update", *(label for _, label, _ in columns)]
    rows = [
        [str(line["update"]), *(_cell(line.get(name), form) for name, _, form in columns)]
        for line in chosen
    ]
    return "\n".join(
        "| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)
    )


def _cell(value: Any, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) else ""


def _left_out(lines: Sequence[Mapping[str, Any]], summary: Any) -> str:
    """How many rollouts were masked and judgements unscored, by kind."""
    parts = []
    masked = sum(line.get(names.MASKED) or 0 for line in lines)
    parts.append(
        f"- Masked rollouts (infrastructure failed): {masked:g}{_kinds(lines, names.MASKED)}"
    )
    rate = (summary or {}).get("unscored_rate")
    rates = [line[names.UNSCORED] for line in lines if line.get(names.UNSCORED) is not None]
    if rate is None and rates:
        rate = sum(rates) / len(rates)
    if rate is not None:
        parts.append(f"- Judgements without a score: {rate:.2%}{_kinds(lines, names.UNSCORED)}")
    return "\n".join(parts)


def _alarm_section(run: Path, lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    alarm = logged_alarm(lines)
    if alarm is not None:
        yield f"## Alarm\n\n**{alarm}** See: `reagent hacking {run}`."


def _kinds(lines: Sequence[Mapping[str, Any]], name: str) -> str:
    prefix = names.BY_KIND[name]
    counts: Counter[str] = Counter()
    for line in lines:
        for key, value in line.items():
            if key.startswith(prefix) and value:
                counts[key.removeprefix(prefix)] += value
    shown = ", ".join(f"{kind} {count:g}" for kind, count in counts.most_common())
    return f" ({shown})" if shown else ""


def _samples(before: Sequence[Trajectory], after: Sequence[Trajectory]) -> Iterator[str]:
    """Episodes of the same tasks before and after: those it learned, then one it still fails."""
    first = {one.task.id: one for one in before if one.outcome is not None}
    pairs = [(first[one.task.id], one) for one in after if one.task.id in first]
    learned = [(old, new) for old, new in pairs if old.outcome == 0 and new.outcome == 1]
    failed = [(old, new) for old, new in pairs if new.outcome == 0]
    chosen = [*learned[: SAMPLES - 1], *failed[:1]] if failed else learned[:SAMPLES]
    if not chosen:
        return
    yield "## Episodes before and after"
    for old, new in chosen:
        yield f"### {_one_line(new.task.question)}\n\nRight answer: `{_one_line(str(new.task.answer))}`"
        for label, one in (("Before", old), ("After", new)):
            yield f"{label}: outcome {one.outcome:g}, {len(one.turns)} turns\n\n{_episode(one)}"


def _episode(trajectory: Trajectory) -> str:
    """The turns of an episode as an indented block, so that nothing in them is markup."""
    shown = []
    for turn in trajectory.turns:
        shown.append(f"policy       {_one_line(turn.completion)}")
        if turn.observation:
            shown.append(f"environment  {_one_line(turn.observation)}")
    return "\n".join(f"    {line}" for line in shown)


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else f"{flat[:_LONGEST]} …"


def _next(run: Path, config: TrainConfig) -> str:
    folder = shlex.quote(str(run))
    env = config.env.partition(",")[0].partition("=")[0]
    commands = [
        (f"reagent eval {env} --agent {folder}", "evaluate it again"),
        (f"tensorboard --logdir {folder}/tensorboard", "every curve"),
        (f"reagent train --resume {folder} --updates {2 * config.updates}", "train on"),
        (f"reagent train {config.recipe} --policy {folder}", "start anew from what it learned"),
    ]
    if config.recipe not in ("outcome", "sft"):
        asked = [("--env", config.env), ("--policy", config.policy), ("--seed", str(config.seed))]
        flags = shlex.join([word for pair in asked for word in pair])
        baseline = f"reagent train outcome {flags} --updates {config.updates}"
        commands.append((baseline, "the outcome alone, beside it"))
    width = max(len(command) for command, _ in commands)
    block = "\n".join(f"{command:<{width}}  # {why}" for command, why in commands)
    return f"```bash\n{block}\n```"


def _settings(config: TrainConfig) -> str:
    defaults = defaults_of(TrainConfig)
    changed = {
        name: value for name, value in config.to_json().items() if value != _json(defaults[name])
    }
    listed = "\n".join(f"- `{name}` = `{value!r}`" for name, value in changed.items())
    return f"Those that are not the default; all are in `config.json`.\n\n{listed or '- none'}"


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _summary(run: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads((run / "summary.json").read_text("utf-8")))
    except (OSError, ValueError):
        return None


def _held_out(run: Path) -> tuple[list[Trajectory], list[Trajectory]]:
    """Trajectories before training (update 0), and of the last evaluation of that kind after it."""
    files = sorted((run / "trajectories").glob(f"{HELD_OUT}-*.jsonl"))
    by_update = {int(file.stem.rpartition("-")[2]): file for file in files}
    first = by_update.pop(0, None)
    last = by_update[max(by_update)] if by_update else None
    return (
        settled_trajectories(first) if first else [],
        settled_trajectories(last) if last else [],
    )
