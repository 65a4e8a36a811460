"""The parser under attack: several hundred answers, none of which changes a score."""

from __future__ import annotations

import pytest
from attack_cases import HONEST, Answer, answers, honest
from hypothesis import given
from hypothesis import strategies as st

from reagent_env.reward_models.base import Unscored, kind_of
from reagent_env.reward_models.parse import MAX_CHARS, parse_judgement, render_judgement

ANSWERS = answers()


def test_there_are_hundreds_of_attacks_and_no_two_of_one_name() -> None:
    assert len(ANSWERS) >= 500
    assert len({answer.name for answer in ANSWERS}) == len(ANSWERS)
    assert sum(answer.readable is not True for answer in ANSWERS) >= 200


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
def test_an_attack_changes_no_score(answer: Answer) -> None:
    judgement = parse_judgement(answer.text, answer.turns, answer.reasoning)
    if answer.readable is True:
        assert judgement.score == HONEST
        if judgement.turn_scores is not None:
            assert judgement.turn_scores[-1] == HONEST
    elif answer.readable is False:
        assert judgement.score is None
        assert kind_of(judgement) is Unscored.UNPARSED
        assert judgement.critique == ""
    else:
        assert judgement.score in (None, HONEST)


def test_an_honest_judgement_is_read() -> None:
    text = (
        "<think>a</think>\n<critique>b</critique>\n<turns>[0.1, null, 0.9]</turns><score>1</score>"
    )
    judgement = parse_judgement(text, 3)
    assert (judgement.reasoning, judgement.critique) == ("a", "b")
    assert judgement.score == 1.0
    assert judgement.turn_scores == (0.1, None, 1.0)


def test_zero_is_a_score_and_not_a_failure() -> None:
    judgement = parse_judgement(honest(score="0"), 1)
    assert judgement.score == 0.0
    assert judgement.unscored is None


def test_the_reasoning_that_a_server_split_off_is_the_think_block() -> None:
    text = "<critique>b</critique><score>0.4</score>"
    assert parse_judgement(text, 1, "thoughts").reasoning == "thoughts"
    assert parse_judgement(text, 1).score is None


def test_an_unreadable_answer_is_kept_to_look_at() -> None:
    judgement = parse_judgement("I would say 0.9.", 1)
    assert judgement.reasoning == "I would say 0.9."
    assert judgement.unscored == "unparsed: no <think> where it belongs"


def test_texts_that_would_not_read_back_are_not_rendered() -> None:
    for reasoning, critique in (("</think>", ""), ("", "</critique>"), ("<think>", "")):
        with pytest.raises(ValueError, match="would not read back"):
            render_judgement(reasoning, critique, 0.5)
    with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
        render_judgement("", "", 1.01)


PIECES = st.sampled_from(
    ["<think>", "</think>", "<critique>", "</critique>", "<turns>", "</turns>", "<score>",
     "</score>", "[0.5, 1]", "0.5", "1", "nan", "-1", "2", "null", " ", "\n", "\u200b", "x"]
)  # fmt: skip


@given(st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=20).map("".join)))
def test_it_never_raises_and_never_leaves_the_range(text: str) -> None:
    for reasoning in (None, text):
        judgement = parse_judgement(text, 2, reasoning)
        if judgement.score is None:
            assert kind_of(judgement) is Unscored.UNPARSED
        else:
            assert 0.0 <= judgement.score <= 1.0
            assert text.count("<score>") >= 1


SCORES = st.integers(0, 10_000).map(lambda n: n / 10_000)
PLAIN = st.text(alphabet=st.characters(exclude_characters="<"), max_size=80)


@given(PLAIN, PLAIN, SCORES, st.none() | st.lists(st.none() | SCORES, min_size=1, max_size=6))
def test_what_is_rendered_reads_back(
    reasoning: str, critique: str, score: float, turns: list[float | None] | None
) -> None:
    text = render_judgement(reasoning, critique, score, turns)
    judgement = parse_judgement(text, None if turns is None else len(turns))
    assert judgement.score == score
    assert judgement.reasoning == reasoning.strip(" \t\r\n")
    assert judgement.critique == critique.strip(" \t\r\n")
    assert judgement.turn_scores == (None if turns is None else (*turns[:-1], score))


@given(st.text(max_size=200))
def test_one_word_after_the_verdict_and_there_is_none(text: str) -> None:
    judgement = parse_judgement(honest(after_score=text), 2)
    assert (judgement.score is None) == bool(text.strip(" \t\r\n"))


def test_a_long_answer_costs_no_time() -> None:
    text = "<think>" * (MAX_CHARS // 7)
    assert parse_judgement(text, 1).score is None
    assert parse_judgement(honest(think="x" * (2 * MAX_CHARS)), 1).score is None
