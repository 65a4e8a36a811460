"""Several judges as one."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest

from reagent_env.judgement import Judgement
from reagent_env.reward_models import make_reward_model
from reagent_env.reward_models.base import up_to_attempt
from reagent_env.reward_models.ensemble import EnsembleJudge, together
from reagent_env.reward_models.noise import ConstantJudge
from reagent_env.reward_models.rubric import RubricJudge
from reagent_env.testing import example_trajectory
from reagent_env.testing.reward_model_contract import RewardModelContract

FIRST = Judgement("1 sound", "Go on.", 0.9, (0.8, 0.9), latency_s=0.1, tokens=10)
SECOND = Judgement("1 lucky guess", "Search.", 0.5, (0.2, 0.5), latency_s=0.2, tokens=20)
SILENT = Judgement(unscored="unparsed: no score", latency_s=0.3, tokens=5)


class TestContract(RewardModelContract):
    def make_reward_model(self) -> EnsembleJudge:
        return EnsembleJudge([RubricJudge(), ConstantJudge(0.5)])


def test_scores_and_turn_scores_are_means_and_the_words_are_the_firsts() -> None:
    judged = together([FIRST, SECOND])
    assert judged.score == pytest.approx(0.7)
    assert judged.turn_scores == pytest.approx((0.5, 0.7))
    assert (judged.reasoning, judged.critique) == ("1 sound", "Go on.")
    assert (judged.latency_s, judged.tokens) == (pytest.approx(0.3), 30)


def test_a_member_without_a_score_has_no_say_but_its_cost_counts() -> None:
    judged = together([SILENT, SECOND])
    assert (judged.score, judged.turn_scores, judged.critique) == (0.5, (0.2, 0.5), "Search.")
    assert judged.tokens == 25
    assert together([SILENT, SILENT]).unscored == "unparsed: no score"


def test_a_turn_of_which_one_member_knows_nothing_has_the_others_score() -> None:
    partly = Judgement("", "", 0.5, (None, 0.5))
    assert together([FIRST, partly]).turn_scores == pytest.approx((0.8, 0.7))
    assert together([FIRST, Judgement(score=0.5)]).turn_scores == pytest.approx((0.8, 0.7))


@dataclass
class Patient:
    patience_s: float = math.inf


def test_it_waits_as_long_as_its_most_patient_member() -> None:
    assert EnsembleJudge([ConstantJudge(), Patient()]).patience_s == math.inf
    with pytest.raises(ValueError, match="got none"):
        EnsembleJudge([])


def test_it_travels_and_judges_any_attempt() -> None:
    judge = pickle.loads(pickle.dumps(EnsembleJudge([RubricJudge(), ConstantJudge(0.5)])))
    trajectory = example_trajectory(2)
    (of_first,) = judge.judge([trajectory], attempt=0)
    (cut,) = judge.judge([up_to_attempt(trajectory, 0)])
    assert of_first.score == cut.score


@pytest.mark.parametrize("members", ['"second"', '["nowhere"]', '["../judge"]', "[7]"])
def test_a_folder_that_names_members_that_are_not_there_says_so(
    tmp_path: Path, members: str
) -> None:
    folder = tmp_path / "judge"
    folder.mkdir()
    (folder / "judge.json").write_text(json.dumps({"members": json.loads(members)}))
    with pytest.raises(ValueError, match="members is a list of folders"):
        make_reward_model(str(folder))
