"""Flaws in what is taken for true: wrong rows, wrong units, old values, a result never obtained."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from reagent_env.agents.judge_data.flaws import FlawKind, Plant
from reagent_env.agents.judge_data.flaws_calls import perturbed
from reagent_env.agents.judge_data.playing import CleanRun, Policy, hits, numbers, solve_on
from reagent_env.agents.judge_data.voice import Move, excerpt


def _with_code(run: CleanRun, turn: int, code: str) -> Plant:
    """The program of ``turn`` changed to ``code``; the expert goes on with what that prints."""

    def policy() -> Policy:
        results = yield Move(calls=(("python", {"code": code}),))
        yield from solve_on(run, turn, results)

    return Plant(turn, policy())


def _program(run: CleanRun) -> tuple[int, str] | None:
    for turn in reversed(run.call_turns()):
        calls = run.steps[turn].move.calls
        if len(calls) == 1 and calls[0][0] == "python":
            return turn, str(calls[0][1]["code"])
    return None


def _dropped_condition(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    found = _program(run)
    if found is None:
        return None
    turn, code = found
    if "rows = tables[table]" in code:
        changed = re.sub(r"^conditions = .*\n", "", code, count=1, flags=re.MULTILINE)
    else:
        changed = _without_last(code)
    return None if changed == code else _with_code(run, turn, changed)


def _without_last(code: str) -> str:
    """The program with the last of its inputs left out."""
    lists = re.sub(r", ?-?\d+\](?!.*\])", "]", code, count=1)
    if lists != code:
        return lists
    calls = re.sub(r"(lcm|gcd)\((\d+), \d+\)", r"\1(\2)", code)
    if calls != code:
        return calls

    if "\n" not in code and "=" not in code:  # a bare sum
        return re.sub(r" [-+*/] [\d.]+$", "", code)

    def shorter(literal: re.Match[str]) -> str:
        inside = literal[2]
        cut = re.sub(r"\s*[,+\-*]\s*[\w.]+$", "", inside)
        words = inside.split()
        if cut == inside and len(words) > 8:
            cut = " ".join(words[: -len(words) // 3])
        return literal[1] + (cut if _balanced(cut) else inside) + literal[3]

    return re.sub(r"^(\w+ = ')(.*)(')$", shorter, code, count=2, flags=re.MULTILINE)


def _balanced(text: str) -> bool:
    return bool(text) and text.count("(") == text.count(")")


def _unit_slip(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    found = _program(run)
    if found is None:
        return None
    turn, code = found
    if "rows = tables[table]" in code:
        changed = code
        for old, new in (
            ("int(row[count]) for", "1000 * int(row[count]) for"),
            ("+ int(row[count])", "+ 100 * int(row[count])"),
            ("sum(Decimal(row[amount])", "sum(Decimal(row[amount]) / 100"),
            ("(days[-1] - days[0]).days", "(days[-1] - days[0]).days * 24"),
            ("Decimal(row[column]) >", "1000 * Decimal(row[column]) >"),
        ):
            if old in code and (old != "Decimal(row[column]) >" or "conditions = " in code):
                changed = code.replace(old, new)
                break
    elif "search" in run.tools:
        places = list(re.finditer(r"(?<![\w.\"'-])\d{2,}(?![\w.\"'-])", code))
        if not places:
            return None
        chosen = rng.choice(places)
        times = rng.choice([10, 100, 1000])
        changed = f"{code[: chosen.start()]}{chosen[0]} * {times}{code[chosen.end() :]}"
    else:
        return None
    return None if changed == code else _with_code(run, turn, changed)


def _stale_value(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    found = _program(run)
    if found is None:
        return None
    turn, code = found
    table = re.search(r"^table = '(\w+?)_(\d{4})'$", code, re.MULTILINE)
    if table:
        files = run.task.question.partition("\nFiles: ")[2] + run.seen(turn)
        years = set(re.findall(rf"{table[1]}_(\d{{4}})", files)) - {table[2]}
        if not years:
            return None
        old = f"table = '{table[1]}_{sorted(years)[0]}'"
        return _with_code(run, turn, code.replace(table[0], old, 1))
    if "search" not in run.tools:
        return None
    values = list(dict.fromkeys(re.findall(r"(?<![\w.-])\d{2,}(?![\w.-])", code)))
    looked_up = [v for v in values if v in numbers(run.seen(turn))]
    if len(looked_up) < 2:
        return None
    changed = re.sub(rf"(?<!\d){looked_up[-1]}(?!\d)", looked_up[0], code)
    return _with_code(run, turn, changed)


def _distractor(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """Takes what the second hit says of another thing for a fact about the first."""
    turns = list(run.call_turns())
    rng.shuffle(turns)
    for turn in turns:
        results = run.steps[turn].results
        found = hits(results[0]) if results else []
        if len(found) < 2:
            continue
        (title, _, right), (second, _, wrong) = found[0], found[1]
        believed = wrong.replace(second, title)
        misread = results[0].replace(f"    {right}", f"    {believed}", 1)
        belief = f"{title}: {believed}"
        plant = _after_belief(run, turn, [misread, *results[1:]], belief, _new(wrong, right))
        if plant is not None:
            return plant
    return None


def _after_belief(
    run: CleanRun, turn: int, misread: Sequence[str], belief: str, taken: set[str]
) -> Plant | None:
    """Goes on after ``turn`` as if ``misread``, provided that the next move rests on ``taken``."""
    move = next(solve_on(run, turn, misread))
    said = repr(move.calls) + (move.answer or "")
    if not any(word in said.replace(",", "") for word in taken) or move.answer == "unknown":
        return None
    if _plain(move) == _plain(run.steps[turn + 1].move):
        return None  # the second hit was the one to go by

    def policy() -> Policy:
        rest = solve_on(run, turn, misread)
        first = next(rest)
        results = yield Move(calls=first.calls, answer=first.answer, belief=belief)
        while True:
            try:
                results = yield rest.send(results)
            except StopIteration:
                return

    return Plant(turn + 1, policy())


def _new(text: str, than: str) -> set[str]:
    """Names and numbers in one sentence that the other does not have."""

    def marks(one: str) -> set[str]:
        names = re.findall(r"[A-Z][a-z]{3,}", one)
        return {*names, *(n for n in numbers(one) if len(n) > 1)}

    return marks(text) - marks(than)


def _fabricated_result(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """Goes on as if a call had been made and answered; now and then with what it would have said."""
    turns = [t for t in run.call_turns() if run.steps[t].results]
    if "file_reader" in run.tools and "search" not in run.tools:
        turns = [t for t in turns if run.steps[t].move.calls[0][0] == "python"]
    lucky = rng.random() < 0.4
    rng.shuffle(turns)
    for turn in turns:
        results = run.steps[turn].results
        invented = results[0] if lucky else altered(results[0], other, rng)
        if invented is None:
            continue
        seen = [invented, *results[1:]]
        move = next(solve_on(run, turn, seen))
        wrong_way = not lucky and repr(move) == repr(_plain(run.steps[turn + 1].move))
        if wrong_way or move.answer == "unknown":
            continue
        return _fabricated(run, turn, seen)
    return None


def _fabricated(run: CleanRun, turn: int, seen: Sequence[str]) -> Plant:
    def policy() -> Policy:
        rest = solve_on(run, turn, seen)
        first = next(rest)
        belief = excerpt("\n".join(seen))
        results = yield Move(calls=first.calls, answer=first.answer, belief=belief)
        while True:
            try:
                results = yield rest.send(results)
            except StopIteration:
                return

    return Plant(turn, policy(), shift=-1)


def _plain(move: Move) -> Move:
    return Move(calls=move.calls, answer=move.answer)


def altered(text: str, other: CleanRun, rng: random.Random) -> str | None:
    """A tool's answer with its main fact changed, or None where there is none to change."""
    found = hits(text)
    fact = found[0][2] if found else text.strip().split("\n")[-1]
    digits = re.search(r"\d[\d,.]*\d|\d", fact)
    if digits:
        changed = fact[: digits.start()] + perturbed(digits[0], rng) + fact[digits.end() :]
        return text.replace(fact, changed, 1)
    if found:
        title = found[0][0]
        names = [n for n in re.findall(r"[A-Z][a-z]{3,}", fact) if n not in title]
        strangers = [t for t, _, _ in hits(other.seen(other.length)) if " " not in t]
        if not names or not strangers:
            return None
        return text.replace(fact, fact.replace(names[-1], rng.choice(strangers)), 1)
    return text.replace(fact, other.answer, 1) if fact and other.answer != fact else None


def _kind(name: str, target: float, critique: str) -> FlawKind:
    return FlawKind(name, target, critique, globals()[f"_{name}"])


KINDS = (
    _kind(
        "dropped_condition",
        0.3,
        "The program of the {turn} turn leaves out a part of what the question gives. Compare it "
        "with the question, part by part, before running it.",
    ),
    _kind(
        "unit_slip",
        0.3,
        "The program of the {turn} turn scales a value without reason. Keep the units as the "
        "question and the results have them.",
    ),
    _kind(
        "stale_value",
        0.3,
        "The {turn} turn works with an older value where a newer one belongs. Check which value "
        "each place of the computation needs.",
    ),
    _kind(
        "distractor",
        0.3,
        "The {turn} turn builds on a statement about another thing of a similar kind. Check of "
        "what a result speaks before using it.",
    ),
    _kind(
        "fabricated_result",
        0.15,
        "The {turn} turn relies on a result that no tool ever gave. Make the call and use what "
        "it really answers.",
    ),
)
