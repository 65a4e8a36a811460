"""``reagent judge-data``: a thin layer over ``planting.py``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from reagent_env.agents.judge_data.records import PlantedRecord

ALL = (
    "reagent/PythonMath-v0",
    "reagent/FileQA-v0",
    "reagent/SearchQA-v0",
    "reagent/ToolMix-v0",
    "reagent/MiniMix-v0",
)
"""What ``--env all`` stands for; other environments are asked for by name."""
ENV_HELP = (
    "An environment id, or all: the five sets PythonMath, FileQA, SearchQA, ToolMix, MiniMix. By "
    "name also reagent/SQL-v0 and the worlds reagent/TextCraft-v0, reagent/BabyAI-v0."
)

_EXAMPLES = """
Examples:

  reagent judge-data --env reagent/SearchQA-v0 --episodes 20 --out flaws.jsonl

  reagent judge-data --env reagent/TextCraft-v0 --episodes 20 --out world.jsonl

  reagent judge-data --split test --kinds skipped_hop,unit_slip --out test.jsonl

  reagent judge-eval --judge rubric --data flaws.jsonl

  reagent train judge-sft --set data=flaws.jsonl

A line is a trajectory with what is wrong with it (kind, turn, target quality, reference critique),
or its clean partner, which shares its pair_id. docs/judge-eval.md lists the kinds and the fields.
"""


def judge_data(
    env: Annotated[str, typer.Option(help=ENV_HELP)] = "all",
    episodes: Annotated[int, typer.Option(min=1, help="Tasks of each environment.")] = 50,
    out: Annotated[Path, typer.Option(help="The JSONL file to write.")] = Path("judge_data.jsonl"),
    split: Annotated[str, typer.Option(help="train | validation | test")] = "train",
    seed: Annotated[int, typer.Option(help="Draws tasks, kinds and places.")] = 0,
    kinds: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    per_task: Annotated[int, typer.Option(min=0, help="Planted flaws a task.")] = 4,
    sandbox: Annotated[str, typer.Option(help="auto | docker | embedded | process")] = "auto",
) -> None:
    """Make trajectories with a planted flaw and their clean partners, to train or measure judges."""
    from collections import Counter

    from rich.console import Console

    from reagent_env.agents.judge_data.planting import chosen_kinds
    from reagent_env.agents.judge_data.records import CLEAN, write_records

    wanted = kinds.split(",") if kinds else None
    console = Console(stderr=True)
    try:
        chosen_kinds(wanted)
        records = planted(env, episodes, split, seed, wanted, per_task, sandbox, console)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    count = write_records(out, records)
    by_kind = Counter(record.kind for record in records if record.kind != CLEAN)
    for kind, number in sorted(by_kind.items()):
        console.print(f"{number:5d} pairs  {kind}")
    console.print(f"{count} records ({split}) in {out}")


judge_data.__doc__ = f"{judge_data.__doc__}\n{_EXAMPLES}"


def planted(
    env: str,
    episodes: int,
    split: str,
    seed: int,
    kinds: list[str] | None,
    per_task: int,
    sandbox: str,
    console: Console,
) -> list[PlantedRecord]:
    """The records of one environment, or of all five task sets of tools; shows progress."""
    from reagent_env.agents.judge_data.planting import plant
    from reagent_env.cli.progress import progress_bar

    records: list[PlantedRecord] = []
    for env_id in ALL if env == "all" else [env]:
        with progress_bar(console, f"planting in {env_id}", episodes) as advance:
            records += plant(
                env_id,
                episodes,
                split=split,
                seed=seed,
                kinds=kinds,
                flaws_per_task=per_task,
                sandbox=sandbox,
                on_task=lambda advance=advance: advance(None),  # type: ignore[misc]
            )
    return records
