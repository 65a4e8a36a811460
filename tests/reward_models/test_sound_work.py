"""How rare an attempt is among sound ones, and what that does to its scores."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reagent_env.judgement import Judgement
from reagent_env.reward_models import make_reward_model
from reagent_env.reward_models.noise import ConstantJudge
from reagent_env.reward_models.sound_work import (
    FALL,
    Rarity,
    SoundWork,
    SoundWorkJudge,
    lowered,
    with_sound_work,
)
from reagent_env.testing import example_trajectory
from reagent_env.testing.reward_model_contract import RewardModelContract
from reagent_env.trajectory import Trajectory

torch = pytest.importorskip("torch")

from reagent_env.reward_models.marks import marked_messages  # noqa: E402
from reagent_env.trainers.judge import model as judge_model  # noqa: E402
from reagent_env.trainers.judge.model import make_judge_model, make_judge_tokenizer  # noqa: E402

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
SAID = Judgement("1 sound", "Go on.", 0.9, (0.8, None, 0.9))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with drawn weights, by which sound work has 4 to 6 nats a token."""
    torch.set_num_threads(1)
    made = tmp_path_factory.mktemp("judge") / "sound"
    texts = [marked_messages(example_trajectory(turns)) or [] for turns in (2, 3, 4)]
    tokenizer = make_judge_tokenizer(one[-1]["content"] for one in texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge_model, "SHAPE", SMALL)
        model = make_judge_model(tokenizer)
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    describe(made, [4.0, 5.0, 6.0])
    return made


def describe(folder: Path, surprisals: Any, view: str = "marks") -> None:
    (folder / "sound.json").write_text(json.dumps({"view": view, "surprisals": surprisals}))


class TestContract(RewardModelContract):
    @pytest.fixture(autouse=True)
    def _folder(self, folder: Path) -> None:
        self.folder = folder

    def make_reward_model(self) -> SoundWorkJudge:
        return SoundWorkJudge(ConstantJudge(0.9), SoundWork(self.folder))


def test_the_usual_costs_nothing_and_the_unheard_of_the_most() -> None:
    assert lowered(SAID, Rarity(0.5, (0.2, 0.5, 1.0))) is SAID
    assert lowered(SAID, Rarity(0.25, (0.2, 0.5, 1.0))).score == pytest.approx(0.9 - FALL / 2)
    fallen = lowered(SAID, Rarity(0.0, (0.25, 0.5, 1.0)))
    assert fallen.score == pytest.approx(0.9 - FALL)
    assert fallen.turn_scores == (pytest.approx(0.8 - FALL / 4), None, fallen.score)
    assert (fallen.reasoning, fallen.critique) == (SAID.reasoning, SAID.critique)


def test_no_score_is_made_up_and_none_falls_below_zero() -> None:
    silent = Judgement(unscored="unparsed: nothing")
    assert lowered(silent, Rarity(0.0, (1.0,))) is silent
    low = lowered(Judgement(score=0.1, turn_scores=(0.0, 0.1)), Rarity(0.0, (0.5, 1.0)))
    assert (low.score, low.turn_scores) == (0.0, (0.0, 0.0))


def test_surprise_is_minus_the_log_probability_of_each_token(folder: Path) -> None:
    sound = SoundWork(folder)
    views = [[5, 9, 7, 4], [8, 6]]
    found = sound.surprise(views)
    for ids, nats in zip(views, found, strict=True):
        with torch.inference_mode():
            logits = sound._loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        wanted = [-float(logits[place, token]) for place, token in enumerate(ids[1:])]
        assert nats == pytest.approx(wanted, abs=1e-5)
    assert sound.surprise([]) == []


def test_rarity_is_the_rank_among_sound_attempts_and_turns_share_the_surprise(
    folder: Path, tmp_path: Path
) -> None:
    trajectory = example_trajectory(3)
    sound = SoundWork(folder)
    (ids,) = [tuple(sound._loaded.encode(marked_messages(trajectory) or []))]
    (nats,) = sound.surprise([ids])
    mean = sum(nats) / len(nats)
    sound._surprisals = [mean - 0.2, mean - 0.1, mean + 0.1, mean + 0.2]
    (rarity,) = sound.rarities([trajectory])
    assert rarity is not None
    assert rarity.share == 0.5
    lines = sound._loaded.tokenizer.decode(ids).split("\n")
    assert len(rarity.by_turn) == 3 == len(lines) - 2
    ends = [place for place, token in enumerate(ids) if token == sound._newline]
    of_turns = [sum(nats[a:b]) for a, b in pairwise(ends)]
    assert rarity.by_turn[0] == pytest.approx(of_turns[0] / sum(of_turns), abs=1e-4)
    assert rarity.by_turn[-1] == 1.0
    sound._surprisals = [round(mean, 4)]  # as surprising as: counted
    assert sound.rarities([trajectory])[0] == replace(rarity, share=1.0)


def test_what_has_no_view_is_left_as_it_was(folder: Path) -> None:
    sound = SoundWork(folder)
    long, none = example_trajectory(40), replace(example_trajectory(2), attempts=())
    assert sound.rarities([long, none]) == [None, None]
    (judged,) = SoundWorkJudge(ConstantJudge(0.9), sound).judge([long])
    assert judged.score == 0.9


def test_a_judges_folder_with_a_model_of_sound_work_uses_it(folder: Path, tmp_path: Path) -> None:
    judge = ConstantJudge(0.9)
    assert with_sound_work(judge, tmp_path) is judge
    corrected = with_sound_work(judge, folder.parent)
    describe(folder, [0.0])  # nothing sound is as surprising
    try:
        judged = with_sound_work(judge, folder.parent).judge([example_trajectory(2)])[0]
    finally:
        describe(folder, [4.0, 5.0, 6.0])
    assert judged.score == pytest.approx(0.5)
    assert corrected.patience_s == getattr(judge, "patience_s", 0.0)


def test_it_travels_and_judges_any_attempt(folder: Path) -> None:
    judge = pickle.loads(pickle.dumps(SoundWorkJudge(ConstantJudge(0.9), SoundWork(folder))))
    trajectory = example_trajectory(2)
    assert judge.judge([trajectory], attempt=0)[0].score is not None
    with pytest.raises(IndexError):
        judge.judge([trajectory], attempt=5)


def test_equal_views_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = SoundWork(folder)
    asked: list[int] = []
    surprise = sound.surprise
    monkeypatch.setattr(
        sound, "surprise", lambda views: asked.append(len(views)) or surprise(views)
    )
    trajectories: list[Trajectory] = [example_trajectory(2)] * 5
    assert len(set(sound.rarities(trajectories))) == 1
    assert asked == [1]


@pytest.mark.parametrize(
    ("surprisals", "view", "words"),
    [
        ([], "marks", "numbers that rise"),
        ([2.0, 1.0], "marks", "numbers that rise"),
        (["much"], "marks", "holds view and surprisals"),
        ([1.0], "record", "A short view is one of marks"),
    ],
)
def test_a_folder_that_is_no_such_model_says_so(
    tmp_path: Path, surprisals: Any, view: str, words: str
) -> None:
    describe(tmp_path, surprisals, view)
    with pytest.raises(ValueError, match=words):
        SoundWork(tmp_path)
    (tmp_path / "sound.json").unlink()
    with pytest.raises(ValueError, match="No model of sound work"):
        SoundWork(tmp_path)


def test_the_shipped_judge_has_one_and_a_repeated_call_is_rare_by_it() -> None:
    judge: Any = make_reward_model("tiny-rrm")
    assert isinstance(judge, SoundWorkJudge)
    once = example_trajectory(3)
    attempt = once.attempts[0]
    again = replace(attempt, turns=(*attempt.turns[:1], *attempt.turns))
    shares = [
        rarity.share
        for rarity in judge.sound.rarities([once, replace(once, attempts=(again,))])
        if rarity is not None
    ]
    assert len(shares) == 2
    assert shares[1] <= shares[0]
    assert not math.isnan(shares[0])
