"""Recipes by name: what each changes in the settings; and settings from a file and a command line.

Not here: what a recipe does with its settings (``train.py``, ``sft.py``).
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reagent_env.trainers.config import NO_JUDGE, TrainConfig, config_from

JUDGE = "tiny-rrm"
"""The judge of recipes that have one, until another is said."""

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "sft": {"judge": JUDGE},
    "outcome": {"judge": NO_JUDGE, "attempts": 1, "advantage": "grpo"},
    "reagent-r": {"judge": JUDGE, "attempts": 1, "advantage": "grpo"},
    "reagent-u": {"judge": JUDGE, "attempts": 2, "advantage": "pooled"},
}
"""Name → the settings it changes."""

SUMMARIES: Mapping[str, str] = {
    "sft": "Cold start: imitate scripted demonstrations, clean ones first, then of mixed quality.",
    "outcome": "GRPO on the outcome alone: the baseline.",
    "reagent-r": "The outcome plus λ times the judge's score of the process.",
    "reagent-u": "First and second attempts, with a critique between, in one update.",
}
"""Name → one line for people."""

ELSEWHERE: Mapping[str, str] = {
    "reagent-c": "Reagent-C trains nothing, it evaluates: `reagent eval ENV --agent AGENT --refine "
    "critique` runs a first attempt, a critique and a second attempt.",
    "judge-sft": "The recipe judge-sft has settings of its own: `reagent train judge-sft --dry-run`.",
    "judge-rl": "The recipe judge-rl has settings of its own: `reagent train judge-rl --dry-run`.",
}
"""Names that people will look for here, and where to go."""

SHIPPED = Path(__file__).parent / "configs"
"""Settings that come with the package, such as ``reagent-u-8b.toml``."""


def make_config(
    recipe: str | None = None, file: Path | None = None, settings: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Settings of a run: the defaults, then the recipe's, then the file's, then ``settings``.

    Example::

        make_config("reagent-u", settings={"updates": 20})
        make_config(file=Path("reagent-u-8b.toml"))  # a shipped one, where there is no such file here

    Args:
        recipe: A recipe, or the name of a shipped file without ``.toml``.
        file: TOML; its keys are those of ``TrainConfig``.
        settings: What wins.

    Raises:
        ValueError: no such recipe or key (the message names the nearest), the file and the command
            line name different recipes, or a value that ``TrainConfig`` refuses.
        FileNotFoundError: there is no such file.
    """
    given = dict(settings or {})
    if file is None and recipe is not None and recipe not in RECIPES:
        shipped = SHIPPED / f"{recipe}.toml"
        if shipped.exists():
            recipe, file = None, shipped
    written = read_file(file) if file is not None else {}
    in_file = written.pop("recipe", None)
    if recipe is not None and in_file is not None and recipe != in_file:
        raise ValueError(
            f"{file} is for the recipe {in_file!r}, and the command line says {recipe!r}; say one."
        )
    name = recipe or in_file
    if name is None:
        raise ValueError(f"Which recipe? One of {', '.join(RECIPES)}.")
    # A table is merged, not replaced: --env-arg adds to the file's.
    arguments = {**written.pop("env_kwargs", {}), **given.pop("env_kwargs", {})}
    return config_from(
        {**preset(name), **written, **given, "env_kwargs": arguments, "recipe": name}
    )


def preset(recipe: str) -> Mapping[str, Any]:
    """The settings that a recipe changes.

    Raises:
        ValueError: there is no such recipe; the message names the nearest, or where to go.
    """
    if recipe in RECIPES:
        return RECIPES[recipe]
    if recipe in ELSEWHERE:
        raise ValueError(ELSEWHERE[recipe])
    shipped = sorted(file.stem for file in SHIPPED.glob("*.toml"))
    near = difflib.get_close_matches(recipe, [*RECIPES, *ELSEWHERE, *shipped], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"There is no recipe {recipe!r}.{hint} Recipes: {', '.join(RECIPES)}; "
        f"files that are shipped: {', '.join(shipped)}."
    )


def read_file(file: Path) -> dict[str, Any]:
    """The settings in a TOML file: one in the working directory, else a shipped one of that name."""
    path = file if file.exists() else SHIPPED / file.name
    if not path.exists():
        shipped = ", ".join(sorted(one.name for one in SHIPPED.glob("*.toml")))
        raise FileNotFoundError(f"There is no file {file}; shipped ones: {shipped}.")
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}.") from error
