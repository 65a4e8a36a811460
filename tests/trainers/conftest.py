"""A tiny random policy and an engine that says what it is told, for tests of the training loop."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # toy_tasks: an environment from outside

CONTEXT = 1024


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level, of 300 tokens; ChatML."""
    pytest.importorskip("torch")
    from reagent_env.trainers.policies.tiny import make_tokenizer

    return make_tokenizer(["What is 2 + 3? Add. Say a"] * 3, 300)


@pytest.fixture(scope="session")
def renderer(tokenizer: Any) -> Any:
    """Of that tokenizer."""
    from reagent_env.trainers.rendering import Renderer

    return Renderer(tokenizer)


@pytest.fixture(scope="session")
def random_policy(tokenizer: Any) -> Callable[..., Any]:
    """Makes a Llama of 2 layers × 32, its weights drawn by ``seed``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from reagent_env.trainers.policies.policy import Policy

    def make(seed: int = 0) -> Policy:
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
        return Policy("random", LlamaForCausalLM(config), tokenizer, CONTEXT)

    return make


@pytest.fixture(scope="session")
def policy_folder(random_policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That policy as ``--policy FOLDER``."""
    folder: Path = tmp_path_factory.mktemp("policy")
    random_policy().save(folder)
    return folder


class ScriptedEngine:
    """Says what it is told, turn by turn: texts, ids, or errors to raise; notes what it reads.

    ``script`` is a list for every conversation alike, or a function from a conversation's number
    and turn to what is said. A text is closed by the end of turn; ids are said as they are.
    """

    def __init__(self, renderer: Any, script: Any, context_length: int = 4096) -> None:
        self.context_length = context_length
        self.read: list[list[int]] = []
        self.said: list[list[int]] = []
        self.seeds: list[int] = []
        self.open_now = 0
        self.version = 0
        self._renderer = renderer
        self._script = script
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def open(self, seed: int) -> ScriptedConversation:
        with self._lock:
            self.seeds.append(seed)
            self.open_now += 1
            return ScriptedConversation(self, next(self._numbers))

    def words(self, number: int, turn: int) -> Any:
        return self._script(number, turn) if callable(self._script) else self._script[turn]

    def pause(self) -> None: ...

    def resume(self, version: int) -> None:
        self.version = version

    def close(self) -> None: ...


class ScriptedConversation:
    def __init__(self, engine: ScriptedEngine, number: int) -> None:
        self._engine = engine
        self._number = number
        self._turn = 0
        self._closed = False

    def generate(self, new_ids: Sequence[int], sampling: Any) -> Future[Any]:
        from reagent_env.trainers.engines.base import Generation

        engine = self._engine
        future: Future[Any] = Future()
        said = engine.words(self._number, self._turn)
        self._turn += 1
        if isinstance(said, Exception):
            future.set_exception(said)
            return future
        ids = engine._renderer.completion_ids(said) if isinstance(said, str) else list(said)
        engine.read.append(list(new_ids))
        engine.said.append(ids)
        logprobs = tuple(-0.01 * (place + 1) for place in range(len(ids)))
        finish = "stop" if ids[-1] in engine._renderer.stop_ids else "length"
        future.set_result(Generation(tuple(ids), logprobs, finish, engine.version))
        return future

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._engine.open_now -= 1


@pytest.fixture
def scripted(renderer: Any) -> Callable[..., ScriptedEngine]:
    """``scripted(["\\\\boxed{5}"])``: an engine that says this."""
    return lambda script, **options: ScriptedEngine(renderer, script, **options)


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
