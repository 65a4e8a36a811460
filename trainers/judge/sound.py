"""A model of sound work: a small language model of the views of sound attempts, and of no flaw.

It learns to foresee what a sound attempt's view says next; ``reward_models/sound_work.py`` asks it how
surprising a view is, and how rare that is among sound attempts of tasks that it did not learn from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reagent_env.agents.judge_data.records import CLEAN, PlantedRecord
from reagent_env.reward_models.marks import marked_messages
from reagent_env.reward_models.sound_work import (
    ANY_TOOLS,
    SETTINGS_FILE,
    by_line,
    surprisal,
    surprise,
    tool_set,
)
from reagent_env.task_sets.phrasing import stable_random
from reagent_env.trainers.atomic_files import write_text
from reagent_env.trainers.judge.examples import judge_examples
from reagent_env.trainers.judge.model import make_judge_model, make_judge_tokenizer
from reagent_env.trainers.judge.training import teller, train_judge
from reagent_env.trainers.sample import Sample

HELD_OUT = 0.1
"""Share of tasks whose views it does not learn from: their surprise says what is usual."""
FEWEST_HELD_OUT = 20
"""Views of those, and of those with one tool set; with fewer nobody knows what is usual."""
QUANTILES = 201
"""Of the surprise of those, kept with the model."""

Views = list[list[dict[str, str]]]


def train_sound_work(
    records: Sequence[PlantedRecord],
    folder: Path,
    *,
    run: Path,
    epochs: int = 2,
    batch: int = 32,
    lr: float = 2.5e-3,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> Path | None:
    """Train on the sound views of ``records`` and leave the model in ``folder``.

    Args:
        records: Of flawed ones, only prefixes are shown that end before the flaw.
        folder: What ``SoundWork`` takes.
        run: Checkpoints; an interrupted training goes on from there.
        epochs: Passes.
        batch: Views an update.
        lr: Learning rate of the first half; it falls to a tenth.
        seed: Draws tasks held out, weights and order.
        say: Told how it goes on.

    Returns:
        ``folder``; None if there are too few sound attempts.
    """
    held = {group for group in {one.group for one in records} if _held_out(group, seed)}
    learned = _views([one for one in records if one.group not in held], seed)
    others = _by_tools([one for one in records if one.group in held], seed)
    if not learned or len(others[ANY_TOOLS]) < FEWEST_HELD_OUT:
        say(
            f"No model of sound work: {len(others[ANY_TOOLS])} views of tasks held out, "
            f"at least {FEWEST_HELD_OUT} are wanted. More tasks have more."
        )
        return None
    tokenizer = make_judge_tokenizer(messages[-1]["content"] for messages in learned)
    model = make_judge_model(tokenizer, seed)
    samples = [view_sample(messages, tokenizer) for messages in learned]
    say(f"Sound work: {len(samples)} views to learn from, {len(others[ANY_TOOLS])} of other tasks")

    train_judge(
        model,
        tokenizer,
        samples,
        epochs=epochs,
        batch=batch,
        lr=lr,
        seed=seed,
        run=run,
        on_update=teller(say, "sound work: "),
    )
    usual = {
        tools: quantiles([_surprisal(model, tokenizer, messages) for messages in views])
        for tools, views in others.items()
        if len(views) >= FEWEST_HELD_OUT
    }
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"view": "marks", "surprisals": usual}
    write_text(folder / SETTINGS_FILE, json.dumps(settings) + "\n")  # last: now it is whole
    return folder


def view_sample(messages: Sequence[dict[str, str]], tokenizer: Any) -> Sample:
    """The tokens of a view; all but the first are learned."""
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    sample = Sample()
    sample.read(ids[:1])
    sample.write(ids[1:], [0.0] * (len(ids) - 1), turn=0, version=0)
    return sample


def quantiles(values: Sequence[float]) -> list[float]:
    """:data:`QUANTILES` of ``values``, evenly spaced in rank, rounded and rising."""
    ranked = sorted(values)
    last = len(ranked) - 1
    places = [round(last * step / (QUANTILES - 1)) for step in range(QUANTILES)]
    return [round(ranked[place], 4) for place in places]


def _held_out(group: str, seed: int) -> bool:
    return stable_random("sound work", seed, group).random() < HELD_OUT


def _views(records: Sequence[PlantedRecord], seed: int) -> Views:
    """Of sound attempts: whole, as far as they had come, as second ones, without thoughts."""
    examples = judge_examples(records, marked_messages, unfinished=0, seed=seed)
    return [one.messages for one in examples if one.kind == CLEAN]


def _by_tools(records: Sequence[PlantedRecord], seed: int) -> dict[str, Views]:
    """Views by tool set, and of all together."""
    by_tools: dict[str, list[PlantedRecord]] = {}
    for record in records:
        by_tools.setdefault(tool_set(record.trajectory), []).append(record)
    found = {tools: _views(of, seed) for tools, of in sorted(by_tools.items())}
    return {ANY_TOOLS: [view for views in found.values() for view in views], **found}


def _surprisal(model: Any, tokenizer: Any, messages: Sequence[dict[str, str]]) -> float:
    ids = view_sample(messages, tokenizer).ids
    (nats,) = surprise(model, [ids])
    return surprisal(by_line(ids, nats, tokenizer))
