"""Training rollouts on a real vLLM server: what it samples is what the learner's weights say.

Run by ``make test-vllm``. The wire alone is tested in ``tests/trainers/test_vllm_engine.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from reagent_env.agents.serve import VLLMServer  # noqa: E402
from reagent_env.agents.smollm2 import say_on_stderr, smollm2_folder  # noqa: E402
from reagent_env.testing import addition_env  # noqa: E402
from reagent_env.trainers.engines.base import Generation, Sampling  # noqa: E402
from reagent_env.trainers.engines.vllm import VLLMEngine  # noqa: E402
from reagent_env.trainers.engines.vllm_server import push_weights, training_server  # noqa: E402
from reagent_env.trainers.policies import load_policy  # noqa: E402
from reagent_env.trainers.policies.lora import apply_lora  # noqa: E402
from reagent_env.trainers.policies.policy import Policy  # noqa: E402
from reagent_env.trainers.rendering import Renderer  # noqa: E402
from reagent_env.trainers.rollout import rollout  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

CLOSE = 1e-3
"""Nats between the server's log-probabilities and transformers' in float32."""


@pytest.fixture(scope="module")
def server() -> Iterator[VLLMServer]:
    with training_server(
        smollm2_folder(),
        lora_rank=8,
        served_name="smollm2",
        max_model_len=1024,
        threads=1,
        say=say_on_stderr,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def policy() -> Policy:
    """The weights the server starts with; nobody changes them."""
    torch.set_num_threads(1)
    return load_policy("smollm2")


@pytest.fixture(scope="module")
def renderer(policy: Policy) -> Renderer:
    return Renderer(policy.tokenizer)


@pytest.fixture
def engine(
    server: VLLMServer,
    renderer: Renderer,
    policy: Policy,
    tmp_path: Path,
) -> Iterator[VLLMEngine]:
    """An engine on the first weights: what a test pushed is undone after it."""
    with VLLMEngine(
        server.base_url, "smollm2", stop_ids=renderer.stop_ids, server=server
    ) as running:
        yield running
        if running.version != 0:
            push_weights(running, policy.model, tmp_path / "first", version=0)


def logprobs(model: Any, ids: Sequence[int], temperature: float = 1.0) -> list[float]:
    """[T] what transformers gives each token after those before it; 0 for the first."""
    with torch.no_grad():
        logits = model(torch.tensor([list(ids)])).logits[0].float() / temperature
    rows = torch.log_softmax(logits, dim=-1)
    return [0.0, *(float(rows[at - 1, ids[at]]) for at in range(1, len(ids)))]


class Talk:
    """A conversation and all its tokens; ``sampled`` holds each turn with where it starts."""

    def __init__(self, engine: VLLMEngine, renderer: Renderer, seed: int) -> None:
        self.renderer = renderer
        self.conversation = engine.open(seed)
        self.ids: list[int] = []
        self.sampled: list[tuple[int, Generation]] = []

    def turn(self, text: str, sampling: Sampling) -> Generation:
        if self.ids:
            closed = self.ids[-1] in self.renderer.stop_ids
            new_ids = self.renderer.reply_ids(text, closed=closed)
        else:
            new_ids = self.renderer.opening_ids([{"role": "user", "content": text}])
        generation = self.conversation.generate(new_ids, sampling).result(300)
        self.ids += new_ids
        self.sampled.append((len(self.ids), generation))
        self.ids += generation.ids
        return generation

    def furthest(self, model: Any, turns: Sequence[int], temperature: float = 1.0) -> float:
        """The largest distance in nats between those turns' log-probabilities and the model's."""
        expected = logprobs(model, self.ids, temperature)
        return max(
            abs(expected[start + at] - logprob)
            for start, generation in (self.sampled[turn] for turn in turns)
            for at, logprob in enumerate(generation.logprobs)
        )


def talks(engine: VLLMEngine, renderer: Renderer, sampling: Sampling, count: int) -> list[Talk]:
    """``count`` conversations of three turns at once, each going on as soon as it can."""

    def one(number: int) -> Talk:
        talk = Talk(engine, renderer, seed=number)
        for text in (f"What is {number} + 3?", "Are you sure?", "Say it in one word."):
            talk.turn(text, sampling)
        return talk

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_every_logprob_is_transformers_own(
    engine: VLLMEngine, renderer: Renderer, policy: Policy, temperature: float
) -> None:
    sampling = Sampling(temperature=temperature, max_tokens=8)
    played = talks(engine, renderer, sampling, count=6)
    assert engine.context_length == 1024
    for talk in played:
        assert len(talk.sampled) == 3
        assert talk.furthest(policy.model, range(3), temperature) < CLOSE
        for _, generation in talk.sampled:
            assert 1 <= len(generation.ids) <= 8
            assert generation.version == 0
            assert (generation.finish == "stop") == (generation.ids[-1] in renderer.stop_ids)
    assert len({tuple(talk.ids) for talk in played}) == 6


def test_a_conversation_repeats_by_its_seed(engine: VLLMEngine, renderer: Renderer) -> None:
    texts = []
    for seed in (3, 3, 4):
        talk = Talk(engine, renderer, seed)
        talk.turn("Name three animals.", Sampling(max_tokens=8))
        talk.turn("And three more.", Sampling(max_tokens=8))
        texts.append(renderer.completion_text(talk.ids))
    assert texts[0] == texts[1] != texts[2]


def test_with_one_token_in_the_nucleus_its_logprob_is_0(
    engine: VLLMEngine, renderer: Renderer
) -> None:
    """Not that of the whole distribution, from which the token was not drawn."""
    talk = Talk(engine, renderer, seed=0)
    generation = talk.turn("What is the capital of France?", Sampling(top_p=1e-6, max_tokens=8))
    assert generation.logprobs == pytest.approx([0.0] * len(generation.ids), abs=1e-5)
    assert "Paris" in renderer.completion_text(talk.ids)


def test_the_context_is_filled_to_the_last_token(engine: VLLMEngine, renderer: Renderer) -> None:
    opening = renderer.opening_ids([{"role": "user", "content": "Count: " + "1 2 3 " * 400}])
    ids = opening[-1019:]
    generation = engine.open(0).generate(ids, Sampling(temperature=0.0, max_tokens=64)).result(300)
    if generation.finish == "stop":
        pytest.fail("the model ended its turn: choose another prompt")
    assert (generation.finish, len(generation.ids)) == ("context", 5)


def test_episodes_keep_the_servers_tokens(
    engine: VLLMEngine, renderer: Renderer, policy: Policy
) -> None:
    def play(seed: int) -> Any:
        env = addition_env(max_turns=3)
        task = env.unwrapped.tasks[seed]
        sampling = Sampling(max_tokens=8)
        try:
            return rollout(env, engine, renderer, task, sampling, seed=seed)
        finally:
            env.close()

    with ThreadPoolExecutor(4) as threads:
        played = list(threads.map(play, range(4)))
    for one in played:
        assert not one.masked, one.trajectory.infrastructure_error
        [sample] = one.samples
        turns = len(one.trajectory.turns)
        assert set(sample.turn_of) == {-1, *range(turns)}
        expected = logprobs(policy.model, sample.ids)
        for at, trained in enumerate(sample.completion_mask):
            if trained:
                assert sample.sampled_logprobs[at] == pytest.approx(expected[at], abs=CLOSE)
                assert sample.versions[at] == 0
            else:
                assert (sample.sampled_logprobs[at], sample.versions[at]) == (0.0, -1)


def test_after_a_push_of_adapters_they_sample(
    engine: VLLMEngine, renderer: Renderer, policy: Policy, tmp_path: Path
) -> None:
    learner = load_policy("smollm2").model
    learner = apply_lora(learner, rank=8, alpha=16.0)
    sampling = Sampling(max_tokens=8)
    going_on = Talk(engine, renderer, seed=1)
    going_on.turn("What is 2 + 3?", sampling)
    for version in (1, 2):
        disturb(learner, "lora_B", version)
        push_weights(engine, learner, tmp_path, version)
        going_on.turn("Are you sure?", sampling)
        assert going_on.furthest(learner, [version]) < CLOSE
        assert going_on.furthest(policy.model, [version]) > 0.1, "nothing old is left in the cache"
        for talk in talks(engine, renderer, sampling, count=3):
            assert [one.version for _, one in talk.sampled] == [version] * 3
            assert talk.furthest(learner, range(3)) < CLOSE
    assert [one.version for _, one in going_on.sampled] == [0, 1, 2]
    assert list(tmp_path.rglob("*.safetensors")) == [], "what was pushed is removed"


def test_after_a_push_of_all_weights_they_sample_embeddings_and_output_layer_too(
    engine: VLLMEngine, renderer: Renderer, policy: Policy, tmp_path: Path
) -> None:
    learner = load_policy("smollm2").model
    assert learner.config.tie_word_embeddings
    sampling = Sampling(max_tokens=8)
    going_on = Talk(engine, renderer, seed=1)
    going_on.turn("What is 2 + 3?", sampling)
    for version in (1, 2):
        disturb(learner, "weight", version, scale=0.005)
        push_weights(engine, learner, tmp_path, version)
        going_on.turn("Are you sure?", sampling)
        assert going_on.furthest(learner, [version]) < CLOSE
        assert going_on.furthest(policy.model, [version]) > 0.1, "nothing old is left in the cache"
        for talk in talks(engine, renderer, sampling, count=3):
            assert [one.version for _, one in talk.sampled] == [version] * 3
            assert talk.furthest(learner, range(3)) < CLOSE
    assert [one.version for _, one in going_on.sampled] == [0, 1, 2]


def disturb(model: Any, part: str, seed: int, scale: float = 0.03) -> None:
    """Add noise to the parameters named so, norms apart: an update that shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if part in name and weights.dim() == 2:
                weights += scale * torch.randn(weights.shape, generator=generator)
