"""GAIA's published rule: what is right decides how it is compared."""

from __future__ import annotations

import pytest

from reagent_env.errors import GraderError
from reagent_env.graders import grade, is_registered
from reagent_env.task import Task
from reagent_env.task_sets.published_graders import gaia


@pytest.mark.parametrize(
    ("answer", "prediction", "score"),
    [
        ("17", "17", 1),
        ("17", "$17.0", 1),
        ("1200", "1,200", 1),
        ("17", "17 apples", 0),
        ("17", "18", 0),
        ("17", "nan", 0),
        ("89706.00", "89,706", 1),
        ("12", "1_2", 0),
        ("egg, milk", "Egg; milk", 1),
        ("egg, milk", "milk, egg", 0),
        ("egg, milk", "egg", 0),
        ("3, 4", "3.0, 4", 1),
        ("a.b, c", "ab, c", 0),
        ("St. Petersburg", "st petersburg", 1),
        ("sea gull", "seagull", 1),
        ("Paris", "Paris, France", 0),
        ("right", "wrong", 0),
    ],
)
def test_numbers_lists_and_texts(answer: str, prediction: str, score: int) -> None:
    assert gaia(answer, prediction) == score


def test_it_is_a_grader_by_name_and_an_answer_that_is_no_text_is_infrastructure() -> None:
    assert is_registered("gaia")
    assert grade(Task("q?", "17", "gaia"), "17.0") == 1.0
    with pytest.raises(GraderError, match="needs a text"):
        gaia(17, "17")
