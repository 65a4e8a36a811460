"""The in-process engine beside transformers' own ``generate``: tokens a second, and a late turn's cost.

One random model of about a million parameters (or SmolLM2, with ``--smollm2``), the same prompts for
both sides, greedy, a fixed number of new tokens, rounds interleaved. Rates are by processor time of
the process, so that a busy machine distorts them less. Bars: at 16 conversations and more the engine
has at least 0.95 of the rate of ``generate`` on the whole batch; turn 16 costs at most 1.3 times
turn 2.

    python benchmarks/engine.py [--smollm2] [--quick]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import Watch
from rows import Row, arguments, deliver, spread
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from reagent_env.trainers.engines.base import Sampling
from reagent_env.trainers.engines.hf import HFEngine

BATCHES = (1, 16, 64)
PROMPT, NEW, ROUNDS = 64, 32, 6
OF_GENERATE, OF_TURN_2 = 0.95, 1.3
TURNS, OBSERVATION, ANSWER = 16, 24, 16


def small_model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def smollm2() -> Any:
    from reagent_env.agents.smollm2 import smollm2_folder

    return AutoModelForCausalLM.from_pretrained(smollm2_folder()).eval()


def prompts(count: int, vocabulary: int) -> list[list[int]]:
    """Prompts that have no beginning in common."""
    drawn = torch.randint(2, vocabulary, (count, PROMPT), generator=torch.manual_seed(count))
    return [[int(token) for token in row] for row in drawn]


def processor_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def by_generate(model: Any, batch: list[list[int]]) -> None:
    ids = torch.tensor(batch)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        min_new_tokens=NEW,
        max_new_tokens=NEW,
        pad_token_id=0,
    )


def by_engine(engine: HFEngine, batch: list[list[int]]) -> None:
    conversations = [engine.open(seed) for seed in range(len(batch))]
    sampling = Sampling(temperature=0.0, max_tokens=NEW)
    futures = [one.generate(ids, sampling) for one, ids in zip(conversations, batch, strict=True)]
    for future in futures:
        future.result()
    for conversation in conversations:
        conversation.close()


def turn_seconds(engine: HFEngine, count: int, vocabulary: int) -> list[float]:
    """Processor seconds of each turn of ``count`` conversations side by side."""
    conversations = [engine.open(seed) for seed in range(count)]
    sampling = Sampling(max_tokens=ANSWER)
    seconds = []
    for turn in range(TURNS):
        news = [ids[:OBSERVATION] for ids in prompts(count + turn, vocabulary)[:count]]

        def play(news: list[list[int]] = news) -> None:
            futures = [
                one.generate(new, sampling) for one, new in zip(conversations, news, strict=True)
            ]
            for future in futures:
                future.result()

        seconds.append(processor_seconds(play))
    for conversation in conversations:
        conversation.close()
    return seconds


def against_generate(engine: HFEngine, model: Any, count: int, rounds: int) -> Row:
    batch = prompts(count, int(model.config.vocab_size))
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(count * NEW / processor_seconds(lambda: by_engine(engine, batch)))
        theirs.append(count * NEW / processor_seconds(lambda: by_generate(model, batch)))
    ratio, quartiles = spread([a / b for a, b in zip(ours, theirs, strict=True)])
    return Row(
        name=f"engine, {count} at once",
        compares="the engine / transformers' generate, greedy, processor time",
        measured=ratio,
        quartiles=quartiles,
        bar=OF_GENERATE if count >= 16 else None,
        ours=statistics.median(ours),
        other=statistics.median(theirs),
        unit="tokens/s",
    )


def late_turn(engine: HFEngine, vocabulary: int, rounds: int) -> Row:
    runs = [turn_seconds(engine, 4, vocabulary) for _ in range(rounds)]
    ratio, quartiles = spread([run[TURNS - 1] / run[1] for run in runs])
    return Row(
        name=f"engine, turn {TURNS}",
        compares=f"turn {TURNS} / turn 2 of 4 conversations: {OBSERVATION} tokens read, {ANSWER} written",
        measured=ratio,
        quartiles=quartiles,
        bar=OF_TURN_2,
        most=True,
        ours=statistics.median(run[TURNS - 1] for run in runs) * 1e3,
        other=statistics.median(run[1] for run in runs) * 1e3,
        unit="ms",
    )


def main() -> None:
    parser = arguments(__doc__, quick="two rounds")
    parser.add_argument("--smollm2", action="store_true", help="in place of the small model")
    given = parser.parse_args()
    watch = Watch()
    torch.set_num_threads(1)
    model = smollm2() if given.smollm2 else small_model()
    millions = sum(one.numel() for one in model.parameters()) / 1e6
    print(f"{millions:.1f} M parameters, prompts of {PROMPT}, {NEW} new tokens, one thread")
    rounds = 1 if given.smollm2 else 2 if given.quick else ROUNDS
    with HFEngine(model, stop_ids=[], context_length=2048) as engine:
        batches = BATCHES[:2] if given.smollm2 else BATCHES
        rows = [against_generate(engine, model, count, rounds) for count in batches]
        rows.append(late_turn(engine, int(model.config.vocab_size), rounds))
    deliver(given.json, "engine", rows, watch.machine(), {"parameters_in_millions": millions})


if __name__ == "__main__":
    main()
