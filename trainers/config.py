"""Every setting of a training run: one flat record, checked when it is made.

Not here: which settings a recipe changes (``recipes.py``), flags (``cli.py``), how a field is
checked (``config_fields.py``).
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from reagent_env.trainers.advantages import (
    AdvantageSettings,
    check_settings,
    estimator_names,
    get_estimator,
)
from reagent_env.trainers.config_fields import (
    Count,
    Fraction,
    Named,
    Natural,
    NotNegative,
    Positive,
    Within,
    annotations_of,
    check_fields,
    coerced,
    unknown_key,
)
from reagent_env.trainers.schedules import get_schedule, parse_mixture

NO_JUDGE = "none"
"""The judge of a run that asks none."""

_BY_TURN = ("turn", "turn_myopic")
_CRITIQUES = ("critique", "shuffled")


def _loss_names() -> list[str]:
    """As ``losses.loss_names``, which would load torch."""
    added = {entry.name for entry in importlib.metadata.entry_points(group="reagent_env.losses")}
    return sorted({"gspo", "ppo_clip"} | added)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of one run; what a recipe does not say stands here.

    Example::

        TrainConfig(recipe="reagent-u", attempts=2, advantage="pooled", updates=60)

    Raises:
        ValueError: a value of the wrong type or outside its range, a choice that does not exist
            (the message names the nearest), or settings that contradict each other.
    """

    # What is learned, from what, and for how long.
    recipe: Literal["sft", "outcome", "reagent-r", "reagent-u"] = "outcome"
    """What is run; a recipe is a set of these settings under a name."""
    env: str = "reagent/MiniMix-v0"
    """An id, ``module:id``, or several with weights: ``id=0.7,id2=0.3``."""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment, e.g. ``{"max_turns": 8}`` (``--env-arg max_turns=8``)."""
    policy: str = "tiny"
    """``tiny``, ``tiny-untrained``, ``smollm2``, a folder, a run, or a model's name on the hub."""
    context_length: Natural = 0
    """Tokens of a conversation, second attempt included; 0 is what the policy can hold."""
    engine: Literal["hf", "vllm"] = "hf"
    """What samples: transformers in this process, or a vLLM server."""
    engine_url: str = ""
    """The vLLM server, e.g. ``http://127.0.0.1:8000/v1``."""
    ray: str = ""
    """Play rollouts on Ray: ``local`` (started here), ``auto``, ``ray://host:10001``; else threads here."""
    ray_workers: Natural = 0
    """Workers, each with an engine and environments of its own; 0 is one a node of the cluster."""
    ray_cpus: Count = 1
    """CPUs that each worker takes."""
    ray_gpus: NotNegative = 0.0
    """GPUs that each worker takes; a share lets several have the same one."""
    judge: str = NO_JUDGE
    """A reward model as ``make_reward_model`` takes it, or ``none``."""
    sandbox: Literal["auto", "docker", "embedded", "process"] = "auto"
    """Where tools run code; ``auto`` is the best there is."""
    updates: Count = 60
    """Updates of the weights in all."""
    max_seconds: NotNegative = 0.0
    """Stop after the update in which so much training time is spent; 0 is no limit."""
    max_policy_tokens: Natural = 0
    """Stop after the update that brings the tokens sampled for updates nearest to this; 0 is no limit."""
    max_interactions: Natural = 0
    """Stop after the update that brings the turns played for updates nearest to this; 0 is no limit."""
    schedule: str = ""
    """Turn limit by update, e.g. ``scaling-inter:searchqa`` or ``5>8>10@100``; else the environment's."""

    # Reward.
    weight: NotNegative = 0.3
    """λ, the weight of the judge's score beside the outcome; the paper's 0.3."""
    credit: Literal["trajectory", "turn"] = "trajectory"
    """The process is paid to the whole attempt, or to each turn by its difference in φ."""
    when: Literal["end", "step"] = "end"
    """One judgement at an attempt's end, or one of every prefix."""
    attempts: Annotated[int, Within(1, 2)] = 1
    """1, or 2: a second attempt after the critique of the first."""
    feedback: Literal["critique", "retry", "shuffled", "independent"] = "critique"
    """What a second attempt follows: the critique, a neutral turn, another task's critique, or nothing."""
    score_control: Literal["none", "shuffled", "constant", "noise", "length"] = "none"
    """For experiments: train on scores that know less than the judge's (``score_controls.py``)."""
    unscored_limit: Annotated[float, Within(0, 0.999)] = 0.2
    """Training stops when more than this share of recent judgements is unscored."""
    mask_token_limit: bool = False
    """Leave out attempts that the token limit cut, in place of an outcome of 0."""

    # Advantages.
    advantage: Annotated[str, Named(estimator_names)] = "grpo"
    """The estimator of advantages."""
    apart: bool = False
    """Normalise outcome and process apart, the process by a running, batch-wide std."""
    std_floor: NotNegative = 0.1
    """Smallest std that advantages are divided by, in units of reward."""
    improvement_bonus: NotNegative = 0.0
    """Weight of R² − R¹ for the tokens of second attempts (``per_stage``)."""
    gamma: Fraction = 1.0
    """Discount a turn (``gae``); 0 across attempts whatever it is."""
    gae_lambda: Fraction = 0.95
    """λ of generalised advantage estimation."""
    value_weight: NotNegative = 0.5
    """Weight of the value head's loss (``gae``)."""
    dynamic_sampling: bool = False
    """Replace groups whose advantages are all zero; right ones that the judge ranks are kept."""

    # Loss.
    loss: Annotated[str, Named(_loss_names)] = "ppo_clip"
    """The policy's loss."""
    clip_low: Annotated[float, Within(0, 0.999, above=True)] = 0.2
    """The ratio is clipped below 1 − this."""
    clip_high: Positive = 0.28
    """The ratio is clipped above 1 + this."""
    aggregation: Literal["seq_mean", "token_mean", "fixed_length"] = "seq_mean"
    """Mean over attempts of the mean over tokens; over all tokens; or Dr. GRPO's fixed divisor."""
    kl: NotNegative = 0.0
    """Weight of the KL to the policy that training began with."""
    entropy: NotNegative = 0.0
    """Weight of the entropy bonus."""
    importance_cap: Positive = 2.0
    """Largest weight π_old / π_sampler of a token; what is above is cut off."""
    reject_ratio: Annotated[float, Within(1)] = 1.0
    """Reject sequences whose geometric-mean ratio leaves [1/this, this]; 1 is no rejection."""

    # Optimiser.
    lr: Positive = 3e-4
    """Learning rate after the warm-up."""
    lr_decay: Fraction = 0.0
    """Share of the updates, the last ones, over which the rate falls linearly to a tenth; other
    updates than the run began with move where that is."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's."""
    weight_decay: NotNegative = 0.0
    """AdamW's."""
    warmup: Natural = 0
    """Updates over which the learning rate rises linearly."""
    max_grad_norm: Positive = 1.0
    """Gradients are scaled down to this norm."""
    lora_rank: Natural = 0
    """Rank of LoRA's adapters (``peft``); 0 trains all weights."""
    lora_alpha: NotNegative = 0.0
    """LoRA's scale; 0 is twice the rank."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the policy's weights: ``auto`` is bfloat16 on a GPU, and where ``lora_rank`` freezes them on an
    x86 CPU that multiplies it natively; else float32. Adapters are float32."""
    gradient_checkpointing: bool = False
    """Less memory, a third more compute."""

    # Size of an update.
    groups_per_update: Count = 8
    """Tasks an update."""
    group_size: Count = 8
    """G, the rollouts of a task."""
    minibatches: Count = 1
    """Optimiser steps an epoch."""
    epochs: Count = 1
    """Passes over an update's rollouts."""
    micro_batch_tokens: Count = 4_096
    """Tokens, padding included, that one forward and backward pass computes."""
    share_prefixes: bool = True
    """Compute what samples of a pass begin with in common once, where the model allows it."""

    # Sampling.
    temperature: Positive = 1.0
    """Of training rollouts."""
    top_p: Annotated[float, Within(0, 1, above=True)] = 1.0
    """Of training rollouts."""
    max_tokens: Count = 128
    """Tokens of one turn."""
    concurrency: Count = 64
    """Episodes at once; on each worker, with ``ray``."""
    spare_groups: Natural = 2
    """Groups in flight beyond an update's, so that a slow one holds nobody; none if deterministic."""
    max_staleness: Natural = 1
    """Groups begun more updates ago than this are dropped; deterministic runs have none."""
    retries: Natural = 2
    """Further tries of an episode that infrastructure spoiled, before it is masked."""

    # Option: what second attempts found out, taught to first ones.
    distill: bool = False
    """Train second attempts that are right where the first was wrong under the plain prompt, by SFT."""
    distill_weight: NotNegative = 0.1
    """Weight of that loss."""

    # Cold start (recipe ``sft``).
    drills: Natural = 0
    """Look-up drills before the demonstrations, for a model without any training: a third are
    questions, then two thirds in which articles are repeated, too."""
    sft_context_weight: NotNegative = 0.0
    """How much the context of the first drills is learned beside what is written in them."""
    clean_demonstrations: Natural = 16_000
    """Episodes of the scripted expert."""
    mixed_demonstrations: Natural = 2_560
    """Episodes of mixed quality, trained after the clean ones."""
    second_demonstrations: Fraction = 0.3
    """Share of the mixed ones that have a second attempt; only that attempt is learned. Half of their
    first attempts are clean ones; a fifth are followed by neutral words."""
    sft_batch: Count = 32
    """Episodes an update of SFT."""
    sft_lr: Positive = 2.5e-3
    """Learning rate on clean demonstrations, constant."""
    mixed_lr: Positive = 1e-3
    """Learning rate on mixed ones."""
    sft_epochs: Count = 1
    """Passes over the demonstrations."""

    # Held-out evaluation: one pass, no judge.
    eval_every: Natural = 10
    """Updates between evaluations while training; 0 is none."""
    eval_episodes: Count = 100
    """Tasks of one of those, always the same."""
    eval_split: Literal["validation", "test"] = "validation"
    """Split of those."""
    held_out_episodes: Natural = 500
    """Tasks of the evaluation before and after; 0 is none."""
    held_out_before: bool = True
    """Evaluate before training, too; runs that begin with the same weights need it once."""
    held_out_split: Literal["validation", "test"] = "test"
    """Split of that."""
    eval_turns: Natural = 0
    """Turn limit of all of those episodes, whatever the schedule; 0 is the environment's."""
    eval_temperature: NotNegative = 1.0
    """0 is greedy."""

    # The run.
    seed: Natural = 0
    """Draws tasks, tokens, the order of samples and new weights."""
    deterministic: bool = False
    """A fixed order in place of whatever finishes first: bit for bit the same on CPU."""
    gpus: Natural = 0
    """GPUs of the learner, under ``accelerate`` with FSDP; 0 is this process and its own device."""
    judge_gpus: Natural = 0
    """GPUs for servers of the judge, one each; 0 starts none."""
    gpu_gib: Positive = 80.0
    """Memory of one GPU, for the plan of ``--dry-run``."""
    threads: Natural = 0
    """Threads of torch; 0 is one a core."""
    checkpoint_every: Count = 1
    """Updates between checkpoints."""
    keep_checkpoints: Natural = 2
    """Newest checkpoints kept; 0 keeps all. The last one of a run always stays."""
    save_trajectories: bool = True
    """Keep every update's trajectories in the run folder."""
    alarm_window: Natural = 30
    """Updates over which a rising score beside a falling outcome raises an alarm; 0 is none."""
    wandb: bool = False
    """Also log to Weights & Biases (``pip install wandb``)."""

    def __post_init__(self) -> None:
        """Check each field, then those that depend on one another."""
        check_fields(self)
        _check_together(self)

    @property
    def needs_judge(self) -> bool:
        """Whether a reward model is asked at all."""
        return self.judge != NO_JUDGE

    @property
    def rollouts_per_update(self) -> int:
        """Episodes an update."""
        return self.groups_per_update * self.group_size

    @property
    def groups_in_flight(self) -> int:
        """Groups under way at once: under ``deterministic`` an update's and no more."""
        return self.groups_per_update + (0 if self.deterministic else self.spare_groups)

    def to_json(self) -> dict[str, Any]:
        """A JSON-encodable dict; :func:`config_from` reads it."""
        record = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        record["env_kwargs"] = dict(self.env_kwargs)
        record["betas"] = list(self.betas)
        return record


def config_from(settings: Mapping[str, Any]) -> TrainConfig:
    """A configuration from a mapping such as a TOML file's: ``config_from({"updates": 5})``.

    Raises:
        ValueError: a key that is no setting (the message names the nearest), or as ``TrainConfig``.
    """
    known = annotations_of(TrainConfig)
    for name in settings:
        if name not in known:
            raise unknown_key(name, known)
    return TrainConfig(**{name: coerced(given, known[name]) for name, given in settings.items()})


def _check_together(config: TrainConfig) -> None:
    """Refuse settings that would silently do nothing, or that contradict each other."""
    parse_mixture(config.env)
    if config.schedule:
        get_schedule(config.schedule)
    if config.advantage in _BY_TURN and config.credit != "turn":
        raise ValueError(
            f"advantage={config.advantage!r} shares the process out by turn: say credit='turn' too."
        )
    wanted = AdvantageSettings(
        credit="turn" if config.credit == "turn" else "auto",
        apart=config.apart,
        improvement_bonus=config.improvement_bonus,
    )
    check_settings(get_estimator(config.advantage), wanted)
    if config.advantage in _BY_TURN and not config.needs_judge:
        raise ValueError(
            f"advantage={config.advantage!r} needs a judge's score of each turn, and judge='none'."
        )
    if config.attempts == 1 and config.advantage in ("pooled", "per_stage"):
        raise ValueError(
            f"advantage={config.advantage!r} compares two attempts, and attempts=1. "
            "Use advantage='grpo', or attempts=2."
        )
    if config.attempts == 2 and config.feedback in _CRITIQUES and not config.needs_judge:
        raise ValueError(
            "A second attempt after a critique needs a judge, and judge='none'. "
            "Use judge='rubric', or feedback='retry'."
        )
    if config.score_control != "none" and not (config.needs_judge and config.weight > 0):
        raise ValueError(
            f"score_control={config.score_control!r} changes scores that nobody gives or pays for: "
            f"judge={config.judge!r}, weight={config.weight:g}."
        )
    if config.distill and config.attempts != 2:
        raise ValueError("distill learns from second attempts: it needs attempts=2.")
    if config.lora_alpha and not config.lora_rank:
        raise ValueError("lora_alpha would do nothing with lora_rank=0, which trains all weights.")
    if config.schedule and "max_turns" in config.env_kwargs:
        raise ValueError(
            f"schedule={config.schedule!r} and env_kwargs max_turns="
            f"{config.env_kwargs['max_turns']!r} both set the turn limit; leave one out."
        )
    if config.engine == "vllm" and not config.engine_url:
        raise ValueError(
            "engine='vllm' needs the server's address: engine_url='http://127.0.0.1:8000/v1'."
        )
    if config.deterministic and config.engine == "vllm":
        raise ValueError("deterministic needs engine='hf': a server batches whatever comes first.")
    if config.deterministic and config.ray:
        raise ValueError(
            "deterministic is of one process: on Ray an episode goes to whichever worker is free, and "
            "numbers computed together differ in their last bits. Leave out one of the two."
        )
    if config.ray and config.recipe == "sft":
        raise ValueError("recipe='sft' plays no rollouts: ray would do nothing. Leave it out.")
    if not config.ray and (config.ray_workers or config.ray_gpus or config.ray_cpus != 1):
        raise ValueError(
            "ray_workers, ray_cpus and ray_gpus do nothing without ray: say ray='local' or an address."
        )
    if config.score_control != "none" and config.dynamic_sampling:
        raise ValueError(
            "dynamic_sampling chooses groups by the judge's own scores: no score_control."
        )
    if config.deterministic and config.attempts == 2 and config.feedback == "shuffled":
        raise ValueError(
            "feedback='shuffled' exchanges critiques in the order in which episodes end, which "
            "deterministic cannot fix; use spare_groups=0, max_staleness=0 in its place."
        )
    if config.minibatches > config.rollouts_per_update:
        raise ValueError(
            f"minibatches={config.minibatches} is more than the {config.rollouts_per_update} "
            "rollouts of an update (groups_per_update × group_size)."
        )
    if not all(0 <= beta < 1 for beta in config.betas):
        raise ValueError(f"betas must lie in [0, 1), got {config.betas!r}.")
