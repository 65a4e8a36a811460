"""Checks on the end of an attempt: is there an answer, does evidence hold it, was all of it used."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

from reagent_env.reward_models.rubric_checks_grounds import is_scaled, small_or_familiar
from reagent_env.reward_models.rubric_finding import Finding
from reagent_env.reward_models.rubric_text import (
    MONTHS,
    STOP_WORDS,
    as_float,
    canonical_number,
    is_number,
    names,
    signed_numbers,
    tokens,
)
from reagent_env.reward_models.rubric_view import Call, View

_CHOICES = frozenset({"yes", "no", "true", "false", "none"})
_GIVES_UP = frozenset({"unknown", "unsure", "n/a", "idk", "undetermined", "unclear"})
_COMPUTE = re.compile(
    r"\b(?:sum|total|add(?:ing)? up|adds? up|multipl\w*|products?|divid\w*|divisible|percent\w*|"
    r"average|mean|median|deviation|variance|primes?|modulo|remainder|power|common (?:multiple|"
    r"divisor|factor|denominator)|gcd|lcm|squares?|squared|cubed?|days|difference|ratio|compound\w*|"
    r"grow|comput\w*|evaluat\w*|calculat\w*|probability|decimal|digits?|factorial|subtract\w*|"
    r"weight\w*|plus|minus|times)\b|[0-9]\s*[-+*/^]\s*[0-9]",
    re.IGNORECASE,
)
_COUNTS = re.compile(r"\b(?:count|how many|number of|how often)\b", re.IGNORECASE)
_WANTS_NUMBER = re.compile(
    r"^\W*(?:how (?:many|much|often|long|tall|high|old|far)|count|compute|evaluate|calculate|add up|"
    r"(?:what is|what was|give|state|find|tell|determine|compute)(?: me)? the (?:total|sum|number|"
    r"population|elevation|length|area|height|depth|count|year|date|product|difference|basin area|"
    r"revenue|building cost|cost|probability|value|average|mean|median|standard deviation|ratio)\b"
    r"(?! of the name)|on what date|in (?:what|which) year|when )",
    re.IGNORECASE,
)
_WANTS_NAME = re.compile(
    r"^\W*(?:who\b|whom\b|whose\b|name the\b|(?:what is|give|state) the name\b"
    r"|(?:which|what) (?:person|city|country|river|company|mountain|university|bridge|author|woman|man)"
    r"\b)",
    re.IGNORECASE,
)
_WANTS_OTHER = re.compile(
    r"^\W*(?:who|whom|whose|which|when|where|how|name|give|state|count|compute|evaluate|add|find|"
    r"what)\b(?![^\n]*\b(?:yes|true|whether|none)\b)",
    re.IGNORECASE,
)
_CORRECTION = re.compile(
    r"\b(?:correct(?:ed|ion)|erratum|errata|revis(?:ed|ion)|supersede[sd]?|outdated|out of date|"
    r"updated?|no longer|amended|withdrawn|replaces|restated|instead of)\b",
    re.IGNORECASE,
)
_SEVERAL = re.compile(
    r"\b(?:all|each|every|total|sum|\w{3,}est|most|least|average|mean|deviation)\b",
    re.IGNORECASE,
)
_EXAMPLE = re.compile(
    r"\([^()]{0,200}\b(?:or|e\.g\.|such as|for example|like)\b[^()]{0,200}\)"
    r"|\b(?:as|like|form|e\.g\.) -?[0-9][\w.+-]*"
    r"|\b(?:answer|reply|round\w*) (?:in|with|as|to)\b[^.\n]{0,200}",
    re.IGNORECASE,
)
"""Examples of how to write an answer."""
_QUOTED = re.compile(r"[\"“]([^\"”\n]{1,200})[\"”]")
_DIGITS = re.compile(r"[0-9][0-9,]*(?:\.[0-9]+)?")
_DESCRIBED = re.compile(r"\bthe ((?:first |home |opening )?[a-z]{2,})(?![\w-])")
_NO_LOOK_UP = frozenset(
    ("name", "one", "ones", "file", "following", "table", "rows", "row", "column", "value", "whole",
     "same", "answer", "sum", "total")
)  # fmt: skip
_NAMED_TWICE = re.compile(
    r"\b([a-z]+) (?:is|that is) the \1\b|\bthe [a-z]+ that is the\b", re.IGNORECASE
)
_BOTH = re.compile(r"\bboth\b", re.IGNORECASE)


def end_of_attempt(view: View) -> Iterator[Finding]:
    """No final answer, none that can be read, or an answer that gives up."""
    last = len(view.turns) - 1
    if not view.answered:
        if view.stop_reason in ("max_turns", "wall_time", "context_length", "answered"):
            yield Finding(
                last,
                "no_answer",
                0.6,
                "the attempt ended without a final answer",
                "Plan the calls you need and keep a turn for the final answer.",
            )
        return
    answer = (view.final_answer or "").strip()
    if not answer:
        yield Finding(
            last,
            "no_answer",
            0.6,
            "the last turn makes no call and holds no readable final answer",
            "Give one final answer in the form that the instructions ask for.",
        )
    elif answer.lower().strip(" .") in _GIVES_UP or len(answer) > 2_000 > len(view.question):
        yield Finding(
            last,
            "gives_up",
            0.4,
            "the answer says nothing",
            "Try another query or mend the failed call before giving up.",
        )


def premature_answer(view: View) -> Iterator[Finding]:
    """An answer before any tool showed anything, where there are tools."""
    if not view.answered or not view.tools:
        return
    told = [call for call in view.calls if call.error is None and not call.trivial_code]
    if not told and not view.continued:
        yield Finding(
            view.turns[-1].index,
            "premature_answer",
            0.65,
            "it answers although no tool had shown anything",
            "Use the tools to establish the facts before you answer.",
        )


def answer_without_evidence(view: View) -> Iterator[Finding]:
    """An answer that no result holds, or only results about something else."""
    answer = view.final_answer
    told = [call for call in view.calls if call.error is None and not call.trivial_code]
    if not view.answered or not answer or not (told or view.continued):
        return
    last = view.turns[-1].index
    if answer.lower().strip(" .") in _CHOICES | _GIVES_UP:
        return
    computed = [call for call in told if call.computes]
    needs_code = view.has_code_tool and bool(_COMPUTE.search(view.question))
    content = [token for token in tokens(answer) if token not in STOP_WORDS or token in MONTHS]
    numbers = [token for token in content if is_number(token) and "," not in token]
    missing = [token for token in content if not _held(view, token, answer)]
    if missing and _is_count(view, content):
        missing = []
    if not content or missing:
        number_missing = next((token for token in missing if is_number(token)), None)
        floats = [value for value in view.floats if value]
        if number_missing is not None and not needs_code and is_scaled(number_missing, floats):
            yield Finding(
                last,
                "unit_slip",
                0.6,
                "the final number is a shown number times a unit's factor",
                "Check which unit is asked for and convert only where it differs.",
            )
        elif needs_code and number_missing is not None and not computed:
            yield Finding(
                last,
                "mental_arithmetic",
                0.6,
                "the final number stands in no result: it was worked out without running code",
                "Run code for the calculation and answer with what it prints.",
            )
        else:
            yield Finding(
                last,
                "unsupported_answer",
                0.6,
                "what it answers stands in no result",
                "Answer only with what a result shows; look further if none does.",
            )
        return
    if needs_code and numbers and not computed:
        yield Finding(
            last,
            "skipped_computation",
            0.4,
            "the question asks for a calculation, and no code was run",
            "Run code on the values you found before you answer.",
        )
        return
    if numbers and _flips_sign(view, answer):
        yield Finding(
            last,
            "altered_result",
            0.45,
            "the final number has another sign than every result",
            "Copy the result as it is.",
        )
        return
    if len(numbers) >= 4 and not _in_sequence(view, answer):
        yield Finding(
            last,
            "altered_result",
            0.4,
            "the final list is not the one that a result shows",
            "Copy a list from the result whole and in its order.",
        )
        return
    unlinked = [t for t in content if t not in view.linked_tokens and t in view.first_seen]
    if unlinked and not _is_count(view, content) and not _rounded(view, unlinked):
        yield Finding(
            last,
            "unlinked_answer",
            0.45,
            "the answer stands only in passages about something else",
            "Take the answer from the passage about what the question asks for.",
        )
        return
    asks = view.question_tokens
    if all(token in asks for token in content) and " or " not in view.question.lower():
        shown = any(token not in asks for call in told for token in call.new)
        if not (computed and numbers) and (not shown or not numbers):
            yield Finding(
                last,
                "repeats_question",
                0.3,
                "the answer only repeats words of the question",
                "Answer with what the question asks for, not with what it states.",
            )


def answer_of_wrong_kind(view: View) -> Iterator[Finding]:
    """A name where a number is asked for, or the reverse; another unit than asked for."""
    answer = view.final_answer
    if not view.answered or not answer or answer.lower().strip(" .") in _GIVES_UP:
        return
    if answer.lower().strip(" .") in _CHOICES and not _WANTS_OTHER.search(view.question):
        return
    has_number = any(is_number(token) for token in tokens(answer))
    has_word = any(not is_number(token) and len(token) > 2 for token in tokens(answer))
    wrong = (_WANTS_NUMBER.search(view.question) and not has_number) or (
        _WANTS_NAME.search(view.question) and has_number and not has_word
    )
    if wrong or answer.lower().strip(" .") in _CHOICES:
        yield Finding(
            view.turns[-1].index,
            "wrong_kind",
            0.4 if answer.lower().strip(" .") in _CHOICES else 0.3,
            "the question asks for another kind of answer",
            "Read the question again and answer with the kind of thing it asks for.",
        )


def parts_ignored(view: View) -> Iterator[Finding]:
    """Names and numbers of the question that no call and no result ever took up."""
    if not view.answered or view.continued or not any(view.calls):
        return
    code_turn = max((call.turn for call in view.calls if call.computes), default=None)
    asking = [turn for turn in view.turns if turn.calls]
    used = {word for turn in asking for word in turn.words}
    looks_up = any(call.queries or call.urls or call.sql for call in view.calls)
    quoted = {one for text in _QUOTED.findall(view.question[:20_000]) for one in names(f'"{text}')}
    wanted = view.question_names if looks_up else view.question_names & quoted
    unasked = [one for one in wanted if not any(word in used for word in one)]
    ignored = sum(all(word not in view.linked_tokens for word in one) for one in unasked)
    if code_turn is not None:
        asked = tokens(_EXAMPLE.sub(" ", view.question))
        numbers = {n for n in asked if is_number(n) and not small_or_familiar(n)}
        absent = [n for n in numbers if n not in used and n not in view.linked_tokens]
        if absent and not _derivable(absent, used):
            ignored += 1
    if ignored or (unasked and len(unasked) == len(wanted)):
        nothing_asked = bool(wanted) and len(unasked) == len(wanted)
        yield Finding(
            code_turn if code_turn is not None else view.turns[-1].index,
            "part_ignored",
            0.6 if nothing_asked else min(0.45, 0.2 + 0.1 * ignored),
            "part of what the question names was never looked up or computed with",
            "Go through the question and see that each name, number and condition is used.",
            hindsight=True,
        )


def too_few_steps(view: View) -> Iterator[Finding]:
    """Fewer look-ups than a chain of relations in the question needs."""
    if not view.answered or view.continued or not any(view.calls):
        return
    needed = steps_needed(view.question)
    if needed < 2:
        return
    if view.has_code_tool:
        return
    asked = set()
    for call in view.calls:
        if call.error is None:
            for text in (*call.queries, *call.urls, *call.paths):
                about = [n for n in names(text, initial=True) if n in view.known]
                asked.add(about[0] if about else (text,))
    made = len(asked)
    if made < needed:
        yield Finding(
            view.turns[-1].index,
            "too_few_steps",
            0.12 if made == needed - 1 else 0.3,
            f"the question chains about {needed} look-ups, and {made} were made",
            "Follow the question's chain link by link to its end.",
        )


def steps_needed(question: str) -> int:
    """The look-ups that a question's chain takes: its different descriptions, ``the … of the …``."""
    stem = question[:2_000].split("\n", 1)[0]
    described = [noun for noun in _DESCRIBED.findall(stem) if noun not in _NO_LOOK_UP]
    repeated = len(described) - len(set(described))
    return max(
        1, len(described) - repeated - bool(_NAMED_TWICE.search(stem)) - bool(_BOTH.search(stem))
    )


def stale_values(view: View) -> Iterator[Finding]:
    """An older value used after a later result gave another for the same thing."""
    seen: dict[tuple[str, str], tuple[int, frozenset[str]]] = {}
    replaced: dict[str, tuple[int, frozenset[str]]] = {}
    corrections: list[tuple[int, str, str]] = []
    for call in view.calls:
        if call.error is not None or call.trivial_code or call.sql:
            continue  # another query's figure is of other rows, not a newer one
        lines = _masked_lines(call)
        for key, numbers in lines.items():
            before = seen.get(key)
            if before is not None and before[0] < call.turn and not (before[1] & numbers):
                for old in before[1]:
                    replaced.setdefault(old, (call.turn, numbers))
            seen[key] = (call.turn, numbers)
        if _CORRECTION.search(call.content):
            corrections += [
                (call.turn, line, call.content.lstrip()[:200].split("\n", 1)[0])
                for line in call.content.split("\n")
                if _CORRECTION.search(line) and _DIGITS.search(line)
            ]
    for since, line, heading in corrections[:20]:
        _note_correction(view, since, line, heading, replaced)
    if not replaced:
        return
    for turn in view.turns:
        final = view.answered and turn is view.turns[-1]
        used = set(tokens(view.final_answer or "")) if final else set()
        for call in turn.calls:
            for text in (*call.code, *call.others):
                used.update(tokens(text))
            used.update(call.numbers)
        stale = [
            old
            for old, (since, new) in replaced.items()
            if old in used and since < turn.index and not (new & used)
        ]
        if stale:
            yield Finding(
                turn.index,
                "stale_value",
                0.35,
                "it uses a value that a later result had replaced",
                "Use the latest value for the same thing, or find out which one holds.",
            )


def _note_correction(
    view: View, turn: int, line: str, heading: str, replaced: dict[str, tuple[int, frozenset[str]]]
) -> None:
    numbers = {canonical_number(n) for n in _DIGITS.findall(line)}
    new = frozenset(n for n in numbers if view.first_seen.get(n, turn) >= turn)
    if not new:
        return
    for old in numbers - new:
        if not number_is_small(old):
            replaced.setdefault(old, (turn, new))
    about = {*names(line), *names(heading, initial=True)}
    for call in view.calls:
        if call.turn >= turn or call.error is not None:
            continue
        lines = call.content.split("\n")[:400]
        same = bool(about & set(names(lines[0], initial=True)))
        for earlier in lines:
            if same or about & set(names(earlier)):
                for one in _DIGITS.findall(earlier):
                    old = canonical_number(one)
                    if old not in numbers and not number_is_small(old):
                        replaced.setdefault(old, (turn, new))


def number_is_small(number: str) -> bool:
    """True for whole numbers up to 12, which stand everywhere."""
    value = as_float(number)
    return value is not None and value <= 12 and value == int(value)


def _masked_lines(call: Call) -> dict[tuple[str, str], frozenset[str]]:
    """(heading, line without its numbers) → its numbers, for lines that are unlike all others."""
    heading = "code" if call.computes else ""
    found: dict[tuple[str, str], frozenset[str]] = {}
    twice = set()
    for raw in call.content.split("\n")[:400]:
        line = raw.strip()
        if not call.computes and (line.startswith("[") or not heading):
            heading = line.partition("] ")[2] or line
            continue
        numbers = frozenset(canonical_number(n) for n in _DIGITS.findall(line))
        if not numbers or len(line) > 400:
            continue
        key = (heading, _DIGITS.sub("#", line))
        if key in found:
            twice.add(key)
        found[key] = numbers
    if call.computes and len(found) > 1:
        found.pop(("code", "#"), None)
    return {key: numbers for key, numbers in found.items() if key not in twice}


def partial_reading(view: View) -> Iterator[Finding]:
    """An answer from a result that was cut short, where nobody read on."""
    if not view.answered:
        return
    calls = list(view.calls)
    if any(call.computes and call.error is None for call in calls):
        return
    later: dict[str, int] = {}
    for call in calls:
        later[call.loose_key] = call.turn
    for call in calls:
        cut = call.error is None and bool(call.paths) and call.truncated
        if cut and later[call.loose_key] == call.turn:
            yield Finding(
                call.turn,
                "partial_reading",
                0.1,
                "the result was cut short and not read on",
                "Read a cut result to its end, or compute on the whole of it.",
                hindsight=True,
            )


def incomplete_list(view: View) -> Iterator[Finding]:
    """A question about all of a list, of which only some were looked up."""
    if not view.answered or not _SEVERAL.search(view.question) or _BOTH.search(view.question):
        return
    for call in view.calls:
        if call.error is not None or call.computes or ";" not in call.content:
            continue
        for line in call.content.split("\n"):
            for sentence in line.split(". "):
                if sentence.count(";") < 1 or len(sentence) > 2_000:
                    continue
                items = [part.rpartition(":")[2].strip(" .") for part in sentence.split(";")]
                if not all(re.fullmatch(r"(?:[A-ZÀ-Þ][\w'’-]*\s?){1,5}", part) for part in items):
                    continue
                words = [[w for w in tokens(part) if w not in STOP_WORDS] for part in items]
                own = [
                    bool(w) and all(view.first_seen.get(t, -1) >= call.turn for t in w[:1])
                    for w in words
                ]
                used = [bool(w) and _asked_later(view, w, call.turn) for w in words]
                if sum(used) >= 1 and all(own) and not all(used):
                    turn = max(view.last_used.get(w[0], 0) for w in words if w)
                    yield Finding(
                        min(turn, view.turns[-1].index),
                        "incomplete_list",
                        0.3,
                        "only some of a list that the question asks about were looked up",
                        "Look up every member of the list before you compare or add up.",
                        hindsight=True,
                    )
                    return


def _asked_later(view: View, words: list[str], turn: int) -> bool:
    return any(
        later.calls and all(word in later.words for word in words)
        for later in view.turns[turn + 1 :]
    )


def _held(view: View, token: str, answer: str) -> bool:
    """True if a result holds the token, or a number that rounds to it."""
    if view.first_seen.get(token, -1) >= 0 or token in view.linked_tokens:
        return True
    if not is_number(token):
        return len(token) < 2 or _is_unit(view, token)
    if "," in answer:  # a list without blanks reads as a grouped number
        listed = [canonical_number(part) for part in _DIGITS.findall(answer.replace(",", " "))]
        if token not in listed and all(part in view.linked_tokens for part in listed):
            return True
    return _near(view, token)


def _near(view: View, token: str) -> bool:
    value = as_float(token)
    if value is None:
        return False
    decimals = len(token.partition(".")[2])
    half = 0.5 * 10.0**-decimals + 1e-12 * abs(value)
    if decimals == 0 and abs(value) < 13:
        half = 0.05
    places = [value]
    if "%" in view.question or "percent" in view.question.lower():
        places += [value / 100]
    for wanted in places:
        slack = half if wanted == value else half / 100
        at = bisect_left(view.floats, wanted - slack)
        if at < len(view.floats) and view.floats[at] <= wanted + slack:
            return True
    return False


def _rounded(view: View, unlinked: list[str]) -> bool:
    return all(is_number(token) and _near(view, token) for token in unlinked) and any(
        token not in view.first_seen for token in unlinked
    )


def _is_unit(view: View, token: str) -> bool:
    """True for words of the answer that the question brought: units and the like."""
    return token in view.question_tokens


def _is_count(view: View, content: list[str]) -> bool:
    """True for a small count where counting is asked for and no tool could count."""
    if view.has_code_tool or len(content) != 1 or not is_number(content[0]):
        return False
    value = as_float(content[0])
    return value is not None and value <= 50 and _COUNTS.search(view.question) is not None


def _flips_sign(view: View, answer: str) -> bool:
    signed = list(signed_numbers(answer))
    if len(signed) != 1 or signed[0] in view.signed:
        return False
    other = signed[0][1:] if signed[0].startswith("-") else f"-{signed[0]}"
    return other in view.signed


def _in_sequence(view: View, answer: str) -> bool:
    wanted = " ".join(t for t in tokens(answer.replace(",", " ")) if is_number(t))
    for text in view.observations:
        shown = " ".join(t for t in tokens(text.replace(",", " ")) if is_number(t))
        if f" {wanted} " in f" {shown} ":
            return True
    return False


def _derivable(absent: list[str], used: set[str]) -> bool:
    """True if each number stands in a call as a fraction or factor of a percentage."""
    for number in absent:
        value = as_float(number)
        if value is None:
            return False
        forms = (value / 100, 1 + value / 100, 1 - value / 100, value + 1, value - 1)
        if not any(canonical_number(f"{abs(form):.10g}") in used for form in forms):
            return False
    return True
