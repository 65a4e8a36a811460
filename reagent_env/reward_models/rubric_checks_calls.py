"""Checks on calls: well formed, not repeated, errors heeded, code that computes, results used."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reagent_env.reward_models.rubric_finding import Finding
from reagent_env.reward_models.rubric_text import is_number, tokens
from reagent_env.reward_models.rubric_view import Call, View

_BROKEN = {
    "malformed": (
        0.25,
        "the text of a call cannot be read",
        "Write each call exactly in the format of the instructions.",
    ),
    "unknown_tool": (
        0.3,
        "it calls a tool that is not offered",
        "Call only the tools that are offered, by their exact names.",
    ),
    "bad_arguments": (
        0.25,
        "the arguments do not fit the tool's schema",
        "Give every required argument, with the names and types of the tool's schema.",
    ),
    "too_many_calls": (
        0.2,
        "more calls than one turn may run",
        "Send fewer calls in a turn and choose the ones you need.",
    ),
    "tool_error": (
        0.1,
        "the call failed",
        "Check the arguments before calling; read the error and change what it names.",
    ),
    "timeout": (0.1, "the call ran out of time", "Ask for less work in one call."),
}
_ARITHMETIC = re.compile(r"[\d\s.,()*/+^=x%?-]*\d\s*[-*/+^x%]\s*\d[\d\s.,()*/+^=x%?-]*")


def broken_calls(view: View) -> Iterator[Finding]:
    """Malformed calls, unknown tools, bad arguments, too many calls, failed calls."""
    for call in view.calls:
        kind = call.error
        if kind in ("not_run", None):
            kind = _schema_problem(view, call) if call.result is None else None
        if kind is None:
            continue
        severity, seen, advice = _BROKEN.get(kind, _BROKEN["tool_error"])
        yield Finding(call.turn, kind, severity, seen, advice)


def _schema_problem(view: View, call: Call) -> str | None:
    """What is wrong with a call that has no result, by the schemas alone."""
    if not view.tools:
        return None
    if call.name not in view.tools:
        return "unknown_tool"
    schema = view.tools[call.name]
    required = schema.get("required")
    missing = isinstance(required, list) and any(one not in call.arguments for one in required)
    return "bad_arguments" if missing else None


def repeated_calls(view: View) -> Iterator[Finding]:
    """The same call again, unless its result changed, was cut short, or the state moved on."""
    last: dict[str, Call] = {}
    last_loose: dict[str, Call] = {}
    code_runs = 0
    runs_at: dict[str, int] = {}
    for call in view.calls:
        earlier = last.get(call.key)
        alike = None if call.computes else last_loose.get(call.loose_key)
        if earlier is not None:
            keeps_state = call.computes and not call.sql
            moved_on = keeps_state and code_runs > runs_at[call.key]
            if earlier.error is not None:
                if call.error is not None and earlier.error != "timeout" and not moved_on:
                    yield Finding(
                        call.turn,
                        "repeated_failure",
                        0.3,
                        f"the call that failed in turn {earlier.turn + 1} again, unchanged",
                        "Change a call that failed before sending it again.",
                    )
            elif call.content == earlier.content and not moved_on and not earlier.truncated:
                yield Finding(
                    call.turn,
                    "repeated_call",
                    0.25,
                    f"the same call as in turn {earlier.turn + 1}, with the same result",
                    "Use the result you already have, or ask for something new.",
                )
        elif (
            alike is not None
            and not call.computes
            and call.error is None
            and alike.error is None
            and not call.informative
        ):
            yield Finding(
                call.turn,
                "near_repeat",
                0.12,
                f"nearly the call of turn {alike.turn + 1}; its result shows nothing new",
                "Word a new query differently, or open one of the results.",
            )
        if call.computes and call.error is None:
            code_runs += 1
        last[call.key] = call
        last_loose[call.loose_key] = call
        runs_at[call.key] = code_runs


def errors_left_behind(view: View) -> Iterator[Finding]:
    """A final answer right after a turn whose every call failed."""
    if not view.answered or len(view.turns) < 2:
        return
    before = view.turns[-2]
    if before.failed:
        yield Finding(
            view.turns[-1].index,
            "ignored_error",
            0.35,
            f"it answers although every call of turn {before.index + 1} failed",
            "Mend a failed call and see its result before you answer.",
        )


def idle_code(view: View) -> Iterator[Finding]:
    """Code that computes nothing, and sums sent to a tool that does not compute."""
    for call in view.calls:
        if call.trivial_code and call.error is None:
            yield Finding(
                call.turn,
                "idle_code",
                0.3,
                "the code only shows constants written into it: it computes nothing",
                "Let code compute from what tools showed; do not print a conclusion.",
            )
        if view.has_code_tool and not call.computes:
            for query in call.queries:
                if len(query) < 400 and _ARITHMETIC.fullmatch(query.strip()):
                    yield Finding(
                        call.turn,
                        "wrong_tool",
                        0.25,
                        "a calculation is sent to a tool that looks things up",
                        "Compute with the tool that runs code.",
                    )
                    break


def unused_results(view: View) -> Iterator[Finding]:
    """Results that nothing later uses; worse where the answer was already in hand."""
    if not view.answered:
        return
    answer = [t for t in tokens(view.final_answer or "") if is_number(t) or len(t) > 2]
    in_hand = max((view.linked_tokens.get(t, 10**9) for t in answer), default=10**9)
    last_code = max((c.turn for c in view.calls if c.computes), default=-1)
    for call in view.calls:
        if call.error is not None or call.trivial_code or call.sql:
            continue
        if any(view.last_used.get(token, -1) > call.turn for token in call.new):
            continue
        if call.computes and (call.turn < last_code or not call.new):
            continue
        if answer and all(token in call.shown for token in answer):
            continue
        needless = call.turn > in_hand
        yield Finding(
            call.turn,
            "needless_call" if needless else "unused_result",
            0.05 if needless else 0.03,
            "nothing later uses what this call showed"
            + (", and the answer was already in hand" if needless else ""),
            "Answer once you have what you need."
            if needless
            else "Ask only for what the next step needs, and use it.",
            hindsight=True,
        )


def blank_results(view: View) -> Iterator[Finding]:
    """Look-ups that show nothing new at all."""
    for call in view.calls:
        if call.error is None and not call.computes and not call.informative:
            yield Finding(
                call.turn,
                "nothing_new",
                0.03,
                "the result holds nothing that was not already known",
                "Ask with the words a title or a table would use.",
            )
