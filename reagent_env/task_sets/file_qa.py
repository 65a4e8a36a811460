"""FileQA: questions over generated tables in csv, xlsx, docx, pdf and zip files.

A task is made from split and index alone: a table of records, a second table to join with, files to
hide them among, and a question whose answer is computed from the records exactly. Not here: the file
formats (``file_formats.py``), the programs that solve (``file_qa_programs.py``).
"""

from __future__ import annotations

import calendar
import datetime
import functools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from reagent_env.task import Task
from reagent_env.task_sets.file_formats import (
    Rows,
    csv_bytes,
    docx_bytes,
    pdf_bytes,
    xlsx_bytes,
    zip_bytes,
)
from reagent_env.task_sets.file_qa_phrasings import PHRASINGS, THEMES, Theme
from reagent_env.task_sets.file_qa_programs import expert_program
from reagent_env.task_sets.lazy import LazyTaskSet
from reagent_env.task_sets.phrasing import choose_phrasing, content_split, stable_random

__all__ = ["KINDS", "LAYOUTS", "LEVELS", "SIZES", "expert_program", "file_qa"]

SIZES: Mapping[str, int] = {"train": 1600, "validation": 200, "test": 200}
LEVELS = (1, 2, 3)
KINDS = tuple(PHRASINGS)
_ROWS = {1: (30, 70), 2: (80, 120), 3: (150, 260)}
_MAX_DRAWS = 400


@dataclass(frozen=True)
class Record:
    """One line of the main table; ``amount`` is in hundredths."""

    key: str
    day: datetime.date
    place: str
    item: str
    count: int
    amount: int
    person: str


@dataclass(frozen=True)
class Problem:
    """A theme's records, and what the second table says of each item."""

    theme: Theme
    year: int
    records: tuple[Record, ...]
    groups: Mapping[str, str]
    owners: Mapping[str, str]


def file_qa(
    split: str | None = None,
    levels: Sequence[int] = LEVELS,
    kinds: Sequence[str] = KINDS,
    sizes: Mapping[str, int] = SIZES,
) -> LazyTaskSet:
    """Questions of all kinds, levels and layouts in turn, 2,000 by default.

    Args:
        split: ``train``, ``validation``, ``test``, or None for all.
        levels: which of the levels 1 (few rows, one condition) to 3 (many rows, files to hide in).
        kinds: which of :data:`KINDS`.
        sizes: tasks in each split.

    Raises:
        ValueError: for an unknown level or kind.
    """
    unknown: list[object] = [kind for kind in kinds if kind not in KINDS]
    unknown += [level for level in levels if level not in LEVELS]
    if unknown or not kinds or not levels:
        raise ValueError(
            f"Unknown or no kinds or levels: {unknown}; known kinds: {', '.join(KINDS)}; "
            f"known levels: {', '.join(map(str, LEVELS))}."
        )
    return LazyTaskSet(
        "file_qa", sizes, functools.partial(_make, tuple(kinds), tuple(levels)), split
    )


def _make(kinds: Sequence[str], levels: Sequence[int], split: str, index: int) -> Task:
    kind = kinds[index % len(kinds)]
    level = levels[index // len(kinds) % len(levels)]
    layout = tuple(LAYOUTS)[index // len(kinds) // len(levels) % len(LAYOUTS)]
    random_ = stable_random("file_qa", kind, level, layout, split, index)
    for _ in range(_MAX_DRAWS):
        problem = _draw_problem(random_, level, layout)
        found = _QUESTIONS[kind](random_, problem, level)
        if found is None:
            continue
        facts, answer, options = found
        if content_split(_content(kind, problem, facts)) != split:
            continue
        phrasing, template = choose_phrasing(random_, PHRASINGS[kind], split)
        names = problem.theme.names() | {"table": _table_name(problem)}
        files = _files(random_, problem, level, layout)
        return Task(
            question=f"{template.format(**names, **facts)}\nFiles: {', '.join(sorted(files))}",
            answer=answer,
            grader="exact" if options is None else "number",
            files=files,
            metadata={
                "kind": kind,
                "level": level,
                "layout": layout,
                "phrasing": phrasing,
                "split": split,
                "grader_options": options or {},
            },
        )
    raise ValueError(f"No {kind!r} question of level {level} in {_MAX_DRAWS} draws.")


def _content(kind: str, problem: Problem, facts: Mapping[str, str]) -> str:
    rows = _main_rows(problem, problem.records)
    return json.dumps([kind, sorted(facts.items()), rows, sorted(problem.groups.items())])


# --- the records --------------------------------------------------------------------------------


def _draw_problem(random_: random.Random, level: int, layout: str) -> Problem:
    theme = random_.choice(THEMES)
    year = random_.randrange(2011, 2025)
    low, high = _ROWS[level]
    if layout in ("pdf", "docx"):  # nobody keeps long tables in these
        high = min(high, 120)
        low = min(low, 90)
    places = random_.sample(theme.places, 5 + 2 * level)
    items = random_.sample(theme.items, 6 + 2 * level)
    people = random_.sample(theme.people, 4 + 2 * level)
    keys = random_.sample(range(1000, 9999), high)
    records = tuple(
        Record(
            key=f"{theme.prefix}-{keys[number]}",
            day=datetime.date(year, 1, 1)
            + datetime.timedelta(random_.randrange(366 if calendar.isleap(year) else 365)),
            place=random_.choice(places),
            item=random_.choice(items),
            count=random_.randrange(2, 500),
            amount=random_.randrange(150, 99_999),
            person=random_.choice(people),
        )
        for number in range(random_.randrange(low, high))
    )
    groups = random_.sample(theme.groups, 3 + level)
    return Problem(
        theme,
        year,
        records,
        {item: random_.choice(groups) for item in items},
        dict(zip(items, random_.sample(theme.owners, len(items)), strict=True)),
    )


def _table_name(problem: Problem) -> str:
    return f"{problem.theme.table}_{problem.year}"


def _money(hundredths: int) -> str:
    return f"{hundredths // 100}.{hundredths % 100:02d}"


def _main_rows(problem: Problem, records: Sequence[Record]) -> list[list[str | int]]:
    theme = problem.theme
    header: list[str | int] = [theme.key, "date", theme.place, theme.item, theme.count]
    header += [theme.amount, theme.person]
    rows: list[list[str | int]] = [
        [r.key, r.day.isoformat(), r.place, r.item, r.count, _money(r.amount), r.person]
        for r in records
    ]
    return [header, *rows]


# --- the questions ------------------------------------------------------------------------------

Found = tuple[Mapping[str, str], Any, Mapping[str, Any] | None]
"""What fills the phrasing, the answer, and options of the number grader (None: exact)."""


_ANY_UNIT = {"any_unit": True}  # the question names what is counted; "12 crates" is right
_MONEY = {"abs_tol": 0.0101, "rel_tol": 0.0, "unit": ["$", "€", "£"]}  # no currency is named


def _conditions(random_: random.Random, problem: Problem, many: int) -> tuple[str, list[Record]]:
    """Conditions in words, and the records that meet them all."""
    theme = problem.theme
    sample = random_.choice(problem.records)
    bound = random_.randrange(50, 250) * 100 + 50
    month = f"{calendar.month_name[sample.day.month]} {sample.day.year}"
    drawn: list[tuple[str, Callable[[Record], bool]]] = [
        (f'{theme.place} is "{sample.place}"', lambda r: r.place == sample.place),
        (f'{theme.person} is "{sample.person}"', lambda r: r.person == sample.person),
        (f"{theme.amount} is above {_money(bound)}", lambda r: r.amount > bound),
        (f"date is in {month}", lambda r: r.day.month == sample.day.month),
    ]
    chosen = random_.sample(drawn, many)
    records = [r for r in problem.records if all(meets(r) for _, meets in chosen)]
    return " and ".join(words for words, _ in chosen), records


def _how_many_conditions(level: int) -> int:
    return 1 if level == 1 else 2


def _sum(random_: random.Random, problem: Problem, level: int) -> Found | None:
    words, records = _conditions(random_, problem, _how_many_conditions(level))
    if len(records) < 3:
        return None
    return {"conditions": words}, str(sum(r.count for r in records)), _ANY_UNIT


def _average(random_: random.Random, problem: Problem, level: int) -> Found | None:
    words, records = _conditions(random_, problem, _how_many_conditions(level))
    if len(records) < 3:
        return None
    mean = Decimal(sum(r.amount for r in records)) / len(records) / 100
    answer = str(mean.quantize(Decimal("0.01"), ROUND_HALF_UP))
    return {"conditions": words}, answer, _MONEY


def _join_sum(random_: random.Random, problem: Problem, level: int) -> Found | None:
    words, records = _conditions(random_, problem, 1 if level < 3 else 2)
    group = random_.choice(sorted(set(problem.groups.values())))
    records = [r for r in records if problem.groups[r.item] == group]
    if len(records) < 3:
        return None
    return {"conditions": words, "value": group}, str(sum(r.count for r in records)), _ANY_UNIT


def _count(random_: random.Random, problem: Problem, level: int) -> Found | None:
    words, records = _conditions(random_, problem, 1)
    bound = random_.randrange(100, 450)
    records = [r for r in records if r.count < bound]
    if len(records) < 10:  # small numbers could be guessed
        return None
    return {"conditions": words, "bound": str(bound)}, str(len(records)), _ANY_UNIT


def _best_item(random_: random.Random, problem: Problem, level: int) -> Found | None:
    words, records = _conditions(random_, problem, 1)
    totals: dict[str, int] = {}
    for r in records:
        totals[r.item] = totals.get(r.item, 0) + r.count
    ranked = sorted(totals.values(), reverse=True)
    if len(ranked) < 5 or ranked[0] == ranked[1]:
        return None
    return {"conditions": words}, max(totals, key=lambda item: totals[item]), None


def _largest(random_: random.Random, problem: Problem, level: int) -> Found | None:
    words, records = _conditions(random_, problem, 1)
    rank = random_.randrange(1, 2 + level)
    ranked = sorted(records, key=lambda r: -r.amount)
    if len(ranked) < rank + 3 or len({r.amount for r in ranked}) < len(ranked):
        return None
    return {"conditions": words, "rank": str(rank)}, ranked[rank - 1].key, None


def _two_hops(random_: random.Random, problem: Problem, level: int) -> Found | None:
    record = random_.choice(problem.records)
    return {"value": record.key}, problem.owners[record.item], None


def _days(random_: random.Random, problem: Problem, level: int) -> Found | None:
    words, records = _conditions(random_, problem, _how_many_conditions(level))
    days = sorted(r.day for r in records)
    if len(days) < 3 or (days[-1] - days[0]).days < 10:
        return None
    return (
        {"conditions": words},
        str((days[-1] - days[0]).days),
        {"unit": ["days", "calendar days"]},
    )


_QUESTIONS: Mapping[str, Callable[[random.Random, Problem, int], Found | None]] = {
    "sum": _sum,
    "average": _average,
    "join_sum": _join_sum,
    "count": _count,
    "best_item": _best_item,
    "largest": _largest,
    "two_hops": _two_hops,
    "days": _days,
}


# --- the files ----------------------------------------------------------------------------------


def _tables(random_: random.Random, problem: Problem, level: int) -> dict[str, Rows]:
    """Main table first, then the one to join with, then those that only stand in the way."""
    theme = problem.theme
    extra: list[list[str | int]] = [["checked_by"]]
    if level > 1:
        extra[0] += [f"{theme.count}_planned", "remark"]
    for _ in problem.records:
        row: list[str | int] = [random_.choice(theme.people)]
        extra.append(row)
        if level > 1:
            row += [random_.randrange(2, 500), random_.choice(("", "late", "ok", "see file"))]
    rows = [a + b for a, b in zip(_main_rows(problem, problem.records), extra, strict=True)]
    order = list(range(len(rows[0])))
    random_.shuffle(order)
    second: list[list[str | int]] = [[theme.item, theme.group, theme.owner, "since"]]
    second += [
        [item, problem.groups[item], problem.owners[item], random_.randrange(1990, 2010)]
        for item in random_.sample(sorted(problem.groups), len(problem.groups))
    ]
    tables: dict[str, Rows] = {
        _table_name(problem): [[row[i] for i in order] for row in rows],
        theme.second: second,
    }
    if level > 1:
        older = _main_rows(problem, random_.sample(problem.records, 20))
        for row in older[1:]:
            row[1] = str(row[1]).replace(str(problem.year), str(problem.year - 1))
            row[4] = random_.randrange(2, 500)
        tables[f"{theme.table}_{problem.year - 1}"] = older
    if level > 2:
        contacts: list[list[str | int]] = [[theme.person, "room", "extension"]]
        contacts += [
            [p, random_.randrange(1, 90), random_.randrange(100, 999)] for p in theme.people
        ]
        tables["contacts"] = contacts
    return tables


def _as_csv(tables: Mapping[str, Rows], delimiter: str = ",") -> dict[str, bytes]:
    return {f"{name}.csv": csv_bytes(rows, delimiter) for name, rows in tables.items()}


def _in_csv(tables: Mapping[str, Rows]) -> dict[str, bytes]:
    return _as_csv(tables)


def _in_semicolon_csv(tables: Mapping[str, Rows]) -> dict[str, bytes]:
    return _as_csv(tables, ";")


def _in_workbook(tables: Mapping[str, Rows]) -> dict[str, bytes]:
    return {"workbook.xlsx": xlsx_bytes(tables)}


def _in_zip(tables: Mapping[str, Rows]) -> dict[str, bytes]:
    return {"archive.zip": zip_bytes({f"data/{n}": b for n, b in _as_csv(tables).items()})}


def _in_zipped_workbook(tables: Mapping[str, Rows]) -> dict[str, bytes]:
    return {"archive.zip": zip_bytes({"workbook.xlsx": xlsx_bytes(tables)})}


def _in_pdf(tables: Mapping[str, Rows]) -> dict[str, bytes]:
    main, second, *others = tables
    return {
        f"{main}.pdf": pdf_bytes(main, tables[main]),
        **_as_csv({second: tables[second]}),
        **{f"{name}.pdf": pdf_bytes(name, tables[name]) for name in others},
    }


def _in_docx(tables: Mapping[str, Rows]) -> dict[str, bytes]:
    main, second, *others = tables
    return {
        f"{main}.docx": docx_bytes(main, tables[main]),
        f"{second}.pdf": pdf_bytes(second, tables[second]),
        **_as_csv({name: tables[name] for name in others}),
    }


def _in_mixture(tables: Mapping[str, Rows]) -> dict[str, bytes]:
    main, second, *others = tables
    return {
        f"{main}.xlsx": xlsx_bytes({main: tables[main], **{n: tables[n] for n in others}}),
        f"{second}.docx": docx_bytes(second, tables[second]),
    }


LAYOUTS: Mapping[str, Callable[[Mapping[str, Rows]], dict[str, bytes]]] = {
    "csv": _in_csv,
    "xlsx": _in_workbook,
    "zip": _in_zip,
    "pdf": _in_pdf,
    "docx": _in_docx,
    "semicolon_csv": _in_semicolon_csv,
    "zipped_xlsx": _in_zipped_workbook,
    "mixture": _in_mixture,
}
"""How the tables are put into files, by name."""


def _files(random_: random.Random, problem: Problem, level: int, layout: str) -> dict[str, bytes]:
    tables = _tables(random_, problem, level)
    names = list(tables)
    ordered = LAYOUTS[layout](tables)
    note = (
        f"Tables: {', '.join(sorted(names))}.\n"
        f"{problem.theme.second} tells the {problem.theme.group} and {problem.theme.owner} of each "
        f"{problem.theme.item}. Dates are year-month-day.\n"
    )
    return {"readme.txt": note.encode(), **ordered}
