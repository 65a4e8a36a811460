"""Checks on where arguments come from: shown before, and leading back to the question."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from reagent_env.reward_models.rubric_finding import Finding
from reagent_env.reward_models.rubric_text import (
    MONTHS,
    STOP_WORDS,
    as_float,
    canonical_number,
    is_number,
    names,
    tokens,
)
from reagent_env.reward_models.rubric_view import Call, Name, View

_ROUND = re.compile(r"10*(?:\.0+)?|0\.0*1|0\.0*5|[25]0+|0x[0-9a-f]{1,2}")
_CONSTANTS = """24 28 29 30 31 32 36 48 52 60 64 90 128 180 255 256 273.15 360 365 365.25 366 512
1000 1024 1440 3600 86400 0.5 0.25 0.75 1.5 3.14 3.1416 3.14159 2.71828 0.3048 0.9144 1.609344
1.60934 1.609 0.621371 0.453592 2.54 2.20462 4.184 9.8 9.81 1.8 4096 65536 97 122 65
998244353 123456789 1234567890"""
_FAMILIAR = frozenset(_CONSTANTS.split())
_PYTHON = """print import from for while range len sum int str float list dict set tuple sorted max min abs
    round def lambda else elif try except math sys os re json datetime date random statistics
    fractions decimal fraction enumerate zip map filter class pass break continue none true false
    self args main open read write append join split strip format value values data num number
    numbers total count item items key keys python code version info time pi sqrt factorial hello
    world test ok done"""
_PYTHON_WORDS = frozenset(_PYTHON.split())
_FACTOR = re.compile(
    r"[*/] ?\(?(1000000|1000|1_000|1e3|1e6|1e-3|0\.001|0\.3048|3\.28\d*|1\.609\d*|0\.6213\d*|2\.54|"
    r"0\.4535\d*|2\.204\d*|0\.9144)(?![\w.])"
)
_CONVERTS = re.compile(
    r"\b(?:convert\w*|thousand\w*|million\w*|kilo\w*|km|kg|centi\w*|milli\w*|miles?|feet|foot|inch\w*|"
    r"pounds?|metric|units? of|round\w*|decimals?)\b",
    re.IGNORECASE,
)
_LITERAL_NAME = re.compile(r"[\"']([^\"'\n]{1,200})[\"']")
_UNIT_FACTORS = (
    10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e9, 60.0, 3600.0, 24.0, 86400.0, 7.0, 12.0, 1.609344,
    0.3048, 2.54, 0.9144, 0.45359237, 1.8, 1024.0, 365.0,
)  # fmt: skip


def made_up_places(view: View) -> Iterator[Finding]:
    """A url or a file that neither the question nor any earlier result showed."""
    for call in view.calls:
        for places, what in ((call.urls, "address"), (call.paths, "file")):
            for given in places:
                unseen = [
                    token
                    for token in tokens(given)
                    if token not in STOP_WORDS and not view.seen_before(token, call.turn)
                ]
                scheme = given.split("://", 1)[0].lower() if "://" in given else ""
                unseen = [token for token in unseen if token != scheme]
                failed = call.error is not None
                if unseen:
                    yield Finding(
                        call.turn,
                        "made_up_place",
                        0.3 if failed else 0.12,
                        f"the {what} {_shown(given)} was never shown",
                        f"Take each {what} from the question or from a result; list or search "
                        "first.",
                    )
                elif failed and what == "address" and call.error == "tool_error":
                    yield Finding(
                        call.turn,
                        "made_up_place",
                        0.15,
                        f"the address {_shown(given)} was put together, and leads nowhere",
                        "Copy an address exactly as a result shows it.",
                    )


def made_up_words(view: View) -> Iterator[Finding]:
    """A query about something never heard of, or about something that leads nowhere near."""
    for call in view.calls:
        if call.computes:
            yield from _names_in_code(view, call)
            continue
        for query in (*call.queries, *call.others):
            finding = _query(view, call, query)
            if finding is not None:
                yield finding


def _query(view: View, call: Call, query: str) -> Finding | None:
    words = [word for word in tokens(query) if word not in STOP_WORDS]
    if not words:
        return None
    grounded = [word for word in words if view.seen_before(word, call.turn)]
    if not grounded and not call.urls and not call.paths:
        return Finding(
            call.turn,
            "off_topic",
            0.3,
            f"no word of {_shown(query)} comes from the question or from a result",
            "Ask about what the question names, or what results showed.",
        )
    asked: list[Name] = []
    for one in names(query, initial=True):
        if not asked or one != asked[-1][1:]:
            asked.append(one)
    anchored = any(_leads_back(view, one, call.turn) for one in asked)
    for one in asked:
        named = view.named.get(one, call.turn) < call.turn
        if _leads_back(view, one, call.turn) or (len(one) == 1 and anchored and not named):
            continue
        if not all(view.seen_before(word, call.turn) for word in one):
            return Finding(
                call.turn,
                "made_up_name",
                0.25 if len(one) > 1 else 0.12,
                f"the name {_shown(' '.join(one))} was never shown",
                "Ask only about names that the question or a result holds, spelt as they are.",
            )
        if view.question_names and (len(one) > 1 or named):
            return Finding(
                call.turn,
                "unlinked_lookup",
                0.2,
                f"nothing links {_shown(' '.join(one))} to what is asked",
                "Follow the passage about what the question names, not a neighbouring hit.",
            )
    return None


def _leads_back(view: View, one: Name, turn: int) -> bool:
    """True if the name, a part of it, or for a single word a name around it, is linked."""
    words = one[:8]
    for start in range(len(words)):
        for end in range(start + 1, len(words) + 1):
            if view.known.get(words[start:end], turn) < turn:
                return True
    return (
        len(words) == 1 and view.named.get(words, turn) >= turn and view.seen_before(words[0], turn)
    )


def _names_in_code(view: View, call: Call) -> Iterator[Finding]:
    for code in call.code:
        for literal in _LITERAL_NAME.findall(code[:20_000]):
            for one in names(f". {literal}"):
                if (
                    len(one) > 1
                    and one[0] not in MONTHS
                    and not any(view.seen_before(word, call.turn) for word in one)
                ):
                    yield Finding(
                        call.turn,
                        "made_up_name",
                        0.25,
                        f"the code holds the name {_shown(' '.join(one))}, never shown before",
                        "Take names in code from the question or from results.",
                    )
                    return


def made_up_numbers(view: View) -> Iterator[Finding]:
    """Numbers in code or in required arguments that nothing showed."""
    told: set[str] = set()
    floats: list[float] | None = None
    for call in view.calls:
        given = [number for number in call.numbers if is_number(number)]
        if call.computes:
            given += [token for token in call.own if is_number(token)]
        strange = [
            number
            for number in dict.fromkeys(given)
            if number not in told and number_is_strange(view, number, call.turn)
        ]
        strange = _without_groups(strange, call, view)
        told.update(given)
        if not strange:
            continue
        if floats is None:
            floats = [f for f in view.floats if f]
        scaled = any(is_scaled(number, floats) for number in strange[:5])
        yield Finding(
            call.turn,
            "unit_slip" if scaled else "made_up_number",
            0.35,
            f"the number {_shown(strange[0])} stands in neither question nor results"
            + (", but a multiple of it by a unit's factor does" if scaled else ""),
            "Keep the unit that the question asks for; convert in code, where it can be read."
            if scaled
            else "Use in calls only numbers that the question or a result shows.",
        )


def _without_groups(strange: list[str], call: Call, view: View) -> list[str]:
    """Leave out ``130155`` where the code holds the list ``130,155`` of shown numbers."""
    if not strange:
        return strange
    code = "\n".join(call.code)
    kept = []
    for number in strange:
        parts = [number[max(0, end - 3) : end] for end in range(len(number), 0, -3)][::-1]
        grouped = ",".join(parts)
        listed = "." not in number and "," in grouped and grouped in code
        if not (listed and all(view.seen_before(p.lstrip("0") or "0", call.turn) for p in parts)):
            kept.append(number)
    return kept


def number_is_strange(view: View, number: str, turn: int) -> bool:
    """True for a number of some size that nothing before ``turn`` shows or leads to."""
    return (
        not view.seen_before(number, turn)
        and not small_or_familiar(number)
        and not _derived(view, number, turn)
    )


def small_or_familiar(number: str) -> bool:
    """True for whole numbers up to 12, round numbers and well-known constants."""
    value = as_float(number)
    if value is None:
        return False
    return (
        (value == int(value) and 0 <= value <= 12 if abs(value) < 1e15 else False)
        or number in _FAMILIAR
        or _ROUND.fullmatch(number) is not None
    )


def _derived(view: View, number: str, turn: int) -> bool:
    """True for a neighbour of a shown whole number, or a percentage as a fraction or a factor."""
    value = as_float(number)
    if value is None or abs(value) > 1e15:
        return False
    if value == int(value):
        return any(view.seen_before(str(int(value) + step), turn) for step in (-1, 1))
    for percent in (value * 100, (value - 1) * 100, (1 - value) * 100):
        if percent > 0 and view.seen_before(f"{percent:.8g}", turn):
            return True
    return False


def is_scaled(number: str, floats: list[float]) -> bool:
    """True if a unit's factor leads from one of ``floats`` to the number."""
    value = as_float(number)
    if not value or abs(value) < 1e-9:
        return False
    shown = {f"{f:.9g}" for f in floats[:2_000]}
    return any(
        f"{value * factor:.9g}" in shown or f"{value / factor:.9g}" in shown
        for factor in _UNIT_FACTORS
    )


def code_off_topic(view: View) -> Iterator[Finding]:
    """Code that shares nothing with the question, the results or the other code."""
    runs = [call for call in view.calls if call.computes and call.error is None]
    counts = Counter(token for call in runs for token in call.own)
    for call in runs:
        if call.trivial_code or call.sql:
            continue
        if not any(
            token not in _PYTHON_WORDS
            and token not in STOP_WORDS
            and not (is_number(token) and small_or_familiar(token))
            and len(token) > 1
            and (view.seen_before(token, call.turn) or counts[token] > 1)
            for token in call.own
        ) and not any(n in view.question_tokens for n in call.own if is_number(n)):
            yield Finding(
                call.turn,
                "off_topic",
                0.15,
                "the code takes up nothing of the question or of any result",
                "Run code only on what the question gives or results showed.",
                hindsight=True,
            )


def unit_factors(view: View) -> Iterator[Finding]:
    """Code that multiplies by a unit's factor which the question gives no reason for."""
    if _CONVERTS.search(view.question):
        return
    for call in view.calls:
        for code in call.code:
            found = _FACTOR.search(code[:20_000])
            if found and canonical_number(found[1]) not in view.question_tokens:
                yield Finding(
                    call.turn,
                    "unit_slip",
                    0.2,
                    "the code converts a unit although the question asks for no other unit",
                    "Check which unit is asked for and convert only where it differs.",
                )
                break


def _shown(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 60 else flat[:57] + "...")
