"""The recipe ``judge-rl``: a judge that was taught writes judgements, and the better ones are raised.

Reads downwards: pairs, sampled judgements, rewards, advantages in groups (GRPO), update. The rewards
are ``judge/reward.py``'s; likelihoods, loss and step are the policies' own learner. Not here: the
first lessons (``judge_sft.py``), which a judge must have had.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reagent_env.agents.judge_data.planting import plant
from reagent_env.agents.judge_data.records import CLEAN, PlantedRecord, read_records, write_records
from reagent_env.judgement import Judgement
from reagent_env.reward_models import TINY, TINY_FOLDER
from reagent_env.reward_models.local import SETTINGS_FILE
from reagent_env.reward_models.parse import parse_judgement
from reagent_env.reward_models.sound_work import FOLDER as SOUND_FOLDER
from reagent_env.trainers.advantages_base import AdvantageSettings
from reagent_env.trainers.advantages_group import grpo
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.config_fields import Count, Natural, NotNegative, Positive, check_fields
from reagent_env.trainers.judge.examples import Messages
from reagent_env.trainers.judge.reward import RewardParts, mean_score, reward_parts
from reagent_env.trainers.judge.utility import CritiqueUtility, frozen_policy
from reagent_env.trainers.judge_sft import RECORDS_FILE, VIEWS, claim, listed, save_judge
from reagent_env.trainers.sample import AttemptReturn, Rollout, Sample

Pair = tuple[PlantedRecord, PlantedRecord]
"""A flawed record and its clean partner."""
METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class JudgeRlConfig:
    """All settings of one run.

    Example::

        JudgeRlConfig(judge="runs/judge/judge", data="runs/judge/judge_data.jsonl", out="runs/rl")

    Raises:
        ValueError: a value of the wrong type or outside its range.
    """

    out: str
    """The run's folder; the improved judge stands in its ``judge/`` at the end."""
    judge: str = TINY
    """The taught judge: ``tiny-rrm``, or the folder of any causal LM, such as judge-sft leaves."""
    data: str = ""
    """A file of ``reagent judge-data``; by default new records are planted in ``env``."""
    env: str = "reagent/MiniMix-v0"
    """Where ``policy`` tries critiques out, comma-separated; and where records are planted."""
    tasks: Count = 300
    """Training tasks to plant in, of each environment, where no ``data`` is given."""
    policy: str = "tiny"
    """Frozen; its second attempts tell whether a critique helps. Any name, folder or URL#model of
    ``reagent eval --agent``; empty: that part of the reward is left out."""
    tries: Count = 4
    """Its second attempts after each critique, and after none."""
    view: Literal["auto", "marks", "record"] = "auto"
    """What the judge reads; ``auto``: as its folder says, else the whole record."""
    updates: Count = 60
    """Updates of the weights."""
    pairs: Count = 8
    """Pairs an update; both partners are judged."""
    group_size: Count = 8
    """G, judgements of one trajectory."""
    temperature: Positive = 1.0
    """Of the sampled judgements."""
    max_new_tokens: Natural = 0
    """Most tokens of one; a longer one is cut off and earns nothing. 0: as the judge's folder says,
    else 1,400."""
    lr: Positive = 1e-4
    """Learning rate. A pretrained model wants about 1e-6."""
    kl: NotNegative = 0.02
    """Weight of the KL to the judge that training began with."""
    std_floor: NotNegative = 0.1
    """Smallest std that advantages are divided by."""
    checkpoint_every: Count = 10
    """Updates between checkpoints."""
    sandbox: str = "auto"
    """For environments that run programs."""
    threads: Natural = 0
    """Threads of torch; 0 is its own choice."""
    seed: Natural = 0
    """Draws pairs and tokens."""

    def __post_init__(self) -> None:
        """Check each field."""
        check_fields(self)
        if not listed(self.env):
            raise ValueError("env names at least one environment, e.g. reagent/MiniMix-v0.")


@dataclass(frozen=True, slots=True)
class Judged:
    """One sampled judgement and its tokens."""

    record: PlantedRecord
    sample: Sample
    judgement: Judgement


def run_judge_rl(config: JudgeRlConfig, say: Callable[[str], None] = print) -> Path:
    """Improve a judge and return the new one's folder; the same call after an interruption goes on.

    Raises:
        ValueError: the data holds no pair that the view can show, or the folder holds a run with
            other settings.
        NotImplementedError: the judge's weights are not in this copy.
    """
    import torch

    from reagent_env.trainers.learner import Learner
    from reagent_env.trainers.policies import load_policy

    if config.threads:
        torch.set_num_threads(config.threads)
    taught = judge_folder(config.judge)
    run = Path(config.out)
    claim(run, config, "judge-rl")
    pairs = flawed_pairs(_records(config, run, say))
    if not pairs:
        raise ValueError(f"{config.data or config.env} holds no flawed record with its partner.")
    settings = judge_settings(taught, config)
    policy = load_policy(taught)
    done, restore = _newest(run, policy.model)
    reference = load_policy(taught).model if done and config.kl > 0 else None
    torch.manual_seed(config.seed)
    learner = Learner(
        policy, _learning(config), fixed_length=settings.max_new_tokens, reference=reference
    )
    restore(learner)
    advantage = AdvantageSettings(weight=0.0, std_floor=config.std_floor)
    with _utility(config, pairs, say) as utility:
        for update in range(done, config.updates):
            rng = random.Random(f"{config.seed}/{update}")
            drawn = rng.sample(pairs, min(config.pairs, len(pairs)))
            groups = sampled(drawn, policy.model, policy.tokenizer, settings, config)
            if not groups:
                raise ValueError("None of the pairs drawn fits the judge's context.")
            parts = rewarded(groups, utilities(groups, utility))
            rewards = [[one.total for one in group] for group in parts]
            rollouts = [
                _rollouts(number, *each)
                for number, each in enumerate(zip(groups, rewards, strict=True))
            ]
            advantages = grpo([[one.attempts for one in group] for group in rollouts], advantage)
            flat = [one for group in rollouts for one in group]
            learned = learner.update(
                flat, [one for group in advantages for one in group], update=update
            )
            _tell(run, update + 1, config.updates, parts, learned, utility, say)
            if (update + 1) % config.checkpoint_every == 0 or update + 1 == config.updates:
                _save(run, update + 1, policy, learner)
    folder = run / "judge"
    save_judge(
        folder,
        policy.model,
        policy.tokenizer,
        view=settings.view,
        max_new_tokens=settings.room,
        prior=settings.prior,
    )
    sound = Path(judge_folder(config.judge)).expanduser() / SOUND_FOLDER
    if sound.is_dir():  # what corrected the taught judge corrects this one
        shutil.copytree(sound, folder / SOUND_FOLDER, dirs_exist_ok=True)
    say(f"The judge is in {folder}: reagent judge-eval --judge {folder}")
    return folder


def judge_folder(judge: str) -> str:
    """Where the weights of a taught judge are.

    Raises:
        NotImplementedError: ``tiny-rrm``, whose weights are not in this copy.
    """
    if judge != TINY:
        return judge
    if not (TINY_FOLDER / "config.json").is_file():
        raise NotImplementedError(
            f"The weights of {TINY!r} are not in this copy: teach a judge first, "
            "`reagent train judge-sft`, and name its folder, --judge RUN/judge."
        )
    return str(TINY_FOLDER)


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How a taught judge is asked."""

    view: str
    max_new_tokens: int
    """Of a sampled judgement."""
    room: int
    """Of a judgement by the improved judge."""
    prior: float | None = None


def judge_settings(taught: str, config: JudgeRlConfig) -> JudgeSettings:
    """What the run says, else the judge's own folder, else what large judges need."""
    path = Path(taught) / SETTINGS_FILE
    stated = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    view = stated.get("view", "record") if config.view == "auto" else config.view
    room = int(stated.get("max_new_tokens", 1_400))
    return JudgeSettings(view, config.max_new_tokens or room, room, stated.get("prior"))


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
    pairs: Sequence[Pair],
    model: Any,
    tokenizer: Any,
    settings: JudgeSettings,
    config: JudgeRlConfig,
) -> list[list[Judged]]:
    """G judgements of each partner, flawed and clean in turn: groups 2i and 2i + 1 are a pair.

    A pair of which the view shows one partner only, or that does not fit the model's context, is
    left out.
    """
    context = getattr(model.config, "max_position_embeddings", None) or 2**31
    groups: list[list[Judged]] = []
    for pair in pairs:
        shown = [VIEWS[settings.view](record.trajectory) for record in pair]
        prompts = [None if one is None else _prompt(one, tokenizer) for one in shown]
        room = context - settings.max_new_tokens
        if any(prompt is None or len(prompt) > room for prompt in prompts):
            continue
        for record, prompt in zip(pair, prompts, strict=True):
            assert prompt is not None
            groups.append(_group(record, prompt, model, tokenizer, settings, config))
    return groups


def utilities(
    groups: Sequence[Sequence[Judged]], utility: CritiqueUtility | None
) -> list[list[float]]:
    """[groups][G] of every critique; a group in which one could not be measured has none at all."""
    if utility is None:
        return [[0.0] * len(group) for group in groups]
    measured = iter(
        utility.of([(one.record, one.judgement.critique) for group in groups for one in group])
    )
    each = [[next(measured) for _ in group] for group in groups]
    return [[0.0] * len(group) if any(map(math.isnan, group)) else group for group in each]


def rewarded(
    groups: Sequence[Sequence[Judged]], utility: Sequence[Sequence[float]]
) -> list[list[RewardParts]]:
    """[groups][G] what every judgement earns, each ordered against its partner's mean score."""
    means = [mean_score([one.judgement for one in group]) for group in groups]
    return [
        [
            reward_parts(
                one.judgement,
                one.record,
                partner_mean=means[number ^ 1],
                partner_target=groups[number ^ 1][0].record.target,
                utility=useful,
            )
            for one, useful in zip(group, utility[number], strict=True)
        ]
        for number, group in enumerate(groups)
    ]


# Sampling -----------------------------------------------------------------------------------------


def _prompt(messages: Messages, tokenizer: Any) -> list[int]:
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _group(
    record: PlantedRecord,
    prompt: list[int],
    model: Any,
    tokenizer: Any,
    settings: JudgeSettings,
    config: JudgeRlConfig,
) -> list[Judged]:
    import torch

    end = tokenizer.eos_token_id
    with torch.inference_mode():
        written = model.eval().generate(
            input_ids=torch.tensor([prompt], device=model.device),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.int64, device=model.device),
            max_new_tokens=settings.max_new_tokens,
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


# The run ------------------------------------------------------------------------------------------


def _records(
    config: JudgeRlConfig, run: Path, say: Callable[[str], None]
) -> Iterable[PlantedRecord]:
    if config.data:
        return read_records(config.data)
    kept = run / RECORDS_FILE
    if not kept.exists():
        unfinished = kept.with_suffix(".unfinished")
        write_records(unfinished, _planted(config, say))
        unfinished.replace(kept)
    return read_records(kept)


def _planted(config: JudgeRlConfig, say: Callable[[str], None]) -> Iterator[PlantedRecord]:
    for env in listed(config.env):
        say(f"planting flaws in {config.tasks} tasks of {env}")
        yield from plant(
            env, config.tasks, split="train", seed=config.seed + 1, sandbox=config.sandbox
        )


@contextlib.contextmanager
def _utility(
    config: JudgeRlConfig, pairs: Sequence[Pair], say: Callable[[str], None]
) -> Iterator[CritiqueUtility | None]:
    """What measures critiques, or None where there is nobody to try them or nothing to mend."""
    if not config.policy:
        yield None
        return
    played = {record.trajectory.env_id for pair in pairs for record in pair}
    here = [env for env in listed(config.env) if env in played]
    with contextlib.ExitStack() as shared:
        players = {}
        if here:
            players = shared.enter_context(
                frozen_policy(config.policy, here, sandbox=config.sandbox, seed=config.seed)
            )
        utility = CritiqueUtility(players, tries=config.tries)
        mendable = sum(utility.measures(record) for pair in pairs for record in pair)
        say(
            f"{len(pairs)} pairs; critiques of {mendable} wrong attempts are tried out by "
            f"{config.policy}"
        )
        yield utility if mendable else None


def _newest(run: Path, model: Any) -> tuple[int, Callable[[Any], None]]:
    """Updates made, the newest checkpoint's weights being in ``model``; and what restores the rest."""
    from reagent_env.trainers.checkpoints import (
        latest_checkpoint,
        load_checkpoint,
        restore_random_state,
    )

    found = latest_checkpoint(run)
    if found is None:
        return 0, lambda learner: None
    from safetensors.torch import load_model

    load_model(model, found / "model.safetensors")
    checkpoint = load_checkpoint(found)

    def restore(learner: Any) -> None:
        learner.optimiser.load_state_dict(checkpoint.optimizer)
        learner.steps = int(checkpoint.state["steps"])
        restore_random_state(checkpoint.random_state)

    return checkpoint.update, restore


def _save(run: Path, made: int, policy: Any, learner: Any) -> None:
    from reagent_env.trainers.checkpoints import policy_saver, save_checkpoint

    save_checkpoint(
        run,
        made,
        save_policy=policy_saver(policy.model, policy.tokenizer),
        optimizer=learner.optimiser.state_dict(),
        state={"update": made, "steps": learner.steps},
        keep=2,
    )


def _tell(
    run: Path,
    made: int,
    updates: int,
    parts: Sequence[Sequence[RewardParts]],
    learned: dict[str, float],
    utility: CritiqueUtility | None,
    say: Callable[[str], None],
) -> None:
    """A line for people, and one of ``metrics.jsonl``."""
    every = [one for group in parts for one in group]
    tried = [one.utility for one in every if one.utility]

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else 0.0

    line = {
        "update": made,
        "reward": mean([one.total for one in every]),
        "parsed": mean([float(one.parsed) for one in every]),
        "near": mean([one.near for one in every]),
        "ordered": mean([one.ordered for one in every]),
        "f1": mean([one.found for one in every]),
        "utility": mean([one.utility for one in every]),
        "utility_not_0": len(tried),
        "utility_failed": 0 if utility is None else utility.failed,
        **{key: value for key, value in learned.items() if math.isfinite(value)},
    }
    with open(run / METRICS_FILE, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")
    say(
        f"update {made}/{updates}: reward {line['reward']:.3f}, parsed {line['parsed']:.2f}, "
        f"near {line['near']:.2f}, ordered {line['ordered']:.2f}, f1 {line['f1']:.2f}, "
        f"utility {line['utility']:+.3f}"
    )


def _learning(config: JudgeRlConfig) -> TrainConfig:
    return TrainConfig(
        lr=config.lr,
        kl=config.kl,
        std_floor=config.std_floor,
        temperature=config.temperature,
        seed=config.seed,
        micro_batch_tokens=8_192,
    )
