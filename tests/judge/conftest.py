"""One small planting of SearchQA (no sandbox) and one of PythonMath, shared by the tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reagent_env.agents.judge_data import PlantedRecord, plant

sys.path.insert(0, str(Path(__file__).parent))  # planted_pairs: shared by the tests of planting


@pytest.fixture(scope="session")
def searching() -> list[PlantedRecord]:
    """All kinds, on SearchQA."""
    return plant("reagent/SearchQA-v0", 14, flaws_per_task=16, twins_per_task=6)


@pytest.fixture(scope="session")
def computing() -> list[PlantedRecord]:
    """All kinds that have code in them, on PythonMath."""
    return plant(
        "reagent/PythonMath-v0", 4, flaws_per_task=16, twins_per_task=6, sandbox="embedded"
    )


@pytest.fixture(scope="session")
def mixing() -> list[PlantedRecord]:
    """Values and units, on ToolMix."""
    kinds = ["unit_slip", "stale_value", "dropped_condition", "distractor"]
    return plant("reagent/ToolMix-v0", 6, kinds=kinds, sandbox="embedded")


@pytest.fixture(scope="session")
def filing() -> list[PlantedRecord]:
    """Tables, on FileQA."""
    kinds = ["unit_slip", "stale_value", "dropped_condition", "skipped_hop", "equivalent_code"]
    return plant("reagent/FileQA-v0", 5, kinds=kinds, sandbox="embedded")


@pytest.fixture(scope="session")
def planted(
    searching: list[PlantedRecord],
    computing: list[PlantedRecord],
    mixing: list[PlantedRecord],
    filing: list[PlantedRecord],
) -> list[PlantedRecord]:
    """All of them."""
    return [*searching, *computing, *mixing, *filing]
