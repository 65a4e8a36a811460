"""Agents and their evaluation: what acts in the environments, and how well."""

from __future__ import annotations

from reagent_env.agents.agent import Agent

__all__ = ["Agent"]
