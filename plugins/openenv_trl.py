"""TRL's way to OpenEnv: a class for ``GRPOTrainer(environment_factory=…)`` that acts over the network.

TRL holds OpenEnv clients in environments of its own kind: ``reset(**row)``, ``get_reward()``, and each
other public method a tool. :func:`make_trl_factory` asks the server which tools there are and makes
that class; a call becomes a completion in the environment's own format. Not here: TRL in one process
with the environment (``trl.py``), which carries more to the loss.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union

from reagent_env.tool_formats import get_tool_format
from reagent_env.trajectory import ToolCall

try:
    from openenv import GenericEnvClient
except ImportError as error:
    raise ImportError(
        "TRL's way to OpenEnv needs: pip install 'reagent-env[openenv,trl,train]'"
    ) from error

__all__ = ["RemoteEnvironment", "make_trl_factory"]

OVER = "The task is over. Nothing more is to be done."
RECORDED = "The answer was recorded. Nothing more is to be done."
_TAKEN = ("reset", "get_reward", "submit_answer", "step", "state", "close")
_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "null": type(None),
}


class RemoteEnvironment:
    """One rollout's environment on a server; TRL resets and reuses it. Tools are added by the class."""

    _url = ""
    _tool_format = "hermes"

    def __init__(self) -> None:
        self._client: Any = GenericEnvClient(base_url=self._url).sync()
        self._client.connect()
        self._paid: list[float | None] = []
        self._over = True

    def reset(self, **row: Any) -> str | None:
        """Begin the task that the row's ``task`` (an index or an id) or ``seed`` names."""
        chosen = {name: row[name] for name in ("task", "seed") if row.get(name) is not None}
        if not chosen:
            raise ValueError(
                "The row has neither a `task` nor a `seed` column, so every rollout of a group would "
                "get another task. Add one of them to the data set."
            )
        seen = self._client.reset(**chosen).observation
        self._paid, self._over = [], bool(seen.get("infrastructure_error"))
        if self._over:
            self._paid.append(None)
            return None
        return str(seen["messages"][-1]["content"])

    def _act(self, completion: str) -> str:
        if self._over:
            return OVER
        turn = self._client.step({"text": completion})
        self._paid.append(turn.reward)
        self._over = bool(turn.done)
        text = str(turn.observation["text"])
        if not self._over:
            return text
        return f"{text}\n\n{OVER}" if text else RECORDED

    def _call(self, name: str, arguments: Mapping[str, Any]) -> str:
        return self._act(
            get_tool_format(self._tool_format).render_calls([ToolCall(name, arguments)])
        )

    def __del__(self) -> None:
        client = self.__dict__.get("_client")
        if client is not None:
            client.close()  # the lease ends with the connection in any case


def make_trl_factory(url: str) -> type[RemoteEnvironment]:
    """The class for ``GRPOTrainer(environment_factory=…)`` on the server at ``url``.

    Example::

        GRPOTrainer(model, environment_factory=make_trl_factory("http://127.0.0.1:8000"), …)

    The policy ends an attempt by calling ``submit_answer``; the reward is the sum of what the turns
    paid, None (left out by TRL) where infrastructure failed.

    Raises:
        ConnectionError: nobody answers there.
        ValueError: a tool has a name that TRL or OpenEnv needs.
    """
    with GenericEnvClient(base_url=url).sync() as client:
        seen = client.reset(seed=0).observation
    members: dict[str, Any] = {
        "_url": url,
        "_tool_format": seen["tool_format"],
        "submit_answer": _submit_answer,
        "get_reward": _get_reward,
        "__doc__": RemoteEnvironment.__doc__,
    }
    for tool in seen["tools"]:
        described = tool.get("function", tool)
        if described["name"] in _TAKEN:
            raise ValueError(
                f"The tool {described['name']!r} has a name that TRL or OpenEnv needs "
                f"({', '.join(_TAKEN)}); give it another: @tool(name=...)."
            )
        members[described["name"]] = _tool_method(described)
    return type("RemoteToolEnvironment", (RemoteEnvironment,), members)


def _submit_answer(self: RemoteEnvironment, answer: str) -> str:
    """
    Give the final answer to the task.

    Args:
        answer: The answer alone, without working.
    """
    written = get_tool_format(self._tool_format)
    return self._act(written.render_answer(answer))


# transformers makes a schema of every annotation, that of ``self`` too.
_submit_answer.__annotations__ = {"answer": str, "return": str}
_submit_answer.__name__ = _submit_answer.__qualname__ = "submit_answer"


def _get_reward(self: RemoteEnvironment) -> float | None:
    """What the turns paid in all."""
    paid = [one for one in self._paid if one is not None]
    return sum(paid) if len(paid) == len(self._paid) else None


def _tool_method(described: Mapping[str, Any]) -> Callable[..., str]:
    """A method with the schema's signature and a Google docstring, from which TRL makes it again."""
    name, schema = described["name"], described.get("parameters") or {}
    required = set(schema.get("required", ()))
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    annotations: dict[str, Any] = {"return": str}
    lines = [str(described.get("description") or name), "", "Args:"]
    properties = dict(schema.get("properties", {}))
    for one, about in sorted(properties.items(), key=lambda item: item[0] not in required):
        kind = hint_of(about, schema.get("$defs", {}))
        default = inspect.Parameter.empty if one in required else about.get("default")
        annotations[one] = kind
        parameters.append(
            inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        )
        said = re.sub(r"\s+", " ", str(about.get("description") or one))
        lines.append(f"    {one}: {said}")

    def call(self: RemoteEnvironment, **arguments: Any) -> str:
        return self._call(name, arguments)

    described_call: Any = call
    described_call.__name__ = described_call.__qualname__ = name
    described_call.__doc__ = "\n".join(lines if properties else lines[:1])
    described_call.__signature__ = inspect.Signature(parameters, return_annotation=str)
    described_call.__annotations__ = annotations
    return call


def hint_of(schema: Mapping[str, Any], shapes: Mapping[str, Any]) -> Any:
    """The type hint of which transformers makes this schema again, as far as it can.

    An object with fields of its own is shown as an object: hints have no room for the fields.

    Args:
        schema: Of a parameter.
        shapes: ``$defs`` of the tool.
    """
    schema = shapes.get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    parts = schema.get("anyOf") or schema.get("oneOf")
    if parts:
        return Union[tuple(hint_of(part, shapes) for part in parts)]  # noqa: UP007
    if "enum" in schema or "const" in schema:
        return Literal[tuple(schema.get("enum", [schema.get("const")]))]
    kind = schema.get("type")
    if kind == "array":
        return list[hint_of(schema.get("items", {}), shapes)]  # type: ignore[misc]
    if kind == "object":
        values = schema.get("additionalProperties")
        return dict[str, hint_of(values, shapes)] if isinstance(values, Mapping) else dict  # type: ignore[misc]
    return _TYPES.get(str(kind), str)
