"""The in-process engine: what comes out is what the model alone would say, whoever shares the batch."""

from __future__ import annotations

import copy
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from reagent_env.trainers.engines import hf_batch  # noqa: E402
from reagent_env.trainers.engines.base import (  # noqa: E402
    ContextFull,
    Engine,
    EngineFailed,
    Generation,
    Sampling,
)
from reagent_env.trainers.engines.hf import HFEngine  # noqa: E402
from reagent_env.trainers.engines.hf_cache import SlotCache  # noqa: E402
from reagent_env.trainers.engines.hf_sampling import draw  # noqa: E402

STOP = 1
VOCABULARY = 61
CONTEXT = 128
GREEDY = Sampling(temperature=0.0, max_tokens=12)
SECONDS = 60.0


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def tiny(kind: str = "gqa", seed: int = 0) -> Any:
    """A random model of two layers, 32 wide, whose answers vary (its weights are large)."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2 if kind == "gqa" else 4,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.25,
        "tie_word_embeddings": kind == "tied",
        "bos_token_id": None,
        "eos_token_id": STOP,
        "pad_token_id": 0,
    }
    if kind == "sliding":
        config: Any = transformers.Qwen2Config(
            **shape, use_sliding_window=True, sliding_window=8, max_window_layers=1
        )
        return transformers.Qwen2ForCausalLM(config).eval()
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape)).eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny()


@pytest.fixture
def start() -> Iterator[Callable[..., HFEngine]]:
    """Makes engines that are closed at the end."""
    engines: list[HFEngine] = []

    def make(model: Any, **options: Any) -> HFEngine:
        options = {"stop_ids": [STOP], "context_length": CONTEXT, **options}
        engines.append(HFEngine(model, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def answer(future: Future[Generation]) -> Generation:
    return future.result(SECONDS)


def prompt(rng: random.Random, tokens: int) -> list[int]:
    return [rng.randrange(2, VOCABULARY) for _ in range(tokens)]


def alone(model: Any, ids: list[int], tokens: int) -> list[int]:
    """What transformers' own ``generate`` says, greedily."""
    prompt_ids = torch.tensor([ids])
    found = model.generate(
        prompt_ids,
        attention_mask=torch.ones_like(prompt_ids),
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=STOP,
        pad_token_id=0,
    )
    return [int(one) for one in found[0, len(ids) :]]


def logprobs_of(model: Any, ids: list[int], begin: int) -> list[float]:
    """Log-probability of each token from ``begin`` on, in one forward pass without a cache."""
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return [float(scores[place - 1, ids[place]]) for place in range(begin, len(ids))]


@pytest.mark.parametrize("kind", ["gqa", "tied", "sliding"])
def test_greedy_tokens_of_many_conversations_over_turns_are_those_of_generate(
    kind: str, start: Callable[..., HFEngine]
) -> None:
    model, rng = tiny(kind), random.Random(0)
    engine: Engine = start(model, max_live=3)  # 7 conversations: some are forgotten, some wait
    conversations = [engine.open(seed) for seed in range(7)]
    ids: list[list[int]] = [[] for _ in conversations]
    for _turn in range(3):
        asked = []
        for number, conversation in enumerate(conversations):
            new = prompt(rng, rng.randrange(1, 10))
            ids[number] += new
            sampling = Sampling(temperature=0.0, max_tokens=rng.randrange(1, 10))
            asked.append((conversation.generate(new, sampling), sampling.max_tokens))
        for number, (future, tokens) in enumerate(asked):
            generation = answer(future)
            assert list(generation.ids) == alone(model, ids[number], tokens)
            ids[number] += generation.ids


def test_log_probabilities_are_those_of_a_full_forward_pass(
    model: Any, start: Callable[..., HFEngine]
) -> None:
    engine, rng = start(model), random.Random(1)
    firsts = [prompt(rng, tokens) for tokens in (3, 17, 40)]
    conversations = [engine.open(seed) for seed in range(3)]
    sampling = Sampling(max_tokens=15)
    asked = [one.generate(ids, sampling) for one, ids in zip(conversations, firsts, strict=True)]
    for ids, future in zip(firsts, asked, strict=True):
        generation = answer(future)
        expected = logprobs_of(model, [*ids, *generation.ids], len(ids))
        assert generation.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_turn_reads_its_new_tokens_only(model: Any, start: Callable[..., HFEngine]) -> None:
    engine = start(model, stop_ids=[])
    conversation = engine.open(0)
    answer(conversation.generate(list(range(2, 32)), Sampling(max_tokens=5)))
    before = engine.metrics()
    answer(conversation.generate([7, 8, 9], Sampling(max_tokens=5)))
    after = engine.metrics()
    # The last token of the first completion and two of the three new ones; the third is read by
    # the step that samples.
    assert after.prefilled - before.prefilled == 3
    assert after.sampled - before.sampled == 5


@pytest.mark.parametrize("chunk", [512, 8])
def test_conversations_that_begin_alike_read_the_beginning_once(
    chunk: int, model: Any, start: Callable[..., HFEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_batch, "CHUNK_TOKENS", chunk)
    engine, rng = start(model), random.Random(2)
    system = prompt(rng, 30)
    prompts = [system + prompt(rng, 5) for _ in range(4)]
    futures = [engine.open(seed).generate(ids, GREEDY) for seed, ids in enumerate(prompts)]
    found = [list(answer(future).ids) for future in futures]
    assert found == [alone(model, ids, GREEDY.max_tokens) for ids in prompts]
    assert engine.metrics().shared >= 3 * 30
    assert engine.metrics().prefilled <= 34 + 3 * 4


def test_rows_that_go_on_move_together_when_others_are_finished(
    start: Callable[..., HFEngine],
) -> None:
    model, rng = tiny(), random.Random(8)
    rows: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda *given: rows.append(given[2]["input_ids"].shape[0]), with_kwargs=True
    )
    engine = start(model, stop_ids=[])
    engine.pause()
    conversations = [engine.open(seed) for seed in range(8)]
    prompts = [prompt(rng, 5) for _ in conversations]
    lengths = [4, 4, 4, 4, 4, 4, 14, 18]
    futures = [
        one.generate(ids, Sampling(temperature=0.0, max_tokens=tokens))
        for one, ids, tokens in zip(conversations, prompts, lengths, strict=True)
    ]
    engine.resume(version=0)
    found = [[*ids, *answer(future).ids] for ids, future in zip(prompts, futures, strict=True)]
    assert (max(rows), rows[-1]) == (8, 1)
    again = [one.generate([7], Sampling(temperature=0.0, max_tokens=4)) for one in conversations]
    found = [[*ids, 7, *answer(future).ids] for ids, future in zip(found, again, strict=True)]
    hook.remove()
    logits = [model(torch.tensor([ids])).logits[0] for ids in found]
    for ids, scores, tokens in zip(found, logits, lengths, strict=True):
        sampled = [*range(5, 5 + tokens), *range(len(ids) - 4, len(ids))]
        assert [ids[place] for place in sampled] == [
            int(scores[place - 1].argmax()) for place in sampled
        ]


def test_the_same_seed_gives_the_same_tokens_whoever_shares_the_batch(
    model: Any, start: Callable[..., HFEngine]
) -> None:
    engine, rng = start(model, stop_ids=[]), random.Random(3)
    ids, sampling = prompt(rng, 9), Sampling(temperature=0.8, top_p=0.9, max_tokens=20)
    single = answer(engine.open(42).generate(ids, sampling))
    crowd = [engine.open(seed).generate(prompt(rng, 12), sampling) for seed in range(20)]
    shared = answer(engine.open(42).generate(ids, sampling))
    others = {answer(future).ids for future in crowd}
    assert shared.ids == single.ids
    assert shared.logprobs == pytest.approx(single.logprobs, abs=1e-4)
    assert len(others) == 20
    assert answer(engine.open(43).generate(ids, sampling)).ids != single.ids


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    draws = 20_000
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, -torch.inf])
    rng = random.Random(4)
    sampling = Sampling(temperature=2.0)
    drawn, logprobs = draw(
        logits.expand(draws, 5), [sampling] * draws, [rng.random() for _ in range(draws)]
    )
    expected = (logits / 2).softmax(-1)
    counts = torch.tensor(drawn).bincount(minlength=5)
    assert counts[4] == 0
    chi_square = float((((counts - draws * expected) ** 2)[:4] / (draws * expected[:4])).sum())
    assert chi_square < 16.3  # 3 degrees of freedom: exceeded once in a thousand
    assert logprobs[0] == pytest.approx(float(expected[drawn[0]].log()), abs=1e-6)


def test_below_top_p_only_the_likeliest_are_drawn_and_their_mass_is_one() -> None:
    logits = torch.tensor([[0.1, 0.5, 0.3, 0.1]]).log().expand(400, 4)
    numbers = [(place + 0.5) / 400 for place in range(400)]
    drawn, logprobs = draw(logits, [Sampling(top_p=0.7)] * 400, numbers)
    assert set(drawn) == {1, 2}
    assert drawn.count(1) == 250  # 0.5 / (0.5 + 0.3)
    assert logprobs[drawn.index(2)] == pytest.approx(torch.tensor(0.375).log().item(), abs=1e-5)


def test_rows_are_drawn_each_by_its_own_settings() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0]).expand(3, 3)
    settings = [Sampling(temperature=0.0), Sampling(top_p=0.1), Sampling()]
    drawn, logprobs = draw(logits, settings, [0.999, 0.999, 0.01])
    assert drawn == [1, 1, 0]
    model_logprobs = logits[0].log_softmax(-1)
    assert logprobs == pytest.approx([float(model_logprobs[1]), 0.0, float(model_logprobs[0])])


@pytest.mark.parametrize("number", [0.0, 1.0 - 2**-53])
def test_the_ends_of_the_unit_interval_draw_tokens_that_are_possible(number: float) -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    drawn, _ = draw(logits, [Sampling()], [number])
    assert drawn == [1 if number == 0.0 else 2]


def test_after_a_change_of_weights_nothing_kept_is_used_again(
    start: Callable[..., HFEngine],
) -> None:
    model, rng = tiny(), random.Random(5)
    engine = start(model)
    ids = prompt(rng, 20)
    conversation = engine.open(0)
    first = answer(conversation.generate(ids, GREEDY))
    engine.pause()
    model.load_state_dict(tiny(seed=9).state_dict())
    engine.resume(version=4)
    new = prompt(rng, 3)
    second = answer(conversation.generate(new, GREEDY))
    assert (first.version, second.version) == (0, 4)
    assert list(second.ids) == alone(model, [*ids, *first.ids, *new], GREEDY.max_tokens)


def test_a_generation_interrupted_by_a_change_of_weights_goes_on_with_the_new_ones(
    start: Callable[..., HFEngine],
) -> None:
    model, rng = tiny(), random.Random(6)
    old = copy.deepcopy(model)
    passes, hold, go_on = [0], threading.Event(), threading.Event()

    def count(*_: Any) -> None:
        passes[0] += 1
        if passes[0] == 6:
            hold.set()
            assert go_on.wait(SECONDS)

    hook = model.register_forward_hook(count)
    engine = start(model, stop_ids=[])
    ids = prompt(rng, 8)
    future = engine.open(0).generate(ids, Sampling(temperature=0.0, max_tokens=20))
    assert hold.wait(SECONDS)
    pausing = threading.Thread(target=engine.pause)
    pausing.start()
    time.sleep(0.05)
    assert pausing.is_alive()  # a pass is under way
    go_on.set()
    pausing.join(SECONDS)
    sampled = engine.metrics().sampled
    assert not future.done()
    hook.remove()
    model.load_state_dict(tiny(seed=9).state_dict())
    engine.resume(version=1)
    generation = answer(future)
    head = [*ids, *generation.ids[:sampled]]
    assert 0 < sampled < 20
    assert generation.version == 0  # the oldest among its tokens
    assert generation.logprobs[:sampled] == pytest.approx(
        logprobs_of(old, head, len(ids)), abs=1e-4
    )
    assert generation.logprobs[sampled:] == pytest.approx(
        logprobs_of(model, [*ids, *generation.ids], len(head)), abs=1e-4
    )


def test_while_paused_requests_wait(model: Any, start: Callable[..., HFEngine]) -> None:
    engine = start(model)
    engine.pause()
    future = engine.open(0).generate([5, 6], GREEDY)
    time.sleep(0.05)
    assert not future.done()
    engine.resume(version=0)
    assert answer(future).ids


def test_sampling_leaves_the_weights_trainable(start: Callable[..., HFEngine]) -> None:
    model = tiny()
    engine = start(model)
    answer(engine.open(0).generate([5, 6], GREEDY))
    engine.pause()
    model.train()
    model(torch.tensor([[5, 6, 7]])).logits.sum().backward()
    assert float(model.lm_head.weight.grad.abs().sum()) > 0
    engine.resume(version=1)
    assert not model.training


def test_a_context_that_is_full_ends_the_completion_and_then_refuses_more(
    model: Any, start: Callable[..., HFEngine]
) -> None:
    engine = start(model, stop_ids=[], context_length=16)
    conversation = engine.open(0)
    generation = answer(conversation.generate([5] * 10, Sampling(max_tokens=50)))
    assert (len(generation.ids), generation.finish) == (6, "context")
    with pytest.raises(ContextFull, match="17 tokens, in a context of 16"):
        answer(conversation.generate([5], GREEDY))
    with pytest.raises(ContextFull):
        answer(engine.open(1).generate([5] * 16, GREEDY))
    assert len(answer(engine.open(2).generate([5] * 15, GREEDY)).ids) == 1


def test_a_completion_ends_by_stop_or_by_length(start: Callable[..., HFEngine]) -> None:
    model = tiny()
    engine = start(model, stop_ids=range(VOCABULARY))
    stopped = answer(engine.open(0).generate([5], GREEDY))
    assert (len(stopped.ids), stopped.finish) == (1, "stop")
    endless = start(model, stop_ids=[])
    long = answer(endless.open(0).generate([5], GREEDY))
    assert (len(long.ids), long.finish) == (12, "length")


def test_closing_fails_what_is_under_way_and_what_comes_later(
    model: Any, start: Callable[..., HFEngine]
) -> None:
    engine = start(model, stop_ids=[], max_live=1)
    conversations = [engine.open(seed) for seed in range(3)]
    sampling = Sampling(max_tokens=100)
    futures = [one.generate([5, 6], sampling) for one in conversations]
    engine.close()
    engine.close()
    for future in futures:
        with pytest.raises(EngineFailed, match="closed"):
            answer(future)
    with pytest.raises(EngineFailed, match="closed"):
        answer(conversations[0].generate([5], sampling))
    with pytest.raises(EngineFailed, match="closed"):
        engine.open(9)


def test_closing_a_conversation_fails_its_completion_alone(
    model: Any, start: Callable[..., HFEngine]
) -> None:
    engine = start(model, stop_ids=[])
    engine.pause()
    leaving, staying = engine.open(0), engine.open(1)
    futures = [one.generate([5, 6], GREEDY) for one in (leaving, staying)]
    leaving.close()
    leaving.close()
    engine.resume(version=0)
    with pytest.raises(EngineFailed, match="conversation was closed"):
        answer(futures[0])
    assert len(answer(futures[1]).ids) == 12


def test_a_model_that_fails_fails_the_requests_and_not_the_engine(
    start: Callable[..., HFEngine],
) -> None:
    model, rng = tiny(), random.Random(7)
    engine = start(model)
    ids, new = prompt(rng, 6), prompt(rng, 4)
    conversation = engine.open(0)
    first = answer(conversation.generate(ids, GREEDY))

    def fail(*_: Any) -> None:
        raise MemoryError("no memory left")

    hook = model.register_forward_pre_hook(fail)
    futures = [conversation.generate(new, GREEDY), engine.open(1).generate(ids, GREEDY)]
    for future in futures:
        with pytest.raises(EngineFailed, match="MemoryError: no memory left"):
            answer(future)
    hook.remove()
    # The conversation is as before the request that failed.
    again = answer(conversation.generate(new, GREEDY))
    assert list(again.ids) == alone(model, [*ids, *first.ids, *new], GREEDY.max_tokens)


def test_requests_that_make_no_sense_are_refused(
    model: Any, start: Callable[..., HFEngine]
) -> None:
    engine = start(model)
    engine.pause()
    conversation = engine.open(0)
    with pytest.raises(ValueError, match="nothing to go on from"):
        conversation.generate([], GREEDY)
    with pytest.raises(ValueError, match="max_tokens must be at least 1, got 0"):
        conversation.generate([5], Sampling(max_tokens=0))
    conversation.generate([5], GREEDY)
    with pytest.raises(ValueError, match="under way"):
        conversation.generate([5], GREEDY)
    with pytest.raises(ValueError, match="at least 2"):
        start(model, context_length=1)


def test_an_idle_engine_does_not_compute(model: Any, start: Callable[..., HFEngine]) -> None:
    engine = start(model)
    answer(engine.open(0).generate([5], GREEDY))
    began = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - began < 0.1


@dataclass
class Play:
    """Episodes in threads, whose tools take a random time; ``found`` is what they sampled."""

    engine: HFEngine
    delays: random.Random
    found: dict[int, list[Generation]] = field(default_factory=dict)

    def run(self, episodes: int) -> None:
        self.engine.expect(episodes)
        waits = [[self.delays.random() * 0.02 for _ in range(4)] for _ in range(episodes)]
        threads = [
            threading.Thread(target=self._episode, args=(number, waits[number]))
            for number in range(episodes)
        ]
        self.delays.shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)

    def _episode(self, number: int, waits: list[float]) -> None:
        rng = random.Random(number % 3)
        time.sleep(waits[0])
        conversation = self.engine.open(number)
        try:
            turns = self.found[number] = []
            for turn in range(1 + number % 3):
                new = prompt(rng, 3 + 5 * turn)
                turns.append(answer(conversation.generate(new, Sampling(max_tokens=9))))
                time.sleep(waits[turn + 1])
        finally:
            conversation.close()


def test_deterministic_runs_are_equal_to_the_bit_whatever_the_threads_do(
    start: Callable[..., HFEngine],
) -> None:
    model, runs = tiny(), []
    for delays in (1, 2):
        play = Play(start(model, deterministic=True, max_live=4), random.Random(delays))
        play.run(9)
        runs.append(play.found)
    assert len(runs[0]) == 9
    assert runs[0] == runs[1]  # log-probabilities included


def test_deterministic_waits_for_all_that_are_open_or_expected(
    model: Any, start: Callable[..., HFEngine]
) -> None:
    engine = start(model, deterministic=True)
    engine.expect(3)
    first, second = engine.open(0), engine.open(1)
    futures = [first.generate([5], GREEDY), second.generate([6], GREEDY)]
    time.sleep(0.05)
    assert not any(future.done() for future in futures)
    engine.expect(-1)  # the third never comes
    assert all(answer(future).ids for future in futures)
    future = first.generate([7], GREEDY)
    time.sleep(0.05)
    assert not future.done()  # the second is still open
    second.close()
    assert answer(future).ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_attn_implementation": "flash_attention_2"}, "flash_attention_2.*sdpa"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "layers of linear_attention"),
    ],
)
def test_a_model_that_cannot_be_batched_so_is_refused(
    change: dict[str, Any], message: str, model: Any
) -> None:
    odd = copy.deepcopy(model)
    for name, value in change.items():
        odd.config.__dict__[name.replace("_implementation", "_implementation_internal")] = value
    with pytest.raises(ValueError, match=message):
        HFEngine(odd, stop_ids=[STOP], context_length=CONTEXT)


def test_storage_begins_with_what_the_last_round_needed_and_shrinks_again() -> None:
    cache = SlotCache(max_rows=64, max_length=512)
    cache.reserve(rows=9, length=100)
    cache.reserve(rows=30, length=130)
    assert (cache.rows, cache.length) == (30, 256)  # at least doubled where it was too small
    cache.clear()
    cache.reserve(rows=1, length=10)
    assert (cache.rows, cache.length) == (30, 130)  # at once
    cache.clear()
    cache.reserve(rows=1, length=10)
    assert (cache.rows, cache.length) == (8, 128)
