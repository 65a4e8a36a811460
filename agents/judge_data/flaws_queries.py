"""The flaws where one tool answers SQL: queries changed, tables made up, rows misread."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Mapping

from reagent_env.agents.judge_data.flaws import FlawKind, Plant, flaw_kinds
from reagent_env.agents.judge_data.flaws_answers import is_number
from reagent_env.agents.judge_data.flaws_calls import inserted, perturbed
from reagent_env.agents.judge_data.playing import CleanRun, Policy, numbers, solve_on
from reagent_env.agents.judge_data.voice import Call, Move

_TABLE = re.compile(r"^(\w+) \| CREATE TABLE \w+ \((.*)\)$", re.MULTILINE)
_COLUMN = re.compile(r"(\w+) (INTEGER|TEXT)")
_AGGREGATE = re.compile(r"(SUM|MAX)\(([\w.]+)\)")


def _asking(query: str) -> Move:
    return Move(calls=(("sql", {"query": query}),))


def _query(run: CleanRun) -> tuple[int, str] | None:
    """The turn of the query that the question is about, and the query."""
    turn = run.length - 2
    calls = run.steps[turn].move.calls
    return (turn, str(calls[0][1]["query"])) if turn > 0 and len(calls) == 1 else None


def _changed(run: CleanRun, turn: int, query: str) -> Plant:
    """Another query at ``turn``; the expert goes on with what that gives."""

    def policy() -> Policy:
        results = yield _asking(query)
        yield from solve_on(run, turn, results)

    return Plant(turn, policy())


def _columns(run: CleanRun) -> Mapping[str, list[tuple[str, str]]]:
    """Table → (name, type) of its columns, as the first look showed them."""
    return {name: _COLUMN.findall(columns) for name, columns in _TABLE.findall(run.seen(1))}


def _needless_call(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """A figure of the same tables that nobody asked for, when the answer is there."""
    found = _query(run)
    figures = [
        f"SELECT {what}({column}) FROM {table}"
        for table, columns in _columns(run).items()
        for column, kind in columns
        if found and kind == "INTEGER" and not column.endswith("id") and column not in found[1]
        for what in ("AVG", "MIN", "MAX")
    ]
    return inserted(run, run.length - 1, _asking(rng.choice(figures))) if figures else None


def _purposeless_lookup(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """Rows that serve another question."""
    found = _query(run)
    listings = [
        f"SELECT {column}, COUNT(*) FROM {table} GROUP BY {column} LIMIT 5"
        for table, columns in _columns(run).items()
        for column, kind in columns
        if found and kind == "TEXT" and f"{column} " not in found[1] and column != "name"
    ]
    listings.append("SELECT 'hello'")
    at = rng.randint(1, run.length - 1)
    return inserted(run, at, _asking(rng.choice(listings)))


def _wrong_tool(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    found = _query(run)
    if found is None:
        return None
    turn, query = found
    asked = run.task.question.split("\n")[-1]
    choices: list[Call] = [
        ("python", {"code": f"print(database.execute({query!r}))"}),
        ("search", {"query": asked}),
        ("calculator", {"expression": query}),
    ]
    return inserted(run, turn, Move(calls=(rng.choice(choices),)))


def _hallucinated_argument(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """A table or a column that there is not."""
    found = _query(run)
    if found is None:
        return None
    turn, query = found
    tables = [table for table in _columns(run) if re.search(rf"\b{table}\b", query)]
    table = rng.choice(tables)
    aggregate = _AGGREGATE.search(query)
    changes = [re.sub(rf"\b{table}\b", f"{table}_{rng.choice(['archive', 'old'])}", query, count=1)]
    if aggregate:
        changes.append(query.replace(aggregate[2], f"{aggregate[2]}_{rng.choice(['net', 'eur'])}"))
    return inserted(run, turn, _asking(rng.choice(changes)))


def _dropped_condition(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    found = _query(run)
    if found is None:
        return None
    turn, query = found
    changed = re.sub(r" AND (?:(?! AND ).)*?(?= GROUP BY|$)", "", query, count=1)
    if changed == query:
        changed = re.sub(r" WHERE .*?(?= GROUP BY|$)", "", query, count=1)
    return None if changed == query else _changed(run, turn, changed)


def _unit_slip(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    found = _query(run)
    if found is None or not is_number(run.answer):
        return None
    turn, query = found
    scaled = rng.choice((" * 1000", " / 100.0", " * 100"))
    changed = _AGGREGATE.sub(lambda one: one[0] + scaled, query, count=1)
    return None if changed == query else _changed(run, turn, changed)


def _ignored_result(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """The second row, or a number of the question, in place of what the query gave."""
    rows = [line.split(" | ") for line in run.steps[-2].results[0].splitlines()[1:-1]]
    pool = [row[0] for row in rows[1:]] + [cell for row in rows for cell in row[1:]]
    pool += [number for number in numbers(run.task.question) if len(number) > 2]
    pool = [one for one in pool if one != run.answer]
    return _answering(run, run.length - 1, rng.choice(pool)) if pool else None


def _skipped_hop(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """What the joined rows were to be found by, as the answer."""
    found = _query(run)
    if found is None:
        return None
    turn, query = found
    person = re.search(r"JOIN (\w+) p ON", query)
    named = re.search(r"WHERE p\.(\w+) (=|>) ('[^']*'|\d+)", query)
    if query.startswith(("SELECT p.name,", "SELECT t.name,")):
        return _changed(run, turn, query.replace(".name,", ".id,", 1))
    if person is None or named is None:
        return None
    what = "id" if named[1] == "name" else "COUNT(*)"
    step = f"SELECT {what} FROM {person[1]} WHERE {named[1]} {named[2]} {named[3]}"
    return _changed(run, turn, step)


def _fabricated_result(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """As if the query had been made; now and then with what it would have given."""
    found = _query(run)
    if found is None:
        return None
    turn, _ = found
    answer = run.answer
    if rng.random() >= 0.4:
        if not is_number(answer):
            return None
        answer = perturbed(answer, rng)
    belief = run.steps[turn].results[0].splitlines()[1].replace(run.answer, answer, 1)

    def policy() -> Policy:
        yield Move(answer=answer, belief=belief, stated=True)

    return Plant(turn, policy(), shift=-1)


def _answering(run: CleanRun, at: int, answer: str) -> Plant:
    def policy() -> Policy:
        yield Move(answer=answer)

    return Plant(at, policy(), shift=at + 1 - run.length)


_CRITIQUES: Mapping[str, str] = {
    "dropped_condition": "The query of the {turn} turn leaves out a part of what the question "
    "gives. Compare it with the question, part by part, before running it.",
    "unit_slip": "The query of the {turn} turn scales a value without reason. Keep the units as the "
    "database has them.",
    "hallucinated_argument": "The {turn} turn asks for a table or a column that no result has shown. "
    "Take names from the database's own list.",
}
_NO_KIND_HERE = ("stale_value", "distractor")


def _kinds() -> tuple[FlawKind, ...]:
    """All kinds that make sense, those that depend on the tool planted as above."""
    own: dict[str, Callable[[CleanRun, CleanRun, random.Random], Plant | None]] = {
        "needless_call": _needless_call,
        "purposeless_lookup": _purposeless_lookup,
        "wrong_tool": _wrong_tool,
        "hallucinated_argument": _hallucinated_argument,
        "dropped_condition": _dropped_condition,
        "unit_slip": _unit_slip,
        "ignored_result": _ignored_result,
        "skipped_hop": _skipped_hop,
        "fabricated_result": _fabricated_result,
    }
    return tuple(
        dataclasses.replace(
            kind,
            plant=own.get(name, kind.plant),
            critique=_CRITIQUES.get(name, kind.critique),
        )
        for name, kind in flaw_kinds().items()
        if name not in _NO_KIND_HERE
    )


KINDS = _kinds()
"""The kinds that are planted in SQL."""
