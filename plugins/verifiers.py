"""verifiers (0.4): any environment id as a taskset, an environment and a harness for ``vf-eval``.

verifiers finds plug-ins as top-level modules, so a module of one's own names them::

    # my_tasks.py, beside which one calls:  PYTHONPATH=. vf-eval my_tasks --env.judge rubric …
    from reagent_env.plugins.verifiers import ToolUseChat, ToolUseTaskset, ToolUseVerifier

    __all__ = ["ToolUseChat", "ToolUseTaskset", "ToolUseVerifier"]

The taskset yields the tasks, answers left out; the environment plays one: its observations are the
user's turns, the policy's text is the action, the reward is the environment's and its wrappers'; the
harness is a chat without a program of its own, so no ``uv``, container or account is needed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from typing import Any

from reagent_env.env import ToolUseEnv
from reagent_env.errors import InfrastructureError
from reagent_env.plugins.building import TextEnv, build_env

try:
    import verifiers.v1 as vf
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI, Timeout
    from pydantic import Field
    from verifiers.v1.dialects.chat import message_to_wire
except ImportError as error:
    raise ImportError(
        "The verifiers plug-in needs: pip install 'reagent-env[verifiers]' (in an environment "
        "without openenv: the two want different versions of mcp)."
    ) from error

__all__ = ["ToolUseChat", "ToolUseTaskset", "ToolUseVerifier"]


TIMEOUT = Timeout(3600.0, connect=60.0)
"""Of one completion; its limit is verifiers' to set. The usual 5 s to connect is short on a busy host."""


class EpisodeSpoiled(InfrastructureError):
    """Infrastructure failed in mid-episode: verifiers counts the episode as failed, not as 0."""


class ToolUseData(vf.TaskData):
    """A task as it travels: no answer, which stays in the environment."""

    env_id: str
    """As ``gym.make`` takes it, ``module:id`` too."""
    env_kwargs: dict[str, Any] = Field(default_factory=dict)
    """For ``gym.make``."""


class ToolUseTask(vf.Task[ToolUseData]):
    """One task; the environment scores it, so it has no reward of its own."""

    @property
    def key(self) -> str:
        """The task's id: the hash of its content."""
        return str(self.data.id)


class ToolUseTasksetConfig(vf.TasksetConfig):
    """``--env.taskset.*``."""

    env_id: str = "reagent/SearchQA-v0"
    """The environment, ``--env.taskset.env-id``."""
    env_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Its arguments, e.g. ``--env.taskset.env-kwargs '{"split": "test"}'``."""


class ToolUseTaskset(vf.Taskset[ToolUseTask, ToolUseTasksetConfig]):
    """The tasks of an environment, in its order."""

    def load(self) -> Iterator[ToolUseTask]:
        """One a task of the environment's split."""
        config = self.config
        env = build_env(config.env_id, **config.env_kwargs)
        inner = env.unwrapped
        assert isinstance(inner, ToolUseEnv)
        env.close()
        for task in inner.tasks:
            yield ToolUseTask(
                ToolUseData(
                    id=task.id,
                    name=task.id,
                    system_prompt=inner.system_prompt or None,
                    env_id=config.env_id,
                    env_kwargs=config.env_kwargs,
                ),
                config.task,
            )


class ToolUseVerifierConfig(vf.EnvConfig):
    """``--env.*``: how the process is paid, as in every plug-in."""

    player: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())
    """The policy."""
    judge: str | None = None
    """A reward model for ``make_reward_model``: ``rubric``, ``http://host:8000/v1#agent-rrm``, …"""
    weight: float = 0.3
    """λ."""
    credit: str = "trajectory"
    when: str = "end"
    attempts: int = 1
    """More than 1: the critique opens another attempt, in the same conversation."""


class ToolUseVerifier(vf.Env[ToolUseVerifierConfig]):
    """Plays one task: the policy's text in, the environment's observation out, until it is over.

    The trace gets the rewards ``outcome`` and ``process`` (their sum is all that ``step`` paid), and
    metrics for each attempt: ``attempt_1/outcome``, ``attempt_1/score`` (absent where unscored),
    ``attempt_1/turns``; ``unscored`` counts attempts without a score. The critique and the stop
    reasons are in ``trace.info["reagent"]``.
    """

    def __init__(self, config: ToolUseVerifierConfig) -> None:
        super().__init__(config)
        self._judge: Any = self._make_judge()
        self._free: dict[str, list[TextEnv]] = {}

    async def run(self, task: vf.Task[Any], agents: vf.Agents) -> None:
        """One episode."""
        env = await asyncio.to_thread(self._take, task.data)
        try:
            await self._play(env, task, agents)
        finally:
            self._free.setdefault(_kind(task.data), []).append(env)

    async def stop(self) -> None:
        """Close the environments, and the judge where it has anything to close."""
        for envs in self._free.values():
            for env in envs:
                env.close()
        self._free = {}
        getattr(self._judge, "close", lambda: None)()

    async def _play(self, env: TextEnv, task: vf.Task[Any], agents: vf.Agents) -> None:
        """Turn by turn; every step in a thread, since tools and judges wait."""
        _, info = await asyncio.to_thread(env.reset, options={"task": task.data.id})
        text = info["messages"][-1]["content"]
        episode = Paid()
        spoiled: str | None = None
        async with agents.player.interaction(task) as interaction:
            trace = interaction.trace
            while True:
                segment = await interaction.turn(text)
                if segment.terminated:  # a limit of verifiers, or the model could not be asked
                    break
                text, reward, terminated, truncated, info = await asyncio.to_thread(
                    env.step, completion(segment)
                )
                episode.take(float(reward), terminated or truncated, info)
                if math.isnan(float(reward)):
                    spoiled = str(info.get("infrastructure_error", "infrastructure failure"))
                if terminated or truncated:
                    break
        episode.record(trace)
        if spoiled is not None:
            raise EpisodeSpoiled(spoiled)

    def _make_judge(self) -> Any:
        name = self.config.judge
        if name is None:
            return None
        from reagent_env.reward_models import make_reward_model
        from reagent_env.reward_models.batched import BatchedJudge

        judge: Any = make_reward_model(name)
        return judge if name.startswith(("http://", "https://")) else BatchedJudge(judge)

    def _take(self, data: ToolUseData) -> TextEnv:
        """An environment that nobody plays in."""
        free = self._free.get(_kind(data))
        if free:
            return free.pop()
        config = self.config
        return build_env(
            data.env_id,
            judge=self._judge,
            weight=config.weight,
            credit=config.credit,
            when=config.when,
            attempts=config.attempts,
            **data.env_kwargs,
        )


class ToolUseChat(vf.Harness[vf.HarnessConfig]):
    """One request to the model for each turn, from this process."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: Any,
        trace: Any,
        runtime: Any,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Ask for the next completion of ``data``'s conversation; the trace records it."""
        system, prompt = self.resolve_prompt(data)
        if isinstance(prompt, str):
            said: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
        else:
            said = [message_to_wire(message) for message in prompt or []]
        if system is not None:
            said = [{"role": "system", "content": system}, *said]
        asked: Any = said
        async with AsyncOpenAI(
            base_url=endpoint, api_key=secret, max_retries=0, timeout=TIMEOUT
        ) as client:
            try:
                await client.chat.completions.create(model=ctx.model, messages=asked)
            except (APIStatusError, APIConnectionError) as error:  # its cause is on the trace
                return vf.ProgramResult(exit_code=1, stdout="", stderr=str(error))
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")


class Paid:
    """What an episode came to, attempt by attempt."""

    def __init__(self) -> None:
        self.rewards: list[float] = []
        self.attempts: list[dict[str, Any]] = []

    def take(self, reward: float, over: bool, info: Mapping[str, Any]) -> None:
        """Count a turn; where it ended an attempt, what the attempt came to."""
        self.rewards.append(reward)
        if not (over or info.get("attempt_ended")):
            return
        judgement = info.get("judgement") or {}
        before = sum(one["turns"] for one in self.attempts)
        turns = len(self.rewards) - before
        self.attempts.append(
            {
                "return": math.fsum(self.rewards[before:]),
                "turns": turns,
                "outcome": info.get("reward/outcome"),
                "process": info.get("reward/process"),
                "turn_rewards": info.get("reward/turns"),
                "score": judgement.get("score"),
                "critique": judgement.get("critique"),
                "unscored": judgement.get("unscored"),
                "stop_reason": str(info.get("stop_reason")),
            }
        )

    def record(self, trace: Any) -> None:
        """Write it into verifiers' trace. A spoiled episode gets no reward."""
        trace.info["reagent"] = {"attempts": self.attempts}
        trace.record_metric("unscored", float(sum(bool(one["unscored"]) for one in self.attempts)))
        for number, one in enumerate(self.attempts, start=1):
            for name in ("outcome", "score", "turns"):
                if one[name] is not None and not math.isnan(one[name]):
                    trace.record_metric(f"attempt_{number}/{name}", float(one[name]))
        paid = math.fsum(self.rewards)
        if math.isnan(paid):
            return
        process = math.fsum(one["process"] or 0.0 for one in self.attempts)
        outcomes = [one["outcome"] for one in self.attempts]
        ended = sum(one["turns"] for one in self.attempts) == len(self.rewards)
        known = ended and None not in outcomes
        trace.record_reward("outcome", math.fsum(outcomes) if known else paid - process)
        trace.record_reward("process", process)


def completion(segment: vf.Segment) -> str:
    """What the policy wrote, blanks at its ends included."""
    for message in reversed(segment.messages):
        if isinstance(message, vf.AssistantMessage):
            return vf_text(message.content)
    return ""


def vf_text(content: Any) -> str:
    """The text of a message."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(str(getattr(part, "text", "")) for part in content)


def _kind(data: ToolUseData) -> str:
    return f"{data.env_id} {sorted(data.env_kwargs.items())}"
