"""Figures of Reagent's paper, for a table beside one's own.

"Exploring Reasoning Reward Model for Agents" (Fan et al., arXiv 2601.22154v2, 2026): Qwen3-8B, one run
each, temperature 0.6, top-p 0.95, at most 30 tool steps, a 72B judge of correctness. The paper gives
neither seeds nor intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from reagent_env.task_sets.published_table import BENCHMARKS


@dataclass(frozen=True)
class PaperRow:
    """Pass@1 in percent, e.g. ``PaperRow("AIME24", 46.7, 50.0, 56.7, 53.3, 60.0)``."""

    title: str
    """As the paper's table names it."""
    base: float
    """The model before any training."""
    without_judge: float | None
    """Trained without the reward model; None where the paper says nothing."""
    c: float | None
    """Reagent-C: a second attempt after a critique, untrained."""
    r: float | None
    """Reagent-R: the score in the reward."""
    u: float
    """Reagent-U: score and critique."""

    @property
    def figures(self) -> tuple[float | None, ...]:
        """The five in the table's order."""
        return (self.base, self.without_judge, self.c, self.r, self.u)


PAPER: Mapping[str, PaperRow] = MappingProxyType(
    {
        "reagent/GAIA-v0": PaperRow("GAIA (text)", 21.4, 34.0, 25.2, 36.9, 43.7),
        "reagent/WebWalkerQA-v0": PaperRow("WebWalkerQA", 29.0, 43.5, 35.5, 45.3, 46.2),
        "reagent/HLE-v0": PaperRow("HLE", 4.0, 6.8, 4.6, 10.0, 10.8),
        "reagent/XBench-v0": PaperRow("xbench", 9.0, 32.0, 15.0, 41.0, 43.0),
        "reagent/HotpotQA-v0": PaperRow("HotpotQA", 52.0, 65.8, 61.0, 67.9, 68.1),
        "reagent/2Wiki-v0": PaperRow("2Wiki", 58.0, 77.0, 68.9, 79.0, 78.8),
        "reagent/Bamboogle-v0": PaperRow("Bamboogle", 53.6, 61.6, 61.6, 72.8, 76.8),
        "reagent/MuSiQue-v0": PaperRow("MuSiQue", 22.1, 28.1, 25.0, 28.3, 31.3),
        "reagent/AIME24-v0": PaperRow("AIME24", 46.7, 50.0, 56.7, 53.3, 60.0),
        "reagent/AIME25-v0": PaperRow("AIME25", 40.0, 43.3, 46.7, 50.0, 50.0),
        "reagent/MATH500-v0": PaperRow("MATH500", 90.4, 90.8, 93.8, 92.2, 93.8),
        "reagent/GSM8K-v0": PaperRow("GSM8K", 94.6, 94.5, 94.9, 94.1, 95.1),
    }
)
"""Environment id → the paper's row, in the paper's order."""

_FULL = {"reagent/GAIA-v0": PaperRow("GAIA (full)", 20.0, None, None, None, 38.8)}
"""Questions with files too; U's pass@3 is 53.9."""


def paper_row(env_id: str, subset: str | None = None) -> PaperRow | None:
    """What the paper says of a benchmark's subset; None where it says nothing of it."""
    split = subset == "full" and BENCHMARKS[env_id].subsets
    return _FULL.get(env_id) if split else PAPER.get(env_id)


SUITES: Mapping[str, tuple[str, ...]] = MappingProxyType({"reagent-12": tuple(PAPER)})
"""What ``--suite`` takes → the environments it runs."""
