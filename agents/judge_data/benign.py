"""What differs from a clean run and is no worse: second looks, other words, other order, other code."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Iterator, Sequence

from reagent_env.agents.judge_data.playing import (
    CleanRun,
    Policy,
    Step,
    hits,
    resume,
    stands_in,
)
from reagent_env.agents.judge_data.voice import Call, Move

History = Sequence[tuple[tuple[Call, ...], tuple[str, ...]]]
"""The calls and the results of the turns so far."""


def second_looks(question: str, tools: Sequence[str], history: History) -> Iterator[Move]:
    """Justified further looks at what is known so far; each once, and none that was made before."""
    made = {repr(call) for calls, _ in history for call in calls}
    for call in _looks(question, tools, history):
        if repr(call) not in made:
            made.add(repr(call))
            yield Move(calls=(call,))


def _looks(question: str, tools: Sequence[str], history: History) -> Iterator[Call]:
    texts = [text for _, results in history for text in results]
    cells = [str(a["code"]) for calls, _ in history for n, a in calls if n == "python"]
    programs = [code for code in cells if not code.startswith(_CHECKS)]
    if "python" in tools and programs:
        yield ("python", {"code": _checking(programs[-1])})
    if "sql" in tools:
        yield from _query_looks(question, history)
    if "browse" in tools:
        asked = dict(_opened_by(history))
        for url, query in asked.items():  # the article itself, where a snippet was believed
            yield ("browse", {"url": url, "query": query})
        for url in asked:
            yield ("browse", {"url": url})
    if "file_reader" in tools:
        listed = re.findall(r"^(\S+\.\w+) \(", "\n".join(texts), re.MULTILINE)
        listed += re.findall(r"[\w.-]+\.\w+", question.partition("\nFiles: ")[2])
        stems = [name for name in listed if name.rsplit(".", 1)[0] in question.split("\n")[0]]
        for name in [*(n for n in listed if n.startswith("readme")), *stems]:
            yield ("file_reader", {"path": name})
    if "python" in tools and "browse" not in tools and "file_reader" not in tools:
        yield ("python", {"code": f"given = {question!r}\nprint(given.splitlines())"})
        yield ("python", {"code": f"import re\nprint(re.findall(r'[0-9][0-9.]*', {question!r}))"})


def _opened_by(history: History) -> Iterator[tuple[str, str]]:
    """The first hit of each search, the last search first, and the query that led to it."""
    for calls, results in reversed(history):
        for (name, arguments), text in zip(calls, results, strict=False):
            found = hits(text)
            if name == "search" and found and arguments.get("queries"):
                yield found[0][1], str(arguments["queries"][0])


def _query_looks(question: str, history: History) -> Iterator[Call]:
    """How many rows the last query takes up, and some rows of each table that it is about."""
    asked = [
        str(arguments["query"])
        for calls, results in history
        for (name, arguments), text in zip(calls, results, strict=False)
        if name == "sql" and "sqlite_master" not in str(arguments) and not text.startswith("Error")
    ]
    found = re.search(r" FROM (.*)$", asked[-1] if asked else "", re.DOTALL)
    if found is None:
        return
    rest = re.split(r" GROUP BY | ORDER BY | LIMIT ", found[1])[0]
    if " WHERE " in rest and "COUNT(*)" not in asked[-1]:
        yield ("sql", {"query": f"SELECT COUNT(*) FROM {rest}"})
    for table in re.findall(r"(?:^|JOIN )(\w+)", rest):
        if table in question:
            yield ("sql", {"query": f"SELECT * FROM {table} LIMIT 3"})


_CHECKS = ("def work_it_out", "print(len(rows)", "given = ", "import re\nprint(re.findall")


def _checking(code: str) -> str:
    """The same computation once more, in a form of its own, so that a slip would show."""
    if "rows = tables[table]" in code:
        return "print(len(rows), 'rows used'); print(rows[:2])"
    return in_function(code)


def in_function(code: str) -> str:
    """The same program as a function and its call."""
    if "'''" in code or '"""' in code:
        return f"{code}\n"
    if "print" not in code and "\n" not in code:  # a bare expression, whose value a cell shows
        return f"def work_it_out():\n    return {code}\n\nwork_it_out()"
    indented = "\n".join(f"    {line}" if line else line for line in code.splitlines())
    return f"def work_it_out():\n{indented}\n\nwork_it_out()"


# Twins --------------------------------------------------------------------------------------------

Twin = Callable[[CleanRun, random.Random], tuple[int, Policy] | None]
"""From a clean run to the first turn that differs and the moves from the start; None if it can't."""


def _second_look(run: CleanRun, rng: random.Random) -> tuple[int, Policy] | None:
    """One justified look more, somewhere before the answer."""
    places = list(range(1, run.length))
    rng.shuffle(places)
    for place in places:
        looks = list(second_looks(run.task.question, run.tools, _history(run.steps[:place])))
        if looks:
            return place, _inserted(run, place, looks[:1])
    return None


def _longer_path(run: CleanRun, rng: random.Random) -> tuple[int, Policy] | None:
    """Two looks more before the answer."""
    looks = list(second_looks(run.task.question, run.tools, _history(run.steps)))
    if len(looks) < 2:
        return None
    return run.length - 1, _inserted(run, run.length - 1, looks[:2])


def _split_batch(run: CleanRun, rng: random.Random) -> tuple[int, Policy] | None:
    """A search with several queries, made as one search a query."""
    for turn in run.call_turns():
        calls = run.steps[turn].move.calls
        if len(calls) == 1 and calls[0][0] == "search" and len(calls[0][1]["queries"]) > 1:
            queries = calls[0][1]["queries"][:4]
            if len(queries) < len(calls[0][1]["queries"]):
                return None
            moves = [Move(calls=(("search", {**calls[0][1], "queries": [q]}),)) for q in queries]
            return turn, _replaced(run, turn, moves)
    return None


def _reordered(run: CleanRun, rng: random.Random) -> tuple[int, Policy] | None:
    """Calls or queries that run together, in another order."""
    for turn in run.call_turns():
        calls = run.steps[turn].move.calls
        if len(calls) > 1:
            return turn, _replaced(run, turn, [Move(calls=tuple(reversed(calls)))])
        name, arguments = calls[0]
        if name == "search" and len(arguments["queries"]) > 1:
            turned = {**arguments, "queries": list(reversed(arguments["queries"]))}
            return turn, _replaced(run, turn, [Move(calls=((name, turned),))])
    return None


def _equivalent_code(run: CleanRun, rng: random.Random) -> tuple[int, Policy] | None:
    """A program written otherwise that prints the same."""
    for turn in run.call_turns():
        calls = run.steps[turn].move.calls
        if len(calls) == 1 and calls[0][0] == "sql" and turn:
            query = f"SELECT * FROM ({calls[0][1]['query']})"
            return turn, _replaced(run, turn, [Move(calls=(("sql", {"query": query}),))])
        if len(calls) == 1 and calls[0][0] == "python":
            code = str(calls[0][1]["code"])
            if "rows = tables[table]" in code:
                other = re.sub(r"\bkeep\b", "store", re.sub(r"\btables\b", "by_name", code))
            else:
                other = in_function(code)
            if other == code:
                return None
            return turn, _replaced(run, turn, [Move(calls=(("python", {"code": other}),))])
    return None


def _rephrased(run: CleanRun, rng: random.Random) -> tuple[int, Policy] | None:
    """The same moves under other thoughts (the voice's salt differs)."""
    return 0, same_moves(run.steps)


TWINS: dict[str, Twin] = {
    "rephrased": _rephrased,
    "second_look": _second_look,
    "longer_path": _longer_path,
    "split_batch": _split_batch,
    "reordered": _reordered,
    "equivalent_code": _equivalent_code,
}
"""Kind of benign twin → how it is made."""


def twin_is_true(run: CleanRun, steps: Sequence[Step]) -> bool:
    """Whether a played twin came to the same answer, still on what it was answered."""
    seen = "\n".join(text for step in steps for text in step.results)
    same = steps[-1].move.answer == run.answer
    failed = any(
        re.search(r"Traceback|Error:|^error", text, re.M) for s in steps for text in s.results
    )
    grounded = stands_in(run.answer, seen) or not stands_in(run.answer, run.seen(run.length))
    return same and grounded and not failed


def _history(steps: Sequence[Step]) -> list[tuple[tuple[Call, ...], tuple[str, ...]]]:
    return [(step.move.calls, step.results) for step in steps]


def _inserted(run: CleanRun, place: int, looks: Sequence[Move]) -> Policy:
    yield from verbatim(run.steps[:place])
    for look in looks:  # noqa: UP028 (results are sent in, which a list does not take)
        yield look
    yield from resume(run, place)


def _replaced(run: CleanRun, turn: int, moves: Sequence[Move]) -> Policy:
    yield from verbatim(run.steps[:turn])
    for move in moves:  # noqa: UP028
        yield move
    yield from resume(run, turn + 1)


def verbatim(steps: Sequence[Step]) -> Policy:
    """The steps' completions as they are."""
    for step in steps:
        yield dataclasses.replace(step.move, written=step.completion)


def same_moves(steps: Sequence[Step]) -> Policy:
    """The steps' moves, to be said anew."""
    for step in steps:
        yield step.move
