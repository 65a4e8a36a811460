"""An environment as TRL's ``environment_factory`` wants it: a class whose public methods are the tools.

TRL asks for ``reset(**row)``, an optional ``get_reward()``, and takes every other public function of
the *class* for a tool, so each environment gets a class of its own, made with ``type()``. It tells no
environment when an episode ends: the answer is a tool too, ``submit_answer``, or the text of the last
completion, which reaches us in the reward functions. Not here: who owns the loop (``trl_rollout.py``).
"""

from __future__ import annotations

import enum
import inspect
import types
import typing
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium

from reagent_env.env import ToolUseEnv
from reagent_env.errors import INFRASTRUCTURE_ERRORS
from reagent_env.plugins.building import TextEnv
from reagent_env.plugins.trl_record import Ledger, Played, scalar_parts
from reagent_env.tool_definition import Tool
from reagent_env.trajectory import StopReason, ToolCall, ToolResult

ANSWERS = ("tool", "text")
OVER = "The task is over. Nothing more is to be done."
RECORDED = "The answer was recorded. Nothing more is to be done."
SUBMIT = "submit_answer"
_PLAIN = (str, int, float, bool, list, tuple, dict, type(None), Any)
_TAKEN = frozenset({"reset", "get_reward", SUBMIT})


class ToolEnvironment:
    """One rollout's environment; TRL resets and reuses it.

    Its tools are added by :func:`environment_class`. ``_played()`` is the record of the rollout.
    """

    def __init__(self, env: TextEnv, weight: float, siblings: weakref.WeakSet[Any]) -> None:
        self._env = env
        self._weight = weight
        self._siblings = siblings
        self._ledger = Ledger("", weight)
        self._generation = 0
        """Number of the completion under way; a trainer that knows sets it."""
        siblings.add(self)

    def reset(self, **row: Any) -> str | None:
        """Begin the task that the data set's row names; what the policy is told of it, as far as the
        prompt does not say so: the question, and what a simulator shows at its start.

        Raises:
            ValueError: the row names no task, so that the rollouts of a group would differ in theirs.
        """
        options: dict[str, Any] = {}
        if row.get("task") is not None:
            options["task"] = row["task"]
        elif row.get("seed") is None:
            raise ValueError(
                "The row has neither a `task` (an index or an id) nor a `seed` column, so every "
                "rollout of a group would get another task. Make the data set with "
                "factory.dataset(count), or add one of these columns."
            )
        self._generation = 0
        self._ledger = Ledger("", self._weight)
        try:
            _, info = self._env.reset(seed=row.get("seed"), options=options)
        except INFRASTRUCTURE_ERRORS as error:
            self._ledger.fail(f"{type(error).__name__}: {error}")
            return None
        task = inner_env(self._env).trajectory.task
        self._ledger.task = task.id
        return _unsaid(str(info["messages"][-1]["content"]), task.question, row.get("prompt"))

    def _act(self, completion: str) -> str:
        """Step, and say what the policy reads next."""
        if self._ledger.over:
            return OVER
        try:
            observation, reward, terminated, truncated, info = self._env.step(completion)
        except INFRASTRUCTURE_ERRORS as error:
            self._ledger.fail(f"{type(error).__name__}: {error}")
            return OVER
        over = terminated or truncated
        self._ledger.take(float(reward), over, info, self._generation)
        text = _unframed(self._env, observation, info)
        if not over:
            return text
        if info.get("stop_reason") == StopReason.ANSWERED:
            return RECORDED
        return f"{text}\n\n{OVER}" if text else OVER

    def _call(self, name: str, arguments: Mapping[str, Any]) -> str:
        return self._act(inner_env(self._env).tool_format.render_calls([ToolCall(name, arguments)]))

    def _finish(self, text: str) -> None:
        """The last completion's text, where answers are texts: it ends the episode."""
        if not self._ledger.over:
            self._act(text)

    def _played(self, generations: int | None = None) -> Played:
        """The rollout as it stands; a sandbox still held is given back."""
        inner_env(self._env)._release()
        return self._ledger.played(generations)

    def _scalar(self) -> float | None:
        """The mean over attempts of R + λ·score, None if infrastructure failed.

        Of an attempt without a score, the mean score of the group's other rollouts stands in: its
        process advantage is then 0.
        """
        own = self._ledger.task
        group = [self, *(one for one in self._siblings if one is not self)]
        played = [one._ledger.played() for one in group if one._ledger.task == own]
        parts = scalar_parts(played)[0]
        self._played()
        return None if parts is None else sum(parts)


def environment_class(env: TextEnv, answer: str, name: str) -> type[ToolEnvironment]:
    """The class for ``env``: a method a tool, and ``submit_answer`` and ``get_reward`` if asked.

    Args:
        env: A tool-use environment, wrapped or not.
        answer: ``tool`` or ``text``.
        name: Of the class; TRL shows it in its metrics.

    Raises:
        ValueError: a tool's name is one that TRL or this module needs.
    """
    members: dict[str, Any] = {"__module__": __name__, "__doc__": ToolEnvironment.__doc__}
    for tool in inner_env(env).tools.values():
        if tool.name in _TAKEN:
            raise ValueError(
                f"The tool {tool.name!r} has a name that TRL's environments need for themselves "
                f"({', '.join(sorted(_TAKEN))}); give it another: @tool(name=...)."
            )
        members[tool.name] = tool_method(tool)
    if answer == "tool":
        members[SUBMIT] = _submit_answer
        members["get_reward"] = _get_reward
    return type(name, (ToolEnvironment,), members)


def tool_method(tool: Tool) -> Callable[..., str]:
    """A method with the tool's signature and a Google docstring, from which TRL makes its schema."""

    def call(self: ToolEnvironment, **arguments: Any) -> str:
        return self._call(tool.name, arguments)

    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    lines = []
    annotations: dict[str, Any] = {"return": str}
    for name, field in tool.arguments_model.model_fields.items():
        annotation = shown_type(field.annotation)
        annotations[name] = annotation
        default = (
            inspect.Parameter.empty
            if field.is_required()
            else field.get_default(call_default_factory=True)
        )
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=annotation,
            )
        )
        lines.append(f"    {name}: {' '.join((field.description or name).split())}")
    words = [" ".join(tool.description.split())]
    if lines:
        words += ["", "Args:", *lines]
    call.__name__ = tool.name
    call.__qualname__ = f"{ToolEnvironment.__name__}.{tool.name}"
    call.__doc__ = "\n".join([*words, "", "Returns:", "    What the tool answers."])
    call.__annotations__ = annotations
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        parameters, return_annotation=str
    )
    return call


def shown_type(hint: Any) -> Any:
    """``hint`` as transformers can make a JSON schema of it: a class it does not know is an object."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return shown_type(args[0])
    if origin is typing.Literal or not args:
        plain = hint in _PLAIN or origin is typing.Literal
        return hint if plain or (isinstance(hint, type) and issubclass(hint, enum.Enum)) else dict
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(shown_type(one) for one in args)]  # noqa: UP007
    if origin in (list, tuple, dict):
        return origin[tuple(one if one is Ellipsis else shown_type(one) for one in args)]
    return dict


def inner_env(env: TextEnv) -> ToolUseEnv:
    """The environment inside its wrappers.

    Raises:
        TypeError: it is no tool-use environment.
    """
    inner = env.unwrapped
    if not isinstance(inner, ToolUseEnv):
        raise TypeError(
            f"TRL's tools come from a ToolUseEnv's registry; {type(inner).__name__} has none."
        )
    return inner


def remake(source: Any) -> Any:
    """``source`` in a form that makes a new environment each time.

    Raises:
        TypeError: an environment that no registration can make again.
    """
    if not isinstance(source, gymnasium.Env):
        return source
    if source.spec is None:
        raise TypeError(
            f"{source!r} cannot be made again, and TRL needs one for each rollout. Give its id, or a "
            "function that makes it."
        )
    return _Remake(source.spec)


class _Remake:
    """Makes environments of one specification; can be pickled."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec

    def __call__(self, **kwargs: Any) -> TextEnv:
        made: TextEnv = gymnasium.make(self.spec, **kwargs)
        return made


def _submit_answer(self: ToolEnvironment, answer: str) -> str:
    """Give the final answer. Call it once, when you know the answer: it ends the attempt.

    Args:
        answer: The final answer and nothing else.

    Returns:
        A reviewer's advice for a second attempt, or that the answer was recorded.
    """
    written = str(answer)
    if "\\boxed" not in written:
        written = inner_env(self._env).tool_format.render_answer(written)
    return self._act(written)


def _get_reward(self: ToolEnvironment) -> float | None:
    """The rollout's one number, for TRL."""
    return self._scalar()


_submit_answer.__name__ = SUBMIT
_submit_answer.__annotations__ = {"answer": str, "return": str}  # a schema is made of these
_get_reward.__name__ = "get_reward"


def _unsaid(opening: str, question: str, prompt: Any) -> str | None:
    """What of the opening the row's prompt does not hold: all, what follows the question, or nothing."""
    content = prompt[-1]["content"] if prompt and not isinstance(prompt, str) else prompt or ""
    said = content if isinstance(content, str) else str(content)
    if opening in said:
        return None
    if question in said and opening.startswith(question):
        return opening[len(question) :] or None
    return opening


def _unframed(env: TextEnv, observation: str, info: Mapping[str, Any]) -> str:
    """The observation without the tags that the chat template puts around a tool's answer itself.

    A closing tag inside an answer is defused: most templates frame answers as Hermes does.
    """
    results = [ToolResult(one["name"], one["content"]) for one in info.get("tool_results", ())]
    if not results:
        return observation
    framed = inner_env(env).tool_format.render_results(results)
    if not observation.startswith(framed):
        return observation
    told = "\n".join(one.content for one in results)
    told = told.replace("</tool_response>", "<\\/tool_response>")
    return told + observation[len(framed) :]
