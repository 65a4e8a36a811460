"""The recipe ``judge-sft``: a judge learns from trajectories with planted flaws.

Reads downwards: records, examples, tokenizer and model, training, the judge's folder, which
``make_reward_model(folder)`` takes; ``python -m reagent_env.trainers.judge_sft RUN …`` puts the
runs' judges into the package, as ``tiny-rrm``. Not here: measuring it (``reagent judge-eval``), reinforcement
(``judge-rl``).
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from reagent_env.agents.judge_data.planting import chosen_kinds, plant
from reagent_env.agents.judge_data.records import PlantedRecord, read_records, write_records
from reagent_env.reward_models import TINY_FOLDER
from reagent_env.reward_models.local import SETTINGS_FILE
from reagent_env.reward_models.marks import marked_messages
from reagent_env.reward_models.prompt import judge_messages
from reagent_env.reward_models.sound_work import FOLDER as SOUND_FOLDER
from reagent_env.reward_models.sound_work import SETTINGS_FILE as SOUND_FILE
from reagent_env.trainers.config_fields import Count, Natural, Positive, check_fields
from reagent_env.trainers.judge.examples import JudgeExample, View, balanced, judge_examples

TASKS = {
    "reagent/MiniMix-v0": 700,
    "reagent/SearchQA-v0": 600,
    "reagent/ToolMix-v0": 600,
    "reagent/PythonMath-v0": 350,
    "reagent/FileQA-v0": 350,
}
"""Training tasks of each environment that ``tiny-rrm`` learns from; most from the default one."""

VIEWS: dict[str, View] = {"marks": marked_messages, "record": judge_messages}
RECORDS_FILE = "judge_data.jsonl"
MAY_CHANGE = ("recipe", "out", "updates", "threads", "checkpoint_every")
"""Settings that a resumed run need not have as they were."""
SHIPPED = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    SETTINGS_FILE,
    SOUND_FILE,
)
"""Files of a judge that belong in the package."""
SHIPPED_BYTES = 10_000_000
"""Most that they may take there."""


@dataclass(frozen=True, kw_only=True)
class JudgeSftConfig:
    """All settings of one run.

    Example::

        JudgeSftConfig(out="runs/judge", envs="reagent/SearchQA-v0", tasks=100, epochs=2)

    Raises:
        ValueError: a value of the wrong type or outside its range.
    """

    out: str
    """The run's folder; the judge stands in its ``judge/`` at the end."""
    model: str = "tiny-rrm"
    """``tiny-rrm``: a new small model; else a causal LM's folder or name, trained on."""
    view: Literal["marks", "record"] = "marks"
    """What it reads: the short view, or the whole record that large judges read."""
    data: str = ""
    """A file of ``reagent judge-data``; by default new records are planted."""
    envs: str = ",".join(TASKS)
    """Environments to plant in, comma-separated."""
    tasks: Natural = 0
    """Training tasks of each; 0 is what :data:`TASKS` says."""
    leave_out: str = ""
    """Kinds of flaw that are not shown, comma-separated: to see what a judge makes of new ones."""
    sound_epochs: Natural = 2
    """Passes over the views of sound attempts alone, by a second small model: where an attempt is unlike
    those, scores fall (``judge/sound.py``). 0: none. For the view ``marks``."""
    epochs: Count = 3
    """Passes over the examples."""
    batch: Count = 32
    """Examples an update."""
    lr: Positive = 2.5e-3
    """Learning rate; a tenth of it at the end. A pretrained model wants about 1e-5."""
    micro_batch_tokens: Count = 8_192
    """Tokens of one forward and backward pass."""
    threads: Natural = 0
    """Threads of torch; 0 is its own choice."""
    checkpoint_every: Count = 200
    """Updates between checkpoints."""
    max_new_tokens: Natural = 0
    """Room for an answer, kept with the judge; 0 is what the examples need, and a half more."""
    sandbox: str = "auto"
    """For environments that run programs."""
    seed: Natural = 0
    """Draws tasks, flaws, places, weights and order."""

    def __post_init__(self) -> None:
        """Check each field, then the kinds."""
        check_fields(self)
        chosen_kinds(listed(self.leave_out))
        if not self.data and not self.envs:
            raise ValueError("Nothing to learn from: give data, or envs to plant in.")


Say = Callable[[str], None]


def run_judge_sft(
    config: JudgeSftConfig, say: Say = print, examples: Sequence[JudgeExample] | None = None
) -> Path:
    """Train a judge and return its folder; the same call after an interruption goes on.

    ``examples`` stand in for those that ``config`` would make: who trains many judges makes them once.
    No model of sound work is trained then: that needs the records.

    Raises:
        ValueError: no examples, or the folder holds a run with other settings.
    """
    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    run = Path(config.out)
    claim(run, config, "judge-sft")
    records = _records(config, run, say) if examples is None else []
    if examples is None:
        examples = examples_for(records, config)
    say(f"{len(examples)} examples")
    model, tokenizer = _model(config, run, examples)
    from reagent_env.trainers.judge.training import judge_sample, teller, train_judge

    samples = [judge_sample(example, tokenizer) for example in examples]

    train_judge(
        model,
        tokenizer,
        samples,
        epochs=config.epochs,
        batch=config.batch,
        lr=config.lr,
        micro_batch_tokens=config.micro_batch_tokens,
        seed=config.seed,
        run=run,
        checkpoint_every=config.checkpoint_every,
        on_update=teller(say),
    )
    longest = max(sum(sample.completion_mask) for sample in samples)
    folder = run / "judge"
    save_judge(
        folder,
        model,
        tokenizer,
        view=config.view,
        max_new_tokens=config.max_new_tokens or longest + longest // 2,
        prior=mean_score(examples) if config.view == "marks" else None,
    )
    if config.view == "marks" and config.sound_epochs and records:
        from reagent_env.trainers.judge.sound import train_sound_work

        train_sound_work(
            records,
            folder / SOUND_FOLDER,
            run=run / SOUND_FOLDER,
            epochs=config.sound_epochs,
            seed=config.seed,
            say=say,
        )
    say(f"The judge is in {folder}: reagent judge-eval --judge {folder}")
    return folder


def examples_for(records: Sequence[PlantedRecord], config: JudgeSftConfig) -> list[JudgeExample]:
    """The examples of a run, flawed and clean ones as many, without the kinds left out."""
    left_out = listed(config.leave_out)
    gone = {one.pair_id for one in records if one.kind in left_out}
    kept = [one for one in records if one.pair_id not in gone]
    return balanced(judge_examples(kept, VIEWS[config.view], seed=config.seed), config.seed)


def mean_score(examples: Sequence[JudgeExample]) -> float:
    """Mean of the scores that the examples teach."""
    scores = [float(one.judgement.rpartition("<score>")[2].split("<")[0]) for one in examples]
    return sum(scores) / len(scores)


def save_judge(
    folder: Path,
    model: Any,
    tokenizer: Any,
    *,
    view: str,
    max_new_tokens: int,
    batch: int = 64,
    prior: float | None = None,
) -> None:
    """Write what ``make_reward_model(folder)`` loads; ``prior`` as in ``certainty.py``."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"view": view, "max_new_tokens": max_new_tokens, "batch_size": batch}
    settings |= {} if prior is None else {"prior": round(prior, 3)}
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=1) + "\n", "utf-8")


def claim(run: Path, config: Any, recipe: str) -> None:
    """Write the settings of a new run, or compare them with those of the one that is there.

    Args:
        run: Its folder.
        config: The recipe's dataclass.
        recipe: Written beside it, so that `reagent train --resume RUN` knows what to go on with.

    Raises:
        ValueError: other settings, but for those that change nothing of what was learned so far.
    """
    stated = json.loads(json.dumps({"recipe": recipe, **asdict(config)}))
    path = run / "config.json"
    if path.exists():
        found = json.loads(path.read_text("utf-8"))
        changed = sorted(key for key in stated if found.get(key) != stated[key])
        changed = [key for key in changed if key not in MAY_CHANGE]
        if changed:
            raise ValueError(
                f"{run} holds a run with other settings ({', '.join(changed)}); go on with its own, "
                "or take another folder."
            )
    run.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stated, indent=1) + "\n", "utf-8")


def _records(config: JudgeSftConfig, run: Path, say: Say) -> list[PlantedRecord]:
    if config.data:
        return list(read_records(config.data))
    kept = run / RECORDS_FILE
    if not kept.exists():
        unfinished = kept.with_suffix(".unfinished")
        write_records(unfinished, _planted(config, say))
        unfinished.replace(kept)
    return list(read_records(kept))


def _planted(config: JudgeSftConfig, say: Say) -> Iterator[PlantedRecord]:
    for env in listed(config.envs):
        tasks = config.tasks or TASKS.get(env, 300)
        say(f"planting flaws in {tasks} tasks of {env}")
        yield from plant(env, tasks, split="train", seed=config.seed, sandbox=config.sandbox)


def listed(text: str) -> list[str]:
    """The words of a comma-separated setting."""
    return [one.strip() for one in text.split(",") if one.strip()]


def _model(config: JudgeSftConfig, run: Path, examples: Sequence[JudgeExample]) -> tuple[Any, Any]:
    from reagent_env.trainers.checkpoints import latest_checkpoint

    if config.model != "tiny-rrm":
        from reagent_env.trainers.policies import load_policy

        policy = load_policy(config.model)
        return policy.model, policy.tokenizer
    from reagent_env.trainers.judge.model import make_judge_model, make_judge_tokenizer

    found = latest_checkpoint(run)
    if found is not None:
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(found)
    else:
        views = [example.messages[-1]["content"] for example in examples]
        tokenizer = make_judge_tokenizer([*views, *(example.judgement for example in examples)])
    return make_judge_model(tokenizer, config.seed), tokenizer


def ship(runs: Sequence[Path], target: Path = TINY_FOLDER) -> int:
    """Put the judges of runs in the package's place and return their bytes; what was there goes.

    Several are one judge, an ensemble (``reward_models/ensemble.py``): the first one's files stand
    in ``target``, each further one's in a folder below it, which its ``judge.json`` names. The first
    one's model of sound work goes with them.

    Raises:
        FileNotFoundError: a run has no judge yet.
        ValueError: they are too large to ship.
    """
    found = [_shipped(run / "judge", SETTINGS_FILE) for run in runs]
    sound = runs[0] / "judge" / SOUND_FOLDER
    if sound.is_dir():
        found.append(_shipped(sound, SOUND_FILE))
    size = sum(one.stat().st_size for files in found for one in files)
    if size > SHIPPED_BYTES:
        raise ValueError(
            f"{', '.join(map(str, runs))}: {size} bytes, more than {SHIPPED_BYTES}; not shipped."
        )
    if target.is_dir():
        shutil.rmtree(target)
    names = [f"member_{number}" for number in range(2, len(runs) + 1)]
    folders = [target, *(target / name for name in names)]
    folders += [target / SOUND_FOLDER] if sound.is_dir() else []
    for folder, files in zip(folders, found, strict=True):
        folder.mkdir()
        for one in files:
            shutil.copyfile(one, folder / one.name)
    if names:
        path = target / SETTINGS_FILE
        settings = json.loads(path.read_text("utf-8")) | {"members": names}
        path.write_text(json.dumps(settings, indent=1) + "\n", "utf-8")
    return sum(one.stat().st_size for one in target.rglob("*") if one.is_file())


def _shipped(folder: Path, settings: str) -> list[Path]:
    """The files of a model's folder that belong in the package."""
    files = [one for one in sorted(folder.glob("*")) if one.name in SHIPPED]
    if not {"model.safetensors", "tokenizer.json", settings} <= {one.name for one in files}:
        raise FileNotFoundError(
            f"{folder} holds no whole judge; `reagent train judge-sft --out RUN` leaves one."
        )
    return files


if __name__ == "__main__":
    print(f"{ship([Path(run) for run in sys.argv[1:]])} bytes in {TINY_FOLDER}")
