"""A short view of an attempt for a small judge: a line a turn, made of marks instead of texts.

A judge of a million parameters cannot compare names across thousands of characters, but it can
learn what it means that a call's name stands in no result, or that half of the question was never
looked up. So names and numbers are shown by where they come from (``marks_sources.py``), and only
plain words of the question, of queries and of the line an answer stands in are shown as they are.

Made from the question, the calls, the results and the agent's texts: never from the task's answer,
the outcome or rewards. No text of the attempt reaches the judge as a sentence, so none can speak to
it. Example of a view, for a two-hop question::

    Q length@3 river@3 town known@2 ; N@1
    1 search Q1 | ok n1 | led+1
    2 browse 1L1 | ok n3 | led+1
    3 answer number 1L whole : length | open 1
    stop answered

``Q1``: one name of the question. ``1L1``: one from a line of the last result that speaks of what was
asked there (``U``: of something else; ``C``: computed). ``own``: only the agent said it before.
``new``: nobody did. ``@2``: first used in turn 2. ``n3``: three names or numbers not seen before.
``led+1``: something of it is used in the next turn. ``open 1``: a word of the question never used.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reagent_env.reward_models.base import told
from reagent_env.reward_models.marks_sources import (
    Phrase,
    Source,
    Sources,
    lines_of,
    phrases,
    plain,
    words,
)
from reagent_env.trajectory import Attempt, ToolCall, Trajectory, Turn

MOST_TURNS = 16
"""Longer attempts are not shown: the judge has not learned to judge them."""
_CALLS = 3
_WORDS = 6
_KINDS = 8
_NEAR = 0.7
_STOP = frozenset(
    words(
        "what which that this these those with from into have does give name find state tell many "
        "much take then there where when whose whom over under after before than them they your "
        "answer value question compute calculate file files rounded round nearest whole number "
        "the and for how who was are has had its did let one two all each any"
    )
)
_OPENERS = frozenset(
    words(
        "i it he she we the a an and so now next then but let look read see seen run python code "
        "search searching browse done this that here there page file files since because also to "
        "my you from in on at of if is was will should need safest answer result first last"
    )
)
_THOUGHT = re.compile(r"<think>(.*?)(?:</think>|$)", re.DOTALL)
_FAILED = re.compile(r"Traceback|\w*Error\b|^error|not found|no such|no results", re.I | re.M)


def marked_messages(trajectory: Trajectory) -> list[dict[str, str]] | None:
    """The view as the one message that a small judge reads; None where it has too many turns."""
    if len(trajectory.attempts[-1].turns) > MOST_TURNS:
        return None
    return [{"role": "user", "content": marks(trajectory)}]


def marks(trajectory: Trajectory) -> str:
    """The view of the last attempt; see the module's example."""
    attempt = trajectory.attempts[-1]
    question = told(trajectory)
    sources = Sources(question)
    for earlier in trajectory.attempts[:-1]:
        for turn in earlier.turns:
            for call, outcome in zip(turn.calls, turn.results, strict=False):
                sources.add(_lines(-1, call, outcome.content))
    asked = question.partition("\nFiles: ")[0]
    terms: dict[Phrase, int | None] = dict.fromkeys(phrases(asked))
    seen = _Seen(sources, tuple(tool_names(trajectory)), _wanted(asked), terms)
    shown = [_turn(index, turn, attempt, seen) for index, turn in enumerate(attempt.turns)]
    head = _question(seen)
    body = [
        f"{index + 1} {action}{_led(index, seen)}{rest}"
        for index, (action, rest) in enumerate(shown)
    ]
    stop = "running" if attempt.stop_reason is None else _word(str(attempt.stop_reason))
    tail = f"stop {stop}" + (" second" if attempt.feedback is not None else "")
    return "\n".join([head, *body, tail])


@dataclass
class _Seen:
    """What the turns so far have used."""

    sources: Sources
    tools: tuple[str, ...]
    wanted: dict[str, int | None]
    """Plain words of the question → the turn that first used them, or None."""
    terms: dict[Phrase, int | None]
    """Names and numbers of the question → the turn that first used them."""
    calls: list[tuple[str, str, frozenset[str]]] = field(default_factory=list)
    """Name, text and words of every call made."""
    contents: set[str] = field(default_factory=set)
    led: dict[int, int] = field(default_factory=dict)
    """Turn → the first later turn that used something of its results."""

    def use(self, turn: int, phrase: Phrase) -> Source:
        """Note that ``turn`` rests on ``phrase``, and say where that comes from."""
        if phrase in self.terms and self.terms[phrase] is None:
            self.terms[phrase] = turn
        source = self.sources.of(phrase)
        if source.line is not None:
            self.led.setdefault(source.line.turn, turn)
            self.cover(turn, words(source.line.text))
        return source

    def cover(self, turn: int, used: Sequence[str]) -> None:
        """Note the question's plain words among ``used``."""
        stems = {_stem(word) for word in used}
        for word, first in self.wanted.items():
            if first is None and _stem(word) in stems:
                self.wanted[word] = turn


def _wanted(question: str) -> dict[str, int | None]:
    names = {word for phrase in phrases(question) for word in phrase}
    found = [w for w in words(question) if len(w) > 2 and w.isalpha()]
    return dict.fromkeys((w for w in found if w not in names and w not in _STOP), None)


def _question(seen: _Seen) -> str:
    shown = [f"{_word(w)}{_at(turn)}" for w, turn in list(seen.wanted.items())[: 3 * _WORDS]]
    terms = [
        f"{'D' if phrase[0][0].isdigit() else 'N'}{_at(turn)}"
        for phrase, turn in seen.terms.items()
    ]
    return " ".join(["Q", *shown, ";", *terms[: 2 * _KINDS]])


def _turn(index: int, turn: Turn, attempt: Attempt, seen: _Seen) -> tuple[str, str]:
    """What was done, and the rest of its line, around the place of ``led``."""
    note = _note(turn, seen)
    last = index == len(attempt.turns) - 1
    if turn.calls:
        parts = [_call(index, call, seen) for call in turn.calls[:_CALLS]]
        more = f" more{min(9, len(turn.calls) - _CALLS)}" if len(turn.calls) > _CALLS else ""
        action = " + ".join(parts) + more
    elif last and attempt.final_answer is not None:
        action = _answer(index, attempt.final_answer, seen)
    else:
        action = "nothing"
    outcome = _results(index, turn, seen) if turn.calls else ""
    seen.sources.own |= set(words(turn.completion))
    return action, outcome + note


def _call(index: int, call: ToolCall, seen: _Seen) -> str:
    if call.malformed is not None:
        return "malformed"
    name = _word(call.name) if call.name in seen.tools else "unknown"
    text = _text_of(call.arguments)
    used = frozenset(words(text))
    flags = _repeats(call.name, text, used, seen)
    seen.calls.append((call.name, text, used))
    code = "code" in call.arguments
    asked = phrases(_head_and_tail(text) if code else text, known=used)
    if code:
        asked += [tuple(words(q)) for q in re.findall(r"'([^'\n]{2,40})'", _head_and_tail(text))]
    sources = [(phrase, seen.use(index, phrase)) for phrase in asked if phrase]
    if code:  # names of variables are nobody's claim
        sources = [(p, s) for p, s in sources if s.kind != "new" or p[0][0].isdigit()]
    seen.cover(index, words(text))
    counts = Counter(_mark(index, source) for _, source in sources)
    shown = [f"{mark}{min(9, count)}" for mark, count in list(counts.items())[:_KINDS]]
    if code:
        fresh = [p[0] for p, source in sources if source.kind == "new" and p[0][0].isdigit()]
        shown += [f"={_word(one[:6])}" for one in list(dict.fromkeys(fresh))[:4]]
        shown += ["ops", *re.findall(r"[-+*/%]", _head_and_tail(text)[-160:])[:_WORDS]]
    else:
        names = {word for phrase in asked for word in phrase}
        free = [w for w in words(text) if w.isalpha() and w not in names]
        shown += [":", *(_word(w) for w in list(dict.fromkeys(free))[:_WORDS])] if free else []
    return " ".join([name, *flags, *shown])


def _repeats(name: str, text: str, used: frozenset[str], seen: _Seen) -> list[str]:
    """``again``: the very same call was made; ``near``: nearly; ``page``: the same, asked of another page."""
    same = [(other, theirs) for tool, other, theirs in seen.calls if tool == name]
    if any(other == text for other, _ in same):
        return ["again"]
    if any(_alike(used, theirs) > _NEAR for _, theirs in same):
        return ["near"]
    first = text.split("\n")[0]
    return ["page"] if first and any(other.split("\n")[0] == first for other, _ in same) else []


def _alike(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0


def _results(index: int, turn: Turn, seen: _Seen) -> str:
    said: list[str] = []
    fresh: set[Phrase] = set()
    for call, outcome in zip(turn.calls[:_CALLS], turn.results, strict=False):
        content = outcome.content.strip()
        if outcome.error is not None:  # what it says of the call is no evidence
            said.append(f"error {_word(outcome.error)}")
            continue
        if not content or content in seen.contents:
            said.append("same" if content else "empty")
            continue
        said.append("failed" if _FAILED.search(content[:2_000]) else "ok")
        seen.contents.add(content)
        named = phrases(content[:6_000], known=words(content))
        fresh |= {phrase for phrase in named if not seen.sources.knows(phrase)}
        seen.sources.add(_lines(index, call, content))
    return f" | {' '.join(said)} n{min(9, len(fresh))}"


def _lines(turn: int, call: ToolCall, content: str) -> Any:
    computed = "code" in call.arguments
    return lines_of(
        turn, content, phrases(_text_of(call.arguments), known=words(content)), computed
    )


def _answer(index: int, answer: str, seen: _Seen) -> str:
    said = tuple(words(answer))
    kind = "number" if re.fullmatch(r"-?[\d.,]+", answer.strip()) else "name"
    if len(said) > 6:
        kind = "long"
    source = seen.use(index, said) if said else Source("new")
    shown = ["answer", kind, _mark(index, source)]
    if source.line is not None:
        line = words(source.line.text)
        shown.append("whole" if len(line) <= len(said) + 2 else "part")
        plainly = [w for w in line if w.isalpha() and w not in said and len(w) > 2]
        shown += [":", *(_word(w) for w in plainly[:_WORDS])]
    missed = sum(1 for turn in seen.wanted.values() if turn is None)
    terms = sum(1 for turn in seen.terms.values() if turn is None)
    return " ".join([*shown, "|", "open", str(min(9, missed)), str(min(9, terms))])


def _note(turn: Turn, seen: _Seen) -> str:
    """What the thought takes for known: ``ok`` if read so, ``mix`` if put together, ``new``."""
    thought = " ".join(_THOUGHT.findall(turn.completion))
    own = {word for call in turn.calls for word in words(_text_of(call.arguments))}
    worst = ""
    for sentence in re.split(r"(?<=[.!?]) |\n", thought[:4_000]):
        known = [word for word in words(sentence) if seen.sources.knows([word])]
        named = [(w,) for phrase in phrases(sentence, known) for w in phrase if w not in own]
        mentioned = [p for p in named if p[0] in known or p[0] not in _OPENERS]
        if not mentioned:
            continue
        if not all(map(seen.sources.knows, mentioned)):
            return " note new"
        worst = "mix" if worst == "mix" or not seen.sources.together(mentioned) else "ok"
    return f" note {worst}" if worst else ""


# Words of the view --------------------------------------------------------------------------------


def _mark(index: int, source: Source) -> str:
    if source.line is None:
        return {"question": "Q"}.get(source.kind, source.kind)
    kind = "C" if source.line.computed else "L" if source.line.told else "U"
    return f"E{kind}" if source.line.turn < 0 else f"{min(9, index - source.line.turn)}{kind}"


def _led(index: int, seen: _Seen) -> str:
    first = seen.led.get(index)
    return "" if first is None else f" led+{min(9, first - index)}"


def _at(turn: int | None) -> str:
    return "" if turn is None else f"@{min(9, turn + 1)}"


def _stem(word: str) -> str:
    return word[:4]


def _word(text: str) -> str:
    """A word that holds nothing but letters, digits and ``_``."""
    return re.sub(r"[^a-z0-9_.]", "", text.casefold())[:16] or "x"


def _text_of(arguments: Mapping[str, Any]) -> str:
    """A call's arguments, one a line, by name: in whatever order they were written."""
    shown = []
    for key, value in sorted(arguments.items()):
        if key == "top_k":
            continue
        listed = value if isinstance(value, list | tuple) else [value]
        shown += [
            plain(str(one)).replace("_", " ") if key == "url" else _said(one) for one in listed
        ]
    return "\n".join(shown)


def _said(value: Any) -> str:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)


def _head_and_tail(code: str) -> str:
    """The beginning and the end of a program; what lies between says how, seldom what."""
    rows = code.splitlines()
    return code if len(rows) <= 18 else "\n".join([*rows[:8], *rows[-6:]])


def tool_names(trajectory: Trajectory) -> list[str]:
    """Names of the tools that the policy was shown, in whichever form their schemas have."""
    inner = [schema.get("function", schema) for schema in trajectory.tools]
    return [str(one.get("name", "")) for one in inner if isinstance(one, Mapping)]
