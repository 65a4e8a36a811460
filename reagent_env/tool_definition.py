"""A tool: a typed Python function that a language model may call, and the schema it is shown.

Not here: how calls are written in text (``tool_formats/``) or run (``tool_runner.py``).
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, overload

import docstring_parser
import pydantic

from reagent_env.errors import ToolError
from reagent_env.sandboxes.contract import Sandbox
from reagent_env.simulator import Simulator
from reagent_env.task import Task

RESERVED_NAMES = frozenset({"reset", "step", "state", "close"})
"""Names other libraries keep for the environment itself (OpenEnv, TRL)."""

_INJECTED = (Sandbox, Task)


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool may return in place of plain text, to tell the record how its execution ended."""

    content: str
    """What the model reads."""
    status: str | None = None
    """How a sandboxed execution ended (a ``Status`` value), for the record."""
    error: str | None = None
    """``tool_error`` or ``timeout`` where the call failed, else None."""


@dataclass(frozen=True, eq=False)
class Tool:
    """A function with its schema; made by :func:`tool`, still callable as the function it was."""

    name: str
    """What the model calls it."""
    description: str
    """The docstring's text above its sections."""
    parameters: Mapping[str, Any]
    """JSON Schema of the arguments object."""
    function: Callable[..., Any]
    """The function itself, sync or async."""
    arguments_model: type[pydantic.BaseModel] = field(repr=False)
    """Validates the arguments a model sends."""
    injected: Mapping[str, type] = field(default_factory=dict)
    """Parameter → ``Sandbox``, ``Task`` or a simulator's class: given by the environment, hidden from
    the model."""
    timeout_s: float | None = 30.0
    """Seconds after which the model is told it timed out; None where the tool keeps its own deadline."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name where the decorated function can be imported, else by its function."""
        place = (self.function.__module__, self.function.__qualname__)
        if _find_tool(*place) is self:
            return _find_tool, place
        return _make_tool, (self.function, self.name, self.timeout_s)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tool:
        """A tool does not change, so it is its own copy (Gymnasium copies keyword arguments)."""
        return self

    @functools.cached_property
    def is_async(self) -> bool:
        """True for an ``async def`` function."""
        return inspect.iscoroutinefunction(self.function)

    @functools.cached_property
    def needs_sandbox(self) -> bool:
        """True if a call of this tool takes the episode's sandbox."""
        return Sandbox in self.injected.values()

    @functools.cached_property
    def needs_simulator(self) -> bool:
        """True if a call of this tool acts on the episode's simulator."""
        return any(issubclass(kind, Simulator) for kind in self.injected.values())

    @property
    def schema(self) -> dict[str, Any]:
        """The tool in OpenAI's shape: ``{"type": "function", "function": {...}}``."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": dict(self.parameters),
            },
        }

    @property
    def signature(self) -> str:
        """One line, e.g. ``search(queries: list[str], top_k: int = 5)``."""
        return f"{self.name}({', '.join(self._parameter_words())})"

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Check and convert a call's arguments; :class:`ToolError` says what is wrong with them."""
        try:
            model = self.arguments_model.model_validate(dict(arguments))
        except pydantic.ValidationError as error:
            raise ToolError(self._explain(error)) from None
        return vars(model).copy()  # its fields, as validated

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as if it had not been decorated."""
        return self.function(*args, **kwargs)

    def _parameter_words(self) -> list[str]:
        words = []
        for name, info in self.arguments_model.model_fields.items():
            annotation = info.annotation
            shown = (
                annotation.__name__
                if isinstance(annotation, type) and not typing.get_args(annotation)
                else str(annotation).replace("typing.", "")
            )
            default = (
                "" if info.is_required() else f" = {info.get_default(call_default_factory=True)!r}"
            )
            words.append(f"{name}: {shown}{default}")
        return words

    def _explain(self, error: pydantic.ValidationError) -> str:
        names = list(self.arguments_model.model_fields)
        problems = []
        for item in error.errors(include_url=False, include_context=False):
            place = ".".join(str(part) for part in item["loc"]) or "arguments"
            if item["type"] == "missing":
                problems.append(f"missing argument {place!r}")
            elif item["type"] == "extra_forbidden":
                near = difflib.get_close_matches(place, names, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                problems.append(f"unexpected argument {place!r}{hint}")
            else:
                got = repr(item["input"])
                shown = got if len(got) <= 60 else got[:57] + "..."
                problems.append(f"argument {place!r}: {item['msg']}, got {shown}")
        return f"{'; '.join(problems[:5])}. Usage: {self.signature}"


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...


@overload
def tool(
    *, name: str | None = None, timeout_s: float | None = ...
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout_s: float | None = 30.0,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a :class:`Tool` of a typed function with a Google docstring.

    A parameter annotated ``Sandbox``, ``Task`` or with a simulator's class is filled in by the
    environment and hidden from the model. Raise :class:`~reagent_env.errors.ToolError` for what the
    model should read; any other exception is shown to it as the tool's failure, except
    infrastructure failures, which mask the episode.

    Example::

        @tool
        def convert(amount: float, unit: str = "km") -> str:
            \"\"\"Convert miles to another unit.

            Args:
                amount: Distance in miles.
                unit: "km" or "m".
            \"\"\"

    Args:
        function: The function, sync or async.
        name: What the model calls it; the function's name by default.
        timeout_s: Seconds before the call is given up and the model told; None if the function
            keeps a deadline of its own, as sandboxed tools do.

    Raises:
        TypeError: a parameter without a type, without a description, or of a kind that a JSON
            object cannot carry.
    """
    if function is None:
        return lambda wrapped: _make_tool(wrapped, name, timeout_s)
    return _make_tool(function, name, timeout_s)


def _find_tool(module: str, qualified_name: str) -> Any:
    found: Any = sys.modules.get(module)
    if found is None:
        with contextlib.suppress(ImportError):
            found = importlib.import_module(module)
    for part in qualified_name.split("."):
        found = getattr(found, part, None)
    return found


def _make_tool(function: Callable[..., Any], name: str | None, timeout_s: float | None) -> Tool:
    tool_name = name or function.__name__
    if not tool_name.isidentifier() or tool_name.startswith("_"):
        raise TypeError(f"A tool's name must be a public identifier, got {tool_name!r}.")
    if tool_name in RESERVED_NAMES:
        raise TypeError(
            f"{tool_name!r} is reserved for the environment ({', '.join(sorted(RESERVED_NAMES))}); "
            "give the tool another name: @tool(name=...)."
        )
    documentation = docstring_parser.parse(inspect.getdoc(function) or "")
    description = "\n".join(
        part for part in (documentation.short_description, documentation.long_description) if part
    )
    if not description:
        raise TypeError(f"Tool {tool_name!r} has no docstring; the model needs one to use it.")
    described = {p.arg_name: p.description or "" for p in documentation.params}
    hints = typing.get_type_hints(function, include_extras=True)
    injected: dict[str, type] = {}
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(
                f"Tool {tool_name!r}: parameter {parameter.name!r} is {parameter.kind.description}, "
                "which a JSON arguments object cannot carry; name each parameter."
            )
        if parameter.name not in hints:
            raise TypeError(f"Tool {tool_name!r}: parameter {parameter.name!r} has no type hint.")
        annotation = hints[parameter.name]
        if annotation in _INJECTED or _is_simulator(annotation):
            injected[parameter.name] = annotation
            continue
        if parameter.name not in described:
            raise TypeError(
                f"Tool {tool_name!r}: parameter {parameter.name!r} is not described under 'Args:'."
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (
            annotation,
            pydantic.Field(default=default, description=described[parameter.name]),
        )
    model = pydantic.create_model(
        f"{tool_name}_arguments",
        __config__=pydantic.ConfigDict(extra="forbid", protected_namespaces=()),
        **fields,
    )
    parameters = _without_titles(model.model_json_schema())
    parameters.pop("additionalProperties", None)
    return Tool(
        name=tool_name,
        description=description,
        parameters=parameters,
        function=function,
        arguments_model=model,
        injected=injected,
        timeout_s=timeout_s,
    )


def _is_simulator(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Simulator)


def _without_titles(schema: Any) -> Any:
    """Drop pydantic's generated ``title`` entries, which only cost the model tokens."""
    if isinstance(schema, dict):
        return {
            key: _without_titles(value)
            if key != "properties"
            else {name: _without_titles(part) for name, part in value.items()}
            for key, value in schema.items()
            if not (key == "title" and isinstance(value, str))
        }
    if isinstance(schema, list):
        return [_without_titles(part) for part in schema]
    return schema
