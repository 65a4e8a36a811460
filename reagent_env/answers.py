"""Finds the final answer in a completion: what the agent answered, not what it thought or quoted.

Not here: whether the answer is right (:mod:`reagent_env.graders`), and whether the turn is final
(a turn with a tool call is not; the tool format decides that).

Text that is not the agent's own answer never counts: thoughts, tool calls and responses, code,
quotations and comments. Several different answers are none, so hedging gains nothing.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

AnswerStyle = Literal["boxed", "react"]
ANSWER_STYLES: tuple[str, ...] = get_args(AnswerStyle)

MAX_COMPLETION_CHARS = 4_000_000
"""A longer completion holds no answer: nobody reads that far."""

_BLOCKS = ("think", "tool_call", "tool_response", "tools")
_TAG = re.compile(rf"<(/?)({'|'.join(_BLOCKS)})>", re.IGNORECASE)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})", re.MULTILINE)
_BLOCK_QUOTE = re.compile(r"^[ \t]{0,3}>.*$", re.MULTILINE)
_BACKTICKS = re.compile(r"`+")
_BOX = re.compile(r"(?<!\\)\\boxed\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_PARAGRAPH_END = re.compile(r"\n[ \t]*\n")
_REACT = re.compile(r"^[ \t*_#]*Final Answer[ \t*_]*:[ \t*_]*", re.MULTILINE | re.IGNORECASE)
_NOT_SPACE = re.compile(r"\S")
_CLOSING = {'"': '"', "“": "”", "„": "“”", "«": "»", "‘": "’", "'": "'"}


def final_answer(completion_text: str, style: str = "boxed") -> str | None:
    r"""The one final answer in a completion, or None when it holds none or several different ones.

    Example: ``final_answer(r"So it is \boxed{42}.")`` is ``"42"``;
    ``final_answer("Final Answer: 42", "react")`` is ``"42"``.

    Args:
        completion_text: the whole text of the final turn, as the policy wrote it.
        style: ``boxed`` (one ``\boxed{…}`` with balanced braces) or ``react`` (one line that
            starts with ``Final Answer:``).

    Raises:
        ValueError: for an unknown style.
    """
    if style not in ANSWER_STYLES:
        raise ValueError(
            f"Unknown answer style {style!r}; known styles: {', '.join(ANSWER_STYLES)}."
        )
    if len(completion_text) > MAX_COMPLETION_CHARS:
        return None
    text = own_words(completion_text)
    found = boxed_values(text) if style == "boxed" else _react_values(text)
    if found is None:
        return None
    distinct = {" ".join(value.split()): value for value in found if value.strip()}
    return next(iter(distinct.values())).strip() if len(distinct) == 1 else None


def own_words(completion_text: str) -> str:
    """The completion without thoughts, tool blocks, comments, code and quotations.

    Each removed stretch leaves one space, so that the text around it does not run together.
    """
    text = _without_blocks(completion_text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _without_comments(text)
    text = _without_fences(text)
    text = _without_inline_code(text)
    text = _BLOCK_QUOTE.sub(" ", text)
    return _without_quotations(text)


def _without_blocks(text: str) -> str:
    """Drop ``<think>``-like blocks; an open one reaches the end, a stray close drops all before it."""
    kept: list[str] = []
    depth: dict[str, int] = dict.fromkeys(_BLOCKS, 0)
    inside = 0
    position = 0
    for tag in _TAG.finditer(text):
        if inside == 0:
            kept.append(text[position : tag.start()])
        position = tag.end()
        name = tag[2].lower()
        if not tag[1]:
            depth[name] += 1
            inside += 1
        elif depth[name]:
            depth[name] -= 1
            inside -= 1
        else:  # chat templates open the thought in the prompt: what precedes was thought
            kept.clear()
        kept.append(" ")
    if inside == 0:
        kept.append(text[position:])
    return "".join(kept)


def _without_comments(text: str) -> str:
    kept: list[str] = []
    position = 0
    while (start := text.find("<!--", position)) >= 0:
        kept += [text[position:start], " "]
        end = text.find("-->", start + 4)
        if end < 0:
            return "".join(kept)
        position = end + 3
    return "".join([*kept, text[position:]])


def _without_fences(text: str) -> str:
    kept: list[str] = []
    opened = ""
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        if opened:
            bare = line.strip()
            if fence and bare == bare[0] * len(bare) and bare.startswith(opened):
                opened = ""
            continue
        if fence:
            opened = fence[1]
            kept.append("")
            continue
        kept.append(line)
    return "\n".join(kept)


def _without_inline_code(text: str) -> str:
    """Drop code spans: a run of backticks up to the next run of the same length in its paragraph."""
    kept: list[str] = []
    for paragraph in _PARAGRAPH_END.split(text):
        runs = list(_BACKTICKS.finditer(paragraph))
        later: dict[int, list[int]] = {}
        for index in range(len(runs) - 1, -1, -1):
            later.setdefault(len(runs[index][0]), []).append(index)
        position = index = 0
        pieces: list[str] = []
        while index < len(runs):
            same = later[len(runs[index][0])]
            while same and same[-1] <= index:
                same.pop()
            if same:
                closing = same[-1]
                pieces += [paragraph[position : runs[index].start()], " "]
                position = runs[closing].end()
                index = closing + 1
            else:
                index += 1
        kept.append("".join([*pieces, paragraph[position:]]))
    return "\n\n".join(kept)


def _without_quotations(text: str) -> str:
    """Drop quoted stretches, but leave quotation marks inside a box alone (they belong to it)."""
    return "\n\n".join(_unquoted(paragraph) for paragraph in _PARAGRAPH_END.split(text))


def _unquoted(paragraph: str) -> str:
    kept: list[str] = []
    position = 0
    length = len(paragraph)
    unclosed: set[str] = set()
    start = 0
    marks = re.compile(r"(?<!\\)\\boxed\s*\{|``|[\"“„«‘']")
    while mark := marks.search(paragraph, position):
        opening = mark[0]
        if opening.startswith("\\"):
            position = _box_end(paragraph, mark.end()) or length
            continue
        before = paragraph[mark.start() - 1] if mark.start() else " "
        if opening in "\"'" and before.isalnum():  # an inch mark, an apostrophe, a closing mark
            position = mark.end()
            continue
        end = -1 if opening in unclosed else _quotation_end(paragraph, mark.end(), opening)
        if end < 0:
            if opening != "'":
                unclosed.add(opening)
            position = mark.end()
            continue
        kept += [paragraph[start : mark.start()], " "]
        start = position = end
    return "".join([*kept, paragraph[start:]])


def _quotation_end(text: str, start: int, opening: str) -> int:
    """The index after the closing mark, or -1. Straight single quotes only close around one box."""
    if opening == "``":
        end = text.find("''", start)
        return end + 2 if end >= 0 else -1
    if opening == "'":
        box = _BOX.match(text, start)
        end = (_box_end(text, box.end()) or -1) if box else -1
        return end + 1 if end >= 0 and text[end : end + 1] == "'" else -1
    ends = [end for mark in _CLOSING[opening] if (end := text.find(mark, start)) >= 0]
    return min(ends) + 1 if ends else -1


def _box_end(text: str, start: int) -> int | None:
    """The index after the brace that closes the one opened just before ``start``."""
    depth = 1
    for brace in _BRACE.finditer(text, start):
        if brace[0] == "{":
            depth += 1
        elif brace[0] == "}":
            depth -= 1
            if depth == 0:
                return brace.end()
    return None


def boxed_values(text: str) -> list[str] | None:
    """What the boxes hold, outermost first; None when a box is unclosed or holds other boxes."""
    values: list[str] = []
    position = 0
    while box := _BOX.search(text, position):
        end = _box_end(text, box.end())
        if end is None:
            return None
        value = text[box.end() : end - 1].strip()
        inner = _BOX.match(value)
        if inner and _box_end(value, inner.end()) == len(value):
            value = value[inner.end() : -1].strip()
        if _BOX.search(value):
            return None
        values.append(value)
        position = end
    return values


def _react_values(text: str) -> list[str] | None:
    """What follows each ``Final Answer:``, to the end of its line (or the next line that has any)."""
    values: list[str] = []
    for label in _REACT.finditer(text):
        start = _NOT_SPACE.search(text, label.end())
        if start is None:
            continue
        end = text.find("\n", start.start())
        value = text[start.start() : end if end >= 0 else len(text)].strip(" \t*_")
        boxed = boxed_values(value)
        if boxed is None:
            return None
        values += boxed or [value]
    return values
