"""``reagent demo``: the main job in about ten minutes: an agent learns from scores and critiques.

Reagent-U with the policy and the judge that come with the package, on ``reagent/MiniMix-v0``, in the
best sandbox found; then what it came to, beside the same on the outcome alone where a record of such
a run is kept (:func:`keep_outcome_run`), since both together would take twice as long.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

OUTCOME_RUN = Path(__file__).parent / "configs" / "demo-outcome.json"
"""What the outcome-only run came to: its command, its curve, its held-out success."""

SHOWN = 3
"""Tasks whose episodes are shown before and after."""


def demo(
    out: Annotated[Path | None, typer.Option(help="Run folder; else runs/<time>-…")] = None,
    sandbox: Annotated[str, typer.Option(help="auto | docker | embedded | process")] = "auto",
    updates: Annotated[int | None, typer.Option(min=1, help="Fewer, for a quick look.")] = None,
) -> None:
    """Train an agent with Reagent-U and show what it learned: about ten minutes on two cores."""
    from rich.console import Console

    from reagent_env.trainers.progress import TrainProgress
    from reagent_env.trainers.recipes import make_config
    from reagent_env.trainers.report import write_report
    from reagent_env.trainers.run_folder import RunFolder
    from reagent_env.trainers.train import train

    console = Console(highlight=False)
    settings: dict[str, Any] = {"sandbox": sandbox}
    if updates is not None:
        settings["updates"] = updates
    config = make_config(file=Path("demo.toml"), settings=settings)
    console.print(
        f"Reagent-U: each of {config.rollouts_per_update} episodes an update is judged, criticised "
        f"and tried once more; policy {config.policy}, judge {config.judge}, {config.env}.\n"
        f"Sandbox: {_sandbox_found(config.sandbox)}. About {config.max_seconds / 60:.0f} minutes of "
        "training, and two evaluations on held-out tasks.",
        soft_wrap=True,
    )
    with RunFolder.create(config, out) as run, TrainProgress(config) as progress:
        try:
            train(config, run, progress)
        except KeyboardInterrupt:
            write_report(run.path)
            progress.say(f"Stopped. Go on with: reagent train --resume {run.path}")
            raise typer.Exit(130) from None
        write_report(run.path)
    for line in episodes_before_and_after(run.path):
        console.print(line, markup=False, soft_wrap=True)
    other = json.loads(OUTCOME_RUN.read_text("utf-8")) if OUTCOME_RUN.exists() else None
    picture = draw_comparison(run.path, other)
    for line in conclusion(run.path, other):
        console.print(line, markup=False, soft_wrap=True)
    console.print(
        f"\nPlots: {picture}, {run.path}/curves.png   Report: {run.path}/report.md\n"
        "Next:\n"
        f"  reagent eval reagent/MiniMix-v0 --agent {run.path} --refine critique   # Reagent-C\n"
        "  reagent train reagent-r --credit turn --advantage turn                  # score each turn\n"
        "  reagent train --help                                                    # your own tasks",
        markup=False,
        soft_wrap=True,
    )


def episodes_before_and_after(run: Path) -> list[str]:
    """The same held-out tasks as the policy played them first and last; those it learned to solve."""
    from reagent_env.trainers.report import HELD_OUT
    from reagent_env.trajectory_file import settled_trajectories

    files = sorted((run / "trajectories").glob(f"{HELD_OUT}-*.jsonl"))
    if len(files) < 2:
        return []
    before = {one.task.id: one for one in settled_trajectories(files[0])}
    lines = []
    shown = 0
    for after in settled_trajectories(files[-1]):
        first = before.get(after.task.id)
        if first is None or not (first.outcome == 0.0 and after.outcome == 1.0):
            continue
        lines.append(f"\n{after.task.question}   (right: {after.task.answer})")
        for when, one in (("before", first), ("after", after)):
            lines.append(f"  {when}:")
            for turn in one.turns:
                seen = " / ".join(turn.observation.split("\n")[1:-1])[:110]
                lines.append(f"    {turn.completion[:130]}" + (f"\n      ⤷ {seen}" if seen else ""))
        shown += 1
        if shown == SHOWN:
            break
    return lines


def conclusion(run: Path, other: Mapping[str, Any] | None) -> list[str]:
    """Held-out success before and after, and the outcome-only run's at as many policy tokens."""
    from reagent_env.trainers import metric_names as names
    from reagent_env.trainers.run_folder import read_metrics

    summary = json.loads((run / "summary.json").read_text("utf-8"))
    held_out = summary["held_out"]
    tokens = read_metrics(run)[-1][names.TOKENS_TOTAL]
    low, high = held_out["ci"]
    lines = [
        f"\nHeld out (n = {held_out['n']}, one pass, no judge): {held_out['before']:.3f} before, "
        f"{held_out['after']:.3f} [{low:.3f}, {high:.3f}] after {summary['updates']} updates, "
        f"{summary['train_seconds'] / 60:.1f} min of training, {tokens:,} policy tokens."
    ]
    if other is not None:
        there = other["held_out"]
        lines.append(
            f"On the outcome alone, at {other['tokens']:,} policy tokens: {there['before']:.3f} "
            f"before, {there['after']:.3f} [{there['ci'][0]:.3f}, {there['ci'][1]:.3f}] after "
            f"(made before: {other['command']})."
        )
    return lines


def draw_comparison(run: Path, other: Mapping[str, Any] | None) -> Path:
    """``comparison.png``: success while training by policy tokens, of this run and the other."""
    from matplotlib.figure import Figure

    from reagent_env.trainers.run_folder import read_metrics

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    arms: list[tuple[str, Sequence[Sequence[float]], str]] = [
        ("Reagent-U (this run)", curve(read_metrics(run)), "#2166ac")
    ]
    if other is not None:
        arms.append(("outcome only (made before)", other["curve"], "#d95f02"))
    for label, points, colour in arms:
        axes.plot([x for x, _ in points], [y for _, y in points], label=label, color=colour)
    axes.set_xlabel("policy tokens sampled for updates")
    axes.set_ylabel("success of first attempts, training tasks")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    axes.set_title("reagent/MiniMix-v0, tiny policy, from the same cold start")
    path = run / "comparison.png"
    figure.savefig(path, dpi=120)
    return path


def curve(lines: Sequence[Mapping[str, Any]], over: int = 3) -> list[tuple[float, float]]:
    """(policy tokens, mean success of the last ``over`` updates) for each update."""
    from reagent_env.trainers import metric_names as names

    known = [one for one in lines if names.SUCCESS in one]
    points = []
    for place, line in enumerate(known):
        recent = [one[names.SUCCESS] for one in known[max(0, place - over + 1) : place + 1]]
        points.append((float(line[names.TOKENS_TOTAL]), sum(recent) / len(recent)))
    return points


def keep_outcome_run(run: Path, command: str) -> None:
    """Write :data:`OUTCOME_RUN` from a finished run: ``python -m reagent_env.trainers.demo RUN``."""
    from reagent_env.trainers import metric_names as names
    from reagent_env.trainers.atomic_files import write_json
    from reagent_env.trainers.run_folder import read_metrics

    lines = read_metrics(run)
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    record = {
        "command": command,
        "tokens": lines[-1][names.TOKENS_TOTAL],
        "updates": summary["updates"],
        "train_seconds": summary["train_seconds"],
        "held_out": summary["held_out"],
        "curve": [[tokens, round(success, 4)] for tokens, success in curve(lines)],
    }
    write_json(OUTCOME_RUN, record)


def _sandbox_found(name: str) -> str:
    from reagent_env.sandboxes.contract import Limits
    from reagent_env.sandboxes.select import get_pool

    return get_pool(name, Limits()).backend


if __name__ == "__main__":
    import sys

    keep_outcome_run(Path(sys.argv[1]), sys.argv[2])
