"""The recipe ``sft``: a cold start by imitation of scripted episodes, in a run folder of its own.

Clean demonstrations first, until the model copies; then demonstrations of mixed quality, and second
attempts after such ones and after clean ones. ``--policy tiny-untrained`` begins with a new tokenizer
and new weights. Not here: playing the scripts (``sft_episodes.py``), the updates (``sft.py``).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from reagent_env.agents.judge_data.planting import plant
from reagent_env.env import ToolUseEnv
from reagent_env.reward_models import make_reward_model
from reagent_env.reward_models.base import RewardModel
from reagent_env.reward_models.batched import BatchedJudge
from reagent_env.trainers import metric_names as names
from reagent_env.trainers.atomic_files import naming
from reagent_env.trainers.checkpoints import (
    latest_checkpoint,
    load_checkpoint,
    policy_saver,
    save_checkpoint,
)
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.demonstrations import CLEAN, knowledge_of
from reagent_env.trainers.drills import drill_texts, drills
from reagent_env.trainers.environments import NoJudge
from reagent_env.trainers.held_out import held_out, held_out_fields
from reagent_env.trainers.imitation import demonstration
from reagent_env.trainers.optimiser import make_optimiser
from reagent_env.trainers.parts import (
    fitting_tool_format,
    load_for_training,
    plain_env,
    training_parts,
)
from reagent_env.trainers.policies.policy import Policy
from reagent_env.trainers.progress import TrainProgress
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.run_folder import RunFolder
from reagent_env.trainers.sample import Sample
from reagent_env.trainers.sft import Stage, imitate
from reagent_env.trainers.sft_episodes import ScriptedEpisode, play_scripts, scripts
from reagent_env.wrappers import CritiqueRefine

UNTRAINED = "tiny-untrained"
"""The policy that has no weights yet."""

CHECKPOINT_SECONDS = 60.0
"""Time between checkpoints, since updates are short."""

THREADS = 32
"""Scripted episodes at once: many, since a judge that answers many at once waits for them."""

LOGGED = 10
"""Updates between lines of the log."""

SECOND = (
    (0.4, "mixed", "critique"),
    (0.4, "clean", "critique"),
    (0.1, "mixed", "retry"),
    (0.1, "clean", "retry"),
)
"""Of demonstrated second attempts: share, what the first attempt was, and what was said between the
two. Half follow a clean one, which is what training makes of most, with the longest contexts; some
follow neutral words, which stand for a critique where there is none."""

_STAGES = ("clean", "mixed", "second")
_KEPT = ("questions", "repeats", *_STAGES)


def train_sft(config: TrainConfig, run: RunFolder, progress: TrainProgress) -> int:
    """Imitate, from the start or from the newest checkpoint; returns the updates made.

    Raises:
        ValueError: no environment of the run has scripts, or several are given.
        OSError: the run folder cannot be written.
    """
    folder = latest_checkpoint(run.path)
    demonstrations, policy = _demonstrations(config, run, progress, folder)
    checkpoint = None if folder is None else load_checkpoint(folder)
    state: dict[str, Any] = {"update": 0, "seconds": 0.0, "before": None}
    state |= {} if checkpoint is None else checkpoint.state
    run.rewind(state["update"])
    stages = _stages(config, demonstrations)
    total = sum(stage.steps(config.sft_batch) for stage in stages)
    if config.updates != total:
        progress.total(total)
    with training_parts(dataclasses.replace(config, judge="none"), policy) as parts:
        optimiser = make_optimiser(policy.model.parameters(), lr=config.sft_lr, betas=config.betas)
        if checkpoint is not None:
            optimiser.load_state_dict(checkpoint.optimizer)
        parts.engine.pause()
        if config.held_out_episodes and state["update"] == 0 and config.policy != UNTRAINED:
            parts.publish(0)
            state["before"] = held_out(config, run, parts, progress, update=0)
            parts.engine.pause()
        save = policy_saver(policy.model, policy.tokenizer)
        clock = {"saved": time.monotonic(), "last": time.monotonic()}

        def on_step(step: int, metrics: dict[str, Any]) -> None:
            now = time.monotonic()
            state["update"] = step + 1
            state["seconds"] += now - clock["last"]
            clock["last"] = now
            last = step + 1 == total
            if (step + 1) % LOGGED == 0 or last:
                line = {
                    names.IMITATION: metrics["loss"],
                    names.SPEED: metrics["tokens"] / max(1e-9, metrics["seconds"]),
                    names.SECONDS: state["seconds"],
                    "loss/grad_norm": metrics["grad_norm"],
                    "lr": metrics["lr"],
                    "stage": metrics["stage"],
                }
                run.log(step + 1, line)
                progress.update(step + 1, line)
            if last or now - clock["saved"] > CHECKPOINT_SECONDS:
                clock["saved"] = now
                save_checkpoint(
                    run.path,
                    step + 1,
                    save_policy=save,
                    optimizer=optimiser.state_dict(),
                    state=state,
                    keep=config.keep_checkpoints,
                )

        imitate(
            policy.model,
            optimiser,
            stages,
            batch=config.sft_batch,
            seed=config.seed,
            pad_id=int(policy.tokenizer.pad_token_id or 0),
            micro_batch_tokens=config.micro_batch_tokens,
            max_grad_norm=config.max_grad_norm,
            warmup=config.warmup or 20,
            start=state["update"],
            on_step=on_step,
        )
        parts.publish(1)
        after = None
        if config.held_out_episodes:
            after = held_out(config, run, parts, progress, update=state["update"])
        run.write_summary(
            updates=state["update"],
            train_seconds=state["seconds"],
            unscored_rate=0.0,
            **held_out_fields(state["before"], after),
        )
    return int(state["update"])


def _stages(config: TrainConfig, demonstrations: dict[str, list[Sample]]) -> list[Stage]:
    """Drills at a constant rate; clean ones and the mixture at rates that fall in the end."""
    mixture = demonstrations["mixed"] + demonstrations["second"]
    context = config.sft_context_weight
    stages = [
        Stage("questions", demonstrations["questions"], config.sft_lr, 1, 0.0, context),
        Stage("repeats", demonstrations["repeats"], config.sft_lr),
        Stage("clean", demonstrations["clean"], config.sft_lr, config.sft_epochs, 0.3),
        Stage("mixed", mixture, config.mixed_lr, 1, 0.5, 0.0),
    ]
    return [stage for stage in stages if stage.samples]


def _demonstrations(
    config: TrainConfig, run: RunFolder, progress: TrainProgress, checkpoint: Path | None
) -> tuple[dict[str, list[Sample]], Policy]:
    """The episodes as tokens, and the policy whose tokens they are; kept in the run for resuming."""
    kept = run.path / "demonstrations.npz"
    if kept.exists() and (checkpoint is not None or config.policy != UNTRAINED):
        return _read(kept), load_for_training(config, checkpoint)
    progress.say("Playing scripted demonstrations")
    policy = None if config.policy == UNTRAINED else load_for_training(config)
    tool_format = "compact" if policy is None else fitting_tool_format(policy)
    env_id = config.env
    knowledge = knowledge_of(env_id)
    judge = BatchedJudge(make_reward_model(config.judge)) if config.needs_judge else None
    seconds = round(config.mixed_demonstrations * config.second_demonstrations) if judge else 0
    wanted: list[tuple[str, int, Mapping[str, float], str]] = [
        ("clean", config.clean_demonstrations, CLEAN, ""),
        ("mixed", config.mixed_demonstrations - seconds, knowledge.mixed, ""),
    ]
    ends = [round(end * seconds) for end in itertools.accumulate(one[0] for one in SECOND)]
    for (_, first, feedback), begin, end in zip(SECOND, [0, *ends], ends, strict=False):
        quality = CLEAN if first == "clean" else knowledge.mixed
        wanted.append(("second", end - begin, quality, feedback))
    played: dict[str, list[ScriptedEpisode]] = {name: [] for name in _STAGES}
    for number, (name, count, quality, feedback) in enumerate(wanted):
        make = functools.partial(_scripted_env, config, judge, feedback, tool_format)
        seed = config.seed + number
        if count:
            played[name] += _played(make, env_id, count, quality, seed, progress)
    if policy is None:
        policy = _untrained(config, played)
    renderer = Renderer(policy.tokenizer)
    found = {
        # First attempts are learned without what follows them, so that they keep to the mixture.
        name: _encoded(played[name], renderer, attempts=[1] if name == "second" else None)
        for name in _STAGES
    }
    questions = config.drills // 3
    drill = knowledge.drill
    found["questions"] = drills(renderer, questions, config.seed, repeats=False, drill=drill)
    repeats = config.drills - questions
    found["repeats"] = drills(renderer, repeats, config.seed, repeats=True, drill=drill)
    fitting = {
        name: [one for one in samples if len(one.ids) <= policy.context_length]
        for name, samples in found.items()
    }
    _write(kept, fitting)
    lengths = [len(one.ids) for samples in fitting.values() for one in samples]
    progress.say(
        f"{len(lengths)} demonstrations, {np.mean(lengths):.0f} tokens each, "
        f"{max(lengths)} the longest; {len(fitting['second'])} with a second attempt"
    )
    return fitting, policy


def _scripted_env(
    config: TrainConfig, judge: RewardModel | None, feedback: str, tool_format: str | None
) -> gymnasium.Env[str, str]:
    """With a second attempt where there is feedback; neutral words need no judge."""
    env = plain_env(config, config.env, "train", tool_format)
    if not feedback:
        return env
    asked = judge if judge is not None and feedback == "critique" else NoJudge()
    return CritiqueRefine(env, asked, feedback=feedback)


def _played(
    make: Any,
    env_id: str,
    count: int,
    quality: Mapping[str, float],
    seed: int,
    progress: TrainProgress,
) -> list[ScriptedEpisode]:
    """``count`` episodes; clean ones, which chance has no part in, are played once a task."""
    with closing(make()) as env:
        inner = env.unwrapped
        assert isinstance(inner, ToolUseEnv)
        tasks = inner.tasks
    clean = quality is CLEAN
    wanted = list(scripts(tasks, count, quality, seed, by_level=clean))
    distinct = list({one.task.id: one for one in wanted}.values()) if clean else wanted
    played = play_scripts(
        make, distinct, env_id=env_id, on_episode=_teller(progress, len(distinct))
    )
    if not clean:
        return played
    by_task = {one.trajectory.task.id: one for one in played}
    return [by_task[one.task.id] for one in wanted if one.task.id in by_task]


def _teller(progress: TrainProgress, total: int) -> Callable[[], None]:
    """Says every tenth of the way."""
    done = itertools.count(1)

    def tell() -> None:
        number = next(done)
        if number * 10 // total > (number - 1) * 10 // total:
            progress.say(f"  {number:,} of {total:,} played")

    return tell


def _untrained(config: TrainConfig, played: dict[str, list[ScriptedEpisode]]) -> Policy:
    """A tokenizer of what the demonstrations say, and a model with weights drawn by the seed."""
    from reagent_env.trainers.policies import tiny

    some = [one for name in _STAGES for one in played[name][:1500]]
    knowledge = knowledge_of(config.env)
    texts = list(_texts(some))
    frames = knowledge.frames()
    if knowledge.drill is None and not frames:
        texts += [one.critique for one in plant(config.env, 100, sandbox=config.sandbox)]
        texts += drill_texts()
    tokenizer = tiny.make_tokenizer(texts, frames=frames)
    model = tiny.make_model(tokenizer, config.seed)
    return Policy(UNTRAINED, model, tokenizer, tiny.CONTEXT_LENGTH)


def _encoded(
    episodes: Sequence[ScriptedEpisode], renderer: Renderer, *, attempts: Sequence[int] | None
) -> list[Sample]:
    """Their tokens; an episode that comes again is the same sample again."""
    seen: dict[int, Sample] = {}
    for one in episodes:
        if id(one) not in seen:
            seen[id(one)] = demonstration(
                one.trajectory, list(one.messages), renderer, attempts=attempts
            )
    return [seen[id(one)] for one in episodes]


def _texts(episodes: Sequence[ScriptedEpisode]) -> Iterable[str]:
    for one in episodes:
        yield from (message["content"] for message in one.messages)
        for attempt in one.trajectory.attempts:
            if attempt.feedback:
                yield attempt.feedback
            for turn in attempt.turns:
                yield turn.completion
                yield turn.observation


def _write(path: Path, demonstrations: dict[str, list[Sample]]) -> None:
    arrays: dict[str, Any] = {}
    for name, every in demonstrations.items():
        samples = list({id(one): one for one in every}.values())
        place = {id(one): number for number, one in enumerate(samples)}
        arrays[f"{name}_order"] = np.array([place[id(one)] for one in every], np.int64)
        arrays[f"{name}_ids"] = np.array([i for one in samples for i in one.ids], np.int32)
        arrays[f"{name}_turns"] = np.array([t for one in samples for t in one.turn_of], np.int16)
        arrays[f"{name}_ends"] = np.cumsum([len(one.ids) for one in samples], dtype=np.int64)
    part = path.with_name(f".{path.name}")
    with naming(path), part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    part.replace(path)


def _read(path: Path) -> dict[str, list[Sample]]:
    with np.load(path) as arrays:
        found: dict[str, list[Sample]] = {}
        for name in _KEPT:
            ids, turns = arrays[f"{name}_ids"].tolist(), arrays[f"{name}_turns"].tolist()
            ends = arrays[f"{name}_ends"].tolist()
            samples = []
            for start, end in zip([0, *ends], ends, strict=False):  # a stage may have none
                own = turns[start:end]
                samples.append(
                    Sample(
                        ids=ids[start:end],
                        turn_of=own,
                        sampled_logprobs=[0.0] * len(own),
                        versions=[0 if turn >= 0 else -1 for turn in own],
                    )
                )
            found[name] = [samples[place] for place in arrays[f"{name}_order"]]
    return found
