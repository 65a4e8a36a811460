"""Plays AgentGym's HTTP servers as Gymnasium environments: start one of theirs, give its URL.

A server keeps the worlds; here an attempt holds one of them from ``/create`` to ``/close`` as a
:class:`~reagent_env.simulator.Simulator`, so that everything else (records, wrappers, evaluation,
training) is as in any other environment. A server that fails masks the episode. What the servers
pay is bounded here: an outcome in [0, 1], once, at the end.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

from reagent_env.env import ToolUseEnv
from reagent_env.errors import ToolBackendError, ToolError
from reagent_env.families.agentgym_dialects import DIALECTS, Dialect
from reagent_env.families.agentgym_format import AgentGymFormat
from reagent_env.json_http import NoJson, ask_json
from reagent_env.simulator import Simulator
from reagent_env.task import Task
from reagent_env.tool_definition import tool

MAX_ACTION_CHARS = 20_000
MAX_OBSERVATION_CHARS = 200_000
MAX_REPLY_BYTES = 8 * 2**20
CLOSE_SECONDS = 5.0


class AgentGymServer:
    """One server, e.g. ``AgentGymServer("http://127.0.0.1:36001", "textcraft")``; any thread may ask."""

    def __init__(self, url: str, family: str, *, timeout_s: float = 60.0) -> None:
        """Prepare; nothing is sent before the first world.

        Args:
            url: The server's address, without a path of the contract.
            family: One of :data:`~reagent_env.families.agentgym_dialects.DIALECTS`.
            timeout_s: Seconds for one request.

        Raises:
            ValueError: no ``http`` URL, or an unknown family.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"A server is 'http://host:port', got {url!r}.")
        if family not in DIALECTS:
            near = difflib.get_close_matches(family, DIALECTS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"Unknown family {family!r}.{hint} Known: {', '.join(DIALECTS)}.")
        self.url = url.rstrip("/")
        self.dialect: Dialect = DIALECTS[family]
        self.timeout_s = timeout_s

    def create(self) -> int | str:
        """A new world; its number.

        Raises:
            ToolBackendError: there is none to be had.
        """
        made = self._post("create", self.dialect.create)
        number = made.get(self.dialect.id_key) if isinstance(made, Mapping) else made
        if not isinstance(number, int | str) or isinstance(number, bool):
            raise self._failure("create", f"it named no world: {str(made)[:120]!r}")
        return number

    def reset(self, world: int | str, index: int) -> str:
        """Start task ``index`` in a world; the first observation."""
        dialect = self.dialect
        body = {dialect.id_key: world, dialect.index_key: index, **dialect.reset}
        given = self._post("reset", body)
        if dialect.observe:
            given = self._ask("GET", "observation", {dialect.id_key: world})
        return self._observation("reset", given)

    def step(self, world: int | str, action: str) -> tuple[str, float, bool]:
        """Take an action; the observation, what the state is worth in [0, 1], and whether it is over."""
        dialect = self.dialect
        given = self._post("step", {dialect.id_key: world, "action": action})
        if not isinstance(given, Mapping):
            raise self._failure("step", f"it answered {str(given)[:120]!r}")
        seen = self._observation("step", given)
        value, over = given.get(dialect.value_key), given.get(dialect.done_key)
        if dialect.done_key == "terminated":
            over = bool(over) or bool(given.get("truncated"))
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise self._failure("step", f"{dialect.value_key!r} is {value!r}, no number")
        if not isinstance(over, bool):
            raise self._failure("step", f"{dialect.done_key!r} is {over!r}, no yes or no")
        if dialect.success is not None:
            value = float(over and dialect.success in seen)
        return seen, min(1.0, max(0.0, value / dialect.scale)), over

    def close_world(self, world: int | str) -> None:
        """Give a world back; servers without ``/close``, or gone, are left alone."""
        with contextlib.suppress(ToolBackendError):
            self._post("close", {self.dialect.id_key: world}, CLOSE_SECONDS)

    def _post(self, path: str, body: Mapping[str, Any], timeout_s: float | None = None) -> Any:
        return self._ask("POST", path, body, timeout_s)

    def _ask(
        self, method: str, path: str, given: Mapping[str, Any], timeout_s: float | None = None
    ) -> Any:
        url = f"{self.url}{self.dialect.prefix}/{path}"
        try:
            answered = ask_json(
                method,
                url,
                given,
                timeout_s=timeout_s or self.timeout_s,
                most_bytes=MAX_REPLY_BYTES,
            )
        except NoJson as error:
            raise self._failure(path, str(error)) from error
        if isinstance(answered, Mapping) and answered.get("error"):
            raise self._failure(path, str(answered["error"])[:200])
        return answered

    def _observation(self, path: str, given: Any) -> str:
        if isinstance(given, list) and given:  # webshop: [observation, None]
            given = given[0]
        if not isinstance(given, Mapping):
            seen = given
        else:
            seen = given.get(self.dialect.observation_key, given.get("text"))
            actions = given.get("available_actions")
            if isinstance(seen, str) and isinstance(actions, list):
                seen = f"{seen}\nAVAILABLE ACTIONS: {', '.join(map(str, actions))}"
            if path == "reset" and isinstance(given.get("task_description"), str):
                seen = f"{given['task_description']}\n{seen}"
        if not isinstance(seen, str):
            raise self._failure(path, f"it gave no observation: {str(given)[:120]!r}")
        return seen[:MAX_OBSERVATION_CHARS]

    def _failure(self, path: str, why: str) -> ToolBackendError:
        return ToolBackendError(
            f"The {self.dialect.name} server at {self.url} failed at /{path} ({why}); start it, or "
            "look at its log."
        )


class AgentGym(Simulator):
    """One attempt in a world of a server; ``task.metadata["index"]`` is the task's number there."""

    def __init__(self, server: AgentGymServer, task: Task) -> None:
        """Take a world and start it.

        Raises:
            ToolBackendError: the server fails; the world is given back.
        """
        self._server = server
        self._value = 0.0
        self._over = False
        self._world: int | str | None = server.create()
        try:
            self.opening = server.reset(self._world, int(task.metadata["index"]))
        except BaseException:
            self.close()
            raise

    def act(self, action: str) -> str:
        """Send an action and return what the world shows."""
        if self._world is None:
            raise ToolBackendError("The world was given back.")
        if len(action) > MAX_ACTION_CHARS:
            raise ToolError(f"An action has at most {MAX_ACTION_CHARS} characters.")
        seen, self._value, over = self._server.step(self._world, action)
        answer = self._server.dialect.answer
        answered = answer is not None and answer in action
        self._over = over or answered
        return "" if answered else seen  # "incorrect, try again" would be an oracle

    @property
    def over(self) -> bool:
        """Whether the server says so, or an answer was given."""
        return self._over

    @property
    def score(self) -> float:
        """What the server pays, within [0, 1]; 0 for what is unfinished and pays nothing in part."""
        return self._value if self._over or self._server.dialect.partial else 0.0

    def close(self) -> None:
        """Give the world back."""
        world, self._world = self._world, None
        if world is not None:
            self._server.close_world(world)


def agentgym_tasks(family: str, indices: Iterable[int | str]) -> list[Task]:
    """Tasks of a server by their numbers, or by AgentEval's item ids such as ``textcraft_3``.

    Raises:
        ValueError: an unknown family, an id of another one, or a number below 0.
    """
    if family not in DIALECTS:
        raise ValueError(f"Unknown family {family!r}; known: {', '.join(DIALECTS)}.")
    tasks = []
    for given in indices:
        number = given
        if isinstance(given, str):
            name, _, digits = given.rpartition("_")
            if not digits.isascii() or not digits.isdigit() or not name.endswith(family):
                raise ValueError(f"{given!r} is no item of {family}, such as '{family}_3'.")
            number = int(digits)
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise ValueError(f"A task's number is 0 or more, got {given!r}.")
        facts = {"kind": family, "index": number, "source_id": f"{family}_{number}"}
        goal = f"{DIALECTS[family].goal}\n\n(Task {number} of {family}.)"
        tasks.append(Task(goal, None, "simulator", metadata=facts))
    return tasks


def make_agentgym_env(
    url: str,
    family: str,
    indices: Iterable[int | str] = range(20),
    *,
    timeout_s: float = 60.0,
    max_turns: int = 30,
    tool_format: Any = None,
    **env_options: Any,
) -> ToolUseEnv:
    """A running server as an environment.

    Example::

        env = make_agentgym_env("http://127.0.0.1:36001", "textcraft", ["textcraft_0", "textcraft_7"])

    Args:
        url: The server's address.
        family: Which of AgentGym's environments it is.
        indices: Task numbers, or item ids of AgentEval.
        timeout_s: Seconds for one request.
        max_turns: As of ``ToolUseEnv``.
        tool_format: By default AgentGym's own, ``Thought:`` and ``Action:``, which models trained
            on AgentTraj-L write; any other format calls the tool ``act``.
        **env_options: Everything else that ``ToolUseEnv`` takes.

    Raises:
        ValueError: no URL, an unknown family, or an index that is none.
    """
    server = AgentGymServer(url, family, timeout_s=timeout_s)
    return ToolUseEnv(
        agentgym_tasks(family, indices),
        [act],
        simulator=lambda task: AgentGym(server, task),
        split=env_options.pop("split", "all"),
        max_turns=max_turns,
        max_calls_per_turn=1,
        tool_format=AgentGymFormat(whole=server.dialect.whole)
        if tool_format is None
        else tool_format,
        **env_options,
    )


@tool(timeout_s=None)
def act(action: str, *, world: AgentGym) -> str:
    """Take one action in the world and see what it shows.

    Args:
        action: The action, as the task describes them.
    """
    return world.act(action)
