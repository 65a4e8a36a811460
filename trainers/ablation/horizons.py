"""Turn limits compared: ScalingInter's growing one beside a short and a long one, on several families.

Every run of a family begins with the same cold start and ends after as many turns played; what is
held out is played with the long limit, whatever was trained with. On one family a judge's score is
added, too. Plans, processes, records and inference are the ablation's; not here: the cold starts
(``scripts/scaling-inter``), the table and picture (``horizons_report.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from reagent_env.trainers.ablation.arms import Arm
from reagent_env.trainers.ablation.comparisons import Comparison
from reagent_env.trainers.ablation.plan import COMMON, Plan, cold_starts
from reagent_env.trainers.ablation.processes import is_finished, make_all
from reagent_env.trainers.schedules import get_schedule

COLD_START = "cold-start"
"""Name of the run that every other of a family begins with."""

SHARED: Mapping[str, Any] = MappingProxyType(
    {
        **{k: v for k, v in COMMON.items() if k not in ("spare_groups", "max_staleness")},
        "deterministic": True,  # a judge by rules, which lock-step does not hold up
        "group_size": 4,  # twice that, as all arms make one attempt
        "groups_per_update": 4,
        "max_tokens": 48,
        "lr": 6e-4,
        "concurrency": 256,  # an evaluation's tasks in one pass: its cost is by passes
        "checkpoint_every": 20,
        "sandbox": "process",
    }
)
"""Settings of all runs, beside a family's own."""


@dataclass(frozen=True, slots=True)
class Family:
    """What is played, e.g. ``FAMILIES["text-craft"]``."""

    name: str
    env: str
    tasks: str
    """Name of its task set."""
    policy: str
    """First weights; empty is the family's own cold start, in its folder."""
    growing: str
    """The schedule; its first and last limit are the fixed ones, its phases about thirds of a run."""
    interactions: int
    """Budget of a run, in turns played."""
    held_out: int
    """Test tasks after training."""
    judged: bool = False
    """Whether a judge's score is compared, too."""

    @property
    def limits(self) -> tuple[int, ...]:
        """Turn limits of the schedule."""
        return get_schedule(self.growing).turns


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "text-craft": Family(
            "text-craft",
            "reagent/TextCraft-v0",
            "text_craft_small",
            "",
            "5>10>15@3",
            interactions=2_000,
            held_out=204,
        ),
        "baby-ai": Family(
            "baby-ai",
            "reagent/BabyAI-v0",
            "baby_ai_small",
            "",
            "4>8>12@3",
            interactions=2_000,
            held_out=200,
            judged=True,
        ),
        "mini-mix": Family(
            "mini-mix",
            "reagent/MiniMix-v0",
            "mini_mix",
            "tiny",
            "3>5>8@7",
            interactions=2_000,
            held_out=300,
            judged=True,
        ),
    }
)
"""By name. MiniMix is deep search in the small, and has a cold start that is shipped."""


def small(family: Family) -> Family:
    """The same family with an update or two a run, to try it all; it shows nothing."""
    return replace(family, interactions=120, held_out=8)


def arms_of(family: Family) -> tuple[Arm, ...]:
    """Growing, short and long; the long one with a judge's score, where the family has it."""
    short, long = family.limits[0], family.limits[-1]
    arms = [
        Arm(
            "growing", "outcome", " → ".join(map(str, family.limits)), {"schedule": family.growing}
        ),
        Arm("short", "outcome", f"{short} turns", {"schedule": f"fixed:{short}"}),
        Arm("long", "outcome", f"{long} turns", {"schedule": f"fixed:{long}"}),
    ]
    if family.judged:
        settings = {"schedule": f"fixed:{long}", "judge": "rubric"}
        arms.append(Arm("judged", "reagent-r", f"{long} turns, outcome + 0.3 · score", settings))
    return tuple(arms)


STATED = (
    Comparison(
        "growing − short",
        "Does a growing limit do better than a short one?",
        {"growing": 1.0, "short": -1.0},
        "limits",
    ),
    Comparison(
        "growing − long",
        "Does a growing limit do better than a long one?",
        {"growing": 1.0, "long": -1.0},
        "limits",
    ),
    Comparison(
        "long − short",
        "Does a long limit do better than a short one?",
        {"long": 1.0, "short": -1.0},
        "limits",
    ),
    Comparison(
        "judged − long",
        "Does a judge's score beside the outcome help (Reagent-R)?",
        {"judged": 1.0, "long": -1.0},
        "score",
    ),
)
"""Stated before any run; a family's are corrected together, limits and score apart."""


def plan_of(family: Family, root: Path, seeds: int) -> Plan:
    """The runs of a family in ``root/<family>``, its cold start among them.

    Raises:
        UnknownPolicy: the cold start is not there.
    """
    folder = root / family.name
    return Plan(
        root=folder,
        task=family.name,
        arms=arms_of(family),
        starts=tuple(cold_starts([family.policy or str(folder / COLD_START)])),
        seeds=seeds,
        common={
            **SHARED,
            "env": family.env,
            "env_kwargs": {"tasks": family.tasks},
            "max_interactions": family.interactions,
            "max_policy_tokens": 0,
            "held_out_episodes": family.held_out,
            "eval_turns": family.limits[-1],
        },
    )


def make_runs(plan: Plan, *, arms: frozenset[str] | None, limit_minutes: float) -> int:
    """Make what is missing, one run at a time; returns how many failed.

    Args:
        plan: Of a family.
        arms: Only these; None is all of them.
        limit_minutes: Of one run.
    """
    wanted = [*plan.measurements(), *plan.runs()]
    runs = [run for run in wanted if arms is None or run.arm in {*arms, "cold-start"}]
    left = [run for run in runs if not is_finished(run)]
    print(f"{plan.task}: {len(runs) - len(left)} of {len(runs)} runs are there", flush=True)
    failed = make_all(
        left,
        at_once=1,
        limit_seconds=60 * limit_minutes,
        on_end=lambda ended: print(
            f"{plan.task}: {ended.run}, {ended.seconds:.0f} s"
            + (f"; FAILED: {ended.failure}" if ended.failure else ""),
            flush=True,
        ),
    )
    return len(failed)


def compare_horizons(
    families: Annotated[
        str, typer.Option(help=f"Comma-separated, of {', '.join(FAMILIES)}.")
    ] = "text-craft,baby-ai,mini-mix",
    arms: Annotated[
        str, typer.Option(help="Only these: growing, short, long, judged; all by default.")
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Of each arm.")] = 3,
    out: Annotated[Path, typer.Option(help="Where the runs are.")] = Path("runs/scaling-inter"),
    evidence: Annotated[
        Path | None, typer.Option(help="Write results.json and curves.png there, too.")
    ] = None,
    limit_minutes: Annotated[float, typer.Option(help="Of one run; then it is given up.")] = 30.0,
    small_runs: Annotated[
        bool,
        typer.Option("--small", help="A trial in minutes: 120 turns a run, 8 tasks held out."),
    ] = False,
    table: Annotated[
        bool, typer.Option("--table", help="Only the table of what is there.")
    ] = False,
) -> None:
    """Train with a growing, a short and a long turn limit, as many turns played each, and compare.

    What is there already is passed over: give the same command again to go on, or more --seeds.
    The table is of all families that have a run.
    """
    from reagent_env.trainers.ablation.horizons_report import (
        read_family,
        table_text,
        write_results,
    )
    from reagent_env.trainers.ablation.plan import keep_plan

    chosen = [name.strip() for name in families.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in FAMILIES]
    if unknown:
        raise typer.BadParameter(f"no family {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    only = frozenset(arms.split(",")) if arms else None
    known = {one.name: small(one) if small_runs else one for one in FAMILIES.values()}
    failed = 0
    for name in () if table else chosen:
        try:
            plan = plan_of(known[name], out, seeds)
            keep_plan(plan)
        except (ValueError, FileNotFoundError) as error:
            raise typer.BadParameter(str(error)) from error
        failed += make_runs(plan, arms=only, limit_minutes=limit_minutes)
    there = [one for one in known.values() if (out / one.name / "plan.json").exists()]
    read = [read_family(plan_of(one, out, seeds)) for one in there]
    results = [one for one in read if one.runs]
    if not results:
        raise typer.BadParameter(
            f"there is no finished run in {out}; leave out --table to make some"
        )
    command = "scripts/scaling-inter --small" if small_runs else "scripts/scaling-inter"
    write_results(out, results, command)
    if evidence is not None and evidence != out:
        write_results(evidence, results, command)
    typer.echo(table_text(results))
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(compare_horizons)
