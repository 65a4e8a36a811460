"""The recipe ``judge-rl``: a judge that was taught writes judgements, and the better ones are raised.

Reads downwards: pairs, sampled judgements, rewards, advantages in groups (GRPO), update. The rewards
are ``judge/reward.py``'s; likelihoods, loss and step are the policies' own learner. Not here: the
first lessons (``judge_sft.py``), which a judge must have had.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reagent_env.agents.judge_data.records import CLEAN, PlantedRecord, read_records
from reagent_env.judgement import Judgement
from reagent_env.reward_models.local import SETTINGS_FILE
from reagent_env.reward_models.parse import parse_judgement
from reagent_env.trainers.advantages_base import AdvantageSettings
from reagent_env.trainers.advantages_group import grpo
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.config_fields import Count, Natural, NotNegative, Positive, check_fields
from reagent_env.trainers.judge.examples import Messages
from reagent_env.trainers.judge.reward import judge_reward, mean_score
from reagent_env.trainers.judge_sft import VIEWS, save_judge
from reagent_env.trainers.sample import AttemptReturn, Rollout, Sample

Pair = tuple[PlantedRecord, PlantedRecord]
"""A flawed record and its clean partner."""


@dataclass(frozen=True, kw_only=True)
class JudgeRlConfig:
    """All settings of one run.

    Example::

        JudgeRlConfig(judge="runs/judge/judge", data="runs/judge/judge_data.jsonl", out="runs/rl")

    Raises:
        ValueError: a value of the wrong type or outside its range.
    """

    judge: str
    """The folder of a taught judge."""
    data: str
    """A file of ``reagent judge-data``."""
    out: str
    """Where the improved judge goes."""
    view: Literal["marks", "record"] = "marks"
    """What it reads; as it was taught."""
    updates: Count = 60
    """Updates of the weights."""
    pairs: Count = 8
    """Pairs an update; both partners are judged."""
    group_size: Count = 8
    """G, judgements of one trajectory."""
    temperature: Positive = 1.0
    """Of the sampled judgements."""
    max_new_tokens: Count = 200
    """Most tokens of one; a longer one is cut off and earns nothing."""
    lr: Positive = 1e-4
    """Learning rate."""
    kl: NotNegative = 0.02
    """Weight of the KL to the judge that training began with."""
    std_floor: NotNegative = 0.1
    """Smallest std that advantages are divided by."""
    seed: Natural = 0
    """Draws pairs and tokens."""

    def __post_init__(self) -> None:
        """Check each field."""
        check_fields(self)


@dataclass(frozen=True, slots=True)
class Judged:
    """One sampled judgement and its tokens."""

    record: PlantedRecord
    sample: Sample
    judgement: Judgement


def run_judge_rl(config: JudgeRlConfig, say: Callable[[str], None] = print) -> Path:
    """Improve a judge and return the new one's folder.

    Raises:
        ValueError: the data holds no pair that the view can show.
    """
    import torch

    from reagent_env.trainers.learner import Learner
    from reagent_env.trainers.policies import load_policy

    policy = load_policy(config.judge)
    pairs = flawed_pairs(read_records(config.data))
    if not pairs:
        raise ValueError(f"{config.data} holds no flawed record with its clean partner.")
    learner = Learner(policy, _learning(config), fixed_length=config.max_new_tokens)
    settings = AdvantageSettings(weight=0.0, std_floor=config.std_floor)
    rng = random.Random(config.seed)
    torch.manual_seed(config.seed)
    for update in range(config.updates):
        drawn = rng.sample(pairs, min(config.pairs, len(pairs)))
        groups = sampled(drawn, policy.model, policy.tokenizer, config)
        rewards = rewarded(groups)
        rollouts = [_rollouts(g, *each) for g, each in enumerate(zip(groups, rewards, strict=True))]
        advantages = grpo([[one.attempts for one in group] for group in rollouts], settings)
        flat = [one for group in rollouts for one in group]
        learner.update(flat, [one for group in advantages for one in group], update=update)
        every = [reward for group in rewards for reward in group]
        parsed = [one.judgement.score is not None for group in groups for one in group]
        say(
            f"update {update + 1}/{config.updates}: reward {sum(every) / len(every):.3f}, "
            f"parsed {sum(parsed) / len(parsed):.2f}"
        )
    folder = Path(config.out)
    save_judge(
        folder,
        policy.model,
        policy.tokenizer,
        view=config.view,
        max_new_tokens=_room(Path(config.judge), config.max_new_tokens),
    )
    return folder


def flawed_pairs(records: Iterable[PlantedRecord]) -> list[Pair]:
    """Flawed records with their clean partners, in order."""
    clean: dict[str, PlantedRecord] = {}
    flawed: dict[str, PlantedRecord] = {}
    for record in records:
        if record.flawed:
            flawed[record.pair_id] = record
        elif record.kind == CLEAN:
            clean[record.pair_id] = record
    return [(one, clean[pair]) for pair, one in flawed.items() if pair in clean]


def sampled(
    pairs: Sequence[Pair], model: Any, tokenizer: Any, config: JudgeRlConfig
) -> list[list[Judged]]:
    """G judgements of each partner, flawed and clean in turn: groups 2i and 2i + 1 are a pair.

    A pair of which the view shows one partner only is left out.
    """
    groups: list[list[Judged]] = []
    for pair in pairs:
        shown = [VIEWS[config.view](record.trajectory) for record in pair]
        if any(messages is None for messages in shown):
            continue
        for record, messages in zip(pair, shown, strict=True):
            assert messages is not None
            groups.append(_group(record, messages, model, tokenizer, config))
    return groups


def rewarded(groups: Sequence[Sequence[Judged]]) -> list[list[float]]:
    """[groups][G] r of every judgement, each ordered against its partner's mean score."""
    means = [mean_score([one.judgement for one in group]) for group in groups]
    return [
        [
            judge_reward(
                one.judgement,
                one.record,
                partner_mean=means[number ^ 1],
                partner_target=groups[number ^ 1][0].record.target,
            )
            for one in group
        ]
        for number, group in enumerate(groups)
    ]


def _group(
    record: PlantedRecord, messages: Messages, model: Any, tokenizer: Any, config: JudgeRlConfig
) -> list[Judged]:
    import torch

    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    prompt = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    end = tokenizer.eos_token_id
    with torch.inference_mode():
        written = model.eval().generate(
            input_ids=torch.tensor([prompt], device=model.device),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.int64, device=model.device),
            max_new_tokens=config.max_new_tokens,
            do_sample=True,
            temperature=config.temperature,
            top_p=1.0,
            top_k=0,
            num_return_sequences=config.group_size,
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
        )
    turns = len(record.turn_targets)
    return [
        _judged(record, prompt, row[len(prompt) :], turns, end, tokenizer)
        for row in written.tolist()
    ]


def _judged(
    record: PlantedRecord, prompt: list[int], row: list[int], turns: int, end: int, tokenizer: Any
) -> Judged:
    length = row.index(end) + 1 if end in row else len(row)
    ids = row[:length]
    sample = Sample()
    sample.read(prompt)
    sample.write(ids, [0.0] * length, turn=0, version=0)
    if ids[-1:] != [end]:
        return Judged(record, sample, Judgement(unscored="unparsed: cut off"))
    text = tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False)
    return Judged(record, sample, parse_judgement(text, turns))


def _rollouts(number: int, group: Sequence[Judged], rewards: Sequence[float]) -> list[Rollout]:
    """Judgements as the learner takes them: episodes of one turn whose outcome is r."""
    return [
        Rollout(
            group=number,
            member=member,
            samples=(one.sample,),
            attempts=(AttemptReturn(outcome=reward, turn_scores=(None,)),),
            trajectory=one.record.trajectory,
        )
        for member, (one, reward) in enumerate(zip(group, rewards, strict=True))
    ]


def _learning(config: JudgeRlConfig) -> TrainConfig:
    return TrainConfig(
        lr=config.lr,
        kl=config.kl,
        std_floor=config.std_floor,
        temperature=config.temperature,
        seed=config.seed,
        micro_batch_tokens=8_192,
    )


def _room(judge: Path, sampled_tokens: int) -> int:
    path = judge / SETTINGS_FILE
    stated = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return int(stated.get("max_new_tokens", sampled_tokens))
