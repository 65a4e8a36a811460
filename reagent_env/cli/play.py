"""``reagent play``: a person takes the policy's place, in the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reagent_env.tool_definition import Tool

_HELP = """Type
  TOOL {"argument": ...}     call a tool with JSON arguments
  TOOL text                  the same, for a tool with one argument of text
  TOOL <<                    then lines of text, ended by a line with a single dot
  answer TEXT                give the final answer
  raw TEXT                   send TEXT as the completion, as a model would
  tools | help | quit"""


def play(
    env: Annotated[
        str, typer.Argument(metavar="ENV", help="An environment id, e.g. reagent/PythonMath-v0.")
    ],
    seed: Annotated[int | None, typer.Option(help="Draws the task.")] = None,
    split: Annotated[str, typer.Option(help="train | validation | test")] = "train",
    sandbox: Annotated[str, typer.Option(help="auto | docker | embedded | process")] = "auto",
    max_turns: Annotated[
        int | None, typer.Option(min=1, help="Of the episode; by default the environment's own.")
    ] = None,
) -> None:
    """Play one task yourself: call its tools, then answer.

    Example:

      reagent play reagent/PythonMath-v0 --seed 3

      reagent play reagent/TextCraft-v0
    """
    import gymnasium

    limit: dict[str, Any] = {} if max_turns is None else {"max_turns": max_turns}
    made = gymnasium.make(env, split=split, sandbox=sandbox, **limit)
    try:
        play_episode(made, seed, typer.echo, lambda: input("> "))
    finally:
        made.close()


def play_episode(
    env: Any, seed: int | None, show: Callable[[str], None], ask: Callable[[], str]
) -> float | None:
    """Play one episode through ``ask``; the reward, or None if the person left.

    Args:
        env: A tool-use environment.
        seed: Draws the task.
        show: Prints a text.
        ask: Reads one line; ``EOFError`` and ``KeyboardInterrupt`` leave the game.
    """
    _, info = env.reset(seed=seed)
    schemas = {schema["function"]["name"]: schema["function"] for schema in info["tools"]}
    tool_format = env.unwrapped.tool_format
    actor = _actor(env.unwrapped.tools)
    help_text = _HELP if actor is None else f"{_HELP}\nAny other line is for {actor}."
    sandbox = "" if info["sandbox"] is None else f" Sandbox: {info['sandbox']}."
    show(info["messages"][-1]["content"])
    show(f"\nTools: {', '.join(schemas) or 'none'}.{sandbox}\n{help_text}")
    while True:
        try:
            line = ask().strip()
            completion = _completion(line, schemas, tool_format, ask, actor)
        except (EOFError, KeyboardInterrupt):
            show("\nLeft before the end.")
            return None
        except ValueError as error:
            show(str(error))
            continue
        if completion is None:
            if line == "quit":
                return None
            show(_described(schemas.values()) if line == "tools" else help_text)
            continue
        observation, reward, terminated, truncated, info = env.step(completion)
        show(observation)
        if terminated or truncated:
            right = env.unwrapped.trajectory.task.answer
            told = "" if right is None else f" Right answer: {right}"
            show(f"Over ({info['stop_reason']}). Reward {reward:g}.{told}")
            return float(reward)


def _actor(tools: Mapping[str, Tool]) -> str | None:
    """The tool that a line is meant for where there is no other: a world's only one, of one text."""
    if len(tools) != 1:
        return None
    (only,) = tools.values()
    wanted = list(only.parameters["properties"].values())
    return only.name if only.needs_simulator and len(wanted) == 1 else None


def _completion(
    line: str,
    schemas: Mapping[str, Any],
    tool_format: Any,
    ask: Callable[[], str],
    actor: str | None,
) -> str | None:
    """What the line says as a completion; None for a command of the game itself."""
    from reagent_env.trajectory import ToolCall

    word, _, rest = line.partition(" ")
    rest = rest.strip()
    if word in ("", "help", "tools", "quit"):
        return None
    if word == "answer":
        return str(tool_format.render_answer(rest))
    if word == "raw":
        return rest
    if word not in schemas and actor is not None:
        word, rest = actor, line
    if word not in schemas:
        raise ValueError(f"There is no tool {word!r}; tools: {', '.join(schemas)}. Type help.")
    if rest == "<<":
        rest = "\n".join(iter(ask, "."))
    return str(tool_format.render_calls([ToolCall(word, _arguments(rest, schemas[word]))]))


def _arguments(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    try:
        given = json.loads(text or "{}")
    except ValueError:
        given = None
    if isinstance(given, dict):
        return given
    properties: Mapping[str, Any] = schema["parameters"]["properties"]
    wanted = schema["parameters"].get("required") or list(properties)
    if len(wanted) == 1:
        many = properties[wanted[0]].get("type") == "array"
        return {wanted[0]: [text] if many else text}
    raise ValueError(
        f"{schema['name']} takes a JSON object with {', '.join(properties)}; got {text!r}."
    )


def _described(functions: Any) -> str:
    shown: Sequence[str] = [
        f"{one['name']}: {one['description']}\n  {json.dumps(one['parameters']['properties'])}"
        for one in functions
    ]
    return "\n".join(shown)
