"""A judge that doubts its verdicts gives a score nearer the mean."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from reagent_env.judgement import Judgement
from reagent_env.reward_models import make_reward_model
from reagent_env.reward_models.certainty import Certainty, doubted
from reagent_env.testing import example_trajectory

torch = pytest.importorskip("torch")

from reagent_env.trainers.judge.examples import JudgeExample  # noqa: E402
from reagent_env.trainers.judge.model import make_judge_model, make_judge_tokenizer  # noqa: E402
from reagent_env.trainers.judge_sft import mean_score, save_judge  # noqa: E402

TEXT = (
    "<think>1 sound</think>\n<critique>Go on.</critique>\n"
    "<turns>[0.9, 0.9]</turns>\n<score>0.9</score>"
)


def test_a_doubted_judgement_moves_toward_the_prior_in_every_score() -> None:
    said = Judgement("r", "c", score=0.95, turn_scores=(0.2, None, 0.95))
    assert doubted(said, 1.0, prior=0.6) == said
    moved = doubted(said, 0.5, prior=0.6)
    assert moved.score == pytest.approx(0.775)
    assert moved.turn_scores == pytest.approx((0.4, None, 0.775))
    nothing = Judgement(unscored="unparsed: nothing")
    assert doubted(nothing, 0.5, prior=0.6) is nothing


def test_certainty_is_the_probability_of_the_reasoning_and_of_no_more() -> None:
    certainty = Certainty()
    for chances in ([0.5, 0.3, 0.2], [0.8, 0.1, 0.1], [0.4, 0.3, 0.3]):
        scores = torch.tensor([chances, [1 / 3] * 3]).log()
        assert certainty(None, scores) is scores
    assert certainty.of(0, [0, 2, 0], closing=2) == pytest.approx(0.4)
    assert certainty.of(1, [0, 2, 0], closing=2) == pytest.approx(1 / 9)
    assert certainty.of(0, [0, 1, 0], closing=2) == 1.0
    assert certainty.of(0, [0, 2, 0], closing=None) == 1.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    tokenizer = make_judge_tokenizer([TEXT] * 50, vocabulary=400)
    save_judge(
        tmp_path,
        make_judge_model(tokenizer),
        tokenizer,
        view="record",
        max_new_tokens=60,
        prior=0.4,
    )
    return tmp_path


def test_the_folder_says_the_prior_and_the_judge_uses_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge: Any = make_reward_model(str(folder))
    monkeypatch.setattr(type(judge._loaded), "encode", lambda self, messages: [1, 1])

    def dictated(**given: Any) -> Any:
        ids = judge._loaded.tokenizer(TEXT + "<|end|>", add_special_tokens=False)["input_ids"]
        closing = judge._loaded.tokenizer.convert_tokens_to_ids("</think>")
        for place, token in enumerate(ids):
            chance = 0.5 if place in (0, 2) else 1.0
            scores = torch.full((1, len(judge._loaded.tokenizer)), -math.inf)
            scores[0, token], scores[0, closing - 1] = math.log(chance), math.log(1.0001 - chance)
            for processor in given["logits_processor"]:
                processor(torch.tensor([[1, 1, *ids[:place]]]), scores)
        return torch.tensor([[1, 1, *ids]])

    monkeypatch.setattr(judge._loaded.model, "generate", dictated)
    (said,) = judge.judge([example_trajectory(2)])
    assert said.score == pytest.approx(0.25 * 0.9 + 0.75 * 0.4, abs=1e-3)
    judge.prior = None
    judge._remembered.clear()
    assert judge.judge([example_trajectory(2)])[0].score == 0.9


@pytest.mark.parametrize("prior", [-0.1, 1.5, "much"])
def test_a_prior_out_of_range_is_refused(folder: Path, prior: Any) -> None:
    settings = json.loads((folder / "judge.json").read_text())
    (folder / "judge.json").write_text(json.dumps({**settings, "prior": prior}))
    with pytest.raises(ValueError, match=r"prior lies in \[0, 1\]"):
        make_reward_model(str(folder))


def test_the_prior_is_the_mean_of_what_was_taught() -> None:
    taught = [JudgeExample([], f"…<score>{score}</score>", "clean") for score in (0.2, 0.9)]
    assert mean_score(taught) == pytest.approx(0.55)
