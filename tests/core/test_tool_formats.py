"""Calls are read from text, and whatever a model gets wrong is told, never raised."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reagent_env import tool
from reagent_env.testing import add
from reagent_env.tool_formats import TOOL_FORMATS, CompactFormat, get_tool_format
from reagent_env.trajectory import ToolCall, ToolResult

hermes = TOOL_FORMATS["hermes"]
react = TOOL_FORMATS["react"]
openai = TOOL_FORMATS["openai"]

# A high surrogate before a low one is the same text as the character they make.
any_text = st.text(st.characters(exclude_categories=()), max_size=200).map(
    lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
)
PIECES = (
    "<tool_call>",
    "</tool_call>",
    '{"name": "add", "arguments": {"a": 1}}',
    "{",
    "}",
    "<think>",
    "</think>",
    "Action: add\n",
    "Action Input: ",
    '"tool_calls": [',
    "]",
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=5,
)


def block(text: str) -> str:
    return f"<tool_call>{text}</tool_call>"


@pytest.mark.parametrize("tool_format", TOOL_FORMATS.values(), ids=lambda one: one.name)
@given(arguments=st.dictionaries(any_text, json_values, max_size=3), thought=st.just("So"))
def test_a_rendered_call_reads_back_as_itself(
    tool_format: Any, arguments: dict[str, Any], thought: str
) -> None:
    parsed = tool_format.parse(tool_format.render_calls([ToolCall("add", arguments)], thought))
    assert [(call.name, call.arguments, call.malformed) for call in parsed.calls] == [
        ("add", arguments, None)
    ]


@pytest.mark.parametrize("tool_format", TOOL_FORMATS.values(), ids=lambda one: one.name)
@settings(max_examples=300)
@given(text=st.lists(st.sampled_from(PIECES) | any_text, max_size=8).map("".join))
def test_no_text_raises(tool_format: Any, text: str) -> None:
    parsed = tool_format.parse(text)
    assert (parsed.final_text is None) == bool(parsed.calls)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (block("{}"), 'no "name"'),
        (block('{"name": "add"}'), 'no "arguments"'),
        (block('{"name": 1, "arguments": {}}'), 'no "name"'),
        (block('{"name": "add", "arguments": [1]}'), "must be a JSON object, got a list"),
        (block('{"name": "add", "arguments": "1"}'), "must be a JSON object, got a number"),
        (block('["add"]'), "got a list"),
        (block("add(1, 2)"), "not valid JSON"),
        (block('{"name": "add", "arguments": {"a": NaN}}'), "NaN is not JSON"),
        (block('{"name": "add", "arguments": {}} and more'), "must follow"),
        ('<tool_call>{"name": "add"', "</tool_call> is missing"),
        ('{"name": "add", "arguments": {}}</tool_call>', "without <tool_call>"),
        (block("[" * 100_000), "nested too deeply"),
        (block('{"name": "add", "arguments": {"a": ' + "9" * 5000 + "}}"), "not valid JSON"),
    ],
)
def test_a_malformed_hermes_call_says_what_is_wrong(text: str, problem: str) -> None:
    (call,) = hermes.parse(text).calls
    assert call.malformed is not None
    assert problem in call.malformed


def test_hermes_reads_tags_inside_strings_and_raw_line_breaks() -> None:
    code = "print('</tool_call>')\nprint('<tool_call>')"
    raw = '{"name": "python", "arguments": {"code": "a = 1\nb = 2"}}'
    (first,) = hermes.parse(hermes.render_calls([ToolCall("python", {"code": code})])).calls
    (second,) = hermes.parse(block(raw)).calls
    assert first.arguments["code"] == code
    assert second.arguments["code"] == "a = 1\nb = 2"


def test_hermes_takes_a_call_whose_closing_tag_was_the_stop_string() -> None:
    (call,) = hermes.parse('<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n').calls
    assert call == ToolCall("add", {"a": 1})


def test_a_good_call_beside_a_bad_one_still_counts() -> None:
    good = '{"name": "add", "arguments": {}}'
    calls = hermes.parse(block("{") + block(good)).calls
    assert [call.malformed is None for call in calls] == [False, True]


def test_thoughts_hold_no_calls() -> None:
    inside = block('{"name": "add", "arguments": {}}')
    assert hermes.parse(f"<think>{inside}</think>done").final_text == "done"
    assert hermes.parse(f"opened in the prompt {inside}</think>done").final_text == "done"
    assert len(hermes.parse(f"opened in the prompt {inside}</think>{inside}").calls) == 1
    quoted = hermes.render_calls([ToolCall("python", {"code": "print('</think>')"})])
    assert hermes.parse(quoted).calls[0].name == "python"
    assert hermes.parse(f"opened in the prompt</think>{inside}").calls[0].name == "add"
    assert hermes.parse("<think>never closed " + inside).final_text == ""


def test_react_ignores_an_imagined_observation() -> None:
    text = 'Thought: add\nAction: add\nAction Input: {"a": 1}\nObservation: 7\nFinal Answer: 7'
    assert react.parse(text).calls == (ToolCall("add", {"a": 1}),)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Action: add", "'Action Input:' is missing"),
        ("Action: add\nAction Input: 1 + 2", "must be a JSON object"),
        ("Action: add\nAction Input: {", "not a JSON object"),
    ],
)
def test_a_malformed_react_call_says_what_is_wrong(text: str, problem: str) -> None:
    (call,) = react.parse(text).calls
    assert problem in (call.malformed or "")


def test_openai_messages_keep_their_call_ids() -> None:
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "x1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
        ],
    }
    (call,) = openai.parse(json.dumps(message)).calls
    assert call == ToolCall("add", {"a": 1}, "x1")
    shown = openai.render_results([ToolResult("add", "3", call_id="x1")])
    assert json.loads(shown) == [
        {"role": "tool", "tool_call_id": "x1", "name": "add", "content": "3"}
    ]
    assert openai.parse(json.dumps({"content": r"\boxed{3}"})).final_text == r"\boxed{3}"
    assert openai.parse('{"tool_calls": [').calls[0].malformed


def test_the_compact_prompt_of_four_tools_stays_short() -> None:
    @tool
    def search(queries: list[str], top_k: int = 5) -> str:
        """Search.

        Args:
            queries: What.
            top_k: How many.
        """
        return ""

    @tool
    def browse(url: str, query: str = "", page: int = 1) -> str:
        """Read.

        Args:
            url: Where.
            query: What.
            page: Which.
        """
        return ""

    from reagent_env.tools import python, shell

    prompt = CompactFormat().system_prompt([search, browse, python, shell])
    # A byte-level tokenizer of 1,000 entries makes about one token of three characters.
    assert len(prompt) / 3 < 150
    assert "search(queries: list[str], top_k: int = 5)" in prompt


def test_the_hermes_prompt_shows_each_schema() -> None:
    assert json.dumps(add.schema) in hermes.system_prompt([add])


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'react'"):
        get_tool_format("reakt")


@pytest.mark.parametrize(
    "text",
    [
        "**Action:** add\n**Action Input:** {}",
        "action: `add`\naction input: {}",
        "Action 1: add()\nAction Input 1: {}",
        "Thought: x\n*Action*: add\nAction 1 Input: {}",
    ],
)
def test_react_reads_the_marks_that_models_put_around_its_words(text: str) -> None:
    assert react.parse(text).calls == (ToolCall("add", {}),)


def test_openai_content_with_one_backslash_still_boxes() -> None:
    assert openai.parse('{"content": "\\boxed{42}"}').final_text == r"\boxed{42}"
    message = '{"tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}'
    assert openai.parse("I set {x} first.</think>" + message).calls == (ToolCall("add", {}),)
