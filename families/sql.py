"""SQL: questions about small made-up databases, answered through sqlite in the sandbox.

Each task has a database of its own, as a script among its files: three tables of one of four
themes. Its answer is what the right query gives. Not here: the themes and questions (``sql_kinds.py``).
"""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from reagent_env.errors import ToolError
from reagent_env.families.sql_kinds import KINDS, THEMES, Kind, Theme, expert_query
from reagent_env.sandboxes.contract import Execution, Sandbox
from reagent_env.task import Task
from reagent_env.task_sets.lazy import LazyTaskSet
from reagent_env.task_sets.phrasing import choose_phrasing, content_split, stable_random
from reagent_env.task_sets.solving import Calls
from reagent_env.task_sets.worlds_names import NameMaker
from reagent_env.tool_definition import ToolOutput, tool
from reagent_env.tools.execution import render_execution

SIZES: Mapping[str, int] = {"train": 2400, "validation": 300, "test": 300}
"""Tasks a split, by default."""
LEVELS = (1, 2, 3, 4)
SCRIPT = "database.sql"
MAX_QUERY_CHARS = 4_000
_THINGS, _PEOPLE, _EVENTS = 30, 24, 160
"""Rows of the three tables."""
_MAX_DRAWS = 400

_PROGRAM = """
def _answer(query):
    import os, sqlite3
    if not os.path.exists("database.db"):
        making = sqlite3.connect("unfinished.db")
        making.executescript(open({script!r}, encoding="utf-8").read())
        making.commit()
        making.close()
        os.rename("unfinished.db", "database.db")
    connection = sqlite3.connect("file:database.db?mode=ro", uri=True)
    try:
        rows = connection.execute(query)
        names = [column[0] for column in rows.description or ()]
        shown = rows.fetchmany({most} + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        print("Error:", error)
        return
    finally:
        connection.close()
    print(" | ".join(names))
    for row in shown[:{most}]:
        print(" | ".join("NULL" if value is None else str(value) for value in row))
    more = ", and more" if len(shown) > {most} else ""
    print(f"({{min(len(shown), {most})}} rows{{more}})")

_answer({query})
"""
_MOST_ROWS = 50


@tool(timeout_s=None)  # the sandbox keeps the deadline
def sql(query: str, *, sandbox: Sandbox) -> ToolOutput:
    """Run one SQLite query on the task's database, which it cannot change; up to 50 rows are shown.

    Args:
        query: e.g. "SELECT name, sql FROM sqlite_master" for the tables and their columns.
    """
    if not query.strip() or len(query) > MAX_QUERY_CHARS:
        raise ToolError(f"a query has 1 to {MAX_QUERY_CHARS} characters, got {len(query)}.")
    literal = json.dumps(query)  # ASCII, and the same string in Python
    execution: Execution = sandbox.python(
        _PROGRAM.format(script=SCRIPT, most=_MOST_ROWS, query=literal)
    )
    shown = render_execution(execution)
    if shown.error is None and shown.content.startswith("Error:"):
        return ToolOutput(shown.content, shown.status, "tool_error")
    return shown


def sql_questions(
    split: str | None = None,
    *,
    levels: Sequence[int] = LEVELS,
    sizes: Mapping[str, int] = SIZES,
) -> LazyTaskSet:
    """Questions of all levels in turn: one table, a join, two joins, groups compared.

    Example: ``sql_questions("test", levels=(3, 4))``.

    Args:
        split: ``train``, ``validation``, ``test``, or None for all.
        levels: Which of the levels 1 to 4.
        sizes: Tasks in each split.

    Raises:
        ValueError: an unknown split or level.
    """
    kinds = tuple(kind.name for kind in KINDS.values() if kind.level in levels)
    unknown = [level for level in levels if level not in LEVELS]
    if unknown or not kinds:
        raise ValueError(f"Unknown or no levels {unknown}; known: {LEVELS}.")

    return LazyTaskSet("sql", sizes, functools.partial(_make, kinds), split)


def solve(question: str) -> Generator[Calls, list[str], str]:
    """Look at the tables, then ask the one query that the question is about."""
    query = expert_query(question)
    if query is None:
        return "unknown"
    yield [("sql", {"query": "SELECT name, sql FROM sqlite_master"})]
    (shown,) = yield [("sql", {"query": query})]
    lines = shown.splitlines()
    return lines[1].split(" | ")[0] if len(lines) > 2 else "unknown"


def _make(kinds: Sequence[str], split: str, index: int) -> Task:
    """The first of the databases and questions drawn for ``index`` that belongs to the split."""
    kind = KINDS[kinds[index % len(kinds)]]
    rng = stable_random("sql", kind.name, split, index)
    for _ in range(_MAX_DRAWS):
        theme = rng.choice(THEMES)
        script, facts = _database(theme, rng)
        slots = {slot: rng.choice(facts[slot]) for slot in kind.slots}
        if content_split(json.dumps([kind.name, theme.name, slots, script])) != split:
            continue
        answer = _answer(theme, kind, slots, script)
        if answer is None:
            continue
        phrasing, template = choose_phrasing(rng, kind.phrasings, split)
        tables = f"{theme.things}, {theme.people} and {theme.events}"
        return Task(
            f"A database has the tables {tables}.\n{template.format(**theme.words, **slots)}",
            answer,
            "number" if isinstance(answer, int) else "exact",
            {SCRIPT: script.encode()},
            {
                "kind": kind.name,
                "level": kind.level,
                "theme": theme.name,
                "phrasing": phrasing,
                "split": split,
            },
        )
    raise ValueError(f"No {kind.name!r} question for split {split!r} in {_MAX_DRAWS} draws.")


def _answer(theme: Theme, kind: Kind, slots: Mapping[str, Any], script: str) -> int | str | None:
    """What the right query gives; None where it gives nothing, little, or no single best."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(script)
        rows = connection.execute(kind.query_for(theme, slots)).fetchall()
    finally:
        connection.close()
    if not rows or rows[0][0] is None:
        return None
    if len(rows) > 1 and rows[0][1] == rows[1][1]:
        return None
    value = rows[0][0]
    if isinstance(value, int) and value < kind.least:
        return None
    return int(value) if isinstance(value, int | float) else str(value)


def _database(theme: Theme, rng: Any) -> tuple[str, Mapping[str, list[Any]]]:
    """A script that makes the three tables, and the values that questions can be about."""
    names = NameMaker(rng)
    towns = [names.root() for _ in range(5)]
    things = [
        (n, names.root(), rng.choice(theme.sorts), rng.randint(20, 950))
        for n in range(1, _THINGS + 1)
    ]
    people = [
        (n, f"{names.root()} {names.root()}", rng.choice(towns), rng.randint(1950, 2010))
        for n in range(1, _PEOPLE + 1)
    ]
    events = [
        (n, rng.randint(1, _THINGS), rng.randint(1, _PEOPLE), rng.randint(1, 60), _day(rng))
        for n in range(1, _EVENTS + 1)
    ]
    lines = theme.tables()
    for table, rows in ((theme.things, things), (theme.people, people), (theme.events, events)):
        values = ",\n".join(f"({', '.join(map(_literal, row))})" for row in rows)
        lines.append(f"INSERT INTO {table} VALUES\n{values};")
    facts = {
        "sort": [row[2] for row in things],
        "thing": [row[1] for row in things],
        "person": [row[1] for row in people],
        "town": towns,
        "year": list(range(1970, 1996)),
        "month": [f"{month:02d}" for month in range(1, 13)],
    }
    return "\n".join(lines), facts


def _day(rng: Any) -> str:
    return f"2024-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def _literal(value: int | str) -> str:
    return str(value) if isinstance(value, int) else f"'{value}'"
