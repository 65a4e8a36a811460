"""The environment: one tool-use task an episode, text in, text out.

Not here: how calls are written (``tool_formats/``), run (``tool_runner.py``) or graded
(``graders.py``); rewards other than the outcome are wrappers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium.error import ClosedEnvironmentError, ResetNeeded

from reagent_env.answers import final_answer
from reagent_env.choosing import Tasks, Tools, choose_tasks, tools_by_name
from reagent_env.episode import RunningAttempt, RunningEpisode
from reagent_env.errors import INFRASTRUCTURE_ERRORS, TaskError
from reagent_env.graders import grade
from reagent_env.judgement import Judgement
from reagent_env.observation import bounded_observation
from reagent_env.sandboxes.contract import Limits, Sandbox
from reagent_env.sandboxes.errors import SandboxLost
from reagent_env.simulator import MakeSimulator, checked_score, simulator_maker
from reagent_env.spaces import AnyText
from reagent_env.task import Task
from reagent_env.tool_formats import ToolFormat, get_tool_format
from reagent_env.tool_runner import run_calls
from reagent_env.trajectory import StopReason, ToolCall, ToolResult, Trajectory, Turn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reagent_env.corpus_places import CorpusPlace
    from reagent_env.sandboxes.pool import SandboxPool


class ToolUseEnv(gymnasium.Env[str, str]):
    """A multi-turn tool-use task as a Gymnasium environment.

    The action is one raw completion of a language model, tool calls inside; the observation is
    what the model reads next. A turn without a call is final: its answer is graded, and the
    outcome in [0, 1] is the reward of that step; every other step's reward is 0. With a
    :class:`~reagent_env.simulator.Simulator` the outcome is its score, whatever the policy says,
    and the episode ends once the simulated task is decided.

    Example::

        env = ToolUseEnv(tasks=[Task(question="2 + 3?", answer="5", grader="number")])
        observation, info = env.reset(seed=7)
        observation, reward, terminated, truncated, info = env.step(r"\\boxed{5}")
        # reward 1.0, terminated True, info["stop_reason"] == "answered"

    When something around the policy fails (a sandbox is lost, a grader breaks), the episode is
    truncated with ``info["stop_reason"] == "infrastructure_failure"`` and a reward of **NaN**:
    a failed machine is never a reward of 0. Leave such episodes out.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"]}  # noqa: RUF012 (Gymnasium's own shape)

    def __init__(
        self,
        tasks: Tasks,
        tools: Tools = (),
        sandbox: str | Callable[[], Sandbox] | SandboxPool | None = None,
        *,
        simulator: str | MakeSimulator | None = None,
        corpus: CorpusPlace | None = None,
        grade: Callable[[Task, str | None], float] = grade,
        split: str | None = None,
        max_turns: int = 8,
        max_calls_per_turn: int = 8,
        max_observation_chars: int = 8_000,
        max_seconds: float = 600.0,
        tool_format: str | ToolFormat = "hermes",
        system_prompt: str | None = None,
        sandbox_limits: Limits | None = None,
        sandbox_requires: Iterable[str] = (),
        render_mode: str | None = None,
    ) -> None:
        """Make the environment; a sandbox is taken only when an episode's first call needs one.

        Args:
            tasks: A task set's name, a path to a file of tasks, or tasks themselves.
            tools: Names of tools that come with the package (``python``, ``shell``, …),
                :class:`Tool` objects, or functions that :func:`reagent_env.tool` can take.
            sandbox: ``auto``, ``docker``, ``embedded``, ``process``, a factory, a pool, or None
                where no tool needs one.
            simulator: What makes an attempt's simulator of its task, or ``"module:name"`` of it.
            corpus: What ``search`` and ``browse`` read, in place of what the tasks bring: a corpus,
                a ``.jsonl`` file or folder of documents, or the URL of a retrieval server.
            grade: What a final answer is worth, in [0, 1]; by default what the task's grader says.
                It raises ``GraderError`` where it cannot tell, which masks the episode.
            split: ``train``, ``validation``, ``test`` or ``all``; by default ``train`` of a named
                set, and all of a path's or of tasks given.
            max_turns: Turns after which the episode is truncated with outcome 0.
            max_calls_per_turn: Calls beyond this many in one turn are refused.
            max_observation_chars: Bound on an observation's tool results, kept head and tail.
            max_seconds: Wall time of an attempt, the policy's own time included.
            tool_format: ``hermes``, ``compact``, ``react``, ``openai``, or a ``ToolFormat``.
            system_prompt: Replaces the format's own instructions.
            sandbox_limits: What each sandbox may use.
            sandbox_requires: Names of :class:`~reagent_env.sandboxes.Capabilities` without which
                the environment refuses to be made.
            render_mode: ``ansi`` to have :meth:`render` return the episode as text,
                ``rgb_array`` for the simulator's picture.

        Raises:
            ValueError: an argument is out of range or unknown; the message names the nearest.
            SandboxUnavailable, CapabilityMissing: no sandbox fits; the message says the remedy.
        """
        super().__init__()
        for name, count in (
            ("max_turns", max_turns),
            ("max_calls_per_turn", max_calls_per_turn),
            ("max_observation_chars", max_observation_chars),
        ):
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} must be a whole number from 1 up, got {count!r}.")
        if not isinstance(max_seconds, int | float) or not max_seconds > 0:
            raise ValueError(f"max_seconds must be a positive number, got {max_seconds!r}.")
        if render_mode not in (None, *self.metadata["render_modes"]):
            known = ", ".join(self.metadata["render_modes"])
            raise ValueError(f"Unknown render_mode {render_mode!r}; known: {known}, or None.")
        if render_mode == "rgb_array" and simulator is None:
            raise ValueError("Only a simulator has a picture; pass render_mode='ansi'.")
        self.render_mode = render_mode
        self.observation_space = AnyText()
        self.action_space = AnyText()
        self.tasks = choose_tasks(tasks, split)
        self.split = split
        self.tools = tools_by_name(tools, self.tasks, corpus)
        self.tool_format = get_tool_format(tool_format)
        self.max_turns = max_turns
        self.max_calls_per_turn = max_calls_per_turn
        self.max_observation_chars = max_observation_chars
        self.max_seconds = max_seconds
        self.system_prompt = (
            self.tool_format.instructions(
                list(self.tools.values()),
                one_call=max_calls_per_turn == 1,
                simulated=simulator is not None,
            )
            if system_prompt is None
            else system_prompt
        )
        self.max_attempts = 1
        """Attempts after which an episode's sandbox is given back; refining wrappers raise it."""
        self._grade = grade
        self._make_simulator = None if simulator is None else simulator_maker(simulator)
        if simulator is None and any(tool.needs_simulator for tool in self.tools.values()):
            names = ", ".join(t.name for t in self.tools.values() if t.needs_simulator)
            raise ValueError(f"The tools {names} act on a simulator; pass simulator=.")
        self._picture: NDArray[Any] | None = None
        self._pool = self._find_pool(sandbox, sandbox_limits, tuple(sandbox_requires))
        self._episode: RunningEpisode | None = None
        self._closed = False

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode on a task drawn by ``seed``, or on ``options["task"]``.

        Args:
            seed: Seeds the drawing of tasks, as in Gymnasium.
            options: ``{"task": …}`` with a :class:`Task`, a task's id, or its index in ``tasks``.

        Returns:
            The task as the policy sees it, and ``info`` with ``task_id``, ``messages`` (the same
            as chat messages), ``tools`` (schemas) and ``sandbox`` (the backend, or None).
        """
        self._refuse_if_closed()
        super().reset(seed=seed)
        self._release()
        self._picture = None
        episode = RunningEpisode(self._choose(options or {}), seed)
        self._start_simulator(episode)
        self._episode = episode
        opening = self.opening(episode.task)
        episode.prompt = "\n\n".join(message["content"] for message in opening["messages"])
        return episode.prompt, {"task_id": episode.task.id, "turn": 0, "attempt": 1, **opening}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one completion: run its calls, or grade its answer when it makes none.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset and after the end.
            TypeError: ``action`` is not a string.
        """
        self._refuse_if_closed()
        episode = self._episode
        if episode is None or episode.attempt.stop_reason is not None:
            raise ResetNeeded("The episode is over or never began; call reset() before step().")
        if not isinstance(action, str):
            raise TypeError(f"An action is one completion, a str; got {type(action).__name__}.")
        parsed = self.tool_format.parse(action)
        try:
            if episode.simulator_failure is not None:
                raise episode.simulator_failure
            if parsed.calls:
                return self._act(episode, action, parsed.calls)
            return self._answer(episode, action, parsed.final_text or "")
        except INFRASTRUCTURE_ERRORS as error:
            return self._fail(episode, action, parsed.calls, error)

    def opening(self, task: Task) -> dict[str, Any]:
        """What ``info`` says where an attempt at ``task`` starts from its prompt alone."""
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        simulator = None if self._episode is None else self._episode.simulator
        seen = "" if simulator is None else simulator.opening
        question = f"{task.question}\n\n{seen}" if seen else task.question
        return {
            "messages": [*system, {"role": "user", "content": question}],
            "tools": [tool.schema for tool in self.tools.values()],
            "sandbox": None if self._pool is None else self._pool.backend,
        }

    def begin_attempt(self, feedback: str | None, *, replaced: bool = False) -> None:
        """Start a further attempt at the same task, for wrappers that refine.

        Turns and time are counted anew; a simulator starts anew, as each attempt is worth what its
        own state is.

        Args:
            feedback: What the policy read of the attempt before, which it goes on from: the
                sandbox keeps its state. None for an independent attempt, in a fresh sandbox.
            replaced: For the record: a critique gave the answer away, and this stands in for it.

        Raises:
            ResetNeeded: no attempt has ended, or infrastructure ended it.
        """
        self._refuse_if_closed()
        episode = self._episode
        if episode is None or episode.attempt.stop_reason in (
            None,
            StopReason.INFRASTRUCTURE_FAILURE,
        ):
            raise ResetNeeded("A further attempt begins after one that the policy ended.")
        if feedback is None:
            self._release()
        self._start_simulator(episode)
        episode.attempts.append(RunningAttempt(feedback, replaced))

    def judgement_by(self, judge: object) -> Judgement | None:
        """What ``judge`` said of the current attempt as it stands, if it was asked already."""
        episode = self._running_or_ended()
        key = (id(judge), len(episode.attempts), len(episode.attempt.turns))
        kept = episode.judgements.get(key)
        return None if kept is None else kept[1]

    def keep_judgement(self, judge: object, judgement: Judgement) -> None:
        """Keep what ``judge`` said of the current attempt, for other wrappers and for the record."""
        episode = self._running_or_ended()
        key = (id(judge), len(episode.attempts), len(episode.attempt.turns))
        episode.judgements[key] = (judge, judgement)  # the judge too: its id stays its own
        if episode.attempt.stop_reason is not None:
            episode.attempt.judgement = judgement

    def render(self) -> Any:
        """The episode so far as text (``ansi``), or the simulator's last picture (``rgb_array``)."""
        if self.render_mode is None or self._episode is None:
            return None
        if self.render_mode == "rgb_array":
            simulator = self._episode.simulator
            return self._picture if simulator is None else simulator.render()
        parts = [self._episode.prompt]
        for attempt in self._episode.attempts:
            if attempt.feedback is not None:
                parts.append(attempt.feedback)
            for turn in attempt.turns:
                parts += [f"\n>>> {turn.completion}", turn.observation]
        return "\n".join(parts)

    def close(self) -> None:
        """Give the sandbox back. Twice is fine."""
        self._closed = True
        self._release()

    @property
    def trajectory(self) -> Trajectory:
        """The record of the episode so far.

        Raises:
            ResetNeeded: no episode has begun.
        """
        episode = self._running_or_ended()
        return Trajectory(
            task=episode.task,
            prompt=episode.prompt,
            tools=tuple(tool.schema for tool in self.tools.values()),
            attempts=tuple(attempt.record() for attempt in episode.attempts),
            env_id=None if self.spec is None else self.spec.id,
            tool_format=self.tool_format.name,
            seed=episode.seed,
            infrastructure_error=episode.infrastructure_error,
            timings={
                "tools": episode.tool_seconds,
                "total": (episode.ended or time.monotonic()) - episode.began,
            },
        )

    @property
    def needs_sandbox(self) -> bool:
        """True if any tool runs in the sandbox."""
        return any(tool.needs_sandbox for tool in self.tools.values())

    @property
    def sandbox_pool(self) -> SandboxPool | None:
        """Where this environment's sandboxes come from, or None."""
        return self._pool

    def _act(
        self, episode: RunningEpisode, action: str, calls: tuple[ToolCall, ...]
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        attempt = episode.attempt
        calls = calls[: self.max_calls_per_turn + 1]  # the last stands for all that are too many
        results: list[ToolResult] = []
        start = time.monotonic()
        if start < attempt.began + self.max_seconds:
            results = self._run(episode, calls, attempt.began + self.max_seconds)
            episode.tool_seconds += time.monotonic() - start
        results, observation = bounded_observation(
            results, self.tool_format, self.max_observation_chars
        )
        reason: StopReason | None = None
        if episode.simulator is not None and episode.simulator.over:
            reason = StopReason.FINISHED
        elif time.monotonic() - attempt.began >= self.max_seconds:
            reason = StopReason.WALL_TIME
        elif len(attempt.turns) + 1 >= self.max_turns:
            reason = StopReason.MAX_TURNS
        outcome = 0.0 if reason is None else _standing(episode)
        attempt.turns.append(Turn(action, calls, tuple(results), observation, outcome))
        if reason is not None:
            return self._end(episode, reason, outcome, observation)
        return observation, 0.0, False, False, self._info(episode)

    def _run(
        self, episode: RunningEpisode, calls: tuple[ToolCall, ...], deadline: float
    ) -> list[ToolResult]:
        def run() -> list[ToolResult]:
            return run_calls(
                calls,
                self.tools,
                task=episode.task,
                sandbox=lambda: self._sandbox(episode, deadline),
                max_calls=self.max_calls_per_turn,
                deadline=deadline,
                simulator=episode.simulator,
            )

        sandbox_was_unused = episode.lease is None
        try:
            return run()
        except SandboxLost:
            if not sandbox_was_unused or any(
                call.name in self.tools and not self.tools[call.name].needs_sandbox
                for call in calls
            ):
                raise
            self._release()  # nothing but these calls is lost with it: a fresh one can run them
            return run()

    def _answer(
        self, episode: RunningEpisode, action: str, text: str
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        attempt = episode.attempt
        if time.monotonic() - attempt.began >= self.max_seconds:
            outcome = _standing(episode)
            attempt.turns.append(Turn(action, reward=outcome))
            return self._end(episode, StopReason.WALL_TIME, outcome, "")
        attempt.final_answer = final_answer(text, self.tool_format.answer_style)
        if episode.simulator is None:
            outcome = self._grade(episode.task, attempt.final_answer)
        else:
            outcome = _standing(episode)
        attempt.turns.append(Turn(action, reward=outcome))
        return self._end(episode, StopReason.ANSWERED, outcome, "")

    def _fail(
        self, episode: RunningEpisode, action: str, calls: tuple[ToolCall, ...], error: Exception
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        episode.infrastructure_error = f"{type(error).__name__}: {error}"
        episode.attempt.turns.append(Turn(action, calls, reward=float("nan")))
        return self._end(episode, StopReason.INFRASTRUCTURE_FAILURE, None, "")

    def _end(
        self, episode: RunningEpisode, reason: StopReason, outcome: float | None, observation: str
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        episode.attempt.stop_reason = reason
        episode.attempt.outcome = outcome
        episode.ended = time.monotonic()
        if outcome is None or len(episode.attempts) >= self.max_attempts:
            self._release()
        terminated = reason in (StopReason.ANSWERED, StopReason.FINISHED)
        reward = float("nan") if outcome is None else outcome
        return observation, reward, terminated, not terminated, self._info(episode)

    def _info(self, episode: RunningEpisode) -> dict[str, Any]:
        attempt = episode.attempt
        turn = attempt.turns[-1]
        info: dict[str, Any] = {
            "task_id": episode.task.id,
            "turn": len(attempt.turns),
            "attempt": len(episode.attempts),
            "stop_reason": None if attempt.stop_reason is None else str(attempt.stop_reason),
            "tool_calls": [
                {"name": call.name, "arguments": dict(call.arguments), "malformed": call.malformed}
                for call in turn.calls
            ],
            "tool_results": [
                {"name": r.name, "content": r.content, "error": r.error, "status": r.status}
                for r in turn.results
            ],
        }
        if attempt.stop_reason is not None:
            info["final_answer"] = attempt.final_answer
            if attempt.outcome is not None:
                info["reward/outcome"] = attempt.outcome
            if episode.infrastructure_error is not None:
                info["infrastructure_error"] = episode.infrastructure_error
        return info

    def _choose(self, options: Mapping[str, Any]) -> Task:
        unknown = set(options) - {"task"}
        if unknown:
            raise ValueError(f"Unknown reset options {sorted(unknown)}; known: 'task'.")
        wanted = options.get("task")
        if wanted is None:
            return self.tasks[int(self.np_random.integers(len(self.tasks)))]
        if isinstance(wanted, Task):
            return wanted
        if isinstance(wanted, str):
            for task in self.tasks:
                if task.id == wanted:
                    return task
            raise ValueError(
                f"No task with id {wanted!r} among the {len(self.tasks)} of this split."
            )
        index = int(wanted)
        if not 0 <= index < len(self.tasks):
            raise ValueError(f"Task index {index} is outside 0…{len(self.tasks) - 1}.")
        return self.tasks[index]

    def _find_pool(
        self,
        sandbox: str | Callable[[], Sandbox] | SandboxPool | None,
        limits: Limits | None,
        requires: tuple[str, ...],
    ) -> SandboxPool | None:
        if not self.needs_sandbox:
            return None
        if sandbox is None:
            names = ", ".join(t.name for t in self.tools.values() if t.needs_sandbox)
            raise ValueError(f"The tools {names} need a sandbox; pass sandbox='auto'.")
        from reagent_env.sandboxes.pool import SandboxPool
        from reagent_env.sandboxes.select import get_pool

        if isinstance(sandbox, SandboxPool):
            pool = sandbox
        else:
            pool = get_pool(sandbox, limits or Limits())
        if requires:
            pool.capabilities.require(requires)
        return pool

    def _sandbox(self, episode: RunningEpisode, deadline: float) -> Sandbox:
        if episode.lease is None:
            assert self._pool is not None
            episode.lease = self._pool.acquire()
            if episode.task.files:
                try:
                    episode.lease.write_files(episode.task.files)
                except ValueError as error:
                    raise TaskError(f"The task's files cannot be placed: {error}") from error
        episode.lease.deadline = deadline
        return episode.lease

    def _start_simulator(self, episode: RunningEpisode) -> None:
        """A fresh one in place of the last attempt's; a failure is kept for the first step to mask."""
        self._end_simulator()
        episode.simulator_failure = None
        if self._make_simulator is not None:
            try:
                episode.simulator = self._make_simulator(episode.task)
            except INFRASTRUCTURE_ERRORS as error:
                episode.simulator_failure = error

    def _end_simulator(self) -> None:
        """Close the simulator, its last picture kept."""
        if self._episode is None or self._episode.simulator is None:
            return
        simulator, self._episode.simulator = self._episode.simulator, None
        with contextlib.suppress(*INFRASTRUCTURE_ERRORS):  # what the attempt was worth stands
            if self.render_mode == "rgb_array" and not self._closed:
                self._picture = simulator.render()
        with contextlib.suppress(*INFRASTRUCTURE_ERRORS):
            simulator.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ClosedEnvironmentError("The environment is closed; make a new one.")

    def _running_or_ended(self) -> RunningEpisode:
        if self._episode is None:
            raise ResetNeeded("No episode has begun; call reset() first.")
        return self._episode

    def _release(self) -> None:
        if self._episode is not None and self._episode.lease is not None:
            lease, self._episode.lease = self._episode.lease, None
            lease.release()
        self._end_simulator()


def _standing(episode: RunningEpisode) -> float:
    """What the attempt is worth without an answer: nothing, or what its simulator's state is."""
    return 0.0 if episode.simulator is None else checked_score(episode.simulator)
