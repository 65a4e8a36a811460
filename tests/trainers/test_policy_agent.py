"""A local policy as an agent: many episodes, one engine; and ``reagent eval --agent FOLDER``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from reagent_env.agents.chat import ContextOverflow  # noqa: E402
from reagent_env.agents.evaluate import evaluate, run_episode  # noqa: E402
from reagent_env.agents.making import AgentRequest, UnknownAgent, agent_maker  # noqa: E402
from reagent_env.cli import app  # noqa: E402
from reagent_env.testing import addition_env  # noqa: E402
from reagent_env.trainers.engines.base import (  # noqa: E402
    ContextFull,
    EngineFailed,
    Generation,
    Sampling,
)
from reagent_env.trainers.policies.policy import Policy  # noqa: E402
from reagent_env.trainers.policies.tiny import make_tokenizer  # noqa: E402
from reagent_env.trainers.policy_agent import PolicyAgent  # noqa: E402
from reagent_env.trainers.rendering import Renderer  # noqa: E402
from reagent_env.trajectory_file import read_trajectories  # noqa: E402

CALL = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'
ANSWER = r"\boxed{5}"


class ScriptedEngine:
    """Says what it is told, turn by turn, and notes what it reads."""

    context_length = 4096

    def __init__(self, turns: Sequence[Sequence[int] | Exception]) -> None:
        self.turns = turns
        self.seeds: list[int] = []
        self.read: list[list[int]] = []
        self.closed = 0

    def open(self, seed: int) -> ScriptedConversation:
        self.seeds.append(seed)
        return ScriptedConversation(self)


class ScriptedConversation:
    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.turns = iter(engine.turns)

    def generate(self, new_ids: Sequence[int], sampling: Sampling) -> Future[Generation]:
        self.engine.read.append(list(new_ids))
        future: Future[Generation] = Future()
        turn = next(self.turns)
        if isinstance(turn, Exception):
            future.set_exception(turn)
        else:
            future.set_result(Generation(tuple(turn), (-0.1,) * len(turn), "stop", 0))
        return future

    def close(self) -> None:
        self.engine.closed += 1


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = [CALL, ANSWER, "What is 2 + 3?", "Answer the question. Tools: add"]
    return make_tokenizer(texts * 3, 400)


@pytest.fixture(scope="module")
def renderer(tokenizer: Any) -> Renderer:
    return Renderer(tokenizer)


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model: it acts, and solves nothing."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    saved = tmp_path_factory.mktemp("model")
    Policy("random", LlamaForCausalLM(config), tokenizer, 2048).save(saved)
    return saved


def turn_ids(tokenizer: Any, text: str) -> list[int]:
    return [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


def play(agent: PolicyAgent) -> Any:
    env = addition_env()
    try:
        return run_episode(env, agent, env.unwrapped.tasks[2])
    finally:
        env.close()


def test_an_episode_reads_the_prompt_then_only_what_is_new(
    tokenizer: Any, renderer: Renderer
) -> None:
    engine = ScriptedEngine([turn_ids(tokenizer, CALL), turn_ids(tokenizer, ANSWER)])
    trajectory = play(PolicyAgent("scripted", engine, renderer, Sampling()))
    assert [turn.completion for turn in trajectory.turns] == [CALL, ANSWER]
    assert trajectory.outcome == 1.0
    assert trajectory.agent == {"name": "scripted"}
    opening, reply = engine.read
    assert tokenizer.decode(opening).endswith("What is 2 + 3?<|im_end|>\n<|im_start|>assistant\n")
    assert reply == renderer.reply_ids(trajectory.turns[0].observation, closed=True)


def test_a_completion_that_was_cut_off_is_closed_for_the_policy(
    tokenizer: Any, renderer: Renderer
) -> None:
    engine = ScriptedEngine([turn_ids(tokenizer, CALL)[:-1], turn_ids(tokenizer, ANSWER)])
    trajectory = play(PolicyAgent("scripted", engine, renderer, Sampling()))
    assert engine.read[1] == renderer.reply_ids(trajectory.turns[0].observation, closed=False)
    assert engine.read[1][0] == tokenizer.eos_token_id


def test_its_seed_follows_from_task_and_attempt(renderer: Renderer, tokenizer: Any) -> None:
    engine = ScriptedEngine([turn_ids(tokenizer, ANSWER)])
    agent = PolicyAgent("scripted", engine, renderer, Sampling(), seed=4)
    other = PolicyAgent("scripted", engine, renderer, Sampling(), seed=5)
    messages = [{"role": "user", "content": "2 + 3?"}]
    for one, task, attempt in ((agent, "a", 0), (agent, "a", 0), (agent, "b", 0), (agent, "a", 1)):
        one.begin({"messages": messages, "task_id": task, "attempt": attempt})
    other.begin({"messages": messages, "task_id": "a", "attempt": 0})
    assert engine.seeds[0] == engine.seeds[1]
    assert len(set(engine.seeds)) == 4
    agent.close()
    agent.close()
    assert engine.closed == 4, "a new episode closes the last one's conversation"


def test_a_full_context_is_the_policys_failure_an_engines_is_not(renderer: Renderer) -> None:
    full = PolicyAgent("full", ScriptedEngine([ContextFull("no room")]), renderer, Sampling())
    trajectory = play(full)
    assert (trajectory.stop_reason, trajectory.outcome) == ("context_length", 0.0)
    dead = PolicyAgent("dead", ScriptedEngine([EngineFailed("gone")]), renderer, Sampling())
    trajectory = play(dead)
    assert trajectory.infrastructure_error == "EngineFailed: gone"
    assert trajectory.outcome is None
    with pytest.raises(ValueError, match="begin"):
        PolicyAgent("new", ScriptedEngine([]), renderer, Sampling()).act("", {})
    assert issubclass(ContextOverflow, Exception)


def test_many_episodes_share_one_engine_and_repeat(folder: Path, tmp_path: Path) -> None:
    def run(out: str, concurrency: int) -> dict[str, list[str]]:
        request = AgentRequest(
            str(folder), "addition", max_tokens=12, temperature=1.0, concurrency=concurrency
        )
        with contextlib.ExitStack() as shared:
            make_agent = agent_maker(request, shared)
            assert make_agent()._engine is make_agent()._engine  # type: ignore[attr-defined]
            played = evaluate(
                lambda: addition_env(max_turns=3),
                make_agent,
                10,
                out=tmp_path / out,
                concurrency=concurrency,
            )
        assert [one.infrastructure_error for one in played] == [None] * 10
        return {one.task.id: [turn.completion for turn in one.turns] for one in played}

    together = run("together", 5)
    assert all(turns and any(turns) for turns in together.values())
    assert len({tuple(turns) for turns in together.values()}) == 10
    assert run("alone", 1) == together


def test_reagent_eval_plays_a_folders_model(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run" / "checkpoints" / "000003"
    run.parent.mkdir(parents=True)
    run.symlink_to(folder)
    arguments = ["eval", "reagent/MiniMix-v0", "--agent", str(tmp_path / "run")]
    arguments += ["--sandbox", "embedded", "--episodes", "3", "--max-tokens", "8"]
    shown = CliRunner().invoke(
        app, [*arguments, "--max-turns", "2", "--out", str(tmp_path / "out")]
    )
    assert shown.exit_code == 0, shown.output
    assert len(list(read_trajectories(tmp_path / "out" / "trajectories.jsonl"))) == 3
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["tool_format"] == "compact", "the environment's own"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("expret", "Did you mean 'expert'"),
        ("smolm2", "Did you mean 'smollm2'"),
        ("runs/nothing", "There is no policy 'runs/nothing'"),
    ],
)
def test_an_unknown_agent_is_refused_with_what_there_is(spec: str, said: str) -> None:
    with contextlib.ExitStack() as shared, pytest.raises(UnknownAgent, match=said):
        agent_maker(AgentRequest(spec, "reagent/MiniMix-v0"), shared)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with contextlib.ExitStack() as shared, pytest.raises(UnknownAgent, match="holds no model"):
        agent_maker(AgentRequest(str(tmp_path), "reagent/MiniMix-v0"), shared)
