"""Checks on SQL: names that are not there, rows beside the question, conditions left out.

What a database holds is read from what the attempt was shown of it (``CREATE TABLE …``), never from
the database itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from reagent_env.reward_models.rubric_finding import Finding
from reagent_env.reward_models.rubric_text import STOP_WORDS, is_number, tokens
from reagent_env.reward_models.rubric_view import Call, View

_NOT_THERE = re.compile(r"no such (?:table|column|function)|does not exist|unknown column", re.I)
_SCHEMA = re.compile(r"sqlite_master|sqlite_schema|information_schema|\bPRAGMA\b|\bEXPLAIN\b", re.I)
_TABLE = re.compile(r"CREATE TABLE (\w+) ?\(([^()]{0,4000})\)", re.IGNORECASE)
_LITERAL = re.compile(r"'([^']*)'|(?<![\w.])(\d+(?:\.\d+)?)(?!\w)")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_SCALED = re.compile(r"[)\w] ?[*/] ?(10+)(?:\.0+)?\b")
_CONVERTS = re.compile(
    r"\b(?:percent\w*|per cent|share|ratio|average|convert\w*|thousand\w*|in (?:cents|kilo\w*|km|kg))\b|%",
    re.IGNORECASE,
)
_WANTS_SUM = re.compile(r"\b(?:total|sum|add(?:s|ed|ing)? up|in all|altogether|come to)\b", re.I)
_WANTS_COUNT = re.compile(r"\b(?:how many|number of|count)\b", re.I)
_SUMS = re.compile(r"\b(?:SUM|TOTAL)\s*\(", re.I)
_COUNTS = re.compile(r"\bCOUNT\s*\(", re.I)
_ID = re.compile(r"^\s*SELECT\s+(?:DISTINCT\s+)?(?:\w+\.)?(?:id|\w+_id|rowid)\b", re.I)
_RANKS = re.compile(r"\bORDER\s+BY\b", re.I)
_KEYS = frozenset({"id", "name", "rowid"})
_MOST_COLUMNS = 60
_LISTING = re.compile(r"\s*SELECT \* FROM \w+ LIMIT", re.I)
"""A look at some rows of a table."""
_WANTS_ROW = re.compile(r"(?:^|\n|[,:] )\s*(?:which|who|whom|name)\b", re.I)
_FILLING = frozenset(
    ("after", "before", "over", "among", "any", "all", "each", "above", "below", "later", "earlier",
     "had", "has", "due", "differ", "given", "add", "does", "come", "alone", "more", "less", "between",
     "stands", "greater", "smaller", "values")
)  # fmt: skip
"""Words that may follow a column without being a value of it."""


def names_not_there(view: View) -> Iterator[Finding]:
    """A table or a column that the database does not have."""
    for call in _queries(view):
        if call.error is not None and _NOT_THERE.search(call.content[:2_000]):
            yield Finding(
                call.turn,
                "made_up_name",
                0.3,
                "the query asks for a table or a column that there is not",
                "Take the names of tables and columns from the database's own list.",
            )


def queries_beside_the_question(view: View) -> Iterator[Finding]:
    """Rows or figures of columns that the question has nothing to do with."""
    columns: set[str] = set()
    asks = {_stem(word) for word in view.question_tokens}
    for call in _queries(view):
        if (
            call.error is None
            and not _SCHEMA.search(call.sql)
            and columns
            and not call.trivial_code
        ):
            used = {word.lower() for word in _IDENTIFIER.findall(_LITERAL.sub(" ", call.sql))}
            used = {word for word in used & columns if word not in _KEYS and word[-3:] != "_id"}
            told = any(_in_question(view, value) for value in _literals(call.sql))
            if used and not told and not any(_stem(word) in asks for word in used):
                yield Finding(
                    call.turn,
                    "off_topic",
                    0.2,
                    "the query is about columns that the question has nothing to do with",
                    "Ask for what the question is about, and for nothing beside it.",
                    idle=True,
                )
        if call.error is None:
            columns |= {name for names in _tables(call.content).values() for name in names}


def conditions_left_out(view: View) -> Iterator[Finding]:
    """A value that the question gives for a column, and the query for the answer does not hold."""
    call = _answering(view)
    if call is None:
        return
    shown = "\n".join(each.content for each in _queries(view) if each.error is None)
    columns = {name for names in _tables(shown).values() for name in names} - _KEYS
    tables = set(_tables(shown))
    held = {value.lower() for value in _literals(call.sql)}
    question = view.question[:20_000]
    for column in sorted(columns)[:_MOST_COLUMNS]:
        for found in re.findall(rf"\b{re.escape(column)}\b(?: is| of| =|:)? ([a-z]\w+)", question):
            word = found.lower()
            if word in columns | tables | STOP_WORDS | _FILLING or word in held:
                continue
            yield Finding(
                call.turn,
                "part_ignored",
                0.45,
                "the query leaves out a value that the question gives for a column",
                "Go through the question and put each of its conditions into the query.",
                hindsight=True,
            )
            return


def values_scaled(view: View) -> Iterator[Finding]:
    """A figure multiplied or divided by a power of ten that the question gives no reason for."""
    if _CONVERTS.search(view.question):
        return
    for call in _queries(view):
        found = _SCALED.search(call.sql[:20_000])
        if found and found[1] not in view.question_tokens:
            yield Finding(
                call.turn,
                "unit_slip",
                0.4,
                "the query scales a figure although the question asks for no other unit",
                "Give figures in the unit in which the database has them.",
            )


def answer_from_the_query(view: View) -> Iterator[Finding]:
    """An answer that is a key, another figure than asked for, or not the row that ranks first."""
    call = _answering(view)
    if call is None or not view.answered or not view.final_answer:
        return
    question = view.question[-4_000:]
    wants_id = re.search(r"\b(?:ids?|identifiers?|keys?)\b", question, re.I)
    if _ID.match(call.sql) and not wants_id and is_number(view.final_answer.strip()):
        yield _not_asked(
            view, call, "the answer is a row's key, which the question did not ask for"
        )
        return
    counted = _COUNTS.search(call.sql) and not _SUMS.search(call.sql)
    if counted and _WANTS_SUM.search(question) and not _WANTS_COUNT.search(question):
        yield _not_asked(view, call, "rows were counted where a sum is asked for")
        return
    rows = [line.split(" | ") for line in call.content.splitlines()[1:]]
    rows = [row for row in rows if not row[0].startswith("(")]
    wanted = view.final_answer.strip().lower()
    if len(rows) > 1 and _RANKS.search(call.sql):
        first = [cell.strip().lower() for cell in rows[0]]
        others = [cell.strip().lower() for row in rows[1:] for cell in row]
        if wanted not in first and wanted in others:
            yield _not_asked(view, call, "the answer is not the row that ranks first")
            return
    cells = [cell.strip().lower() for row in rows for cell in row[1:]]
    named = bool(rows) and not is_number(rows[0][0].strip())
    if named and is_number(wanted) and wanted in cells and _WANTS_ROW.search(question):
        yield _not_asked(view, call, "the answer is a figure where a name is asked for")


def _not_asked(view: View, call: Call, seen: str) -> Finding:
    return Finding(
        view.turns[-1].index,
        "wrong_kind",
        0.45,
        seen,
        "Read once more what the question asks for, and take that from the result.",
    )


def _queries(view: View) -> Iterator[Call]:
    return (call for call in view.calls if call.sql)


def _answering(view: View) -> Call | None:
    """The last query whose result holds the final answer, or else the last about any rows."""
    if not view.answered:
        return None
    done = [c for c in _queries(view) if c.error is None and not _SCHEMA.search(c.sql)]
    answer = set(tokens(view.final_answer or ""))
    holding = [call for call in done if answer and answer <= set(tokens(call.content[:20_000]))]
    chosen = [call for call in holding or done if not _LISTING.match(call.sql)] or holding or done
    if not chosen:
        return None
    return chosen[0] if holding else chosen[-1]


def _tables(text: str) -> dict[str, list[str]]:
    """Table → its columns, where a text shows how it was created."""
    return {
        name.lower(): [part.split()[0].lower() for part in columns.split(",") if part.split()]
        for name, columns in _TABLE.findall(text[:50_000])
    }


def _literals(sql: str) -> list[str]:
    return [text or number for text, number in _LITERAL.findall(sql[:20_000])]


def _in_question(view: View, value: str) -> bool:
    words = tokens(value)
    return bool(words) and any(len(w) > 1 for w in words) and view.question_tokens.issuperset(words)


def _stem(word: str) -> str:
    return word.lower().rstrip("s")[:12]
