"""Training by reinforcement: rollout, reward, advantage, loss, update; again until the updates are made.

:func:`train` is the recipes ``outcome``, ``reagent-r`` and ``reagent-u``: they differ in their
settings alone. Not here: how each of those five words is done (one module each), the run folder's
format (``run_folder.py``), the cold start (``train_sft.py``).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from reagent_env.errors import InfrastructureError
from reagent_env.reward_models.base import up_to_attempt
from reagent_env.reward_models.unscored import UnscoredMonitor
from reagent_env.trainers import metric_names as names
from reagent_env.trainers.advantages import (
    AdvantageSettings,
    RunningStd,
    check_settings,
    estimate_advantages,
    get_estimator,
)
from reagent_env.trainers.advantages_report import advantage_summary, is_degenerate
from reagent_env.trainers.checkpoints import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    policy_saver,
    restore_random_state,
    save_checkpoint,
)
from reagent_env.trainers.collector import Collector, episode_seed
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.distill import distilled
from reagent_env.trainers.following import make_learner
from reagent_env.trainers.hacking_alarm import HackingAlarm, find_alarm, logged_alarm
from reagent_env.trainers.held_out import (
    check_splits,
    evaluate_while_training,
    held_out,
    held_out_fields,
)
from reagent_env.trainers.learner import Learner
from reagent_env.trainers.learner_processes import launched_processes
from reagent_env.trainers.measures import batch_measures, sampled_tokens
from reagent_env.trainers.parts import (
    Parts,
    load_for_training,
    training_parts,
    training_sampling,
)
from reagent_env.trainers.progress import TrainProgress
from reagent_env.trainers.rollout import up_to_token_limit
from reagent_env.trainers.run_folder import RunFolder
from reagent_env.trainers.sample import Group, Rollout
from reagent_env.trainers.schedules import get_schedule, turns_at, unreached
from reagent_env.trainers.score_controls import controlled

REPLACEMENTS = 3
"""Rounds in which dynamic sampling looks for groups in place of degenerate ones; then it has fewer."""


@dataclass(slots=True)
class Progressed:
    """What a run has behind it beside its weights; kept in every checkpoint as JSON."""

    update: int = 0
    """Updates made."""
    seconds: float = 0.0
    """Training time, evaluations left out."""
    tokens: int = 0
    """Tokens sampled for updates."""
    turns: int = 0
    """Turns played for updates."""
    steps: int = 0
    """Optimiser steps."""
    next_group: int = 0
    """The first group not begun."""
    unfinished: list[int] = field(default_factory=list)
    """Groups begun and not trained on."""
    running: dict[str, float] = field(default_factory=dict)
    """The running std of scores."""
    judged: int = 0
    """Attempts judged."""
    unscored: int = 0
    """Those without a score."""
    before: list[float] | None = None
    """Held-out success before training: mean, lower and upper bound, episodes."""


def train(config: TrainConfig, run: RunFolder, progress: TrainProgress) -> Progressed:
    """Train, from the start or from the newest checkpoint of ``run``.

    Raises:
        JudgeUnavailable: too many judgements have no score.
        InfrastructureError: not one rollout of an update could be played.
        OSError: the run folder cannot be written; what was finished is there.
    """
    folder = latest_checkpoint(run.path)
    checkpoint = None if folder is None else load_checkpoint(folder)
    policy = load_for_training(config, folder)
    with training_parts(config, policy) as parts:
        check_splits(config, parts, progress)
        longest = config.max_tokens * _most_turns(config, parts)
        learner = make_learner(config, policy, folder, longest, launched_processes())
        state = _restored(checkpoint, learner, run)
        parts.engine.pause()
        parts.publish(state.update)
        monitor = UnscoredMonitor(min(config.unscored_limit, 0.999))
        wanted = config.held_out_before and config.held_out_episodes > 0
        if state.update == 0 and state.before is None and wanted:
            state.before = held_out(config, run, parts, progress, update=0)
        if config.schedule and (note := unreached(config.schedule, config.updates)):
            progress.say(note)
        with closing(_collector(config, parts, state)) as collector:
            while not _is_over(config, state):
                _one_update(config, run, progress, parts, learner, collector, monitor, state)
        after = None
        if config.held_out_episodes:
            after = held_out(config, run, parts, progress, update=state.update)
        run.write_summary(
            updates=state.update,
            train_seconds=state.seconds,
            unscored_rate=state.unscored / state.judged if state.judged else 0.0,
            **held_out_fields(state.before, after),
        )
    learner.end()
    return state


def _one_update(
    config: TrainConfig,
    run: RunFolder,
    progress: TrainProgress,
    parts: Parts,
    learner: Learner,
    collector: Collector,
    monitor: UnscoredMonitor,
    state: Progressed,
) -> None:
    """Rollout, reward, advantage, loss, update; and what is kept of it."""
    began = time.monotonic()
    update = state.update

    # Rollout. The reward is the environment's and its wrappers': each rollout brings it along.
    settings = _advantage_settings(config)

    def on_rollout(rollout: Rollout) -> None:
        progress.rollout()
        if parts.judge is not None:
            _observe(monitor, state, rollout)

    groups, trained = _collected(config, parts, collector, update, on_rollout, settings)
    monitor.check()
    collected = time.monotonic()

    # Advantage. Masked rollouts are in no mean.
    parts.engine.pause()
    kept = [list(group.kept) for group in trained]
    batch = controlled(
        [[rollout.attempts for rollout in rollouts] for rollouts in kept],
        config.score_control,
        (config.seed, update, 5),
    )
    flat = [rollout for rollouts in kept for rollout in rollouts]
    values = None
    if get_estimator(config.advantage).needs_values and flat:
        values = _nested(learner.values(flat), kept)
    estimated = estimate_advantages(
        config.advantage, batch, settings, RunningStd(**state.running), values
    )
    advantages = [rollout for group in estimated.advantages for rollout in group]

    # Loss and update.
    torch.manual_seed(episode_seed(config.seed, update, 0))
    learned = learner.update(
        flat,
        advantages,
        update=update,
        values=None if values is None else [one for group in values for one in group],
        imitated=distilled(flat, parts.renderer) if config.distill else (),
    )
    state.update = update + 1
    parts.publish(state.update)

    # What is kept of it.
    tokens = sampled_tokens(groups)
    state.seconds += time.monotonic() - began
    state.tokens += tokens
    state.turns += sum(
        len(rollout.trajectory.turns) for group in groups for rollout in group.rollouts
    )
    state.steps = learner.steps
    state.running = dataclasses.asdict(estimated.running)
    state.next_group, state.unfinished = collector.next_group, collector.unfinished
    metrics: dict[str, Any] = {
        **batch_measures(groups, weight=config.weight, judged=parts.judge is not None),
        **_judged_only(advantage_summary(batch, estimated.advantages), parts.judge is not None),
        **_named(learned),
        names.SECONDS: state.seconds,
        names.TOKENS: tokens,
        names.TOKENS_TOTAL: state.tokens,
        names.TURNS_TOTAL: state.turns,
        names.SPEED: tokens / max(1e-9, time.monotonic() - began),
        "seconds/rollout": collected - began,
        "rollout/retried": collector.counts.retried,
        "rollout/stale_groups": collector.counts.stale,
        "rollout/wasted_tokens": collector.counts.wasted_tokens,
        "rollout/groups_dropped": len(groups) - len(trained),
    }
    due = config.eval_every > 0 and state.update % config.eval_every == 0
    if due and not _is_over(config, state):
        metrics |= evaluate_while_training(config, parts)
    if config.save_trajectories:
        run.save_trajectories(
            state.update, [rollout.trajectory for group in groups for rollout in group.rollouts]
        )
    alarm = _alarm(config, run, {**metrics, "update": state.update})
    if alarm is not None:
        metrics |= alarm.to_metrics()
        progress.say(f"ALARM: {alarm} See: reagent hacking {run.path}")
    run.log(state.update, metrics)
    if state.update % config.checkpoint_every == 0 or _is_over(config, state):
        _save(config, run, learner, state)
    progress.update(state.update, metrics)


def _collected(
    config: TrainConfig,
    parts: Parts,
    collector: Collector,
    update: int,
    on_rollout: Callable[[Rollout], None],
    settings: AdvantageSettings,
) -> tuple[list[Group], list[Group]]:
    """All groups of an update, and those to train on: with dynamic sampling, replaced where needed."""
    groups = _limited(config, parts, collector.collect(update, on_rollout))
    trained = _trained_groups(config, groups, settings)
    for _ in range(REPLACEMENTS if config.dynamic_sampling else 0):
        missing = config.groups_per_update - len(trained)
        if not missing:
            break
        more = _limited(config, parts, collector.collect(update, on_rollout, count=missing))
        groups += more
        trained += _trained_groups(config, more, settings)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    spoiled = [one for one in rollouts if one.trajectory.infrastructure_error is not None]
    if len(spoiled) == len(rollouts):
        raise InfrastructureError(
            f"Not one of the {len(rollouts)} rollouts of update {update + 1} could be played, the "
            f"last for this reason: {spoiled[-1].trajectory.infrastructure_error}"
        )
    return groups, trained


def _limited(config: TrainConfig, parts: Parts, groups: Sequence[Group]) -> list[Group]:
    """The groups, without the attempts that a token limit cut where the settings want those out."""
    if not config.mask_token_limit:
        return list(groups)
    stop_ids = parts.renderer.stop_ids
    return [
        Group(group.index, tuple(up_to_token_limit(one, stop_ids) for one in group.rollouts))
        for group in groups
    ]


def _trained_groups(
    config: TrainConfig, groups: Sequence[Group], settings: AdvantageSettings
) -> list[Group]:
    """Groups with something to compare; with dynamic sampling, only those that tell rollouts apart."""
    compared = [group for group in groups if group.kept]
    if not config.dynamic_sampling:
        return compared
    return [
        group
        for group in compared
        if not is_degenerate(
            [rollout.attempts for rollout in group.kept],
            settings,
            config.advantage,
        )
    ]


def _advantage_settings(config: TrainConfig) -> AdvantageSettings:
    settings = AdvantageSettings(
        weight=config.weight if config.needs_judge else 0.0,
        std_floor=config.std_floor,
        apart=config.apart,
        credit=config.credit if config.advantage == "gae" else "auto",
        improvement_bonus=config.improvement_bonus,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
    )
    check_settings(get_estimator(config.advantage), settings)
    return settings


def _collector(config: TrainConfig, parts: Parts, state: Progressed) -> Collector:
    schedule = get_schedule(config.schedule) if config.schedule else None
    return Collector(
        parts.sources,
        parts.weights,
        parts.engine,
        parts.renderer,
        training_sampling(config),
        seed=config.seed,
        groups=config.groups_per_update,
        group_size=config.group_size,
        spare_groups=config.groups_in_flight - config.groups_per_update,
        concurrency=parts.concurrency,
        retries=config.retries,
        max_staleness=0 if config.deterministic else config.max_staleness,
        turns_at=lambda update: None if schedule is None else turns_at(schedule, update),
        unfinished=state.unfinished,
        next_group=state.next_group,
        players=parts.players,
    )


def _restored(checkpoint: Checkpoint | None, learner: Learner, run: RunFolder) -> Progressed:
    """Where the run stood at its newest checkpoint; the optimiser and the value head with it."""
    if checkpoint is None:
        run.rewind(0)
        return Progressed()
    restore_random_state(checkpoint.random_state)
    state = Progressed(**checkpoint.state)
    head = {name.removeprefix("value_head."): one for name, one in checkpoint.extra.items()}
    learner.restore(checkpoint.optimizer, head, state.steps)
    run.rewind(state.update)
    return state


def _save(config: TrainConfig, run: RunFolder, learner: Learner, state: Progressed) -> None:
    head = learner.value_head
    save_checkpoint(
        run.path,
        state.update,
        save_policy=policy_saver(learner.policy.model, learner.policy.tokenizer),
        optimizer=learner.optimiser_state(),
        state=dataclasses.asdict(state),
        extra=None
        if head is None
        else {f"value_head.{name}": one for name, one in head.state_dict().items()},
        keep=config.keep_checkpoints,
    )


def _observe(monitor: UnscoredMonitor, state: Progressed, rollout: Rollout) -> None:
    """Count what the judge said of a rollout."""
    for index, attempt in enumerate(rollout.trajectory.attempts):
        if attempt.judgement is not None:
            monitor.observe([up_to_attempt(rollout.trajectory, index)], [attempt.judgement])
            state.judged += 1
            state.unscored += attempt.judgement.score is None


def _judged_only(summary: dict[str, float], judged: bool) -> dict[str, float]:
    """The summary, less the shares of unscored attempts where nobody was asked to score any."""
    return {name: one for name, one in summary.items() if judged or not name.startswith("unscored")}


def _named(learned: dict[str, float]) -> dict[str, float]:
    """The learner's numbers under the names of the log."""
    known = {
        "entropy": names.ENTROPY,
        "approx_kl": names.KL,
        "clip_fraction": names.CLIPPED,
        "distill/loss": names.IMITATION,
        "ref_kl": "loss/reference_kl",
        "grad_norm": "loss/grad_norm",
        "ratio": "loss/ratio",
        "tokens": "loss/tokens",
    }
    return {known.get(name, name): value for name, value in learned.items()}


def _nested(flat: Sequence[Any], like: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The items of ``flat`` in lists as long as those of ``like``."""
    items: Iterator[Any] = iter(flat)
    return [[next(items) for _ in one] for one in like]


def _most_turns(config: TrainConfig, parts: Parts) -> int:
    """Most turns of an attempt, in any environment and at any time of the run."""
    most = max(get_schedule(config.schedule).turns) if config.schedule else 1
    for source in parts.sources:
        with _opened(source.make()) as env:
            most = max(most, int(env.unwrapped.max_turns))
    return most


@contextmanager
def _opened(env: Any) -> Iterator[Any]:
    try:
        yield env
    finally:
        env.close()


def _alarm(config: TrainConfig, run: RunFolder, line: dict[str, Any]) -> HackingAlarm | None:
    """An alarm that this update raises; a run raises one."""
    if not config.alarm_window or not config.needs_judge:
        return None
    lines = [*run.metrics(), line]
    return None if logged_alarm(lines) else find_alarm(lines, config.alarm_window)


def _is_over(config: TrainConfig, state: Progressed) -> bool:
    """Whether the last update was made, by number, by time, by tokens sampled or by turns played."""
    if state.update >= config.updates:
        return True
    if config.max_seconds and state.seconds >= config.max_seconds:
        return True
    budgets = ((config.max_policy_tokens, state.tokens), (config.max_interactions, state.turns))
    return any(_is_spent(budget, spent, state.update) for budget, spent in budgets)


def _is_spent(budget: int, spent: int, updates: int) -> bool:
    """At the update that comes nearest to the budget: whoever makes large updates would else get more."""
    if not budget or not updates:
        return False
    return spent + spent / updates / 2 >= budget
