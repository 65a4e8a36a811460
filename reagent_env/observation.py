"""Bounds an observation: results share its room, and keep head and tail of what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reagent_env.tool_formats import ToolFormat
from reagent_env.trajectory import ToolResult


def bounded_observation(
    results: Sequence[ToolResult], tool_format: ToolFormat, limit: int
) -> tuple[list[ToolResult], str]:
    """The results as they fit, and the observation that carries them: ``limit`` characters at most.

    What a short result leaves, longer ones may use.
    """
    observation = tool_format.render_results(results)
    if len(observation) <= limit:  # the common case: everything fits as it is
        return list(results), observation
    frame = len(tool_format.render_results([replace(one, content="") for one in results]))
    room = max(0, limit - frame)
    while True:
        fitting = _share(results, room)
        observation = tool_format.render_results(fitting)
        excess = len(observation) - limit  # what rendering escapes takes room too
        if excess <= 0 or room == 0:
            return fitting, observation[:limit]
        room = max(0, room - excess)


def shorten(text: str, limit: int) -> str:
    """Keep head and tail of a text longer than ``limit`` characters, and say how much is missing."""
    if len(text) <= limit:
        return text
    notice = f"\n[... {len(text) - limit} characters omitted ...]\n"
    keep = max(0, limit - len(notice))
    head = keep - keep // 2
    return (text[:head] + notice + text[len(text) - keep // 2 :])[:limit]


def _share(results: Sequence[ToolResult], room: int) -> list[ToolResult]:
    shared = list(results)
    by_length = sorted(range(len(results)), key=lambda i: len(results[i].content))
    for done, position in enumerate(by_length):
        share = room // (len(results) - done)
        content = shorten(results[position].content, share)
        room -= len(content)
        shared[position] = replace(results[position], content=content)
    return shared
