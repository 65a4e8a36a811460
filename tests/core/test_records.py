"""Tasks, judgements, trajectories and their files."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gymnasium.vector.utils import batch_space
from hypothesis import given
from hypothesis import strategies as st

from reagent_env import Judgement, Task, Trajectory
from reagent_env.spaces import AnyText
from reagent_env.testing import example_trajectory
from reagent_env.trajectory_file import TrajectoryWriter, read_trajectories, settled_trajectories


def test_a_tasks_id_is_its_content_in_every_process() -> None:
    program = (
        "from reagent_env import Task;"
        "t = Task(question='q', answer={'b': 1, 'a': 2}, metadata={'y': 1, 'x': [1]},"
        " files={'f': b'1', 'e': b'2'}); print(t.id, t.split)"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(seen) == 1
    assert Task(question="q", answer="1").id != Task(question="q", answer="2").id


def test_one_question_is_in_one_split_whatever_its_answer() -> None:
    splits = {Task(question="q", answer=str(n), metadata={"n": n}).split for n in range(20)}
    assert len(splits) == 1
    counts = [Task(question=f"q{n}", answer="").split for n in range(2000)]
    assert 1500 < counts.count("train") < 1700
    assert 150 < counts.count("test") < 250


def test_a_task_survives_copying_pickling_and_json() -> None:
    task = Task(question="\ud800?", answer=["1"], files={"a.bin": b"\x00\xff"}, metadata={"x": 1})
    assert pickle.loads(pickle.dumps(task)) == task
    assert copy.deepcopy(task) is task
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task
    with pytest.raises(ValueError, match=r"Unknown task fields \['anwser'\]"):
        Task.from_json({"question": "q", "anwser": "1"})
    with pytest.raises(ValueError, match="non-empty"):
        Task(question=" ", answer="1")
    with pytest.raises(ValueError, match="JSON-encodable"):
        Task(question="q", answer=object())


@pytest.mark.parametrize(
    "wrong",
    [
        {"files": {"../x": b""}},
        {"files": {"/etc/x": b""}},
        {"files": {"a": "text"}},
        {"grader": ["number"]},
        {"answer": float("nan")},
    ],
)
def test_a_task_that_cannot_be_run_is_refused_when_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Task\."):
        Task(**{"question": "q", "answer": "1", **wrong})


def test_a_judgement_has_a_score_or_a_reason() -> None:
    assert Judgement(score=0.0).score == 0.0
    assert Judgement(unscored="unparsed").score is None
    for wrong in ({}, {"score": 0.5, "unscored": "x"}, {"score": 1.5}, {"score": float("nan")}):
        with pytest.raises(ValueError, match="score"):
            Judgement(**wrong)  # type: ignore[arg-type]
    judged = Judgement(score=0.5, turn_scores=(None, 0.5))
    assert Judgement.from_json(json.loads(json.dumps(judged.to_json()))) == judged


@given(st.text(st.characters(exclude_categories=()), max_size=50))
def test_a_trajectory_survives_json_with_any_text(text: str) -> None:
    # A high surrogate before a low one is the same text as the character they make.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    trajectory = example_trajectory(3)
    record = json.loads(json.dumps({**trajectory.to_json(), "prompt": text}))
    again = Trajectory.from_json(record)
    assert again.prompt == text
    assert again.turns == trajectory.turns
    assert again.outcome == 1.0


def test_a_newer_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="schema version 99"):
        Trajectory.from_json({**example_trajectory().to_json(), "schema_version": 99})


def test_a_file_loses_at_most_the_line_being_written(tmp_path: Path) -> None:
    path = tmp_path / "run" / "trajectories.jsonl"
    with TrajectoryWriter(path) as writer:
        writer.write(example_trajectory(1))
        writer.write(example_trajectory(2))
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])  # killed in the middle of the second line
    assert [len(t.turns) for t in read_trajectories(path)] == [1]
    with TrajectoryWriter(path) as writer:
        writer.write(example_trajectory(3))
    assert [len(t.turns) for t in read_trajectories(path)] == [1, 3]


def test_a_full_disk_keeps_the_earlier_lines() -> None:
    with pytest.raises(OSError), TrajectoryWriter("/dev/full") as writer:
        writer.write(example_trajectory())


def test_a_broken_line_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(example_trajectory().to_json()) + "\n{}\n")
    with pytest.raises(ValueError, match="line 2"):
        list(read_trajectories(path))


@pytest.mark.parametrize("line", ["[1]", "7", "null", "[" * 100_000, '{"a":' * 100_000])
def test_a_line_that_is_no_trajectory_at_all_is_named_too(tmp_path: Path, line: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(example_trajectory().to_json()) + f"\n{line}\n")
    with pytest.raises(ValueError, match="line 2: not a trajectory"):
        list(read_trajectories(path))


def test_a_masked_record_counts_only_where_its_task_was_not_run_again(tmp_path: Path) -> None:
    masked = dataclasses.replace(example_trajectory(1), infrastructure_error="SandboxLost: gone")
    again = example_trajectory(2)
    assert masked.task.id == again.task.id
    other = dataclasses.replace(masked, task=Task(question="another?", answer="1"))
    path = tmp_path / "t.jsonl"
    with TrajectoryWriter(path) as writer:
        for trajectory in (masked, other, again, again):
            writer.write(trajectory)
    assert len(list(read_trajectories(path))) == 4
    assert [(one.task.id, len(one.turns)) for one in settled_trajectories(path)] == [
        (other.task.id, 1),
        (again.task.id, 2),
        (again.task.id, 2),
    ]


def test_any_text_takes_all_strings_and_nothing_else() -> None:
    space = AnyText(seed=3)
    samples = [space.sample() for _ in range(200)]
    assert all(space.contains(sample) for sample in samples)
    assert any("\x00" in sample for sample in samples)
    assert any("\udc00" <= character <= "\udfff" for sample in samples for character in sample)
    assert not space.contains(b"bytes")
    assert AnyText(seed=3).sample() == AnyText(seed=3).sample()
    assert space.from_jsonable(json.loads(json.dumps(space.to_jsonable(samples)))) == samples
    assert len(batch_space(space, 2).sample()) == 2
