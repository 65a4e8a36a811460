"""``reagent ablate``: a thin layer over ``plan.py``, ``processes.py`` and ``report.py``."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reagent_env.trainers.ablation.arms import Arm
    from reagent_env.trainers.ablation.plan import Plan
    from reagent_env.trainers.ablation.processes import Ended

REWARDS = "outcome,reagent-r,reagent-u"
ASSUMED_MINUTES = 4.0
"""A run's time while none is finished to go by."""


def ablate(
    rewards: Annotated[
        str | None,
        typer.Option(help=f"Rewards, or core | controls | headline. Default {REWARDS}."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Of each arm; 3 by default.")] = None,
    task: Annotated[str, typer.Option(help="default | sparse")] = "default",
    env: Annotated[str | None, typer.Option(help="Another environment than the task's.")] = None,
    sweep: Annotated[
        str | None,
        typer.Option(help="lambda | credit | pooling | apart | std-floor | judge, or SETTING=V,V."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="The arm that a sweep changes.")] = None,
    cold_start: Annotated[str, typer.Option(help="Policies, comma-separated.")] = "tiny",
    policy_tokens: Annotated[int | None, typer.Option(min=1, help="Budget of a run.")] = None,
    judge: Annotated[str | None, typer.Option(help="Of all arms that ask one.")] = None,
    sandbox: Annotated[str, typer.Option(help="auto | docker | embedded | process")] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, one thread each.")] = 2,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Of all arms.")
    ] = None,
    env_arg: Annotated[
        list[str] | None,
        typer.Option("--env-arg", metavar="KEY=VALUE", help="Of the environment."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="By default runs/ablation-TASK…")] = None,
    evidence: Annotated[
        Path | None, typer.Option(help="Copy table.md, table.json, curves.png there.")
    ] = None,
    limit_minutes: Annotated[float, typer.Option(help="Of one run; then it is given up.")] = 60.0,
    table: Annotated[
        bool, typer.Option("--table", help="Only the table of what is there.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print arms, budgets and time only.")
    ] = False,
) -> None:
    """Compare rewards: the same tasks, budget, first weights and seeds for every arm.

    Runs that are there already are passed over: give the same command again to go on, or a larger
    --seeds to add some. A sweep is judged on the validation split, rewards on the test split.

    Examples:

      reagent ablate --rewards outcome,reagent-r,reagent-u --seeds 5

      reagent ablate --rewards headline --seeds 10 --cold-start tiny,runs/tiny-2

      reagent ablate --rewards core --task sparse --seeds 10

      reagent ablate --sweep lambda=0,0.1,0.3,1 --base reagent-r
    """
    contradicting = {
        "--rewards": rewards,
        "--seeds": seeds,
        "--policy-tokens": policy_tokens,
        "--judge": judge,
        "--set": set_,
        "--env-arg": env_arg,
    }
    try:
        plan = make_plan(
            rewards=rewards,
            seeds=seeds,
            task=task,
            env=env,
            sweep=sweep,
            base=base,
            policies=_words(cold_start),
            policy_tokens=policy_tokens,
            judge=judge,
            sandbox=sandbox,
            settings=[*(set_ or ())],
            env_args=[*(env_arg or ())],
            out=out,
        )
        if dry_run:
            typer.echo("\n".join(_dry_run(plan, jobs)))
            return
        from reagent_env.trainers.ablation.plan import keep_plan, kept_plan

        if not table:
            keep_plan(plan, shlex.join(["reagent", *sys.argv[1:]]))
        elif given := [name for name, value in contradicting.items() if value is not None]:
            raise ValueError(
                f"--table tells of everything in {plan.root}, as it was planned there: "
                f"leave out {', '.join(given)}."
            )
        everything = kept_plan(plan.root)
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    failed = [] if table else _make(plan, jobs, limit_minutes)
    try:
        _write(everything, evidence)
    except ValueError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    if failed:
        raise typer.Exit(1)


def make_plan(
    *,
    rewards: str | None,
    seeds: int | None,
    task: str,
    env: str | None,
    sweep: str | None,
    base: str | None,
    policies: Sequence[str],
    policy_tokens: int | None,
    judge: str | None,
    sandbox: str,
    settings: Sequence[str],
    env_args: Sequence[str],
    out: Path | None,
) -> Plan:
    """The plan that the command line asks for; every arm's settings are checked.

    Raises:
        ValueError: something that is not there, or contradicts; says what.
    """
    from reagent_env.trainers.ablation.arms import arm_config, chosen_arms, swept_arms
    from reagent_env.trainers.ablation.plan import (
        COMMON,
        ON_VALIDATION,
        POLICY_TOKENS,
        Plan,
        cold_starts,
    )
    from reagent_env.trainers.ablation.tasks import TASKS
    from reagent_env.trainers.cli import read_settings
    from reagent_env.trainers.recipes import JUDGE

    if task not in TASKS:
        raise ValueError(f"There is no task {task!r}; known: {', '.join(TASKS)}.")
    if sweep is not None and rewards is not None:
        raise ValueError(
            "--sweep and --rewards are two experiments, on two splits: give them one after the other."
        )
    if base is not None and sweep is None:
        raise ValueError("--base is the arm that a sweep changes, and there is no --sweep.")
    arms: list[Arm] = (
        chosen_arms(_words(rewards or REWARDS)) if sweep is None else swept_arms(sweep, base)
    )
    given = read_settings({"set_": list(settings), "env_arg": list(env_args)})
    for name in ("policy", "seed", "env", "recipe"):
        if name in given:
            raise ValueError(f"{name} differs between runs or has a flag of its own: not by --set.")
    common: dict[str, Any] = {
        **COMMON,
        **(ON_VALIDATION if sweep is not None else {}),
        **TASKS[task].settings,
        "env": env or TASKS[task].env,
        "sandbox": sandbox,
        "max_policy_tokens": policy_tokens or POLICY_TOKENS,
        "judge": judge or JUDGE,
        **given,
    }
    name = task if env is None else env.rpartition("/")[2]
    folder = f"ablation-{name}" + (f"-{sweep.partition('=')[0]}" if sweep is not None else "")
    plan = Plan(
        root=out or Path("runs") / folder,
        task=name,
        arms=tuple(arms),
        starts=tuple(cold_starts(policies)),
        seeds=seeds or 3,
        common=common,
    )
    for arm in arms:
        arm_config(arm, {**common, "policy": policies[0]})
    return plan


def _make(plan: Plan, jobs: int, limit_minutes: float) -> list[Ended]:
    """Make what is missing, with a line a run."""
    from reagent_env.trainers.ablation.processes import GIVE_UP_AFTER, is_finished, make_all
    from reagent_env.trainers.progress import duration

    runs = [*plan.measurements(), *plan.runs()]
    waiting = [run for run in runs if not is_finished(run)]
    typer.echo(f"{len(runs) - len(waiting)} of {len(runs)} runs are there; {plan.root}/", err=True)
    took: list[float] = []

    def on_end(ended: Ended) -> None:
        took.append(ended.seconds)
        left = (len(waiting) - len(took)) * sum(took) / len(took) / min(jobs, len(waiting))
        came_to = "FAILED: " + ended.failure if ended.failure else _came_to(ended.run.path)
        typer.echo(
            f"[{len(took)}/{len(waiting)}] {ended.run}: {came_to} in {duration(ended.seconds)}; "
            f"{duration(left)} left",
            err=True,
        )

    try:
        failed = make_all(waiting, at_once=jobs, limit_seconds=60 * limit_minutes, on_end=on_end)
        if len(took) < len(waiting):
            typer.echo(
                f"Gave up after {GIVE_UP_AFTER} failures in a row; {len(waiting) - len(took)} runs were "
                "not begun. The same command goes on from here.",
                err=True,
            )
        return failed
    except KeyboardInterrupt:
        typer.echo("Stopped. The same command goes on from here.", err=True)
        raise typer.Exit(130) from None


def _write(plan: Plan, evidence: Path | None) -> None:
    from reagent_env.trainers.ablation.report import FILES, write_tables

    path = write_tables(plan, "\n".join(plan.commands))
    text = path.read_text("utf-8")
    # What is missing or left out, then the verdicts: one without the other would mislead.
    parts = text[: text.index("## Arms")].strip().split("\n\n")
    typer.echo("\n\n".join(part for part in parts if part.startswith(("- ", "## "))))
    typer.echo(f"\nTable: {path}", err=True)
    if evidence is not None:
        evidence.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if (plan.root / name).exists():
                shutil.copyfile(plan.root / name, evidence / name)
        typer.echo(f"Copied to {evidence}/", err=True)


def _came_to(path: Path) -> str:
    import json

    summary = json.loads((path / "summary.json").read_text("utf-8"))
    return f"{summary['held_out']['after']:.3f}"


def _dry_run(plan: Plan, jobs: int) -> Iterator[str]:
    """Arms, budgets and time; environment and judge are made once, nothing is trained."""
    import json

    from reagent_env.trainers.ablation.arms import arm_config
    from reagent_env.trainers.ablation.comparisons import comparisons_of
    from reagent_env.trainers.ablation.plan import COMMON
    from reagent_env.trainers.ablation.processes import is_finished
    from reagent_env.trainers.dry_run import dry_run
    from reagent_env.trainers.progress import duration

    runs = [*plan.measurements(), *plan.runs()]
    done = [run for run in runs if is_finished(run)]
    yield f"Ablation {plan.task!r} in {plan.root}/ (nothing was run)"
    yield f"environment {plan.common['env']}; judge {plan.common['judge']}"
    configs = {arm.name: arm_config(arm, plan.common) for arm in plan.arms}
    for config in {one.judge: one for one in configs.values()}.values():
        dry_run(config)  # raises what is wrong with environment or judge
    for start in plan.starts:
        yield f"cold start {start.policy} ({start.weights or 'not on this machine yet'})"
    yield (
        f"a run: {plan.budget:,} policy tokens, then {plan.common['held_out_episodes']} held-out "
        f"tasks of {plan.common['held_out_split']}"
    )
    yield f"\n{len(plan.arms)} arms"
    for arm in plan.arms:
        config = configs[arm.name]
        shape = f"{config.groups_per_update} × {config.group_size} × {config.attempts} attempts"
        yield f"  {arm.name:<22}{shape:<24}{arm.meaning}"
    changed = {k: v for k, v in plan.common.items() if COMMON.get(k) != v}
    yield f"  all: {json.dumps(changed)}"
    yield f"\n{len(comparisons_of(plan.arms))} comparisons"
    for one in comparisons_of(plan.arms):
        yield f"  {one.name:<42}{one.question}  [{one.family}]"
    seconds = [
        json.loads((run.path / "summary.json").read_text("utf-8"))["train_seconds"] for run in done
    ]
    trained = [one for one in seconds if one > 0]
    each = sum(trained) / len(trained) if trained else 60 * ASSUMED_MINUTES
    left = (len(runs) - len(done)) * each / jobs
    yield (
        f"\n{len(runs)} runs (seeds 0 – {plan.seeds - 1}, {len(plan.starts)} cold starts, a "
        f"measurement of each before), {len(done)} there; the rest at {duration(each)} of training each"
        f"{'' if trained else ' (assumed)'}, {jobs} at a time: {duration(left)}"
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
