"""Trajectories with a planted flaw and their clean partners: data to train and to measure judges.

Nothing here reads a judge, and no judge reads anything here.
"""

from __future__ import annotations

from reagent_env.agents.judge_data.planting import plant
from reagent_env.agents.judge_data.published import read_published
from reagent_env.agents.judge_data.records import PlantedRecord, read_records, write_records

__all__ = ["PlantedRecord", "plant", "read_published", "read_records", "write_records"]
