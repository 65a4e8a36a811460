"""Training a judge: what it is taught, that it learns it, and that an interruption costs nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reagent_env import reward_models
from reagent_env.agents.judge_data.records import CLEAN, PlantedRecord, write_records
from reagent_env.reward_models import make_reward_model
from reagent_env.reward_models.local import LocalJudge
from reagent_env.reward_models.marks import marked_messages
from reagent_env.reward_models.parse import parse_judgement
from reagent_env.reward_models.sound_work import (
    SoundWork,
    SoundWorkJudge,
    by_line,
    surprisal,
    surprise,
    tool_set,
)
from reagent_env.testing import example_trajectory
from reagent_env.testing.reward_model_contract import RewardModelContract
from reagent_env.trajectory import Turn

torch = pytest.importorskip("torch")

from reagent_env.trainers import judge_sft  # noqa: E402
from reagent_env.trainers.judge import leave_one_out as left_out  # noqa: E402
from reagent_env.trainers.judge import model as judge_model  # noqa: E402
from reagent_env.trainers.judge import sound as sound_training  # noqa: E402
from reagent_env.trainers.judge.examples import (  # noqa: E402
    UNFINISHED_TARGET,
    as_second,
    balanced,
    judge_examples,
    judgement_text,
    prefix_of,
    unfinished_of,
    without_thoughts,
)
from reagent_env.trainers.judge.leave_one_out import leave_kinds_out  # noqa: E402
from reagent_env.trainers.judge.model import make_judge_model, make_judge_tokenizer  # noqa: E402
from reagent_env.trainers.judge.sound import quantiles, train_sound_work  # noqa: E402
from reagent_env.trainers.judge.training import judge_sample, train_judge  # noqa: E402
from reagent_env.trainers.judge_sft import (  # noqa: E402
    JudgeSftConfig,
    run_judge_sft,
    save_judge,
    ship,
)

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(judge_model, "SHAPE", SMALL)


def record(turns: int, flawed: int | None = None, pair: str = "a") -> PlantedRecord:
    """An attempt of ``turns`` turns; at ``flawed``, the call before is made again."""
    trajectory = example_trajectory(turns)
    if flawed is None:
        return PlantedRecord(
            trajectory, CLEAN, None, 0.95, "The steps were sound.", (0.95,) * turns, pair
        )
    attempt = trajectory.attempts[0]
    again: tuple[Turn, ...] = tuple(
        attempt.turns[place - 1] if place == flawed else turn
        for place, turn in enumerate(attempt.turns)
    )
    return PlantedRecord(
        replace(trajectory, attempts=(replace(attempt, turns=again),)),
        "repeated_call",
        flawed,
        0.7,
        "Use the earlier result.",
        (0.95,) * flawed + (0.7,) * (turns - flawed),
        pair,
    )


RECORDS = [
    one
    for turns in (3, 4, 5)
    for one in (record(turns, pair=f"p{turns}"), record(turns, turns - 2, f"p{turns}"))
]


TAUGHT = RECORDS[:2]


def test_the_taught_judgement_reads_back_strictly() -> None:
    text = judgement_text(record(4, 2))
    assert text == (
        "<think>1 sound, 2 sound, 3 repeated call, 4 sound</think>\n"
        "<critique>Use the earlier result.</critique>\n"
        "<turns>[0.95, 0.95, 0.7, 0.7]</turns>\n<score>0.7</score>"
    )
    judgement = parse_judgement(text, 4)
    assert (judgement.score, judgement.turn_scores) == (0.7, (0.95, 0.95, 0.7, 0.7))


def test_a_prefix_is_flawed_only_once_the_flaw_was_made() -> None:
    whole = record(4, 2)
    before, after = prefix_of(whole, 2), prefix_of(whole, 3)
    assert (before.kind, before.turn, before.target) == (CLEAN, None, 0.95)
    assert (after.kind, after.turn, after.target) == ("repeated_call", 2, 0.7)
    assert len(after.trajectory.attempts[0].turns) == 3
    assert after.trajectory.attempts[0].final_answer is None


def test_the_turn_limit_is_a_flaw_of_the_last_turn() -> None:
    ended = unfinished_of(record(4), 3)
    assert ended.turn_targets == (0.95, 0.95, UNFINISHED_TARGET)
    assert (ended.turn, ended.trajectory.stop_reason) == (2, "max_turns")


def test_a_second_attempt_keeps_its_own_judgement() -> None:
    both = as_second(record(3), record(3, 1).trajectory)
    assert len(both.trajectory.attempts) == 2
    assert both.trajectory.attempts[1].feedback is not None
    assert both.target == 0.95


def test_thoughts_can_be_taken_away() -> None:
    whole = record(3)
    turn = whole.trajectory.attempts[0].turns[0]
    thinking = replace(turn, completion=f"<think>\nSo far: 7.\n</think>\n{turn.completion}")
    turns = (thinking, *whole.trajectory.attempts[0].turns[1:])
    attempts = (replace(whole.trajectory.attempts[0], turns=turns),)
    bare = without_thoughts(replace(whole, trajectory=replace(whole.trajectory, attempts=attempts)))
    assert bare == whole


def test_examples_are_the_same_twice_and_none_is_shown_twice() -> None:
    examples = judge_examples(RECORDS, marked_messages, prefixes=1.0)
    assert examples == judge_examples(RECORDS, marked_messages, prefixes=1.0)
    shown = [(one.messages[0]["content"], one.judgement) for one in examples]
    assert len(shown) == len(set(shown))
    assert len(examples) > len(RECORDS)


def test_flawed_and_clean_examples_weigh_the_same() -> None:
    examples = judge_examples([*RECORDS, record(6, 2), record(6, 3)], marked_messages)
    even = balanced(examples)
    assert sum(one.kind == CLEAN for one in even) * 2 == len(even)


def test_only_the_judgement_is_learned() -> None:
    (example,) = judge_examples([record(3)], marked_messages, prefixes=0, unfinished=0)
    tokenizer = make_judge_tokenizer([example.messages[0]["content"], example.judgement])
    sample = judge_sample(example, tokenizer)
    learned = [i for i, on in zip(sample.ids, sample.completion_mask, strict=True) if on]
    assert tokenizer.decode(learned) == f"{example.judgement}<|end|>"
    read = [i for i, on in zip(sample.ids, sample.completion_mask, strict=True) if not on]
    assert tokenizer.decode(read) == f"{example.messages[0]['content']}<|judge|>"


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge that learned two attempts, one flawed, by heart."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("judge")
    data = folder / "data.jsonl"
    write_records(data, TAUGHT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge_model, "SHAPE", SMALL)
        config = JudgeSftConfig(
            out=str(folder / "run"), data=str(data), epochs=120, batch=4, lr=1e-2, threads=1
        )
        return run_judge_sft(config, say=lambda line: None)


def test_it_learns_what_it_was_taught(taught: Path) -> None:
    judge = make_reward_model(str(taught))
    for record_, judgement in zip(
        TAUGHT, judge.judge([one.trajectory for one in TAUGHT]), strict=True
    ):
        # Drawn a little to the mean score that was taught, as its certainty is not quite 1.
        assert judgement.score == pytest.approx(record_.target, abs=0.05)
        assert judgement.turn_scores == pytest.approx(record_.turn_targets, abs=0.05)
        assert judgement.critique == record_.critique


class TestATaughtJudgeKeepsTheContract(RewardModelContract):
    @pytest.fixture(autouse=True)
    def _folder(self, taught: Path) -> None:
        self.folder = taught

    def make_reward_model(self) -> Any:
        return make_reward_model(str(self.folder))


def test_a_run_broken_off_ends_with_the_same_weights(tmp_path: Path) -> None:
    examples = judge_examples(RECORDS, marked_messages)
    texts = [text for one in examples for text in (one.messages[0]["content"], one.judgement)]
    tokenizer = make_judge_tokenizer(texts)
    samples = [judge_sample(one, tokenizer) for one in examples]

    def train(run: Path | None, stop: int | None = None) -> Any:
        model = make_judge_model(tokenizer, seed=1)

        def on_update(update: Any) -> None:
            if update.update == stop:
                raise KeyboardInterrupt

        train_judge(
            model,
            tokenizer,
            samples,
            epochs=6,
            batch=4,
            run=run,
            checkpoint_every=2,
            on_update=on_update,
        )
        return model.state_dict()

    whole = train(None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop=5)  # the last checkpoint is of update 4
    resumed = train(tmp_path)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_folder_with_other_settings_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    write_records(data, RECORDS[:2])
    settings: dict[str, Any] = {"out": str(tmp_path / "run"), "data": str(data), "batch": 2}
    run_judge_sft(JudgeSftConfig(**settings, epochs=1), say=lambda line: None)
    with pytest.raises(ValueError, match=r"other settings \(epochs\)"):
        run_judge_sft(JudgeSftConfig(**settings, epochs=2), say=lambda line: None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "epochs"),
        ({"view": "all"}, "view"),
        ({"leave_out": "unit_slipp"}, "Unknown kinds unit_slipp"),
        ({"envs": ""}, "Nothing to learn from"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JudgeSftConfig(out="x", **settings)


def test_a_runs_judge_is_put_into_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = make_judge_tokenizer([judgement_text(record(3))])
    save_judge(
        tmp_path / "run" / "judge",
        make_judge_model(tokenizer),
        tokenizer,
        view="marks",
        max_new_tokens=9,
    )
    (tmp_path / "run" / "judge" / "optimizer.pt").write_text("not for the package")
    target = tmp_path / "tiny_rrm"
    target.mkdir()
    (target / "of_an_older_one.json").write_text("{}")
    size = ship([tmp_path / "run"], target)
    names = {one.name for one in target.iterdir()}
    assert {"config.json", "judge.json", "model.safetensors", "tokenizer.json"} <= names
    assert not names & {"optimizer.pt", "of_an_older_one.json"}
    assert 0 < size == sum(one.stat().st_size for one in target.iterdir()) < 10_000_000
    monkeypatch.setattr(reward_models, "TINY_FOLDER", target)
    judge: Any = make_reward_model("tiny-rrm")
    assert (judge.view, judge.max_new_tokens) == ("marks", 9)


def test_several_runs_are_shipped_as_one_judge_that_asks_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = make_judge_tokenizer([judgement_text(record(3))])
    for seed in range(3):
        model = make_judge_model(tokenizer, seed)
        save_judge(tmp_path / str(seed) / "judge", model, tokenizer, view="marks", max_new_tokens=9)
    target = tmp_path / "tiny_rrm"
    ship([tmp_path / "0", tmp_path / "1", tmp_path / "2"], target)
    monkeypatch.setattr(reward_models, "TINY_FOLDER", target)
    judge: Any = make_reward_model("tiny-rrm")
    assert [member.folder.name for member in judge.members] == ["tiny_rrm", "member_2", "member_3"]
    weights = {(one.folder / "model.safetensors").read_bytes() for one in judge.members}
    assert len(weights) == 3
    ship([tmp_path / "0"], target)
    assert not (target / "member_2").exists()


def test_what_is_unfinished_or_too_large_is_not_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="holds no whole judge"):
        ship([tmp_path], tmp_path / "target")
    tokenizer = make_judge_tokenizer([judgement_text(record(3))])
    folder = tmp_path / "judge"
    save_judge(folder, make_judge_model(tokenizer), tokenizer, view="marks", max_new_tokens=9)
    monkeypatch.setattr(judge_sft, "SHIPPED_BYTES", 1_000)
    with pytest.raises(ValueError, match="more than 1000"):
        ship([tmp_path], tmp_path / "target")
    assert not (tmp_path / "target").exists()


# Sound work -------------------------------------------------------------------------------------


def of_other_tasks(count: int) -> list[PlantedRecord]:
    """Pairs of a sound attempt and one that makes a call again, each of a task of its own."""
    found = []
    for number in range(count):
        turns = 3 + number % 3
        for one in (record(turns, pair=str(number)), record(turns, turns - 2, str(number))):
            task = replace(one.trajectory.task, question=f"What is {number} plus {number + 1}?")
            found.append(replace(one, trajectory=replace(one.trajectory, task=task)))
    return found


def test_a_model_of_sound_work_finds_what_it_was_never_shown_rare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound_training, "FEWEST_HELD_OUT", 3)  # many tasks, few different views
    *records, a, b, c, d, e, f = of_other_tasks(63)
    shown: list[str] = []
    run, made = tmp_path / "run", tmp_path / "sound"
    folder = train_sound_work(records, made, run=run, epochs=10, batch=4, lr=1e-2, say=shown.append)
    assert folder is not None
    assert "views to learn from" in shown[0]
    sound = SoundWork(folder)
    for clean, flawed in ((a, b), (c, d), (e, f)):
        usual, rare = sound.rarities([clean.trajectory, flawed.trajectory])
        assert usual is not None
        assert rare is not None
        assert rare.share < 0.02 < usual.share
    assert "again" not in sound._loaded.tokenizer.get_vocab()
    read = [marked_messages(one.trajectory) or [] for one in records]
    assert any("again" in one[-1]["content"] for one in read)


def test_what_is_usual_is_said_by_tasks_that_were_not_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound_training, "FEWEST_HELD_OUT", 3)
    records = of_other_tasks(60)
    folder = train_sound_work(records, tmp_path / "s", run=tmp_path / "r", epochs=1)
    assert folder is not None
    loaded = SoundWork(folder)._loaded
    held = [one for one in records if sound_training._held_out(one.group, 0)]
    views = judge_examples(held, marked_messages, unfinished=0)
    ids = [loaded.encode(one.messages) for one in views if one.kind == CLEAN]
    nats = surprise(loaded.model, ids)
    wanted = [
        surprisal(by_line(each, of, loaded.tokenizer)) for each, of in zip(ids, nats, strict=True)
    ]
    stated = json.loads((folder / "sound.json").read_text())["surprisals"]
    assert stated[""] == pytest.approx(quantiles(wanted), abs=1e-3)
    assert stated[""] == stated[tool_set(records[0].trajectory)]


def test_with_too_few_tasks_there_is_no_model_of_sound_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    few = of_other_tasks(20)
    assert train_sound_work(few, tmp_path / "s", run=tmp_path / "r", say=shown.append) is None
    assert "No model of sound work" in shown[-1]
    assert not (tmp_path / "s").exists()
    monkeypatch.setattr(sound_training, "HELD_OUT", 1.0)  # nothing is left to learn from
    many = of_other_tasks(100)
    assert train_sound_work(many, tmp_path / "s", run=tmp_path / "r", say=shown.append) is None


def test_quantiles_rise_from_the_least_to_the_most() -> None:
    found = quantiles([3.0, 1.0, 2.0])
    assert (found[0], found[100], found[-1]) == (1.0, 2.0, 3.0)
    assert found == sorted(found)


def test_a_run_leaves_both_models_and_both_are_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data.jsonl"
    write_records(data, of_other_tasks(80))
    settings: dict[str, Any] = {"data": str(data), "epochs": 1}
    monkeypatch.setattr(sound_training, "FEWEST_HELD_OUT", 3)
    alone = JudgeSftConfig(out=str(tmp_path / "alone"), **settings, sound_epochs=0)
    assert not (run_judge_sft(alone, say=lambda line: None) / "sound").exists()
    both = JudgeSftConfig(out=str(tmp_path / "run"), **settings)
    folder = run_judge_sft(both, say=lambda line: None)
    assert (folder / "sound" / "sound.json").is_file()
    assert isinstance(make_reward_model(str(folder)), SoundWorkJudge)
    target = tmp_path / "tiny_rrm"
    size = ship([tmp_path / "run", tmp_path / "run"], target)
    assert {one.name for one in target.iterdir() if one.is_dir()} == {"member_2", "sound"}
    assert size == sum(one.stat().st_size for one in target.rglob("*") if one.is_file())
    monkeypatch.setattr(reward_models, "TINY_FOLDER", target)
    judge: Any = make_reward_model("tiny-rrm")
    assert [one.folder.name for one in judge.inner.members] == ["tiny_rrm", "member_2"]
    assert judge.sound.folder == target / "sound"
    assert isinstance(make_reward_model("tiny-rrm-single"), SoundWorkJudge)
    (folder / "sound" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="sound holds no whole judge"):
        ship([tmp_path / "run"], target)
    assert (target / "sound").is_dir()  # what was there is still there


def test_kinds_left_out_are_judged_with_and_without_the_model_of_sound_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound_training, "FEWEST_HELD_OUT", 3)
    records = of_other_tasks(60)
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    write_records(train, records)
    write_records(test, of_other_tasks(63)[-6:])
    out = tmp_path / "out"
    asked: list[type] = []

    def half(judge: Any, records: Any, kind: str) -> float:
        asked.append(type(judge))
        return 0.5 if isinstance(judge, SoundWorkJudge) else 0.25

    monkeypatch.setattr(left_out, "pairwise_of", half)
    settings: dict[str, Any] = {"epochs": 1, "threads": 1, "say": lambda line: None}
    assert leave_kinds_out(train, test, out, **settings) == {"repeated_call": 0.5}
    made = (out / "repeated_call" / "judge" / "model.safetensors").stat().st_mtime_ns
    assert leave_kinds_out(train, test, out, sound=False, **settings) == {"repeated_call": 0.25}
    assert (out / "repeated_call" / "judge" / "model.safetensors").stat().st_mtime_ns == made
    kept = [
        json.loads((out / name).read_text()) for name in ("pairwise.json", "pairwise-no-sound.json")
    ]
    assert kept == [{"repeated_call": 0.5}, {"repeated_call": 0.25}]
    assert asked == [SoundWorkJudge, LocalJudge]
