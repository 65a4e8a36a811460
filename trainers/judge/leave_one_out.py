"""What a judge makes of a kind of flaw that it was never shown: one training a kind, or two kinds.

Slow by nature; the trainings are independent, and each is kept in a folder of its own, so that an
interrupted sweep goes on where it was.

Example, one pass over 13,000 examples, two kinds left out at a time::

    python -m reagent_env.trainers.judge.leave_one_out TRAIN.jsonl TEST.jsonl runs/left-out \
        --epochs 1 --examples 13000 --together 2
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from reagent_env.agents.judge_data.records import PlantedRecord, read_records
from reagent_env.agents.judge_eval.judging import judge_all
from reagent_env.agents.judge_eval.measures import preference
from reagent_env.reward_models import RewardModel, make_reward_model
from reagent_env.reward_models.marks import marked_messages
from reagent_env.reward_models.sound_work import SETTINGS_FILE as SOUND_FILE
from reagent_env.reward_models.sound_work import SoundWork, SoundWorkJudge
from reagent_env.trainers.judge.examples import balanced, judge_examples
from reagent_env.trainers.judge.sound import train_sound_work
from reagent_env.trainers.judge_rl import flawed_pairs
from reagent_env.trainers.judge_sft import JudgeSftConfig, run_judge_sft


def leave_kinds_out(
    train: Path,
    test: Path,
    out: Path,
    *,
    epochs: int = 2,
    together: int = 1,
    examples: int = 0,
    sound: bool = True,
    threads: int = 0,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Pairwise accuracy on each kind of a judge that learned without it.

    Args:
        train: ``judge-data`` records of the train split.
        test: Records of the test split; each of its kinds is left out in turn.
        out: Folder; gets one run a training and ``pairwise.json``
            (``pairwise-no-sound.json`` without ``sound``).
        epochs: Passes of each training.
        together: Kinds left out at a time: two halve the time, and ask more of the judge.
        examples: Learn from so many at most, drawn at random; 0 is all.
        sound: Whether a model of sound work, trained once, corrects every judge as in ``judge-sft``.
        threads: Threads of torch; 0 is its own choice.
        say: Told each kind's figure as it is known.
    """
    if threads:
        import torch

        torch.set_num_threads(threads)
    records = list(read_records(test))
    held = sorted({one.kind for one in records if one.flawed})
    groups = [
        held[start :: -(-len(held) // together)] for start in range(-(-len(held) // together))
    ]
    learned = list(read_records(train))
    shown = judge_examples(learned, marked_messages)
    usual: Path | None = out / "sound"
    if not sound:
        usual = None
    elif not (out / "sound" / SOUND_FILE).is_file():
        usual = train_sound_work(learned, out / "sound", run=out / ".sound", say=lambda line: None)
    del learned
    rare = None if usual is None else SoundWork(usual)
    kept = "pairwise.json" if sound else "pairwise-no-sound.json"
    found: dict[str, float] = {}
    for group in groups:
        folder = out / "+".join(group)
        config = JudgeSftConfig(
            out=str(folder),
            data=str(train),
            leave_out=",".join(group),
            epochs=epochs,
            sound_epochs=0,
            threads=threads,
        )
        if not (folder / "judge").is_dir():
            left = balanced([one for one in shown if one.kind not in group])
            left = random.Random("left out").sample(left, min(examples or len(left), len(left)))
            run_judge_sft(config, say=lambda line: None, examples=left)
        judge = make_reward_model(str(folder / "judge"))
        if rare is not None:
            judge = SoundWorkJudge(judge, rare)
        for kind in group:
            found[kind] = pairwise_of(judge, records, kind)
            say(f"{kind}: {found[kind]:.3f}")
        (out / kept).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if found:
        lowest = min(found, key=lambda kind: found[kind])
        mean = sum(found.values()) / len(found)
        say(f"mean {mean:.3f}, lowest {found[lowest]:.3f} ({lowest})")
    return found


def pairwise_of(judge: RewardModel, records: Sequence[PlantedRecord], kind: str) -> float:
    """Share of the pairs of ``kind`` whose clean partner scores higher; a tie is half, NaN for none.

    A pair of which one has no score is left out, as in ``judge-eval``.
    """
    pairs = [pair for pair in flawed_pairs(records) if pair[0].kind == kind]
    asked = [record.trajectory for pair in pairs for record in pair]
    scores = [one.score for one in judge_all(judge, asked, batch=64).judgements]
    both = list(zip(scores[::2], scores[1::2], strict=True))
    wins = [preference(c, f) for f, c in both if f is not None and c is not None]
    return sum(wins) / len(wins) if wins else math.nan


def main(
    train: Path,
    test: Path,
    out: Path,
    epochs: int = 2,
    together: int = 1,
    examples: int = 0,
    sound: bool = True,
    threads: int = 0,
) -> None:
    """Train one judge a kind, or two kinds, without it, and say what it makes of it."""
    leave_kinds_out(
        train,
        test,
        out,
        epochs=epochs,
        together=together,
        examples=examples,
        sound=sound,
        threads=threads,
    )


if __name__ == "__main__":
    typer.run(main)
