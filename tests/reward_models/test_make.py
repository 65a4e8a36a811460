"""Finding a reward model by name, the two controls, and the count of the unscored."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import reagent_env.reward_models as reward_models
from reagent_env.errors import InfrastructureError
from reagent_env.judgement import Judgement
from reagent_env.reward_models import (
    JudgeUnavailable,
    RewardModel,
    UnscoredMonitor,
    make_reward_model,
    reward_model_names,
)
from reagent_env.reward_models.base import Unscored, judged_attempt, kind_of, up_to_attempt
from reagent_env.reward_models.noise import ConstantJudge, NoiseJudge
from reagent_env.reward_models.served import ServedJudge
from reagent_env.testing import example_trajectory
from reagent_env.testing.reward_model_contract import RewardModelContract


class TestNoiseKeepsTheContract(RewardModelContract):
    def make_reward_model(self) -> RewardModel:
        return NoiseJudge(seed=3)


class TestAConstantKeepsTheContract(RewardModelContract):
    def make_reward_model(self) -> RewardModel:
        return ConstantJudge(0.25)


def test_names_are_found() -> None:
    assert isinstance(make_reward_model("noise", seed=4), NoiseJudge)
    assert isinstance(make_reward_model("constant", score=0.1), ConstantJudge)
    assert {"constant", "noise", "rubric", "tiny-rrm"} <= set(reward_model_names())


def test_a_url_is_a_served_model() -> None:
    judge = make_reward_model("http://127.0.0.1:8000/v1#org/model", concurrency=4)
    assert isinstance(judge, ServedJudge)
    assert (judge.base_url, judge.model) == ("http://127.0.0.1:8000/v1", "org/model")
    assert judge.concurrency == 4


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("nois", ValueError, "Did you mean 'noise'"),
        ("zzz", ValueError, "Known: constant, noise"),
        ("http://127.0.0.1:8000/v1", ValueError, "http://host:8000/v1#model"),
        ("https://#m", ValueError, "http://host:8000/v1#model"),
        ("./no/such/folder", ValueError, "No folder"),
    ],
)
def test_what_cannot_be_made_says_what_can(name: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        make_reward_model(name)


def test_without_its_weights_the_small_judge_says_what_else_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(reward_models, "TINY_FOLDER", tmp_path)
    with pytest.raises(NotImplementedError, match="reagent train judge-sft"):
        make_reward_model("tiny-rrm")


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json is wanted"):
        make_reward_model(str(tmp_path))


def test_another_package_adds_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_judge.py").write_text(
        "from reagent_env.reward_models.noise import ConstantJudge\n"
        "def make(score=0.75): return ConstantJudge(score)\n"
    )
    info = tmp_path / "their_judge-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: their-judge\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[reagent_env.reward_models]\ntheirs = their_judge:make\nnoise = their_judge:make\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert make_reward_model("theirs", score=0.5).judge([example_trajectory()])[0].score == 0.5
    assert "theirs" in reward_model_names()
    assert isinstance(make_reward_model("noise"), NoiseJudge)  # ours cannot be replaced unseen


def test_what_is_exported_exists_and_is_sorted() -> None:
    assert reward_models.__all__ == sorted(reward_models.__all__)
    assert all(getattr(reward_models, name) is not None for name in reward_models.__all__)


def test_making_a_control_loads_no_client() -> None:
    program = (
        "import sys; from reagent_env.reward_models import make_reward_model;"
        "make_reward_model('noise'); assert not {'openai', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_noise_is_uniform_and_depends_on_seed_and_content() -> None:
    batch = [example_trajectory(turns) for turns in range(1, 301)]
    scores = [judgement.score or 0.0 for judgement in NoiseJudge(0).judge(batch)]
    assert len(set(scores)) == len(scores)
    assert abs(sum(scores) / len(scores) - 0.5) < 0.05
    assert abs(sum(score**2 for score in scores) / len(scores) - 1 / 3) < 0.05
    assert NoiseJudge(1).judge(batch[:1])[0].score != scores[0]


def test_noise_of_a_prefix_is_noise_of_the_whole() -> None:
    whole = example_trajectory(4)
    attempt = whole.attempts[0]
    scores = NoiseJudge().judge([whole])[0].turn_scores
    assert scores is not None
    for turns in range(1, 5):
        prefix = replace(whole, attempts=(replace(attempt, turns=attempt.turns[:turns]),))
        assert NoiseJudge().judge([prefix])[0].score == scores[turns - 1]


def test_a_constant_outside_the_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        ConstantJudge(1.5)


def test_a_wrong_attempt_is_the_callers_mistake() -> None:
    with pytest.raises(IndexError, match="1 attempts"):
        judged_attempt(example_trajectory(), 1)
    with pytest.raises(IndexError):
        up_to_attempt(example_trajectory(), -2)
    assert judged_attempt(replace(example_trajectory(), attempts=())) is None


def test_the_kind_is_the_word_before_the_colon() -> None:
    assert kind_of(Judgement(score=0.0)) is None
    assert kind_of(Judgement(unscored="transport: HTTP 503")) is Unscored.TRANSPORT
    assert kind_of(Judgement(unscored="someone else's words")) is Unscored.OTHER


def test_the_monitor_counts_by_kind_length_and_outcome() -> None:
    short, long = example_trajectory(1), example_trajectory(6)
    wrong = replace(long, attempts=(replace(long.attempts[0], outcome=0.0),))
    monitor = UnscoredMonitor()
    missing = Judgement(unscored="unparsed: no <think> where it belongs")
    overflow = Judgement(unscored="context_overflow: HTTP 400")
    scored = Judgement(score=0.0)
    monitor.observe([short, short, wrong, wrong], [scored, scored, missing, overflow])
    counts = monitor.counts()
    assert (counts.judged, counts.unscored, counts.rate) == (4, 2, 0.5)
    assert counts.by_kind == {"unparsed": 1, "context_overflow": 1}
    assert counts.rate_by_length == {"1": 0.0, "5-8": 1.0}
    assert counts.rate_by_outcome == {"right": 0.0, "wrong": 1.0}


def test_training_stops_when_too_many_recent_judgements_are_unscored() -> None:
    monitor = UnscoredMonitor(threshold=0.2, window=40, at_least=20)
    trajectory = example_trajectory()
    missing = Judgement(unscored="transport: HTTP 503")
    monitor.observe([trajectory] * 10, [missing] * 10)
    monitor.check()  # too few to say
    monitor.observe([trajectory] * 30, [Judgement(score=0.5)] * 30)
    assert monitor.recent_rate == 0.25
    with pytest.raises(JudgeUnavailable, match=r"25% of the last 40 .*transport 10"):
        monitor.check()
    assert issubclass(JudgeUnavailable, InfrastructureError)
    monitor.observe([trajectory] * 40, [Judgement(score=0.5)] * 40)
    monitor.check()  # the bad ones are no longer recent


def test_the_monitor_wants_a_judgement_a_trajectory() -> None:
    with pytest.raises(ValueError, match=r"zip\(\)"):
        UnscoredMonitor().observe([example_trajectory()], [])


def test_the_single_one_is_the_first_of_the_small_judges_models() -> None:
    pytest.importorskip("transformers")
    both: Any = make_reward_model("tiny-rrm")
    alone: Any = make_reward_model("tiny-rrm-single")
    assert both.inner.members[0].folder == alone.inner.folder
    assert both.sound.folder == alone.sound.folder
    assert len(both.inner.members) == 2
    assert not hasattr(alone.inner, "members")
