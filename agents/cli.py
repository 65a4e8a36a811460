"""``reagent eval``: a thin layer over ``evaluate.py``."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import json
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reagent_env.agents.refine import Refinement
    from reagent_env.agents.summary import Summary
    from reagent_env.trajectory import Trajectory

_EXAMPLES = """
Examples:

  reagent eval reagent/PythonMath-v0 --agent expert --episodes 200

  reagent eval reagent/ToolMix-v0 --agent http://127.0.0.1:8000/v1#my-model --concurrency 16

  reagent eval reagent/SearchQA-v0 --agent http://127.0.0.1:8000/v1#my-model --refine critique

  reagent eval reagent/MiniMix-v0 --agent runs/20261104-120000-reagent-u

  reagent eval reagent/SearchQA-v0 --agent random --env-arg tasks=nq --env-arg corpus=wiki.jsonl

  reagent eval --suite reagent-12 --data copies --agent http://127.0.0.1:8000/v1#my-model

An evaluation cut short goes on with the same command and --out FOLDER.
"""


def evaluate_command(
    context: typer.Context,
    env: Annotated[
        str | None,
        typer.Argument(metavar="[ENV]", help="An environment id, e.g. reagent/PythonMath-v0."),
    ] = None,
    agent: Annotated[
        str,
        typer.Option(
            help="expert | random | tiny | smollm2 | URL#model | a model's or run's folder"
        ),
    ] = "expert",
    episodes: Annotated[
        int | None,
        typer.Option(min=1, help="Different tasks to run: 100; of a suite's benchmarks, all."),
    ] = None,
    split: Annotated[str, typer.Option(help="train | validation | test | all")] = "test",
    sandbox: Annotated[str, typer.Option(help="auto | docker | embedded | process")] = "auto",
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes at once.")] = 4,
    seed: Annotated[int, typer.Option(help="Draws the tasks.")] = 0,
    max_turns: Annotated[int | None, typer.Option(min=1, help="Turns an episode.")] = None,
    tool_format: Annotated[
        str | None,
        typer.Option(help="hermes | compact | react | openai; default: the environment's own"),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of a model.")] = 0.7,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of a model, a turn.")] = 1024,
    refine: Annotated[
        str | None,
        typer.Option(help="A second attempt: critique | retry | shuffled | self | independent"),
    ] = None,
    judge: Annotated[
        str, typer.Option(help="Who writes critiques: rubric | noise | URL#model | folder")
    ] = "rubric",
    out: Annotated[Path | None, typer.Option(help="Folder; an old one is resumed.")] = None,
    suite: Annotated[
        str | None, typer.Option(help="In place of ENV: reagent-12, the paper's benchmarks.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Of the suite, such as AIME24,GSM8K.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Of the suite: samples a task, k.")] = 1,
    data: Annotated[
        str | None, typer.Option(help="A benchmark's copy, or a folder of them.")
    ] = None,
    subset: Annotated[str | None, typer.Option(help="A benchmark's: text | full")] = None,
    correctness_judge: Annotated[
        str | None, typer.Option(help="URL#model that compares a benchmark's answers.")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="Where a benchmark searches: .jsonl, folder, or server URL.")
    ] = None,
    web: Annotated[bool, typer.Option(help="Let a benchmark's browse open web pages.")] = False,
    env_arg: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of the environment: tasks=nq, ids=ids.txt."),
    ] = None,
) -> None:
    """Evaluate an agent on an environment; prints success with confidence intervals."""
    import gymnasium
    from rich.console import Console

    from reagent_env.agents.evaluate import evaluate
    from reagent_env.agents.making import AgentRequest, UnknownAgent, agent_maker
    from reagent_env.agents.refine import compare_attempts
    from reagent_env.agents.summary import summarise
    from reagent_env.cli.progress import progress_bar
    from reagent_env.command_values import pairs, read_literal

    try:
        arguments = {k: read_literal(v) for k, v in pairs(env_arg or (), "--env-arg").items()}
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    benchmark = {"data": data, "subset": subset, "judge": correctness_judge, "corpus": corpus}
    if suite is not None:
        from reagent_env.agents.suite_cli import SuiteRequest, evaluate_suite

        if env is not None or refine is not None or arguments:
            raise typer.BadParameter("A suite takes neither ENV nor --refine nor --env-arg.")
        request_of_suite = SuiteRequest(
            suite=suite,
            agent=agent,
            only=only,
            web=web,
            episodes=episodes,
            samples=samples,
            sandbox=sandbox,
            tool_format=tool_format,
            max_turns=max_turns,
            temperature=temperature,
            max_tokens=max_tokens,
            concurrency=concurrency,
            seed=seed,
            **benchmark,
        )
        folder = out or new_folder(Path("runs"), suite)
        folder.mkdir(parents=True, exist_ok=True)
        evaluate_suite(request_of_suite, folder)
        return
    if env is None:
        raise typer.BadParameter("Give an environment id (`reagent envs` lists them) or --suite.")
    episodes = 100 if episodes is None else episodes
    kwargs: dict[str, Any] = {"split": split, "sandbox": sandbox}
    kwargs |= _benchmark_options(env, {**benchmark, "web": web or None})
    if tool_format is not None:
        kwargs["tool_format"] = tool_format
    if max_turns is not None:
        kwargs["max_turns"] = max_turns
    kwargs |= arguments
    wrap = _refining(refine, agent if refine == "self" else judge)

    def make_env() -> Any:
        return wrap(gymnasium.make(env, disable_env_checker=True, **kwargs))

    console = Console(stderr=True)
    start = time.monotonic()
    kept = 0
    with contextlib.ExitStack() as clients:
        tool_format = _check_env(env, make_env)
        config: dict[str, Any] = {
            "env": env,
            "agent": agent,
            "split": split,
            "seed": seed,
            "max_turns": max_turns,
            "tool_format": tool_format,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "refine": refine,
            "judge": judge if refine not in (None, "self") else None,
            **{f"benchmark_{name}": value for name, value in benchmark.items() if value},
            **({"env_args": arguments} if arguments else {}),
        }
        request = AgentRequest(agent, env, tool_format, temperature, max_tokens, concurrency, seed)
        try:
            make_agent = agent_maker(request, clients)
        except UnknownAgent as error:
            raise typer.BadParameter(str(error)) from error
        folder = out or new_folder(Path("runs"), "eval")
        folder.mkdir(parents=True, exist_ok=True)
        _check_config(folder / "config.json", config)
        console.print(f"Evaluating {agent} on {env} ({split}); trajectories go to {folder}/")
        try:
            with progress_bar(console, f"{agent}", episodes) as advance:

                def count(trajectory: Trajectory) -> None:
                    nonlocal kept
                    kept += trajectory.infrastructure_error is None
                    advance(trajectory.outcome)

                trajectories = evaluate(
                    make_env,
                    make_agent,
                    episodes,
                    out=folder,
                    concurrency=concurrency,
                    seed=seed,
                    on_episode=count,
                )
        except KeyboardInterrupt:
            typer.echo(
                f"Stopped: {kept} of {episodes} episodes kept; go on with: {_same_command(context, folder)}",
                err=True,
            )
            raise typer.Exit(130) from None
    if len(trajectories) < episodes:
        console.print(
            f"The {split} split has only {len(trajectories)} tasks; all of them were run."
        )
    summary = summarise(trajectories)
    record = {**config, "sandbox": sandbox, **summary.to_json()}
    refinement = compare_attempts(trajectories) if refine is not None else None
    if refinement is not None:
        record["refinement"] = refinement.to_json()
    _write_json(folder / "summary.json", record)
    print_summary(env, agent, split, summary)
    if refinement is not None:
        print_refinement(str(refine), refinement)
    console.print(f"{time.monotonic() - start:.1f} s; summary in {folder}/summary.json")
    failures = Counter(
        trajectory.infrastructure_error
        for trajectory in trajectories
        if trajectory.infrastructure_error is not None
    )
    for reason, times in failures.most_common(1):
        typer.echo(f"Masked by infrastructure, most often ({times} times): {reason}", err=True)
    if summary.outcome.n == 0:
        typer.echo("Every episode was masked: there is no outcome.", err=True)
        raise typer.Exit(1)


evaluate_command.__doc__ = f"{evaluate_command.__doc__}\n{_EXAMPLES}"


def _benchmark_options(env_id: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options that only benchmarks take, those that were given."""
    from reagent_env.task_sets.published_table import BENCHMARKS

    options = {name: value for name, value in given.items() if value is not None}
    if options and env_id not in BENCHMARKS:
        raise typer.BadParameter(
            f"{env_id} is no benchmark: --data, --subset, --correctness-judge, --corpus and --web are "
            f"for {', '.join(BENCHMARKS)}."
        )
    return options


def _refining(mode: str | None, judge: str) -> Callable[[Any], Any]:
    """The wrapper of ``--refine``, or none."""
    if mode is None:
        return lambda env: env
    from reagent_env.agents.refine import refiner
    from reagent_env.reward_models import make_reward_model

    try:
        return refiner(mode, make_reward_model(judge))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def print_refinement(mode: str, refinement: Refinement) -> None:
    """First and second attempts side by side, on standard output."""
    low, high = refinement.gain_interval
    first, second = refinement.policy_chars
    typer.echo(
        f"\nSecond attempt after: {mode}\n"
        f"  first   {refinement.first}\n"
        f"  second  {refinement.second}\n"
        f"  gain    {refinement.gain:+.3f} [{low:+.3f}, {high:+.3f}]   "
        f"wrong → right {refinement.wrong_to_right}, right → wrong {refinement.right_to_wrong}\n"
        f"  the policy wrote {first:.0f} + {second:.0f} characters an episode; "
        f"critiques replaced {refinement.critiques_replaced}, unscored {refinement.unscored}, "
        f"first attempts that speak of a critique {refinement.critique_talk:.3f}, "
        f"masked {refinement.masked}"
    )


def new_folder(runs: Path, label: str) -> Path:
    """A folder of its own for a run that starts now: ``runs/<time>-<label>``."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{label}"
    for number in itertools.count(1):
        folder = runs / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("unreachable")


def print_summary(env: str, agent: str, split: str, summary: Summary) -> None:
    """The table a person reads, on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{agent} on {env} ({split})", title_justify="left")
    table.add_column("")
    table.add_column("outcome", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("n", justify="right")
    rows = [("all", summary.outcome)]
    rows += [(f"level {level}", one) for level, one in summary.by_level.items() if level != "–"]
    for label, one in rows:
        low, high = one.interval
        table.add_row(label, f"{one.mean:.3f}", f"{low:.3f} – {high:.3f}", str(one.n))
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "100"))
    console = Console(width=width)
    console.print(table)
    stops = ", ".join(f"{reason} {count}" for reason, count in summary.stop_reasons.items())
    console.print(f"masked {summary.masked} · turns {summary.mean_turns:.2f} · stopped by {stops}")
    for name, counts in summary.tools.items():
        console.print(
            f"tool {name}: {counts['calls']} calls, {counts['errors']} errors, "
            f"{1000 * counts['mean_seconds']:.1f} ms each"
        )


def _check_env(env_id: str, make_env: Callable[[], Any]) -> str:
    """Make the environment once, so that what is wrong with it is said before a folder exists.

    Returns:
        The name of its tool format.
    """
    import gymnasium

    from reagent_env.env import ToolUseEnv
    from reagent_env.errors import InfrastructureError
    from reagent_env.needs import NeedMissing

    try:
        made = make_env()
    except gymnasium.error.UnregisteredEnv as error:
        known = [name for name in gymnasium.registry if "/" in name]
        near = difflib.get_close_matches(env_id, known, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise typer.BadParameter(
            f"There is no environment {env_id!r}.{hint} `reagent envs` lists them."
        ) from error
    except (ValueError, InfrastructureError, NeedMissing, gymnasium.error.Error) as error:
        raise typer.BadParameter(str(error)) from error
    made.close()
    inner = made.unwrapped
    if not isinstance(inner, ToolUseEnv):
        raise typer.BadParameter(
            f"{env_id} is a {type(inner).__name__}, not a ToolUseEnv: its episodes leave no record."
        )
    return inner.tool_format.name


def _same_command(context: typer.Context, folder: Path) -> str:
    """The command that is running, with the folder it writes to."""
    words = ["reagent", "eval"]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name == "out" or source is None or source.name != "COMMANDLINE":
            continue
        value = str(context.params[name])
        if getattr(parameter, "is_flag", False):
            words.append(parameter.opts[0])
            continue
        words += [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]
    return shlex.join([*words, "--out", str(folder)])


def _check_config(path: Path, config: dict[str, Any]) -> None:
    """A folder holds one evaluation: going on with other settings is refused."""
    if path.exists():
        try:
            before = json.loads(path.read_text("utf-8"))
        except ValueError:
            before = None
        if not isinstance(before, dict):
            raise typer.BadParameter(
                f"{path} cannot be read: it is no JSON object, perhaps cut short. Remove it if you "
                "know that the folder's evaluation had these settings; else give another --out."
            )
        changed = {key for key in config if before.get(key) != config[key]}
        if changed:
            raise typer.BadParameter(
                f"{path.parent} holds an evaluation with other settings "
                f"({', '.join(sorted(changed))}); give another --out."
            )
    _write_json(path, config)


def _write_json(path: Path, record: dict[str, Any]) -> None:
    """Write the whole file or leave what was there."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)
