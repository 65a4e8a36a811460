"""``reagent train``: a thin layer over ``recipes.py`` and what the recipes run.

Every field of ``TrainConfig`` is a flag, read by the field's own type; ``--help`` shows those that
people change most, ``--settings`` all. Not here: what a setting may be (``config.py``).
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from reagent_env.command_values import pairs, read_literal
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.config_fields import (
    annotations_of,
    choices_of,
    coerced,
    defaults_of,
    docstrings_of,
    read_value,
    unknown_key,
)
from reagent_env.trainers.recipes import JUDGE, RECIPES, SUMMARIES, make_config, read_file

if TYPE_CHECKING:
    from reagent_env.trainers.run_folder import RunFolder

RUNNERS = {
    "sft": "reagent_env.trainers.train_sft:train_sft",
    "outcome": "reagent_env.trainers.train:train",
    "reagent-r": "reagent_env.trainers.train:train",
    "reagent-u": "reagent_env.trainers.train:train",
}
"""Recipe → ``module:function``, called with (config, run, progress); loaded when it runs."""

JUDGE_RECIPES = ("judge-sft", "judge-rl")
"""Recipes for judges; each has a dataclass of settings of its own."""

SHOWN = (
    "env",
    "policy",
    "judge",
    "sandbox",
    "updates",
    "max_seconds",
    "seed",
    "deterministic",
    "schedule",
    "attempts",
    "credit",
    "advantage",
    "weight",
    "lr",
    "lora_rank",
    "groups_per_update",
    "group_size",
    "engine",
    "ray",
    "ray_workers",
    "distill",
    "wandb",
)
"""Settings that ``--help`` shows; the others are flags all the same."""

WHEN_RESUMED = (
    "updates",
    "max_seconds",
    "max_policy_tokens",
    "max_interactions",
    "alarm_window",
    "eval_every",
    "checkpoint_every",
    "keep_checkpoints",
    "concurrency",
    "ray",
    "ray_workers",
    "ray_cpus",
    "ray_gpus",
    "threads",
    "engine_url",
    "wandb",
)
"""Settings that a resumed run may change: none of them changes what is learned from an update."""

_EXAMPLES = """
Recipes:

  sft        {sft}

  outcome    {outcome}

  reagent-r  {r}

  reagent-u  {u}

  reagent-c  {c}

  judge-sft  A judge learns from trajectories with planted flaws.

  judge-rl   GRPO for a taught judge: right scores, flaws named, help given.

Examples:

  reagent train reagent-u

  reagent train reagent-r --judge http://127.0.0.1:8000/v1#judge

  reagent train outcome --env my_tasks:my/Chores-v0 --env-arg max_turns=6

  reagent train outcome --env reagent/SearchQA-v0=0.7,reagent/FileQA-v0=0.3

  reagent train reagent-u --policy smollm2 --lora-rank 16 --set lr=1e-4

  reagent train reagent-r --credit turn --advantage turn

  reagent train outcome --schedule scaling-inter:searchqa@12

  reagent train judge-sft --out runs/judge

  reagent train judge-rl --judge runs/judge/judge --set data=data.jsonl

  reagent train --config my.toml --updates 20

  reagent train --resume runs/20261104-120000-reagent-u

  reagent train reagent-u-8b --dry-run

Settings: the recipe's, then the file's, then the command line's.
`reagent train --settings` lists them all (judge-rl has its own).
"""


def train(**given: Any) -> None:
    """Train a policy by a recipe; everything it does is kept in a run folder."""
    if given["settings"]:
        judged = given["recipe"] in JUDGE_RECIPES
        config = _judge_recipe(given["recipe"])[0] if judged else TrainConfig
        typer.echo("\n".join(setting_lines(config)))
        return
    try:
        given = {**given, "recipe": given["recipe"] or _judges_recipe_of(given["resume"])}
        if given["recipe"] in JUDGE_RECIPES:
            _train_judge(given)
            return
        settings = read_settings(given)
        if given["recipe"] == "reagent-c":
            typer.echo(
                f"Reagent-C trains nothing; it is an evaluation:\n  {_critique_command(settings)}"
            )
            return
        if given["resume"] is not None:
            _resume(given, settings)
            return
        config = make_config(given["recipe"], given["config"], settings)
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    if given["dry_run"]:
        from reagent_env.trainers.dry_run import dry_run

        words = [word for word in sys.argv[1:] if word != "--dry-run"]
        typer.echo(dry_run(config, shlex.join(["reagent", *words])))
        return
    _check_processes(config)
    if _follows():
        return
    from reagent_env.trainers.run_folder import RunFolder

    with RunFolder.create(config, given["out"]) as run:
        _run(run, done=0)


def read_settings(given: Mapping[str, Any], config: type = TrainConfig) -> dict[str, Any]:
    """The settings among the command line's words: flags, then ``--set``, then ``--env-arg``.

    Args:
        given: The words, read by typer.
        config: The dataclass whose fields they set.

    Raises:
        ValueError: a key that is no setting, or a value that is nothing of its type.
    """
    known = annotations_of(config)
    flags = [name for name in annotations_of(TrainConfig) if name != "recipe"]
    texts = {name: given[name] for name in flags if given.get(name) is not None}
    texts |= {key.replace("-", "_"): text for key, text in pairs(given["set_"], "--set").items()}
    for name in texts:
        if name not in known or name in ("recipe", "out"):
            raise unknown_key(name, set(known) - {"recipe", "out"})
    settings: dict[str, Any] = {
        name: text if isinstance(text, bool) else read_value(text, known[name])
        for name, text in texts.items()
    }
    words = pairs(given["env_arg"], "--env-arg")
    arguments = {key: read_literal(text) for key, text in words.items()}
    if arguments and "env_kwargs" not in known:
        raise ValueError("--env-arg means nothing to this recipe; leave it out.")
    if arguments:
        settings["env_kwargs"] = {**settings.get("env_kwargs", {}), **arguments}
    return settings


def setting_lines(config: type = TrainConfig) -> Iterator[str]:
    """Every setting with its default, its choices and what it is for."""
    documented, defaults = docstrings_of(config), defaults_of(config)
    flags = annotations_of(TrainConfig)
    for name, annotation in annotations_of(config).items():
        choices = choices_of(annotation)
        named = _flag(name) if name in flags or name == "out" else f"--set {name}="
        yield f"{named} {'' if name == 'out' else repr(defaults[name])}" + (
            f"  ({' | '.join(choices)})" if choices else ""
        )
        yield f"    {documented[name]}"


def _resume(given: Mapping[str, Any], settings: dict[str, Any]) -> None:
    """Go on with an old run, with its own settings but for the few that may change."""
    refused = sorted(set(settings) - set(WHEN_RESUMED))
    extra = ["RECIPE"] * (given["recipe"] is not None) + ["--config"] * (
        given["config"] is not None
    )
    extra += ["--out"] * (given["out"] is not None) + [_flag(name) for name in refused]
    if extra:
        raise ValueError(
            f"A resumed run keeps its settings: leave out {', '.join(extra)}. "
            f"It may change {', '.join(map(_flag, WHEN_RESUMED))}."
        )
    from reagent_env.trainers.atomic_files import write_json
    from reagent_env.trainers.run_folder import RunFolder, read_config

    known = annotations_of(TrainConfig)
    changed = {name: coerced(value, known[name]) for name, value in settings.items()}
    config = dataclasses.replace(read_config(given["resume"]), **changed)
    if given["dry_run"]:
        from reagent_env.trainers.dry_run import dry_run

        typer.echo(dry_run(config, f"reagent train --resume {given['resume']}"))
        return
    _check_processes(config)
    if _follows():
        return
    with RunFolder.resume(given["resume"]) as run:
        run.config = config
        write_json(run.path / "config.json", config.to_json())
        finished = (int(one.name) for one in run.checkpoints.glob("[0-9]*"))
        _run(run, done=max(finished, default=0))


def _run(run: RunFolder, done: int) -> None:
    """Run the recipe in ``run``; whatever ends it, the report says how far it came."""
    from reagent_env.trainers.progress import TrainProgress
    from reagent_env.trainers.report import write_report

    config = run.config
    runner = _runner(config.recipe)
    with TrainProgress(config, done=done) as progress:
        progress.say(f"{config.recipe} on {config.env} with {config.policy}: {run.path}/")
        try:
            runner(config, run, progress)
        except BaseException as error:
            progress.say(f"Stopped. Go on with: reagent train --resume {run.path}")
            if isinstance(error, KeyboardInterrupt):
                write_report(run.path)
                raise typer.Exit(130) from None
            raise
        write_report(run.path)
        progress.say(f"Report: {run.path}/report.md")


def _train_judge(given: Mapping[str, Any]) -> None:
    """A recipe for judges, whose settings are a dataclass of its own."""
    from reagent_env.trainers.run_folder import new_folder

    recipe = given["recipe"]
    judge_config, run_judge = _judge_recipe(recipe)
    known = annotations_of(judge_config)
    settings: dict[str, Any] = {}
    folder = given["out"]
    if given["resume"] is not None:
        folder = given["resume"]
        settings = json.loads((folder / "config.json").read_text("utf-8"))
        settings.pop("recipe", None)
    elif given["config"] is not None:
        settings = read_file(given["config"])
        settings.pop("recipe", None)
    settings |= read_settings(given, judge_config)
    for name in settings:
        if name not in known:
            raise unknown_key(name, known)
    settings = {name: coerced(value, known[name]) for name, value in settings.items()}
    if given["dry_run"]:
        typer.echo(judge_config(**{**settings, "out": str(folder or f"runs/<time>-{recipe}")}))
        return
    folder = folder or new_folder(recipe)
    try:
        run_judge(judge_config(**{**settings, "out": str(folder)}), typer.echo)
    except KeyboardInterrupt:
        typer.echo(f"Stopped. Go on with: reagent train {recipe} --resume {folder}", err=True)
        raise typer.Exit(130) from None
    except NotImplementedError as error:
        raise ValueError(str(error)) from error


def _judges_recipe_of(run: Path | None) -> str | None:
    """The recipe of a run to be resumed, where it is one for judges."""
    path = None if run is None else run / "config.json"
    if path is None or not path.is_file():
        return None
    recipe = json.loads(path.read_text("utf-8")).get("recipe")
    return recipe if recipe in JUDGE_RECIPES else None


def _judge_recipe(recipe: str) -> tuple[Any, Callable[..., Any]]:
    """The settings of a recipe for judges, and what runs it."""
    if recipe == "judge-sft":
        from reagent_env.trainers.judge_sft import JudgeSftConfig, run_judge_sft

        return JudgeSftConfig, run_judge_sft
    from reagent_env.trainers.judge_rl import JudgeRlConfig, run_judge_rl

    return JudgeRlConfig, run_judge_rl


def _critique_command(settings: Mapping[str, Any]) -> str:
    """The evaluation that Reagent-C is, with what the command line said of it."""
    defaults = {**defaults_of(TrainConfig), "judge": JUDGE, **settings}
    words = ["reagent", "eval", defaults["env"], "--agent", defaults["policy"]]
    return shlex.join([*words, "--refine", "critique", "--judge", defaults["judge"]])


def _runner(recipe: str) -> Callable[..., Any]:
    module, _, name = RUNNERS[recipe].partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _check_processes(config: TrainConfig) -> None:
    """A plan for several GPUs needs as many processes."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if config.gpus > 1 and processes != config.gpus:
        raise typer.BadParameter(
            f"gpus={config.gpus} needs as many processes, and this is {processes}. "
            "--dry-run prints the commands; or train in this process with --gpus 0."
        )
    if processes > 1 and _runner(config.recipe).__name__ != "train":
        raise typer.BadParameter(
            f"recipe={config.recipe!r} learns in one process, and this is one of {processes}: start it "
            "without accelerate launch."
        )


def _follows() -> bool:
    """Of several processes, all but the first compute shares of its updates, and that is all."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return False
    from reagent_env.trainers.following import follow, is_follower

    if is_follower():
        follow()
        return True
    return False


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parameters() -> Iterator[inspect.Parameter]:
    """The parameters of the command: its own, then a flag for every setting."""

    def parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
        )

    yield parameter(
        "recipe",
        str | None,
        typer.Argument(
            None,
            metavar="[RECIPE]",
            help=f"{' | '.join((*RECIPES, *JUDGE_RECIPES))}, or a shipped file.",
        ),
    )
    yield parameter("config", Path | None, typer.Option(None, help="Settings in TOML."))
    yield parameter("resume", Path | None, typer.Option(None, metavar="RUN", help="Go on with it."))
    yield parameter("out", Path | None, typer.Option(None, help="Run folder; else runs/<time>-…"))
    yield parameter(
        "dry_run", bool, typer.Option(False, "--dry-run", help="Check and print the plan only.")
    )
    yield parameter("settings", bool, typer.Option(False, "--settings", help="List every setting."))
    yield parameter(
        "set_", list[str], typer.Option([], "--set", metavar="KEY=VALUE", help="Any setting.")
    )
    yield parameter(
        "env_arg",
        list[str],
        typer.Option([], "--env-arg", metavar="KEY=VALUE", help="Of the environment."),
    )
    documented, defaults = docstrings_of(TrainConfig), defaults_of(TrainConfig)
    names = annotations_of(TrainConfig)
    for name in sorted(names, key=lambda one: SHOWN.index(one) if one in SHOWN else len(SHOWN)):
        if name in ("recipe", "env_kwargs"):
            continue
        shown = name in SHOWN
        text = documented[name].replace("``", "")
        if choices := choices_of(names[name]):
            text += f" One of {', '.join(choices)}."
        if isinstance(defaults[name], bool):
            flags = f"{_flag(name)}/--no-{name.replace('_', '-')}"
            option = typer.Option(None, flags, help=text, hidden=not shown)
            yield parameter(name, bool | None, option)
            continue
        option = typer.Option(
            None,
            _flag(name),
            metavar=_metavar(defaults[name]),
            help=text,
            hidden=not shown,
        )
        yield parameter(name, str | None, option)


def _metavar(default: Any) -> str:
    return {int: "N", float: "X", tuple: "[X, X]"}.get(type(default), "TEXT")


def _declare() -> None:
    """Give :func:`train` the signature and the help that typer reads."""
    parameters = list(_parameters())
    described: Any = train
    described.__signature__ = inspect.Signature(parameters)
    described.__annotations__ = {one.name: one.annotation for one in parameters}
    lines = {name.removeprefix("reagent-"): line for name, line in SUMMARIES.items()}
    lines["c"] = (
        "Trains nothing: a critique and a second attempt, by `reagent eval --refine critique`."
    )
    described.__doc__ = f"{train.__doc__}\n{_EXAMPLES.format(**lines)}"


_declare()
