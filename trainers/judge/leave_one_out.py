"""What a judge makes of a kind of flaw that it was never shown: one training a kind.

Slow by nature; the trainings are independent, and each is kept in a folder of its own, so that an
interrupted sweep goes on where it was.

Example::

    python -m reagent_env.trainers.judge.leave_one_out TRAIN.jsonl TEST.jsonl runs/leave-one-out 2
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from reagent_env.agents.judge_data.records import PlantedRecord, read_records
from reagent_env.agents.judge_eval.judging import judge_all
from reagent_env.agents.judge_eval.measures import preference
from reagent_env.reward_models import RewardModel, make_reward_model
from reagent_env.trainers.judge_rl import flawed_pairs
from reagent_env.trainers.judge_sft import JudgeSftConfig, run_judge_sft


def leave_one_kind_out(
    train: Path,
    test: Path,
    out: Path,
    *,
    kinds: Sequence[str] | None = None,
    epochs: int = 2,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Pairwise accuracy on each kind of a judge that learned from all the others.

    Args:
        train: ``judge-data`` records of the train split.
        test: Records of the test split.
        out: Folder; gets one run a kind and ``pairwise.json``.
        kinds: Only these; by default every kind that ``test`` holds.
        epochs: Passes of each training.
        say: Told each kind's figure as it is known.
    """
    records = list(read_records(test))
    held = sorted({one.kind for one in records if one.flawed}) if kinds is None else list(kinds)
    found: dict[str, float] = {}
    for kind in held:
        folder = out / kind / "judge"
        if not folder.is_dir():
            config = JudgeSftConfig(
                out=str(out / kind), data=str(train), leave_out=kind, epochs=epochs
            )
            run_judge_sft(config, say=lambda line: None)
        found[kind] = pairwise_of(make_reward_model(str(folder)), records, kind)
        say(f"{kind}: {found[kind]:.3f}")
        (out / "pairwise.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
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


if __name__ == "__main__":
    leave_one_kind_out(
        Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), epochs=int(sys.argv[4])
    )
