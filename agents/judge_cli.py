"""``reagent judge``: score the trajectories of a run again with another judge. Resumable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reagent_env.judgement import Judgement
    from reagent_env.trajectory import Trajectory

RETRIED = ("transport", "refused")
"""Kinds of having no score that are asked about again when the command is run again."""


_EXAMPLES = """
Examples:

  reagent judge runs/20261104-120000-eval --judge rubric

  reagent judge runs/20261104-120000-reagent-u --judge tiny-rrm --out tiny.jsonl

  reagent judge mine.jsonl --judge http://127.0.0.1:8000/v1#my-judge --limit 100

Each line written is one judgement: key, task_id, outcome, and judgement with reasoning, critique,
score and turn_scores, or why there is no score. The judge sees neither answers nor outcomes. Beside
it, judged-summary.json compares the scores of right and wrong episodes. Judgements that failed for
the judge's server are asked for again by the same command.
"""


def judge_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or a JSONL file.")],
    judge: Annotated[
        str,
        typer.Option(help="rubric | tiny-rrm | noise | URL#model | a folder | module:object"),
    ],
    out: Annotated[Path | None, typer.Option(help="By default judged.jsonl in the folder.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Trajectories a call of the judge.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
) -> None:
    """Score saved trajectories again with another judge; run it again to go on where it stopped."""
    from rich.console import Console

    from reagent_env.agents.judge_eval.judging import blinded, load_judge
    from reagent_env.cli.progress import progress_bar

    console = Console(stderr=True)
    target = out or (run if run.is_dir() else run.parent) / "judged.jsonl"
    try:
        model = load_judge(judge)
        trajectories = list(_numbered(trajectory_files(run)))[:limit]
        done = read_judged(target, judge)
    except (FileNotFoundError, ModuleNotFoundError, NotImplementedError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    waiting = [
        (key, trajectory)
        for key, trajectory in trajectories
        if key not in done and trajectory.attempts
    ]
    if done:
        console.print(f"{len(done)} are judged already; {len(waiting)} to go.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        progress_bar(console, f"judging by {judge}", len(waiting)) as advance,
        open(target, "a", encoding="ascii") as lines,
    ):
        for begin in range(0, len(waiting), batch):
            part = waiting[begin : begin + batch]
            answers = model.judge([blinded(trajectory) for _, trajectory in part])
            for (key, trajectory), judgement in zip(part, answers, strict=True):
                line = {
                    "key": key,
                    "task_id": trajectory.task.id,
                    "judge": judge,
                    "outcome": trajectory.outcome,
                    "judgement": judgement.to_json(),
                }
                lines.write(json.dumps(line) + "\n")
                advance(judgement.score)
            lines.flush()
    judged = read_judged(target, judge, with_failures=True)
    summary = summary_of(judge, [(t, judged[k]) for k, t in trajectories if k in judged])
    target.with_name("judged-summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    Console().print(
        f"{summary['judged']} judged, mean score {_shown(summary['mean_score'])} "
        f"(right {_shown(summary['mean_score_right'])}, "
        f"wrong {_shown(summary['mean_score_wrong'])}), AUROC against outcome "
        f"{_shown(summary['auroc_outcome'])}, unscored {summary['unscored_rate']:.3f}"
    )
    console.print(f"Judgements in {target}")


judge_run.__doc__ = f"{judge_run.__doc__}\n{_EXAMPLES}"


def trajectory_files(run: Path) -> list[Path]:
    """The trajectory files of a run: the file itself, ``trajectories.jsonl``, or a folder of them.

    Raises:
        FileNotFoundError: there are none.
    """
    if run.is_file():
        return [run]
    found = [run / "trajectories.jsonl"] if (run / "trajectories.jsonl").is_file() else []
    found += sorted((run / "trajectories").glob("*.jsonl"))
    if not found:
        raise FileNotFoundError(
            f"No trajectories in {run}: neither trajectories.jsonl nor trajectories/*.jsonl. "
            "`reagent eval ENV --out FOLDER` makes some."
        )
    return found


def read_judged(path: Path, judge: str, *, with_failures: bool = False) -> dict[str, Judgement]:
    """What a file of judgements holds, by key; a torn last line is passed over and cut off.

    Raises:
        ValueError: the file is another judge's.
    """
    from reagent_env.judgement import Judgement

    if not path.exists():
        return {}
    whole, _, torn = path.read_bytes().rpartition(b"\n")
    if torn:
        with open(path, "r+b") as file:
            file.truncate(len(whole) + 1 if whole else 0)
    found: dict[str, Judgement] = {}
    for line in whole.splitlines():
        record = json.loads(line)
        if record["judge"] != judge:
            raise ValueError(
                f"{path} holds judgements of {record['judge']!r}, not of {judge!r}; "
                "give another --out."
            )
        judgement = Judgement.from_json(record["judgement"])
        failed = (judgement.unscored or "").partition(":")[0] in RETRIED
        if failed and not with_failures:
            found.pop(record["key"], None)
        else:
            found[record["key"]] = judgement
    return found


def summary_of(judge: str, judged: list[tuple[Trajectory, Judgement]]) -> dict[str, Any]:
    """Counts and means over what was judged."""
    import numpy as np

    from reagent_env.agents.judge_eval.measures import auroc
    from reagent_env.reward_models import UnscoredMonitor

    monitor = UnscoredMonitor(threshold=0.99)
    monitor.observe([t for t, _ in judged], [j for _, j in judged])
    scored = [
        (judgement.score, trajectory.outcome)
        for trajectory, judgement in judged
        if judgement.score is not None
    ]
    graded = [(score, outcome >= 0.5) for score, outcome in scored if outcome is not None]

    def mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None

    area = auroc(np.array([s for s, _ in graded], float), np.array([r for _, r in graded], bool))
    counts = monitor.counts()
    return {
        "judge": judge,
        "judged": len(judged),
        "mean_score": mean([score for score, _ in scored]),
        "mean_score_right": mean([score for score, right in graded if right]),
        "mean_score_wrong": mean([score for score, right in graded if not right]),
        "auroc_outcome": None if area != area else area,
        "unscored_rate": counts.rate,
        "unscored_by_kind": counts.by_kind,
        "unscored_by_length": counts.rate_by_length,
        "unscored_by_outcome": counts.rate_by_outcome,
    }


def _numbered(sources: list[Path]) -> Iterator[tuple[str, Trajectory]]:
    """Trajectories under a key that stays the same when a file grows."""
    from reagent_env.agents.judge_eval.judging import fingerprint
    from reagent_env.trajectory_file import settled_trajectories

    seen: set[str] = set()
    for source in sources:
        for trajectory in settled_trajectories(source):
            key = fingerprint(trajectory)[:24]
            if key not in seen:
                seen.add(key)
                yield key, trajectory


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
