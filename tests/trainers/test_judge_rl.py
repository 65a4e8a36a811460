"""Reinforcement of a judge: what a judgement earns, by hand, and one update from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reagent_env.agents.judge_data.records import CLEAN, PlantedRecord, write_records
from reagent_env.agents.judge_eval.naming import f1, named_flaws
from reagent_env.judgement import Judgement
from reagent_env.task import Task
from reagent_env.testing import example_trajectory

torch = pytest.importorskip("torch")

from reagent_env.reward_models import make_reward_model  # noqa: E402
from reagent_env.trainers import judge_rl  # noqa: E402
from reagent_env.trainers.judge import model as judge_model  # noqa: E402
from reagent_env.trainers.judge.examples import judgement_text  # noqa: E402
from reagent_env.trainers.judge.leave_one_out import pairwise_of  # noqa: E402
from reagent_env.trainers.judge.model import make_judge_model, make_judge_tokenizer  # noqa: E402
from reagent_env.trainers.judge.reward import RewardParts, reward_parts  # noqa: E402
from reagent_env.trainers.judge_rl import (  # noqa: E402
    Judged,
    JudgeRlConfig,
    flawed_pairs,
    rewarded,
    run_judge_rl,
)
from reagent_env.trainers.judge_sft import save_judge  # noqa: E402
from reagent_env.trainers.sample import Sample  # noqa: E402

CLEAN_ONE = PlantedRecord(
    example_trajectory(3), CLEAN, None, 0.95, "Sound.", (0.95, 0.95, 0.95), "a"
)
FLAWED_ONE = PlantedRecord(
    example_trajectory(3), "unit_slip", 1, 0.3, "Keep units.", (0.95, 0.3, 0.3), "a"
)


def earned(judgement: Judgement, record: PlantedRecord, **known: Any) -> float:
    return reward_parts(judgement, record, **known).total


def said(score: float | None, reasoning: str = "", critique: str = "") -> Judgement:
    if score is None:
        return Judgement(unscored="unparsed: no <think> where it belongs")
    return Judgement(reasoning, critique, score)


def test_a_judgement_that_is_right_in_all_but_utility_earns_nine_tenths() -> None:
    judgement = said(0.3, "1 sound, 2 unit slip, 3 sound")
    reward = earned(judgement, FLAWED_ONE, partner_mean=0.8, partner_target=0.95)
    assert reward == pytest.approx(0.9)
    with_utility = earned(judgement, FLAWED_ONE, partner_mean=0.8, partner_target=0.95, utility=1.0)
    assert with_utility == pytest.approx(1.0)


def test_each_part_is_lost_by_its_own_mistake() -> None:
    right = "1 sound, 2 unit slip, 3 sound"
    far = earned(said(0.8, right), FLAWED_ONE, partner_mean=0.9, partner_target=0.95)
    assert far == pytest.approx(0.5 * (1 - 0.25) + 0.4)
    disordered = earned(said(0.3, right), FLAWED_ONE, partner_mean=0.2, partner_target=0.95)
    assert disordered == pytest.approx(0.7)
    elsewhere = earned(
        said(0.3, "1 unit slip, 2 sound"), FLAWED_ONE, partner_mean=0.9, partner_target=0.95
    )
    assert elsewhere == pytest.approx(0.7)
    one_too_many = earned(
        said(0.3, "1 wrong tool, 2 unit slip"), FLAWED_ONE, partner_mean=0.9, partner_target=0.95
    )
    assert one_too_many == pytest.approx(0.7 + 0.2 * 2 / 3)


def test_what_does_not_parse_earns_nothing() -> None:
    assert earned(said(None), FLAWED_ONE, partner_mean=0.9, partner_target=0.95) == 0.0


def test_without_a_scored_partner_nothing_is_ordered_right() -> None:
    assert earned(said(0.95), CLEAN_ONE) == pytest.approx(0.7)


def test_a_critique_that_gives_the_answer_away_has_no_utility() -> None:
    task = Task(CLEAN_ONE.trajectory.task.question, "Quorvax")
    record = replace(CLEAN_ONE, trajectory=replace(CLEAN_ONE.trajectory, task=task))
    telling = earned(said(0.95, critique="It is Quorvax."), record, utility=1.0)
    silent = earned(said(0.95, critique="Look again."), record, utility=1.0)
    assert silent - telling == pytest.approx(0.1)


def test_flaws_are_read_from_the_taught_form() -> None:
    taught = judgement_text(FLAWED_ONE)
    assert "2 unit slip" in taught
    assert named_flaws("1 sound, 2 unit slip, 3 sound") == {(1, "unit_slip")}
    assert named_flaws("nothing of the form") == set()
    assert f1(set(), set()) == 1.0
    assert f1({(1, "a")}, {(1, "a"), (2, "b")}) == pytest.approx(2 / 3)


def test_partners_are_ordered_against_the_mean_of_the_other_group() -> None:
    def group(record: PlantedRecord, *scores: float | None) -> list[Judged]:
        return [Judged(record, Sample(), said(score)) for score in scores]

    parts = rewarded(
        [group(FLAWED_ONE, 0.3, 0.9), group(CLEAN_ONE, 0.95, 0.5, None)], [[0.0, 0.0], [0.0] * 3]
    )
    flawed, clean = ([one.total for one in each] for each in parts)
    assert flawed == pytest.approx([0.5 + 0.2, 0.5 * (1 - 0.36)])  # the others' mean is 0.725
    assert clean == pytest.approx([0.5 + 0.2 + 0.2, 0.5 * (1 - 0.2025) + 0.2, 0.0])  # 0.6


def test_pairs_are_a_flaw_and_its_clean_partner() -> None:
    twin = replace(CLEAN_ONE, kind="rephrased", benign=True, pair_id="b")
    other = replace(CLEAN_ONE, pair_id="b")
    assert flawed_pairs([FLAWED_ONE, CLEAN_ONE, twin, other]) == [(FLAWED_ONE, CLEAN_ONE)]


def test_a_run_leaves_a_judge_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    small: dict[str, Any] = {**judge_model.SHAPE, "hidden_size": 24, "num_hidden_layers": 1}
    monkeypatch.setattr(judge_model, "SHAPE", small)
    tokenizer = make_judge_tokenizer([judgement_text(FLAWED_ONE)])
    model = make_judge_model(tokenizer)
    save_judge(tmp_path / "old", model, tokenizer, view="marks", max_new_tokens=60)
    (tmp_path / "old" / "sound").mkdir()
    (tmp_path / "old" / "sound" / "tokenizer.json").write_text("{}")
    write_records(tmp_path / "data.jsonl", [FLAWED_ONE, CLEAN_ONE])
    config = JudgeRlConfig(
        judge=str(tmp_path / "old"),
        data=str(tmp_path / "data.jsonl"),
        out=str(tmp_path / "new"),
        updates=1,
        group_size=2,
        max_new_tokens=12,
        policy="",
    )
    lines: list[str] = []
    folder = run_judge_rl(config, say=lines.append)
    assert folder == tmp_path / "new" / "judge"
    assert (folder / "sound" / "tokenizer.json").is_file()  # what corrects the judge goes along
    judge: Any = make_reward_model(str(folder))
    assert lines[0].startswith("update 1/1: reward 0.000, parsed 0.00")
    assert (judge.view, judge.max_new_tokens) == ("marks", 60)


def test_data_without_pairs_is_refused(tmp_path: Path) -> None:
    tokenizer = make_judge_tokenizer([judgement_text(FLAWED_ONE)])
    save_judge(
        tmp_path / "old", make_judge_model(tokenizer), tokenizer, view="marks", max_new_tokens=60
    )
    write_records(tmp_path / "data.jsonl", [CLEAN_ONE])
    config = JudgeRlConfig(
        judge=str(tmp_path / "old"), data=str(tmp_path / "data.jsonl"), out=str(tmp_path / "new")
    )
    with pytest.raises(ValueError, match="holds no flawed record"):
        run_judge_rl(config)


def test_pairwise_is_counted_on_the_kind_asked_for() -> None:
    better = replace(CLEAN_ONE, trajectory=example_trajectory(4), turn_targets=(0.95,) * 4)
    tie = [replace(one, pair_id="b") for one in (FLAWED_ONE, CLEAN_ONE)]
    other = [replace(FLAWED_ONE, kind="wrong_tool", pair_id="c"), replace(CLEAN_ONE, pair_id="c")]

    class ByLength:
        def judge(self, trajectories: Any) -> list[Judgement]:
            return [Judgement(score=len(each.turns) / 10) for each in trajectories]

    records = [FLAWED_ONE, better, *tie, *other]
    assert pairwise_of(ByLength(), records, "unit_slip") == 0.75  # one won, one tie
    assert pairwise_of(ByLength(), records, "wrong_tool") == 0.5


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    small: dict[str, Any] = {**judge_model.SHAPE, "hidden_size": 24, "num_hidden_layers": 1}
    monkeypatch.setattr(judge_model, "SHAPE", small)
    tokenizer = make_judge_tokenizer([judgement_text(FLAWED_ONE)])
    save_judge(
        tmp_path / "old", make_judge_model(tokenizer), tokenizer, view="marks", max_new_tokens=12
    )
    write_records(tmp_path / "data.jsonl", [FLAWED_ONE, CLEAN_ONE])

    def differs(*arguments: Any, **known: Any) -> RewardParts:
        judgement = arguments[0]
        return RewardParts(near=len(judgement.unscored or "") % 7 / 7, parsed=True)

    def run(out: str, updates: int) -> tuple[Path, list[str]]:
        lines: list[str] = []
        folder = run_judge_rl(
            JudgeRlConfig(
                judge=str(tmp_path / "old"),
                data=str(tmp_path / "data.jsonl"),
                out=str(tmp_path / out),
                updates=updates,
                group_size=2,
                checkpoint_every=1,
                policy="",
            ),
            say=lines.append,
        )
        return folder, lines

    monkeypatch.setattr(judge_rl, "reward_parts", differs)
    whole, lines = run("whole", 3)
    run("parts", 1)
    parts, later = run("parts", 3)
    assert later == [*lines[1:3], lines[-1].replace("whole", "parts")]
    weights = [(one / "model.safetensors").read_bytes() for one in (whole, parts)]
    assert weights[0] == weights[1]
    metrics = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["update"] for line in metrics] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"other settings \(group_size\)"):
        run_judge_rl(
            JudgeRlConfig(
                judge=str(tmp_path / "old"),
                data=str(tmp_path / "data.jsonl"),
                out=str(tmp_path / "parts"),
                updates=3,
                group_size=4,
                policy="",
            )
        )
