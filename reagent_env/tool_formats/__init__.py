"""How tool calls are written in a completion and their results in an observation."""

from __future__ import annotations

import difflib

from reagent_env.tool_formats.base import ParsedTurn, ToolFormat
from reagent_env.tool_formats.hermes import CompactFormat, HermesFormat
from reagent_env.tool_formats.openai_json import OpenAIFormat
from reagent_env.tool_formats.react import ReActFormat

__all__ = [
    "TOOL_FORMATS",
    "CompactFormat",
    "HermesFormat",
    "OpenAIFormat",
    "ParsedTurn",
    "ReActFormat",
    "ToolFormat",
    "get_tool_format",
]

TOOL_FORMATS: dict[str, ToolFormat] = {
    one.name: one for one in (HermesFormat(), CompactFormat(), ReActFormat(), OpenAIFormat())
}


def get_tool_format(name: str | ToolFormat) -> ToolFormat:
    """The format of that name, or the format itself; ``ValueError`` names the nearest right one."""
    if isinstance(name, ToolFormat):
        return name
    if name not in TOOL_FORMATS:
        near = difflib.get_close_matches(str(name), TOOL_FORMATS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown tool_format {name!r}; known: {', '.join(TOOL_FORMATS)}.{hint}")
    return TOOL_FORMATS[name]
