"""``@tool``: a schema from a typed function, and errors a model can act on."""

from __future__ import annotations

import json
from typing import Literal

import pytest

from reagent_env import Task, tool
from reagent_env.errors import ToolError
from reagent_env.sandboxes.contract import Sandbox


@tool
def convert(amount: float, unit: Literal["km", "m"] = "km", tags: list[str] | None = None) -> str:
    """Convert miles.

    To another unit of length.

    Args:
        amount: Distance in miles.
        unit: The unit wanted.
        tags: Labels.
    """
    return f"{amount * 1.609344} {unit}"


def test_the_schema_comes_from_types_and_docstring() -> None:
    schema = convert.schema["function"]
    assert schema["name"] == "convert"
    assert schema["description"] == "Convert miles.\nTo another unit of length."
    parameters = schema["parameters"]
    assert parameters["required"] == ["amount"]
    assert parameters["properties"]["amount"] == {
        "type": "number",
        "description": "Distance in miles.",
    }
    assert parameters["properties"]["unit"]["enum"] == ["km", "m"]
    assert "title" not in json.dumps(schema)


def test_the_function_stays_a_function() -> None:
    assert convert(1.0, "km") == "1.609344 km"


def test_sandbox_and_task_are_filled_in_and_hidden() -> None:
    @tool
    def run(code: str, *, sandbox: Sandbox, task: Task) -> str:
        """Run.

        Args:
            code: Source.
        """
        return code

    assert set(run.parameters["properties"]) == {"code"}
    assert run.needs_sandbox
    with pytest.raises(ToolError, match="unexpected argument 'task'"):
        run.validate({"code": "1", "task": {}})


def test_arguments_are_converted_where_that_is_safe() -> None:
    assert convert.validate({"amount": "2.5"}) == {"amount": 2.5, "unit": "km", "tags": None}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "missing argument 'amount'"),
        ({"amount": 1, "unti": "km"}, "did you mean 'unit'"),
        ({"amount": "far"}, "argument 'amount'"),
        ({"amount": 1, "unit": "parsec"}, "'km' or 'm'"),
        ({"amount": 1, "tags": "x"}, "argument 'tags'"),
        ({"amount": [1] * 10_000}, "..."),
    ],
)
def test_a_wrong_argument_is_named_and_the_usage_given(
    arguments: dict[str, object], said: str
) -> None:
    with pytest.raises(ToolError) as caught:
        convert.validate(arguments)
    assert said in str(caught.value)
    assert "Usage: convert(amount: float" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_function_that_cannot_be_a_tool_is_refused_with_the_reason() -> None:
    def undocumented(a: int) -> int:
        return a

    def untyped(a) -> int:  # type: ignore[no-untyped-def]
        """Do.

        Args:
            a: What.
        """
        return int(a)

    def undescribed(a: int) -> int:
        """Do."""
        return a

    def starred(*a: int) -> int:
        """Do."""
        return sum(a)

    def step(a: int) -> int:
        """Do.

        Args:
            a: What.
        """
        return a

    for function, said in (
        (undocumented, "no docstring"),
        (untyped, "no type hint"),
        (undescribed, "not described"),
        (starred, "cannot carry"),
        (step, "reserved"),
    ):
        with pytest.raises(TypeError, match=said):
            tool(function)
    assert tool(name="other")(step).name == "other"
