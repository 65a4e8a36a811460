"""How rare an attempt is among sound ones, and what that does to its scores."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reagent_env.agents.judge_data.planting import plant
from reagent_env.judgement import Judgement
from reagent_env.reward_models import make_reward_model, sound_work
from reagent_env.reward_models.base import prefixes_of
from reagent_env.reward_models.batched import PATIENCE_S, BatchedJudge
from reagent_env.reward_models.noise import ConstantJudge
from reagent_env.reward_models.rubric import RubricJudge
from reagent_env.reward_models.sound_work import (
    FALL,
    USUAL,
    Rarity,
    SoundWork,
    SoundWorkJudge,
    by_line,
    lowered,
    surprisal,
    surprise,
    tool_set,
    with_sound_work,
)
from reagent_env.testing import example_trajectory
from reagent_env.testing.reward_model_contract import RewardModelContract
from reagent_env.trajectory import Trajectory

torch = pytest.importorskip("torch")

from reagent_env.reward_models.marks import marked_messages  # noqa: E402
from reagent_env.trainers.judge.model import make_judge_model, make_judge_tokenizer  # noqa: E402
from reagent_env.trainers.judge_rl import flawed_pairs  # noqa: E402

SAID = Judgement("1 sound", "Go on.", 0.9, (0.8, None, 0.9))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with drawn weights, by which sound work has 4 to 6 nats a token."""
    torch.set_num_threads(1)
    made = tmp_path_factory.mktemp("judge") / "sound"
    texts = [marked_messages(example_trajectory(turns)) or [] for turns in (2, 3, 4)]
    tokenizer = make_judge_tokenizer(one[-1]["content"] for one in texts)
    model = make_judge_model(tokenizer)
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    describe(made, [4.0, 5.0, 6.0])
    return made


def describe(folder: Path, surprisals: Any, view: str = "marks") -> None:
    stated = {"": surprisals} if isinstance(surprisals, list) else surprisals
    (folder / "sound.json").write_text(json.dumps({"view": view, "surprisals": stated}))


def lines_of(sound: SoundWork, trajectory: Trajectory) -> list[list[float]]:
    ids = sound._loaded.encode(marked_messages(trajectory) or [])
    (nats,) = surprise(sound._loaded.model, [ids])
    return by_line(ids, nats, sound._loaded.tokenizer)


class TestContract(RewardModelContract):
    @pytest.fixture(autouse=True)
    def _folder(self, folder: Path) -> None:
        self.folder = folder

    def make_reward_model(self) -> SoundWorkJudge:
        return SoundWorkJudge(ConstantJudge(0.9), SoundWork(self.folder))


def test_the_usual_costs_nothing_and_the_unheard_of_the_most() -> None:
    assert lowered(SAID, Rarity(USUAL, (0.2, 0.5, 1.0))) is SAID
    assert lowered(SAID, Rarity(USUAL / 2, (0.2, 0.5, 1.0))).score == pytest.approx(
        0.9 * (1 - FALL / 2)
    )
    fallen = lowered(SAID, Rarity(0.0, (0.25, 0.5, 1.0)))
    assert fallen.score == pytest.approx(0.9 * (1 - FALL))
    assert fallen.turn_scores == (pytest.approx(0.8 * (1 - FALL / 4)), None, fallen.score)
    assert (fallen.reasoning, fallen.critique) == (SAID.reasoning, SAID.critique)


def test_no_score_is_made_up_and_attempts_equally_rare_keep_their_order() -> None:
    silent = Judgement(unscored="unparsed: nothing")
    assert lowered(silent, Rarity(0.0, (1.0,))) is silent
    scores = [lowered(Judgement(score=one), Rarity(0.0, (1.0,))).score for one in (0, 0.1, 0.35)]
    assert scores == sorted(set(scores))
    assert scores[0] == 0


def test_surprise_is_minus_the_log_probability_of_each_token(folder: Path) -> None:
    model = SoundWork(folder)._loaded.model
    views = [[8, 6], [5, 9, 7, 4]]
    found = surprise(model, views)
    for ids, nats in zip(views, found, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        wanted = [-float(logits[place, token]) for place, token in enumerate(ids[1:])]
        assert nats == pytest.approx(wanted, abs=1e-5)
    assert surprise(model, []) == []


def test_a_broken_model_is_no_reason_to_trust_an_attempt(folder: Path) -> None:
    model = SoundWork(folder)._loaded.model
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(ValueError, match="no finite probabilities"):
        surprise(model, [[5, 9, 7]])


def test_rarity_is_the_rank_among_sound_attempts_and_turns_share_the_surprise(
    folder: Path,
) -> None:
    trajectory = example_trajectory(3)
    sound = SoundWork(folder)
    lines = lines_of(sound, trajectory)
    assert len(lines) == 5  # the question's, three turns, the end's
    mean = surprisal(lines)
    assert mean == pytest.approx(sum(map(sum, lines)) / sum(map(len, lines)))
    sound._surprisals = {"": [mean - 0.2, mean - 0.1, mean + 0.1, mean + 0.2]}
    (rarity,) = sound.rarities([trajectory])
    assert rarity is not None
    assert rarity.share == 0.5
    of_turns = [sum(line) for line in lines[1:-1]]
    assert rarity.by_turn[0] == pytest.approx(of_turns[0] / sum(of_turns), abs=1e-4)
    assert rarity.by_turn[-1] == 1.0
    sound._surprisals = {"": [round(mean, 4)]}  # as surprising as: counted
    assert sound.rarities([trajectory])[0] == replace(rarity, share=1.0)


def test_what_is_usual_depends_on_the_tools_at_hand(folder: Path) -> None:
    trajectory = example_trajectory(3)
    sound = SoundWork(folder)
    sound._surprisals = {"": [100.0], tool_set(trajectory): [0.0]}
    others = replace(trajectory, tools=({"name": "search"}, {"name": "browse"}))
    assert tool_set(others) == "browse,search"
    rare, usual = sound.rarities([trajectory, others])
    assert rare is not None
    assert usual is not None
    assert (rare.share, usual.share) == (0.0, 1.0)


def test_step_by_step_each_turn_is_lowered_by_what_had_come_by_then(folder: Path) -> None:
    sound = SoundWork(folder)
    trajectory = example_trajectory(3)
    cut = [surprisal(lines_of(sound, each)) for each in prefixes_of(trajectory)]
    sound._surprisals = {"": sorted([0.0, *(one - 1e-3 for one in cut)])}
    judge = SoundWorkJudge(RubricJudge(), sound, turn_scores="prefixes")
    (judged,) = judge.judge([trajectory])
    (plain,) = RubricJudge().judge([trajectory])
    assert judged.turn_scores is not None
    assert plain.turn_scores is not None
    for number, each in enumerate(prefixes_of(trajectory)):
        (rarity,) = sound.rarities([each])
        assert rarity is not None
        factor = 1 - FALL * max(0.0, 1 - rarity.share / USUAL)
        assert judged.turn_scores[number] == pytest.approx(plain.turn_scores[number] * factor)
    assert judged.score == judged.turn_scores[-1]


def test_many_environments_ask_it_at_once_and_it_is_closed_with_what_is_in_it(
    folder: Path,
) -> None:
    closed: list[bool] = []

    class Closing(RubricJudge):
        def close(self) -> None:
            closed.append(True)

    judge = SoundWorkJudge(Closing(), SoundWork(folder))
    assert judge.patience_s == PATIENCE_S
    with contextlib.closing(BatchedJudge(judge)) as batched:
        assert batched.judge([example_trajectory(2)])[0].score is not None
    judge.close()
    assert closed


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
    assert judged.score == pytest.approx(0.9 * (1 - FALL))
    assert isinstance(corrected, SoundWorkJudge)


def test_it_travels_and_judges_any_attempt(folder: Path) -> None:
    judge = pickle.loads(pickle.dumps(SoundWorkJudge(ConstantJudge(0.9), SoundWork(folder))))
    trajectory = example_trajectory(2)
    assert judge.judge([trajectory], attempt=0)[0].score is not None
    with pytest.raises(IndexError):
        judge.judge([trajectory], attempt=5)


def test_equal_views_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = SoundWork(folder)
    asked: list[int] = []

    def counted(model: Any, views: Any) -> Any:
        asked.append(len(views))
        return surprise(model, views)

    monkeypatch.setattr(sound_work, "surprise", counted)
    trajectories: list[Trajectory] = [example_trajectory(2)] * 5
    assert len(set(sound.rarities(trajectories))) == 1
    assert asked == [1]


@pytest.mark.parametrize(
    ("surprisals", "view", "words"),
    [
        ([], "marks", "numbers that rise"),
        ([2.0, 1.0], "marks", "numbers that rise"),
        ([math.nan], "marks", "numbers that rise"),
        ({"search": [1.0]}, "marks", "one is of ''"),
        ({"": "12"}, "marks", "holds view, and surprisals"),
        ({"": [10**400]}, "marks", "holds view, and surprisals"),
        (["much"], "marks", "holds view, and surprisals"),
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


def test_the_shipped_judge_finds_sound_work_usual_and_a_repeated_call_rare() -> None:
    judge: Any = make_reward_model("tiny-rrm")
    assert isinstance(judge, SoundWorkJudge)
    pairs = flawed_pairs(list(plant("reagent/MiniMix-v0", 8, split="test", sandbox="process")))
    repeated = [pair for pair in pairs if pair[0].kind == "repeated_call"]
    assert repeated
    for flawed, clean in repeated:
        rare, usual = judge.sound.rarities([flawed.trajectory, clean.trajectory])
        assert rare is not None
        assert usual is not None
        assert rare.share < 0.05 < usual.share
