"""A model that cannot count writes one entry a turn all the same, and only in its lists."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from reagent_env.reward_models import make_reward_model
from reagent_env.reward_models.base import Unscored, kind_of
from reagent_env.reward_models.turn_count import TurnCount, held_lists
from reagent_env.testing import example_trajectory

torch = pytest.importorskip("torch")

from reagent_env.trainers.judge.model import make_judge_tokenizer  # noqa: E402
from reagent_env.trainers.judge_sft import save_judge  # noqa: E402

TEXT = (
    "<think>1 sound</think><critique>Go</critique>"
    "<turns>[0.5, 0.5]</turns><score>0.25</score><|end|>"
)


def poor_counter(folder: Path, goes_on: float, stops: float) -> Path:
    """A model that writes ``TEXT`` token by token, and after a turn score goes by its two leanings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    tokenizer = make_judge_tokenizer([TEXT] * 50, vocabulary=400)
    ids = tokenizer(f"<|judge|>{TEXT}", add_special_tokens=False)["input_ids"]
    size = len(tokenizer)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=size + size % 2,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            max_position_embeddings=512,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(*model.model.embed_tokens.weight.shape))
        model.lm_head.weight.zero_()
        for here, following in itertools.pairwise(ids):
            model.lm_head.weight[following, here] = 1.0
        comma, closing = tokenizer.convert_tokens_to_ids([",", "]"])
        for score in ids[ids.index(comma) - 1], ids[ids.index(comma) + 1]:
            model.lm_head.weight[[comma, closing], score] = torch.tensor([goes_on, stops])
    save_judge(folder, model, tokenizer, view="record", max_new_tokens=60)
    return folder


@pytest.mark.parametrize(("goes_on", "stops"), [(1.0, 0.5), (0.5, 1.0)])
def test_a_list_that_would_never_end_or_end_at_once_has_an_entry_a_turn(
    tmp_path: Path, goes_on: float, stops: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge: Any = make_reward_model(str(poor_counter(tmp_path, goes_on, stops)))
    monkeypatch.setattr(type(judge._loaded), "encode", lambda self, messages: [1, 1])
    asked = [example_trajectory(turns) for turns in (1, 2, 5)]
    one, two, five = judge.judge(asked)
    assert one.turn_scores == (0.25,)
    assert two.turn_scores == (0.5, 0.25)
    assert five.turn_scores == (0.5, 0.5, 0.5, 0.5, 0.25)

    judge._remembered.clear()
    object.__setattr__(judge._loaded, "lists", ())
    free = [kind_of(each) for each in judge.judge(asked[1:])]
    assert free == [Unscored.UNPARSED] * 2, "left to itself it is no judge of two turns or five"


def test_verdicts_are_held_too_and_commas_elsewhere_are_not() -> None:
    tokenizer = make_judge_tokenizer([TEXT] * 50, vocabulary=400)
    turns, thought = held_lists(tokenizer, verdicts=True)
    assert held_lists(tokenizer, verdicts=False) == (turns,)
    held = TurnCount([turns, thought], [2, 3], "cpu")
    comma, closing = thought.comma, thought.closing
    steps: list[tuple[int, int]] = [thought.opening * 2, (7, 7), (comma, comma), (closing, comma)]
    forbidden = []
    ids = torch.tensor([[0, 0], [0, 0]])
    for step in steps:
        ids = torch.cat([ids, torch.tensor([step]).T], dim=1)
        scores = held(ids, torch.zeros(2, len(tokenizer)))
        forbidden.append(
            [
                [
                    "comma" if row[comma] == -math.inf else "",
                    "end" if row[closing] == -math.inf else "",
                ]
                for row in scores
            ]
        )
    assert forbidden == [
        [["", "end"], ["", "end"]],
        [["", "end"], ["", "end"]],
        [["comma", ""], ["", "end"]],
        [["", ""], ["comma", ""]],
    ]


def test_a_tokenizer_whose_tokens_span_the_ends_of_a_list_is_left_alone() -> None:
    class Spans:
        def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": list(range(5))}

        def decode(self, ids: list[int]) -> str:
            return ["<turns>[", "0.4", ",", " 0.35", "]</turns>"][ids[0]]

    assert held_lists(Spans(), verdicts=True) == ()


def test_equal_questions_are_asked_once_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge: Any = make_reward_model(str(poor_counter(tmp_path, 1.0, 0.5)), batch_size=4)
    sizes: list[int] = []
    write = type(judge._loaded).write

    def counted(self: Any, prompts: Any, *rest: Any) -> Any:
        sizes.append(len(prompts))
        return write(self, prompts, *rest)

    monkeypatch.setattr(type(judge._loaded), "write", counted)
    monkeypatch.setattr(type(judge._loaded), "encode", lambda self, messages: [1, 1])
    first = judge.judge([example_trajectory(turns) for turns in (2, 2, 3, 2)])
    assert sizes == [2], "one question of two turns, one of three"
    assert [len(each.turn_scores) for each in first] == [2, 2, 3, 2]
    again = judge.judge([example_trajectory(3)])
    assert sizes == [2]
    assert again[0].turn_scores == first[2].turn_scores
    assert again[0].tokens == first[2].tokens
