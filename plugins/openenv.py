"""OpenEnv (0.10): any environment id behind OpenEnv's server, judged and refined there.

::

    from reagent_env.plugins.openenv import make_app

    app = make_app("reagent/SearchQA-v0", judge="rubric", attempts=2)   # uvicorn module:app

A session is a lease: a client's connection holds one environment (and its sandbox) until the client
closes it, goes away, or sends nothing for ``session_timeout`` seconds. Clients: OpenEnv's own
``GenericEnvClient``, or TRL's ``environment_factory`` through ``openenv_trl.py``.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, ClassVar

from reagent_env.env import ToolUseEnv
from reagent_env.errors import INFRASTRUCTURE_ERRORS
from reagent_env.plugins.building import EnvSource, TextEnv, build_env
from reagent_env.reward_models.base import RewardModel
from reagent_env.task import Task

try:
    from openenv.core.env_server import create_app
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import (
        Action,
        ConcurrencyConfig,
        EnvironmentMetadata,
        Observation,
        State,
    )
except ImportError as error:
    raise ImportError(
        "The OpenEnv plug-in needs: pip install 'reagent-env[openenv]' (in an environment without "
        "verifiers: the two want different versions of mcp)."
    ) from error

__all__ = [
    "CompletionAction",
    "TaskObservation",
    "TaskState",
    "ToolUseEnvironment",
    "make_app",
    "make_environment_class",
    "running",
    "serve",
]

IDLE_SECONDS = 600.0
"""Default for ``session_timeout``."""
START_SECONDS = 60.0
"""How long :func:`running` waits for its server, at first and at the end."""
_GOING_AWAY = 1001
_SERVING = {"log_level": "warning", "ws_per_message_deflate": False}
"""To compress a few hundred bytes costs more than to send them."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class CompletionAction(Action):
    """What the policy wrote: ``{"text": "<tool_call>…</tool_call>"}``."""

    text: str
    """One raw completion, tool calls inside."""


class TaskObservation(Observation):
    """What the policy reads next, and what the turn was worth.

    ``reward`` is None where infrastructure spoiled the episode (``infrastructure_error`` says why):
    leave such episodes out, they are no zeros.
    """

    text: str = ""
    """What the policy reads next; with further attempts, the critique that opens one."""
    messages: list[dict[str, Any]] | None = None
    """After ``reset``, the task as chat messages."""
    tools: list[dict[str, Any]] | None = None
    """After ``reset``, the schemas of the tools."""
    tool_format: str | None = None
    """After ``reset``, how calls are written: ``hermes``, ``compact``, ``react``, ``openai``."""
    terminated: bool = False
    truncated: bool = False
    turn: int = 0
    attempt: int = 1
    attempt_ended: bool = False
    """True where this turn closed an attempt, the last one included."""
    stop_reason: str | None = None
    """Why the attempt ended."""
    outcome: float | None = None
    """R of the attempt that ended."""
    process: float | None = None
    """λ·score of it; None without a judge or without a score."""
    score: float | None = None
    """The judge's, in [0, 1]."""
    critique: str | None = None
    """The judge's, unless it gives the answer away."""
    unscored: str | None = None
    """Why the judge gave no score: the outcome then stands alone."""
    turn_rewards: list[float] | None = None
    """Each turn's share of the attempt's return."""
    infrastructure_error: str | None = None


class TaskState(State):
    """Of a session: ``step_count`` and ``episode_id`` are OpenEnv's."""

    env_id: str | None = None
    task_id: str | None = None
    attempt: int = 1
    stop_reason: str | None = None


class ToolUseEnvironment(Environment[CompletionAction, TaskObservation, TaskState]):
    """One session's environment; :func:`make_environment_class` says which.

    The environment, and with it a sandbox, is made at the first ``reset`` and kept until ``close``.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True
    make_env: Callable[[], TextEnv]
    """Makes the environment, rewards included."""
    env_name = "environment"
    live: ClassVar[weakref.WeakSet[ToolUseEnvironment]] = weakref.WeakSet()
    """Those that have not been closed."""

    def __init__(self) -> None:
        super().__init__()
        self._env: TextEnv | None = None
        self._closed = False
        self._lock = threading.Lock()  # the server may close while a step is under way
        self._begun = TaskState()
        self._steps = 0
        self._last: TaskObservation | None = None
        self.live.add(self)

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        task: int | str | None = None,
        index: int | None = None,
        **kwargs: Any,
    ) -> TaskObservation:
        """Begin an episode: a task by ``seed``, or the one that ``task`` (an index or an id) names.

        Args:
            seed: Draws the task.
            episode_id: The caller's name for the episode; kept in the state.
            task: Which task.
            index: The same, as OpenEnv's Task API calls it.
            kwargs: Refused.

        Raises:
            ValueError: an argument that does not exist.
        """
        kwargs.pop("split", None)  # the server's environment has one; Task API clients name it
        if kwargs:
            raise ValueError(
                f"reset() takes seed, episode_id and task, and got {', '.join(sorted(kwargs))}; "
                "the environment's own arguments are given to make_app()."
            )
        chosen = index if task is None else task
        with self._lock:
            env = self._opened()
            try:
                given = {} if chosen is None else {"task": chosen}
                text, info = env.reset(seed=seed, options=given)
            except INFRASTRUCTURE_ERRORS as error:
                why = f"{type(error).__name__}: {error}"
                return TaskObservation(done=True, truncated=True, infrastructure_error=why)
            self._begun = TaskState(
                episode_id=episode_id or info["task_id"],
                env_id=self.env_name,
                task_id=info["task_id"],
            )
            self._steps, self._last = 0, None
            inner = env.unwrapped
            assert isinstance(inner, ToolUseEnv)
            return TaskObservation(
                text=text,
                messages=info["messages"],
                tools=info["tools"],
                tool_format=inner.tool_format.name,
            )

    def step(
        self, action: CompletionAction, timeout_s: float | None = None, **kwargs: Any
    ) -> TaskObservation:
        """Take one completion. ``timeout_s`` is not used: calls have limits of their own."""
        with self._lock:
            if self._env is None:
                raise ValueError("The session has no episode (or its lease ended); call reset().")
            observation, reward, terminated, truncated, info = self._env.step(action.text)
            seen = observed(observation, float(reward), terminated, truncated, info)
            self._steps, self._last = self._steps + 1, seen
            return seen

    @property
    def state(self) -> TaskState:
        """Where the session stands."""
        if self._last is None:
            return self._begun
        return TaskState(
            episode_id=self._begun.episode_id,
            env_id=self._begun.env_id,
            task_id=self._begun.task_id,
            step_count=self._steps,
            attempt=self._last.attempt,
            stop_reason=self._last.stop_reason,
        )

    def close(self) -> None:
        """Give the environment and its sandbox back. Twice is fine."""
        with self._lock:
            self._closed = True
            env, self._env = self._env, None
            self.live.discard(self)
            if env is not None:
                env.close()

    def get_metadata(self) -> EnvironmentMetadata:
        """Name and description for OpenEnv's pages."""
        return EnvironmentMetadata(
            name=self.env_name,
            description="A multi-turn tool-use task: text in, text out, judged where asked.",
            version="1.0.0",
        )

    # OpenEnv's Task API: what there is, without answers.

    def list_splits(self) -> list[str]:
        """The split that this server plays."""
        return [self._inner().split or "all"]

    def num_tasks(self, split: str) -> int:
        """How many tasks it has."""
        return len(self._tasks(split))

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        """A task's id and question."""
        return _public(index, self._tasks(split)[index])

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """The first hundred."""
        return list(itertools.starmap(_public, enumerate(self._tasks(split)[:100])))

    def _tasks(self, split: str) -> list[Task]:
        if split not in self.list_splits():
            raise ValueError(
                f"There is no split {split!r}; this server plays {self.list_splits()}."
            )
        return list(self._inner().tasks)

    def _inner(self) -> ToolUseEnv:
        inner = self._opened().unwrapped
        assert isinstance(inner, ToolUseEnv)
        return inner

    def _opened(self) -> TextEnv:
        if self._closed:
            raise ValueError("The session is closed; connect again.")
        if self._env is None:
            self._env = type(self).make_env()
        return self._env


def observed(
    text: str, reward: float, terminated: bool, truncated: bool, info: Mapping[str, Any]
) -> TaskObservation:
    """A step's result as OpenEnv's observation."""
    judgement = info.get("judgement") or {}
    over = terminated or truncated
    return TaskObservation(
        done=over,
        reward=None if math.isnan(reward) else reward,
        text=text,
        messages=info.get("messages"),
        terminated=terminated,
        truncated=truncated,
        turn=info["turn"],
        attempt=info.get("attempt", 1),
        attempt_ended=bool(info.get("attempt_ended", over)),
        stop_reason=None if info.get("stop_reason") is None else str(info["stop_reason"]),
        outcome=info.get("reward/outcome"),
        process=info.get("reward/process"),
        score=judgement.get("score"),
        critique=None if info.get("critique_replaced") else judgement.get("critique"),
        unscored=judgement.get("unscored"),
        turn_rewards=info.get("reward/turns"),
        infrastructure_error=info.get("infrastructure_error"),
    )


def make_environment_class(
    id_or_env: EnvSource,
    *,
    judge: RewardModel | str | None = None,
    weight: float = 0.3,
    credit: str = "trajectory",
    when: str = "end",
    attempts: int = 1,
    **env_kwargs: Any,
) -> type[ToolUseEnvironment]:
    """The class that OpenEnv's server makes one of for every session.

    Args:
        id_or_env: A registered id, or a function that makes an environment: each session has its own.
        judge: A reward model or its name, shared by all sessions; None pays the outcome alone.
        weight: λ of the process reward.
        credit: ``trajectory`` or ``turn``.
        when: ``end`` or ``step``.
        attempts: More than 1: the critique opens another attempt.
        **env_kwargs: Given to ``gym.make``, e.g. ``split="train"``, ``sandbox="docker"``.

    Raises:
        TypeError: an environment already made, which sessions would share.
        ValueError, gymnasium.error.Error: it cannot be made; one is, to find out.
    """
    if not isinstance(id_or_env, str) and not callable(id_or_env):
        raise TypeError(
            f"Every session needs an environment of its own; give an id or a function, not "
            f"{id_or_env!r}."
        )
    if isinstance(judge, str):
        judge = _shared_judge(judge)
    shared = judge

    def make() -> TextEnv:
        return build_env(
            id_or_env,
            judge=shared,
            weight=weight,
            credit=credit,
            when=when,
            attempts=attempts,
            **env_kwargs,
        )

    first = make()
    spec = first.unwrapped.spec
    first.close()
    name = type(first.unwrapped).__name__ if spec is None else spec.id
    members = {"make_env": staticmethod(make), "env_name": name, "live": weakref.WeakSet()}
    return type("ServedEnvironment", (ToolUseEnvironment,), members)


def make_app(
    id_or_env: EnvSource,
    *,
    max_sessions: int = 64,
    session_timeout: float = IDLE_SECONDS,
    judge: RewardModel | str | None = None,
    weight: float = 0.3,
    credit: str = "trajectory",
    when: str = "end",
    attempts: int = 1,
    **env_kwargs: Any,
) -> Any:
    """A FastAPI application that serves the environment in OpenEnv's protocol.

    Example::

        app = make_app("reagent/SearchQA-v0", judge="rubric", max_sessions=32)

    Args:
        id_or_env: As :func:`make_environment_class`, and so are the arguments not said here.
        max_sessions: Leases at once; a further client is told ``CAPACITY_REACHED``.
        session_timeout: Seconds without a request after which a lease ends and its connection is
            closed. Must be longer than the policy may take for a turn.
        judge: A reward model or its name.
        weight: λ.
        credit: ``trajectory`` or ``turn``.
        when: ``end`` or ``step``.
        attempts: Attempts an episode.
        **env_kwargs: Given to ``gym.make``.

    Raises:
        As :func:`make_environment_class`.
    """
    served = make_environment_class(
        id_or_env,
        judge=judge,
        weight=weight,
        credit=credit,
        when=when,
        attempts=attempts,
        **env_kwargs,
    )
    app = create_app(
        served,
        CompletionAction,
        TaskObservation,
        env_name=served.env_name,
        state_cls=TaskState,
        concurrency_config=ConcurrencyConfig(
            max_concurrent_envs=max_sessions, session_timeout=session_timeout
        ),
    )
    app.state.served = served
    app.add_middleware(EndIdleConnections, seconds=session_timeout)
    app.router.on_shutdown.append(lambda: _close_all(served))
    return app


def serve(
    id_or_env: EnvSource, *, host: str = "127.0.0.1", port: int = 8000, **settings: Any
) -> None:
    """Serve until interrupted; then every session is closed.

    Args:
        id_or_env: As :func:`make_app`.
        host: Whoever reaches it can run the environment's tools: loopback, unless you mean it.
        port: Where to listen.
        **settings: Of :func:`make_app`.
    """
    import uvicorn

    uvicorn.run(make_app(id_or_env, **settings), host=host, port=port, **_SERVING)


@contextmanager
def running(app: Any, host: str = "127.0.0.1") -> Iterator[str]:
    """An application served by a thread of this process, on a free port; yields its address.

    Example::

        with running(make_app(id)) as url, GenericEnvClient(base_url=url).sync() as env:
            env.reset(seed=7)

    Raises:
        RuntimeError: it did not start within a minute.
    """
    import socket

    import uvicorn

    with socket.socket() as listening:
        listening.bind((host, 0))
        server = uvicorn.Server(uvicorn.Config(app, ws_ping_interval=None, **_SERVING))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            if time.monotonic() > deadline or not thread.is_alive():
                raise RuntimeError(f"The server did not start within {START_SECONDS:g} s.")
            time.sleep(0.01)
        try:
            yield f"http://{host}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(START_SECONDS)


class EndIdleConnections:
    """ASGI middleware: a WebSocket on which nothing comes for ``seconds`` is closed.

    OpenEnv's own reaper spares sessions with a connection, so a client that hangs would hold its
    sandbox for good. A step under way is no idleness: the server is not waiting to receive then.
    """

    def __init__(self, app: Any, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass on; of a WebSocket, end what is idle."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return

        async def receive_soon() -> Message:
            try:
                async with asyncio.timeout(self._seconds):
                    return await receive()
            except TimeoutError:
                reason = f"no request for {self._seconds:g} s: the lease ended"
                await send({"type": "websocket.close", "code": _GOING_AWAY, "reason": reason})
                return {"type": "websocket.disconnect", "code": _GOING_AWAY}

        await self._app(scope, receive_soon, send)


def _close_all(served: type[ToolUseEnvironment]) -> None:
    for one in list(served.live):
        one.close()


def _shared_judge(name: str) -> RewardModel:
    """A judge by name, for sessions that ask at the same time."""
    from reagent_env.reward_models import make_reward_model
    from reagent_env.reward_models.batched import BatchedJudge

    judge: RewardModel = make_reward_model(name)
    return judge if name.startswith(("http://", "https://")) else BatchedJudge(judge)


def _public(index: int, task: Task) -> dict[str, Any]:
    return {"id": task.id, "index": index, "question": task.question}
