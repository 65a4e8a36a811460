"""Judge data in others' shapes is read strictly, and nothing unreadable becomes a score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reagent_env.agents.judge_data import read_published

VERDICT = "<think>Two calls repeat.</think><critique>Do not repeat.</critique><score>0.3</score>"

SHAPES: dict[str, dict[str, Any]] = {
    "messages": {
        "messages": [
            {"role": "system", "content": "Judge."},
            {"role": "user", "content": "Question and trajectory"},
            {"role": "assistant", "content": VERDICT},
        ]
    },
    "conversations": {
        "conversations": [
            {"from": "human", "value": "Question and trajectory"},
            {"from": "gpt", "value": VERDICT},
        ]
    },
    "instruction": {"instruction": "Judge.", "input": "Question", "output": VERDICT},
    "prompt": {"prompt": [{"role": "user", "content": "Question"}], "response": VERDICT},
}


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_gives_prompt_critique_and_score(shape: str, tmp_path: Path) -> None:
    (example,) = read_published(write(tmp_path / "data.jsonl", [SHAPES[shape]]))
    assert example.shape == shape
    assert (example.judgement.critique, example.judgement.score) == ("Do not repeat.", 0.3)
    assert example.judgement.reasoning == "Two calls repeat."
    assert "Question" in example.prompt[-1]["content"]
    assert {message["role"] for message in example.prompt} <= {"system", "user"}


def test_an_array_is_read_as_lines_are(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(list(SHAPES.values())))
    assert [example.judgement.score for example in read_published(path)] == [0.3] * 4


@pytest.mark.parametrize(
    ("truth", "score"),
    [(0.25, 0.25), ("0.25", 0.25), ({"score": 1}, 1.0), ("１.0", None), (1.5, None)],
)
def test_bare_scores_of_rl_data_are_read_strictly(
    truth: object, score: float | None, tmp_path: Path
) -> None:
    record = {"prompt": "Question", "reward_model": {"ground_truth": truth}}
    (example,) = read_published(write(tmp_path / "data.jsonl", [record]))
    assert example.judgement.score == score
    assert (example.judgement.unscored is None) == (score is not None)


def test_a_score_quoted_in_the_thought_does_not_count(tmp_path: Path) -> None:
    text = "<think>Not <score>1.0</score>.</think><critique>Look.</critique><score>0.2</score>"
    record = {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]
    }
    (example,) = read_published(write(tmp_path / "data.jsonl", [record]))
    assert example.judgement.score == 0.2


@pytest.mark.parametrize("record", [{"text": "?"}, {"messages": []}, ["no"], {"prompt": "q"}])
def test_what_has_no_known_shape_is_named_by_its_number(record: object, tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [SHAPES["messages"], record])
    with pytest.raises(ValueError, match="record 2: not a judged example"):
        list(read_published(path))
