"""The cold start: drills, clean and mixed demonstrations, from nothing to a policy that loads."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file

from reagent_env.task_sets.mini_mix import mini_mix
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.drills import WORLDS, drill_texts, drills
from reagent_env.trainers.imitation import demonstration
from reagent_env.trainers.policies import checkpoint_folder, load_policy
from reagent_env.trainers.policies.tiny import make_tokenizer
from reagent_env.trainers.progress import TrainProgress
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.run_folder import RunFolder
from reagent_env.trainers.sample import Sample
from reagent_env.trainers.sft import Stage, order
from reagent_env.trainers.sft_episodes import scripts
from reagent_env.trainers.train_sft import _read, _write, train_sft
from reagent_env.wrappers.critique_refine import NEUTRAL


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(make_tokenizer(drill_texts(count=100), vocabulary=400))


def quiet(config: TrainConfig) -> TrainProgress:
    return TrainProgress(config, Console(file=io.StringIO()))


def smallest(**changes: object) -> TrainConfig:
    settings: dict[str, object] = {
        "recipe": "sft",
        "policy": "tiny-untrained",
        "judge": "rubric",
        "sandbox": "process",
        "drills": 12,
        "clean_demonstrations": 8,
        "mixed_demonstrations": 8,
        "second_demonstrations": 0.5,
        "sft_batch": 4,
        "sft_context_weight": 1.0,
        "held_out_episodes": 0,
        "threads": 1,
        "keep_checkpoints": 0,
    }
    return TrainConfig(**{**settings, **changes})  # type: ignore[arg-type]


def test_a_cold_start_goes_through_every_stage_and_leaves_a_policy(tmp_path: Path) -> None:
    config = smallest()
    with RunFolder.create(config, tmp_path / "run") as run, quiet(config) as progress:
        updates = train_sft(config, run, progress)
        stages = [line["stage"] for line in run.metrics()]
    assert updates == 1 + 2 + 2 + 2  # questions, repeats, clean, mixed: batches of 4
    assert stages[-1] == "mixed"
    policy = load_policy(tmp_path / "run")
    assert policy.context_length == 2048
    assert policy.tokenizer.chat_template


def test_a_cold_start_that_goes_on_from_a_checkpoint_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reagent_env.trainers.train_sft.CHECKPOINT_SECONDS", 0.0)
    config = smallest()
    with RunFolder.create(config, tmp_path / "run") as run, quiet(config) as progress:
        train_sft(config, run, progress)
    final = checkpoint_folder(tmp_path / "run")
    whole = load_file(final / "model.safetensors")
    for folder in sorted((tmp_path / "run" / "checkpoints").iterdir())[3:]:
        folder.rename(tmp_path / folder.name)  # as if it had been cut after the third update
    with RunFolder.resume(tmp_path / "run") as run, quiet(config) as progress:
        train_sft(config, run, progress)
    resumed = load_file(checkpoint_folder(tmp_path / "run") / "model.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(bool((whole[name] == resumed[name]).all()) for name in whole)


def test_only_second_attempts_are_learned_and_some_follow_neutral_words(tmp_path: Path) -> None:
    config = smallest(mixed_demonstrations=11, second_demonstrations=1.0)
    with RunFolder.create(config, tmp_path / "run") as run, quiet(config) as progress:
        train_sft(config, run, progress)
    learned = _read(tmp_path / "run" / "demonstrations.npz")["second"]
    assert len(learned) == 11, "shares are rounded to their sum"
    for sample in learned:
        assert min(turn for turn in sample.turn_of if turn >= 0) > 0, "a first attempt is learned"
    tokenizer = load_policy(tmp_path / "run").tokenizer
    said = [tokenizer.decode(sample.ids) for sample in learned]
    assert sum(NEUTRAL in text for text in said) >= 2


def test_a_stage_without_demonstrations_is_read_back_as_none(tmp_path: Path) -> None:
    sample = Sample([5, 6, 7], [-1, 0, 0], [0.0] * 3, [-1, 0, 0])
    kept = {"questions": [], "repeats": [], "clean": [sample, sample], "mixed": [], "second": []}
    _write(tmp_path / "demonstrations.npz", kept)
    assert _read(tmp_path / "demonstrations.npz") == kept


def test_drills_are_about_worlds_that_no_task_asks_about(renderer: Renderer) -> None:
    words = {word.strip(".,?") for task in mini_mix("test") for word in task.question.split()}
    named = {word for word in words if word[:1].isupper()} - {
        "What",
        "Find",
        "Name",
        "State",
        "How",
        "Compute",
    }
    assert len(named) > 300
    assert 0 not in WORLDS
    drilled = {word for text in drill_texts(count=200) for word in text.replace(":", " ").split()}
    assert len(drilled & named) < 0.1 * len(named)


def test_a_drill_asks_for_many_values_and_trains_on_its_answers_alone(renderer: Renderer) -> None:
    before, after = drills(renderer, 2, seed=0, repeats=False)
    assert len({turn for turn in before.turn_of if turn >= 0}) == 6  # three pages, three answers
    assert len({turn for turn in after.turn_of if turn >= 0}) == 9
    assert 0.1 < sum(after.completion_mask) / len(after.ids) < 0.5


def test_half_of_the_later_drills_repeat_articles(renderer: Renderer) -> None:
    found = drills(renderer, 4, seed=0, repeats=True)
    turns = [len({turn for turn in one.turn_of if turn >= 0}) for one in found]
    assert turns == [1, 9, 1, 6]


def test_a_stage_falls_to_a_tenth_of_its_rate_over_its_last_half() -> None:
    stage = Stage("mixed", [demonstration] * 40, lr=1.0, decay=0.5)  # type: ignore[list-item]
    assert stage.steps(batch=4) == 10
    assert [stage.rate(step, 4) for step in (0, 4)] == [1.0, 1.0]
    assert stage.rate(7, 4) == pytest.approx(0.6)
    assert stage.rate(10, 4) == pytest.approx(0.1)


def test_every_pass_has_an_order_of_its_own_that_does_not_depend_on_the_past() -> None:
    first, again, second = order(0, 1, 0, 50), order(0, 1, 0, 50), order(0, 1, 1, 50)
    assert first.tolist() == again.tolist() != second.tolist()
    assert sorted(second.tolist()) == list(range(50))


def test_an_episode_that_comes_again_is_kept_once_and_read_back_as_the_same(tmp_path: Path) -> None:
    one, other = Sample(), Sample()
    one.read([5, 6])
    one.write([7], [0.0], 0, 0)
    other.write([8, 9], [0.0, 0.0], 0, 0)
    kept: dict[str, list[Sample]] = {
        name: [] for name in ("questions", "repeats", "mixed", "second")
    }
    _write(tmp_path / "demonstrations.npz", {**kept, "clean": [one, other, one, one]})
    found = _read(tmp_path / "demonstrations.npz")["clean"]
    assert found == [one, other, one, one]
    assert found[0] is found[2] is found[3]


def test_what_takes_more_calls_comes_more_often_in_a_pass_by_level() -> None:
    tasks = mini_mix("train")[:8]
    levels = [task.metadata["level"] for task in tasks]
    once = Counter(one.task.id for one in scripts(tasks, 8, {"clean": 1.0}, 0))
    assert set(once.values()) == {1}
    by_level = Counter(
        one.task.id for one in scripts(tasks, sum(levels), {"clean": 1.0}, 0, by_level=True)
    )
    assert [by_level[task.id] for task in tasks] == levels
