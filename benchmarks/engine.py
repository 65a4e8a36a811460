"""The in-process engine beside transformers' own ``generate``: tokens a second, and a late turn's cost.

One random model of about a million parameters (or SmolLM2, with ``--smollm2``), the same prompts for
both sides, greedy, a fixed number of new tokens, rounds interleaved. Rates are by processor time of
the process, so that a busy machine distorts them less. Bars: at 16 conversations and more the engine
has at least 0.95 of the rate of ``generate`` on the whole batch; turn 16 costs at most 1.3 times
turn 2.

    python benchmarks/engine.py [--smollm2]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from reagent_env.trainers.engines.base import Sampling
from reagent_env.trainers.engines.hf import HFEngine

BATCHES = (1, 16, 64)
PROMPT, NEW, ROUNDS = 64, 32, 3
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


def main() -> int:
    large = "--smollm2" in sys.argv
    torch.set_num_threads(1)
    model = smollm2() if large else small_model()
    vocabulary = int(model.config.vocab_size)
    millions = sum(one.numel() for one in model.parameters()) / 1e6
    print(f"{millions:.1f} M parameters, prompts of {PROMPT}, {NEW} new tokens, one thread")
    missed = False
    with HFEngine(model, stop_ids=[], context_length=2048) as engine:
        for count in BATCHES[:2] if large else BATCHES:
            batch = prompts(count, vocabulary)
            ours, theirs = [], []
            for _ in range(1 if large else ROUNDS):
                ours.append(processor_seconds(lambda batch=batch: by_engine(engine, batch)))  # type: ignore[misc]
                theirs.append(processor_seconds(lambda batch=batch: by_generate(model, batch)))  # type: ignore[misc]
            tokens = count * NEW
            a, b = tokens / statistics.median(ours), tokens / statistics.median(theirs)
            met = count < 16 or a >= 0.95 * b
            missed |= not met
            print(
                f"  {count:3} at once: engine {a:7,.0f} tokens/s, generate {b:7,.0f}, "
                f"ratio {a / b:.2f}{'' if met else '   BAR MISSED'}"
            )
        runs = [turn_seconds(engine, 4, vocabulary) for _ in range(1 if large else ROUNDS)]
        second, last = (statistics.median(run[turn] for run in runs) for turn in (1, TURNS - 1))
        met = last <= 1.3 * second
        missed |= not met
        print(
            f"  4 conversations of {TURNS} turns ({OBSERVATION} tokens read, {ANSWER} written): "
            f"turn 2 {second * 1e3:.0f} ms, turn {TURNS} {last * 1e3:.0f} ms, "
            f"ratio {last / second:.2f} (bar 1.3){'' if met else '   BAR MISSED'}"
        )
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
