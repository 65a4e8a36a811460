"""Runs an agent through a suite of benchmarks and sets the figures beside the paper's.

Each benchmark is an ordinary evaluation (``evaluate.py``), several samples a task, resumable; one that
cannot be made on this machine is left out with its reason, and the others still run. Not here: the
benchmarks (``reagent_env/benchmark_env.py``), the command line (``suite_cli.py``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium

from reagent_env.agents.agent import Agent
from reagent_env.agents.evaluate import evaluate
from reagent_env.agents.pass_at_k import pass_rate
from reagent_env.agents.suite_paper import PaperRow, paper_row
from reagent_env.agents.summary import Rate, nan_as_none
from reagent_env.errors import InfrastructureError
from reagent_env.sandboxes.errors import SandboxError
from reagent_env.trajectory import Trajectory

MakeAgent = Callable[[str, str, int], Callable[[], Agent]]
"""(environment id, its tool format, the sample's number) → a function that makes one agent a call."""
_CANNOT_BE_MADE = (
    ValueError,
    InfrastructureError,
    SandboxError,
    ImportError,
    gymnasium.error.Error,
)


@dataclass(frozen=True)
class SuiteRow:
    """One benchmark's figures, e.g. ``SuiteRow("reagent/AIME24-v0", Rate(…), Rate(…), 3, 0)``."""

    env_id: str
    pass_1: Rate
    """Mean over tasks of the share of right samples; n is the tasks."""
    pass_k: Rate
    """Of :attr:`k` samples, at least one right."""
    k: int
    """Samples a task."""
    masked: int
    """Samples that infrastructure spoiled; in no figure."""
    by_level: Mapping[str, Rate] = field(default_factory=dict)
    """Pass@1 by the tasks' ``level``, where they have one."""
    paper: PaperRow | None = None
    """What the paper says of the same questions."""
    left_out: str | None = None
    """Why the benchmark did not run; its figures are NaN then."""

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict; a mean of nothing is None."""
        record = {
            "env": self.env_id,
            "n": self.pass_1.n,
            "pass@1": self.pass_1.mean,
            "pass@1_interval": list(self.pass_1.interval),
            "k": self.k,
            "pass@k": self.pass_k.mean,
            "pass@k_interval": list(self.pass_k.interval),
            "masked": self.masked,
            "by_level": {
                level: {"pass@1": rate.mean, "interval": list(rate.interval), "n": rate.n}
                for level, rate in self.by_level.items()
            },
            "left_out": self.left_out,
        }
        encodable: dict[str, Any] = nan_as_none(record)
        return encodable


def run_suite(
    env_ids: Sequence[str],
    make_env: Callable[[str], gymnasium.Env[str, str]],
    make_agent: MakeAgent,
    *,
    out: Path,
    episodes: int | None = None,
    samples: int = 1,
    concurrency: int = 4,
    seed: int = 0,
    subset: str | None = None,
    on_begin: Callable[[str, int], None] = lambda env_id, count: None,
    on_episode: Callable[[Trajectory], None] = lambda trajectory: None,
) -> list[SuiteRow]:
    """Evaluate on each environment in turn; trajectories go to ``out/<name>/sample-<number>/``.

    Args:
        env_ids: Which, in order.
        make_env: Makes one environment of an id.
        make_agent: See :data:`MakeAgent`.
        out: The suite's folder; what is finished in it is not run again.
        episodes: Tasks of each benchmark, drawn by ``seed``; None for all.
        samples: Samples a task, and the k of pass@k.
        concurrency: Episodes at once.
        seed: Draws the tasks.
        subset: Which subset ``make_env`` makes, for the paper's figures of the same.
        on_begin: Told each benchmark that runs, and how many episodes it takes.
        on_episode: Called with each trajectory as it ends.
    """
    rows = []
    for env_id in env_ids:
        try:
            env = make_env(env_id)
        except _CANNOT_BE_MADE as error:
            reason = str(error) or type(error).__name__
            rows.append(suite_row(env_id, [], samples, subset=subset, left_out=reason))
            continue
        inner: Any = env.unwrapped
        count = min(len(inner.tasks), episodes or len(inner.tasks))
        tool_format = inner.tool_format.name
        env.close()
        on_begin(env_id, count * samples)
        trajectories: list[Trajectory] = []
        for number in range(1, samples + 1):
            folder = out / env_id.rpartition("/")[2] / f"sample-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            trajectories += evaluate(
                lambda env_id=env_id: make_env(env_id),  # type: ignore[misc]
                make_agent(env_id, tool_format, number),
                count,
                out=folder,
                concurrency=concurrency,
                seed=seed,
                on_episode=on_episode,
            )
        rows.append(suite_row(env_id, trajectories, samples, subset=subset))
    return rows


def suite_row(
    env_id: str,
    trajectories: Iterable[Trajectory],
    k: int,
    *,
    subset: str | None = None,
    left_out: str | None = None,
) -> SuiteRow:
    """The figures of one benchmark's trajectories, the samples of a task among them.

    A sample is right when its outcome is 1: partial credit counts as wrong, as in the paper.
    """
    outcomes: defaultdict[str, list[bool]] = defaultdict(list)
    levels: dict[str, str] = {}
    masked = 0
    for trajectory in trajectories:
        task = trajectory.task
        if trajectory.outcome is None:
            masked += 1
            continue
        outcomes[task.id].append(trajectory.outcome == 1.0)
        if "level" in task.metadata:
            levels[task.id] = str(task.metadata["level"])
    by_level = {
        level: pass_rate({task: outcomes[task] for task, at in levels.items() if at == level}, 1)
        for level in sorted(set(levels.values()))
    }
    paper = paper_row(env_id, subset)
    first, best = pass_rate(outcomes, 1), pass_rate(outcomes, k)
    return SuiteRow(env_id, first, best, k, masked, by_level, paper, left_out)


def markdown(rows: Sequence[SuiteRow], agent: str) -> str:
    """The table as a page: this agent's figures, then the paper's, in percent."""
    k = max((row.k for row in rows), default=1)
    ours = "| benchmark | n | pass@1 |" + (f" pass@{k} |" if k > 1 else "") + " masked |"
    lines = [
        f"# {agent}",
        "",
        "Percent, with 95 % intervals of Wilson over the tasks. The paper's columns are one run of "
        "Qwen3-8B each (arXiv 2601.22154).",
        "",
        f"{ours} base | no RRM | C | R | U |",
        "|---" * (ours.count("|") - 1 + 5) + "|",
    ]
    notes = []
    for row in rows:
        title = row.paper.title if row.paper else row.env_id
        figures = [str(row.pass_1.n or "–"), percent(row.pass_1)]
        figures += [percent(row.pass_k)] if k > 1 else []
        figures += [str(row.masked), *paper_cells(row.paper)]
        lines.append(f"| {title} | " + " | ".join(figures) + " |")
        if row.left_out is not None:
            notes.append(f"- {title} did not run: {row.left_out}")
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def percent(rate: Rate) -> str:
    """``43.7 [34.5, 53.3]``; a dash where nothing was counted."""
    if rate.n == 0:
        return "–"
    low, high = rate.interval
    return f"{100 * rate.mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def paper_cells(paper: PaperRow | None) -> list[str]:
    """The paper's five figures, or dashes."""
    if paper is None:
        return ["–"] * 5
    return ["–" if value is None else f"{value:.1f}" for value in paper.figures]
