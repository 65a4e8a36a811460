"""F1 of the flaws that a reasoning names, by hand."""

from __future__ import annotations

import dataclasses

import pytest

from reagent_env.agents.judge_data.records import CLEAN, PlantedRecord
from reagent_env.agents.judge_eval.naming import named_flaws, names_flaws, naming_report
from reagent_env.judgement import Judgement
from reagent_env.reward_models import make_reward_model
from reagent_env.testing import example_trajectory

CLEAN_ONE = PlantedRecord(example_trajectory(3), CLEAN, None, 0.95, "", (0.95,) * 3, "a")
FLAWED = PlantedRecord(example_trajectory(3), "unit_slip", 1, 0.3, "", (0.95, 0.3, 0.3), "a")


def said(reasoning: str) -> Judgement:
    return Judgement(reasoning=reasoning, score=0.5)


def test_both_forms_are_read_and_prose_is_not() -> None:
    assert named_flaws("1 sound, 2 unit slip, 3 sound") == {(1, "unit_slip")}
    rubric = "Turn 1: no flaw found.\n  Quality …\nTurn 2: once more [unit_slip, severity 0.25]."
    assert named_flaws(rubric) == {(1, "unit_slip")}
    assert names_flaws(rubric)
    assert names_flaws("1 sound")
    assert not names_flaws("In turn 2 it made 3 calls, which is too many.")


def test_the_rubric_names_flaws_in_the_form_that_is_read() -> None:
    (judgement,) = make_reward_model("rubric").judge([example_trajectory(3)])
    assert names_flaws(judgement.reasoning)


def test_f1_counts_turn_and_kind_and_the_silence_on_clean_work() -> None:
    records = [FLAWED, FLAWED, FLAWED, CLEAN_ONE]
    report = naming_report(
        records,
        [
            said("1 sound, 2 unit slip, 3 sound"),  # 1
            said("1 sound, 2 wrong tool, 3 sound"),  # turn right, kind wrong: 0
            said("1 sound, 2 unit slip, 3 wrong tool"),  # one too many: 2/3
            said("1 sound, 2 sound, 3 sound"),  # 1
        ],
    )
    assert report is not None
    assert report["f1"]["value"] == pytest.approx((1 + 0 + 2 / 3 + 1) / 4)
    assert report["f1_flawed"]["value"] == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert report["f1_of_turns"]["value"] == pytest.approx((1 + 1 + 2 / 3 + 1) / 4)
    assert report["by_kind"] == {"unit_slip": pytest.approx(5 / 9)}


def test_a_judge_that_names_nothing_has_no_f1() -> None:
    prose = [said("It is fine.")] * 2
    assert naming_report([FLAWED, CLEAN_ONE], prose) is None
    gone = dataclasses.replace(prose[0], score=None, unscored="transport: down")
    assert naming_report([FLAWED], [gone]) is None
