"""What the rubric may see of an attempt, indexed once: who said what first, and what is linked.

A :class:`View` holds the question, the tools' schemas and the attempt's turns. It never reads the
task's answer, metadata, files or grader, nor outcomes and rewards. Not here: judging.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reagent_env.reward_models.base import told
from reagent_env.reward_models.rubric_text import (
    STOP_WORDS,
    as_float,
    is_number,
    names,
    signed_numbers,
    tokens,
)
from reagent_env.trajectory import Attempt, StopReason, ToolCall, ToolResult, Trajectory

Name = tuple[str, ...]

MAX_TEXT = 200_000
"""Characters read of one text; what lies beyond is ignored."""
BEFORE = -1
"""The turn of what was known before the attempt: the question, feedback, earlier attempts."""

_CODE_HINTS = frozenset({"code", "script", "source", "program", "command", "expression", "formula"})
_URL_HINTS = frozenset({"url", "uri", "link", "href"})
_PATH_HINTS = frozenset({"path", "file", "filename", "file_name", "filepath", "file_path"})
_QUERY_HINTS = frozenset({"query", "queries", "q", "question", "keywords", "search", "term"})
_COMMAND_HINTS = frozenset({"command", "action"})
_ACTING_TOOLS = frozenset({"act", "action", "do", "step", "perform", "take_action"})
_SQL_TOOL = re.compile(r"sql|database|(?:^|_)db(?:_|$)", re.IGNORECASE)
_SQL = re.compile(r"\s*(?:SELECT\s|WITH\s+\w+\s+AS\s*\(|PRAGMA\s|EXPLAIN\s)", re.IGNORECASE)
_LOOK = re.compile(
    r"\s*(?:inventory|look(?: around)?|check|examine|inspect|list|help|status|where)\b",
    re.IGNORECASE,
)
"""A command that shows something and changes nothing."""
_REFUSED = re.compile(
    r"\s*(?:could not|couldn't|cannot|can't|you (?:cannot|can't|could not)(?! see any)|no known action|"
    r"nothing happen(?:s|ed)|invalid|unknown|unrecogni[sz]ed|i don't|that is not)\b",
    re.IGNORECASE,
)
"""How worlds answer a command that they did not carry out."""
_HIT = re.compile(r"^(?:\[\d{1,4}\] |\d{1,4}[.)] )", re.MULTILINE)
_FAILED = re.compile(r"\s*(?:Error\b|Traceback \(most recent call last\))")
_TRUNCATED = re.compile(
    r"characters omitted|more characters|\[page \d{1,6} of \d{1,6}\]|go on with offset|\[cut:|…\s*$"
)
_CALL_BLOCK = ("<tool_call>", "</tool_call>")


@dataclass(frozen=True, slots=True)
class Call:
    """A call with its result and what its arguments are for."""

    turn: int
    place: int
    name: str
    arguments: Mapping[str, Any]
    result: ToolResult | None
    error: str | None
    """None, or the kind of failure."""
    content: str
    """The result's text, cut to :data:`MAX_TEXT`."""
    code: tuple[str, ...]
    urls: tuple[str, ...]
    paths: tuple[str, ...]
    queries: tuple[str, ...]
    others: tuple[str, ...]
    """Strings of other arguments."""
    numbers: tuple[str, ...]
    """Numbers given as numbers for arguments that have no default."""
    key: str
    """Name and arguments, spaces and case evened out: equal keys are the same call."""
    loose_key: str
    """The same without numbers and order."""
    trivial_code: bool
    """True for code that computes nothing."""
    own: frozenset[str]
    """Tokens of its arguments."""
    shown: frozenset[str] = frozenset()
    """Tokens of its result, where it succeeded."""
    new: frozenset[str] = frozenset()
    """Names' words and numbers this result was the first to show."""
    informative: bool = False
    """True where the result told something that neither question, call nor earlier results held."""
    linked: bool = True
    """True where the result speaks of something that leads back to the question."""
    command: str = ""
    """The command, in lower case, where the tool acts in a world; else empty."""
    sql: str = ""
    """The query, where the tool answers SQL; it is code too."""

    @property
    def looks(self) -> bool:
        """True for a command that shows something and changes nothing."""
        return is_look(self.command)

    @property
    def computes(self) -> bool:
        """True for a call that carries code."""
        return bool(self.code)

    @property
    def strings(self) -> tuple[str, ...]:
        """All the strings among its arguments."""
        command = (self.command,) if self.command else ()
        return self.code + self.urls + self.paths + self.queries + self.others + command

    @property
    def truncated(self) -> bool:
        """True where the result says that it is only a part."""
        return _TRUNCATED.search(self.content) is not None


@dataclass(frozen=True, slots=True)
class TurnView:
    """A turn: what was said beside the calls, and the calls."""

    index: int
    talk: str
    """The completion without its tool calls."""
    beside: str
    """The same, with what follows a ReAct action."""
    completion: str
    calls: tuple[Call, ...]
    words: frozenset[str]
    """Tokens of the completion, arguments included."""

    @property
    def failed(self) -> bool:
        """True where there were calls and none succeeded."""
        return bool(self.calls) and all(call.error is not None for call in self.calls)


@dataclass(slots=True)
class View:
    """An attempt made ready for the checks."""

    question: str
    tools: Mapping[str, Mapping[str, Any]]
    """Tool name → JSON schema of its arguments."""
    turns: list[TurnView]
    final_answer: str | None
    stop_reason: str | None
    answered: bool
    """True where the last turn is a final one: without calls, not cut off."""
    question_tokens: frozenset[str]
    question_names: frozenset[Name]
    first_seen: dict[str, int]
    """Token → the turn whose results first showed it (:data:`BEFORE` for the question's)."""
    known: dict[Name, int]
    """Name → the turn whose results linked it to the question."""
    named: dict[Name, int]
    """Name → the turn whose results first held it, linked or not."""
    linked_tokens: dict[str, int]
    """Token → the first turn with it in a passage linked to the question."""
    signed: set[str]
    """Signed numbers in results."""
    floats: list[float]
    """Values of numbers in results, sorted."""
    last_used: dict[str, int]
    """Token → the last turn whose completion used it."""
    observations: list[str] = field(default_factory=list)
    """Texts of successful results, in order."""
    has_code_tool: bool = False
    world: bool = False
    """True where the tools act in a world, which ends the attempt once its task is decided."""
    continued: bool = False
    """True for an attempt after another, which may lean on what that one saw."""

    @property
    def calls(self) -> Iterator[Call]:
        """All calls in order."""
        return (call for turn in self.turns for call in turn.calls)

    @property
    def finished(self) -> bool:
        """False for a prefix of an attempt that goes on."""
        return self.answered or self.stop_reason is not None

    @property
    def decided(self) -> bool:
        """True where a world ended the attempt."""
        return self.stop_reason == StopReason.FINISHED

    def seen_before(self, token: str, turn: int) -> bool:
        """True if question, feedback or a result of an earlier turn holds ``token``."""
        return self.first_seen.get(token, turn) < turn


def view_of(trajectory: Trajectory) -> View:
    """Index a trajectory's last attempt."""
    attempt = trajectory.attempts[-1] if trajectory.attempts else Attempt()
    question = told(trajectory)[:MAX_TEXT]
    tools = dict(_schemas(trajectory.tools))
    indexer = _Indexer(question)
    for earlier in trajectory.attempts[:-1]:
        for turn in earlier.turns:
            for outcome in turn.results:
                if not (outcome.error or _FAILED.match(outcome.content)):
                    indexer.take(outcome.content[:MAX_TEXT], BEFORE, everything_linked=True)
    if attempt.feedback:
        indexer.take(attempt.feedback[:MAX_TEXT], BEFORE, everything_linked=False)
    turns = []
    last_used: dict[str, int] = {}
    observations: list[str] = []
    for index, turn in enumerate(attempt.turns):
        completion = turn.completion[:MAX_TEXT]
        read = [
            _call(index, place, call, turn.results, tools) for place, call in enumerate(turn.calls)
        ]
        calls = tuple(indexer.observe(call) for call in read)
        beside = _beside(completion)
        words = frozenset(tokens(beside)).union(*(call.own for call in calls))
        for word in words:
            last_used[word] = index
        observations += [c.content for c in calls if c.error is None and not c.trivial_code]
        turns.append(TurnView(index, _talk(beside), beside, completion, calls, words))
    cut_off = {str(StopReason.MAX_TURNS), str(StopReason.WALL_TIME), str(StopReason.CONTEXT_LENGTH)}
    answered = (
        bool(attempt.turns)
        and not attempt.turns[-1].calls
        and attempt.stop_reason not in cut_off
        and attempt.stop_reason != StopReason.INFRASTRUCTURE_FAILURE
    )
    return View(
        question=question,
        tools=tools,
        turns=turns,
        final_answer=attempt.final_answer[:MAX_TEXT] if attempt.final_answer else None,
        stop_reason=None if attempt.stop_reason is None else str(attempt.stop_reason),
        answered=answered,
        question_tokens=frozenset(tokens(question)),
        question_names=frozenset(names(question)),
        first_seen=indexer.first_seen,
        known=indexer.known,
        named=indexer.named,
        linked_tokens=indexer.linked_tokens,
        signed=indexer.signed,
        floats=sorted(indexer.floats),
        last_used=last_used,
        observations=observations,
        continued=len(trajectory.attempts) > 1,
        world=any(map(_acts, tools.items())),
        has_code_tool=any(
            _SQL_TOOL.search(name) is not None or (key in _CODE_HINTS and not _acts((name, schema)))
            for name, schema in tools.items()
            for key in _properties(schema)
        ),
    )


class _Indexer:
    """Grows the evidence turn by turn; what a result shows counts from the turn after."""

    def __init__(self, question: str) -> None:
        self.first_seen: dict[str, int] = dict.fromkeys(tokens(question), BEFORE)
        self.known: dict[Name, int] = dict.fromkeys(names(question), BEFORE)
        self.named: dict[Name, int] = {}
        self.linked_tokens: dict[str, int] = {}
        self.signed: set[str] = set()
        self.floats: set[float] = set()
        self._waiting: dict[Name, list[_Block]] = {}
        self._has_names = bool(self.known)

    def observe(self, call: Call) -> Call:
        """Take in a call's result; returns the call with what was new in it."""
        if call.command and call.error is None:
            self.take(call.content, call.turn, everything_linked=True)
            return replace(call, informative=not call.looks)
        if call.error is not None:
            text = call.content
            for given in call.strings[:16]:
                if 0 < len(given) <= 400:
                    text = text.replace(given, " ")
            for token in tokens(text):
                self.first_seen.setdefault(token, call.turn)
            return replace(call, informative=False, linked=False)
        if call.trivial_code:
            return replace(call, informative=False, linked=False)
        text = call.content if call.computes else _without_echo(call)
        own = call.own
        if call.computes:
            whole = True
        else:
            asked = {
                one
                for given in (*call.queries, *call.others)
                for one in names(given, initial=True)
                if len(one) > 1 or one in self.named
            }
            whole = (
                not self._has_names
                or bool(call.paths)
                or (not call.urls and all(one in self.known for one in asked))
            )
        taken = self.take(text, call.turn, everything_linked=call.computes, lenient=whole)
        fresh, linked, name_words = taken.fresh, taken.linked, taken.name_words
        informative = any(token not in own and token not in STOP_WORDS for token in fresh)
        if call.computes:
            informative = bool(text.strip())
        new = frozenset(t for t in fresh if (is_number(t) or t in name_words) and t not in own)
        return replace(
            call, informative=informative, linked=linked, new=new, shown=frozenset(taken.shown)
        )

    def take(
        self, text: str, turn: int, *, everything_linked: bool, lenient: bool = True
    ) -> _Taken:
        """Index one text."""
        taken = _Taken()
        blocks = []
        for part in _blocks(text):
            block = _Block(frozenset(names(part)), tokens(part))
            blocks.append(block)
            taken.shown.update(block.words)
            for one in block.names:
                self.named.setdefault(one, turn)
                taken.name_words.update(one)
        for word in taken.shown:
            if word not in self.first_seen:
                self.first_seen[word] = turn
                taken.fresh.add(word)
                if is_number(word) and (value := as_float(word)) is not None:
                    self.floats.add(value)
        self.signed.update(signed_numbers(text))
        for block in blocks:
            if everything_linked or not self._has_names or self._is_known(block.names):
                taken.linked = True
                self._link(block, turn)
            else:
                for one in block.names:
                    self._waiting.setdefault(one, []).append(block)
        if not taken.linked and lenient and blocks:
            taken.linked = True
            for block in blocks:
                self._link(block, turn)
        return taken

    def _is_known(self, block_names: frozenset[Name]) -> bool:
        return any(one in self.known for one in block_names)

    def _link(self, block: _Block, turn: int) -> None:
        todo = [block]
        while todo:
            linked = todo.pop()
            if linked.linked:
                continue
            linked.linked = True
            for word in linked.words:
                self.linked_tokens.setdefault(word, turn)
            for one in linked.names:
                if one not in self.known:
                    self.known[one] = turn
                    todo += self._waiting.pop(one, ())


@dataclass(slots=True)
class _Block:
    """A passage: the names in it link what else it says."""

    names: frozenset[Name]
    words: list[str]
    linked: bool = False


@dataclass(slots=True)
class _Taken:
    """What came of indexing one text."""

    shown: set[str] = field(default_factory=set)
    fresh: set[str] = field(default_factory=set)
    """Tokens never seen before."""
    name_words: set[str] = field(default_factory=set)
    linked: bool = False


def _blocks(text: str) -> Iterator[str]:
    """The hits of a list of results apart; any other text whole."""
    starts = [found.start() for found in _HIT.finditer(text)]
    if len(starts) < 2:
        if text.strip():
            yield text
        return
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield _HIT.sub("", text[start:end], count=1).split("\n\n", 1)[0]


def _without_echo(call: Call) -> str:
    """The result without the lines that only repeat the call's own words."""
    given = [one for one in (*call.queries, *call.others) if one.strip()][:16]
    if not given:
        return call.content
    kept = []
    for line in call.content.split("\n"):
        if line.rstrip().endswith(":") and any(
            one[:400] in line and len(line) <= len(one) + 40 for one in given
        ):
            continue
        kept.append(line)
    return "\n".join(kept)


def _call(
    turn: int,
    place: int,
    call: ToolCall,
    results: tuple[ToolResult, ...],
    tools: Mapping[str, Mapping[str, Any]],
) -> Call:
    outcome = results[place] if place < len(results) else None
    schema = tools.get(call.name, {})
    properties = _properties(schema)
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    parts: dict[str, list[str]] = {
        kind: [] for kind in ("code", "urls", "paths", "queries", "others", "commands")
    }
    acts = _acts((call.name, schema))
    sql = ""
    numbers: list[str] = []
    every: list[str] = []
    for name, value in call.arguments.items():
        key = str(name).lower()
        kind = (
            "commands"
            if acts and key in _COMMAND_HINTS
            else "code"
            if key in _CODE_HINTS
            else "urls"
            if key in _URL_HINTS
            else "paths"
            if key in _PATH_HINTS
            else "queries"
            if key in _QUERY_HINTS
            else "others"
        )
        for one in _strings(value):
            if kind == "others" and "://" in one[:16]:
                parts["urls"].append(one)
            elif kind == "queries" and (_SQL.match(one) or _SQL_TOOL.search(call.name)):
                parts["code"].append(one)
                sql = one
            else:
                parts[kind].append(one)
        part = properties.get(name)
        optional = isinstance(part, Mapping) and "default" in part
        given = list(_numbers(value))
        every += given
        if not optional and name in required:
            numbers += given
    code = tuple(parts["code"])
    content = outcome.content[:MAX_TEXT] if outcome is not None else ""
    error = outcome.error if outcome is not None else None
    command = " ".join(" ".join(parts["commands"]).lower().split())
    failed = _FAILED.match(content) or (command and _REFUSED.match(content))
    if error is None and outcome is not None and failed:
        error = "tool_error"
    if error is None and outcome is None:
        error = "malformed" if call.malformed else "not_run"
    own = frozenset(every).union(*(tokens(one) for kind in parts.values() for one in kind))
    flat = _flat(call.arguments)
    even = " ".join(flat.lower().split())
    return Call(
        turn=turn,
        place=place,
        name=call.name,
        arguments=call.arguments,
        result=outcome,
        error=error,
        content=content,
        code=code,
        urls=tuple(parts["urls"]),
        paths=tuple(parts["paths"]),
        queries=tuple(parts["queries"]),
        others=tuple(parts["others"]),
        numbers=tuple(numbers),
        key=f"{call.name}\0{flat if code else even}",
        loose_key="" if code else f"{call.name}\0{' '.join(sorted(_text_words(call.arguments)))}",
        trivial_code=bool(code) and all(_computes_nothing(one) for one in code),
        own=own,
        command=command,
        sql=sql,
    )


_STRING = re.compile(r"\"\"\"|'''|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|#[^\n]*")
_WORK = re.compile(
    r"[+*/%@<>&|^~\[{]|(?<!^)(?<![=(,\s])\s*-|\b(?:for|while|if|import|def|lambda|return|with|open)\b"
)
_CALLED = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
_WORD = re.compile(r"\b[A-Za-z_]\w*\b")
_ASSIGNED = re.compile(r"^\s*([A-Za-z_]\w*)\s*=(?!=)", re.MULTILINE)
_BARE_SELECT = re.compile(
    r"\s*SELECT\s+(?:'[^']{0,400}'|[\d.]{1,40})\s*(?:AS\s+\w+\s*)?;?\s*", re.IGNORECASE
)
"""A query that only shows a constant."""
_SHOWING = frozenset({"print", "str", "int", "float", "round", "repr"})


def _computes_nothing(code: str) -> bool:
    """True for code that only shows literals: no operation, no call but printing, no earlier name."""
    if len(code) > 4_000:
        return False
    if _SQL.match(code):
        return _BARE_SELECT.fullmatch(code) is not None
    formatted = re.search(r"\bf[\"'][^\"'\n]*\{[^}\n]*[-+*/%(]", code)
    bare = _STRING.sub(" ", code)
    if formatted or _WORK.search(bare) or not code.strip():
        return False
    if any(name not in _SHOWING for name in _CALLED.findall(bare)):
        return False
    assigned = set(_ASSIGNED.findall(bare))
    literals = {"True", "False", "None", "f", "r", "b", "sep", "end"}
    return all(w in _SHOWING or w in assigned or w in literals for w in _WORD.findall(bare))


def _schemas(
    tools: tuple[Mapping[str, Any], ...],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for tool in tools:
        function = tool.get("function", tool)
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            schema = function.get("parameters")
            yield function["name"], schema if isinstance(schema, Mapping) else {}


def is_look(command: str) -> bool:
    """True for a command that shows something and changes nothing, e.g. ``inventory``."""
    return _LOOK.match(command) is not None


def _acts(tool: tuple[str, Mapping[str, Any]]) -> bool:
    """True for a tool that takes commands to a world, e.g. ``act(command)``; not for a shell."""
    name, schema = tool
    return name.lower() in _ACTING_TOOLS and any(
        key in _COMMAND_HINTS for key in _properties(schema)
    )


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value[:MAX_TEXT]
    elif depth < 8 and isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part, depth + 1)
    elif depth < 8 and isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part, depth + 1)


def _numbers(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not isinstance(value, int) or value.bit_length() <= 1024:
            yield from tokens(str(abs(value)))
    elif depth < 8 and isinstance(value, list | tuple):
        for part in value:
            yield from _numbers(part, depth + 1)


def _text_words(arguments: Mapping[str, Any]) -> set[str]:
    return {word for one in _strings(arguments) for word in one.lower().split()}


def _flat(arguments: Mapping[str, Any]) -> str:
    try:
        return json.dumps(arguments, ensure_ascii=False, sort_keys=True, default=str)[:MAX_TEXT]
    except (TypeError, ValueError, RecursionError):
        return ""


def _beside(completion: str) -> str:
    """The completion without its tool calls; ReAct's and bare JSON stay."""
    opening, closing = _CALL_BLOCK
    kept = []
    place = 0
    while (start := completion.find(opening, place)) >= 0:
        kept.append(completion[place:start])
        end = completion.find(closing, start)
        if end < 0:
            return "\n".join(kept)
        place = end + len(closing)
    return "\n".join([*kept, completion[place:]])


def _talk(text: str) -> str:
    """What is said before a call in ReAct's or bare JSON."""
    stripped = text.lstrip()
    if stripped.startswith("{") and '"name"' in stripped[:200]:  # a call written as bare JSON
        return ""
    action = re.search(r"^Action\s*:", text, re.MULTILINE)
    return text[: action.start()] if action else text
