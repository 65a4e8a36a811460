"""What a published data set still needs on this machine, for ``reagent envs``; nothing is loaded."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reagent_env.task_sets.published_table import PublishedSet


@dataclass(frozen=True)
class PublishedNeed:
    """The data set itself, e.g. ``PublishedNeed(PUBLISHED["gsm8k"])``; the shape of ``needs.Need``."""

    row: PublishedSet

    @property
    def met(self) -> bool:
        """Whether a copy stands under ``REAGENT_DATA_DIR``, or in the hub's cache."""
        shared = os.environ.get("REAGENT_DATA_DIR")
        names = {self.row.name, self.row.environment or "", self.row.hub.rpartition("/")[2]}
        wanted = {re.sub(r"[^a-z0-9]", "", name.lower()) for name in names}
        if shared and Path(shared).is_dir():
            for child in Path(shared).iterdir():
                if child.is_dir() and re.sub(r"[^a-z0-9]", "", child.name.lower()) in wanted:
                    return True
        home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
        cached = self.row.hub.replace("/", "___").lower()
        return (home / "datasets" / cached).is_dir()

    def __str__(self) -> str:
        gate = f", after accepting its terms at {self.row.page}" if self.row.gated else ""
        return (
            f"the data set {self.row.hub}: fetched at first use{gate} (pip install "
            f"'reagent-env[benchmarks]'), or a copy in REAGENT_DATA_DIR/{self.row.name}/"
        )


@dataclass(frozen=True)
class JudgeNeed:
    """A judge of correctness, for benchmarks whose protocol is one."""

    row: PublishedSet

    @property
    def met(self) -> bool:
        """Whether the environment variable names one."""
        return bool(os.environ.get("REAGENT_CORRECTNESS_JUDGE"))

    def __str__(self) -> str:
        return "a judge of correctness: judge=URL#model, or REAGENT_CORRECTNESS_JUDGE=URL#model"


@dataclass(frozen=True)
class CorpusNeed:
    """Documents to search in, for benchmarks that search and bring none."""

    row: PublishedSet

    @property
    def met(self) -> bool:
        """Never by itself: they are named when the environment is made."""
        return False

    def __str__(self) -> str:
        return "documents to search in: corpus=FILE.jsonl, a folder, or a retrieval server's URL"


def needs_of(row: PublishedSet) -> tuple[Any, ...]:
    """Everything that a benchmark needs beyond this package."""
    found: list[Any] = [PublishedNeed(row)]
    if row.judge == "own":
        found.append(JudgeNeed(row))
    if "search" in row.tools and not row.contexts:
        found.append(CorpusNeed(row))
    return tuple(found)
