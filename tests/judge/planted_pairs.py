"""Planted records by pair, by kind and by their flawed turn, for the tests of planting."""

from __future__ import annotations

from collections import defaultdict

from reagent_env.agents.judge_data import PlantedRecord
from reagent_env.agents.judge_data.records import CLEAN
from reagent_env.trajectory import Turn


def pairs(records: list[PlantedRecord]) -> list[tuple[PlantedRecord, PlantedRecord]]:
    """(flawed or twin, clean partner)."""
    by_id: defaultdict[str, dict[bool, PlantedRecord]] = defaultdict(dict)
    for record in records:
        by_id[record.pair_id][record.kind == CLEAN] = record
    return [(pair[False], pair[True]) for pair in by_id.values()]


def of_kind(records: list[PlantedRecord], kind: str) -> list[PlantedRecord]:
    found = [record for record in records if record.kind == kind]
    assert found, f"no {kind} was planted"
    return found


def flawed_turn(record: PlantedRecord) -> Turn:
    assert record.turn is not None
    return record.trajectory.turns[record.turn]
