"""The natural test on a policy whose prefix values are known: a sum that it gets right every other time."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reagent_env.agents.agent import Agent
from reagent_env.agents.chat import ContextOverflow
from reagent_env.agents.evaluate import evaluate
from reagent_env.agents.judge_eval.natural import (
    ValuedRollout,
    largest_fall,
    natural_report,
    read_valued,
    valued,
    write_valued,
)
from reagent_env.agents.judge_eval.playing_on import Continuation, outcomes
from reagent_env.cli import app
from reagent_env.errors import ToolBackendError
from reagent_env.judgement import Judgement
from reagent_env.reward_models import make_reward_model
from reagent_env.testing import addition_env, addition_tasks
from reagent_env.trajectory import Trajectory


def call(a: int, b: int) -> str:
    return f'<tool_call>{{"name": "add", "arguments": {{"a": {a}, "b": {b}}}}}</tool_call>'


class EveryOther(Agent):
    """Adds 0 and 0, then the question's numbers, wrong every other attempt; answers what it read."""

    name = "every other"

    def begin(self, info: Mapping[str, Any]) -> None:
        question = next(m["content"] for m in info["messages"] if m["role"] == "user")
        self.a, self.b = (int(word) for word in question[8:-1].split(" + "))
        self.wrong = (int(info["attempt"]) + self.a) % 2
        self.said = sum(message["role"] == "assistant" for message in info["messages"])

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        self.said += 1
        if self.said == 1:
            return call(0, 0)
        if self.said == 2:
            return call(self.a, self.b + self.wrong)
        return rf"\boxed{{{observation.split()[1]}}}"


def second_argument(trajectory: Trajectory, turn: int) -> tuple[int, int]:
    arguments = trajectory.turns[turn].calls[0].arguments
    return arguments["a"], arguments["b"]


class Reader:
    """Knows what the policy is worth: ½ before the sum is made, then 0.9 or 0.1."""

    def judge(self, trajectories: Sequence[Trajectory], /) -> list[Judgement]:
        return [self._one(trajectory) for trajectory in trajectories]

    def _one(self, trajectory: Trajectory) -> Judgement:
        phi = [0.5]
        for _ in trajectory.turns[1:]:
            a, b = second_argument(trajectory, 1)
            phi.append(0.9 if b == a + 1 else 0.1)
        return Judgement(score=phi[-1], turn_scores=tuple(phi))


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> list[ValuedRollout]:
    played = evaluate(addition_env, EveryOther, 8, out=tmp_path_factory.mktemp("run"))
    return valued(played, addition_env, EveryOther, continuations=4, concurrency=2)


def test_values_are_what_the_policy_makes_of_each_prefix(rollouts: list[ValuedRollout]) -> None:
    assert len(rollouts) == 8
    for one in rollouts:
        a, b = second_argument(one.trajectory, 1)
        end = 1.0 if b == a + 1 else 0.0
        assert one.values == (0.5, 0.5, end, end)
    assert {one.values[-1] for one in rollouts} == {0.0, 1.0}


def test_a_judge_that_knows_them_agrees_in_everything(rollouts: list[ValuedRollout]) -> None:
    report = natural_report(Reader(), rollouts, batch=8)
    assert report["with_a_fall"] == sum(one.values[-1] == 0.0 for one in rollouts) > 0
    for way in ("turn_scores", "prefixes"):
        found = report[way]
        assert found["turns"] == 24
        assert found["spearman"]["value"] == pytest.approx(1.0)
        assert found["spearman_of_changes"]["value"] == pytest.approx(1.0)
        assert found["auroc_falls"]["value"] == 1.0
        assert found["turn_found"]["value"] == 1.0
        assert found["chance"] == 0.5
    assert report["outcome"]["value"] == 1.0


def test_noise_does_not_and_a_judge_without_turn_scores_has_prefixes_only(
    rollouts: list[ValuedRollout],
) -> None:
    noise = natural_report(make_reward_model("noise"), rollouts, batch=8)
    assert noise["prefixes"]["spearman"]["value"] < 0.8
    assert noise["prefixes"]["turn_found"]["value"] < 1.0

    class Silent(Reader):
        def _one(self, trajectory: Trajectory) -> Judgement:
            return dataclasses.replace(super()._one(trajectory), turn_scores=None)

    silent = natural_report(Silent(), rollouts, batch=8)
    assert silent["turn_scores"] is None
    assert silent["prefixes"]["spearman"]["value"] == pytest.approx(1.0)


def test_a_rollout_whose_world_answers_otherwise_is_left_out(rollouts: list[ValuedRollout]) -> None:
    trajectory = rollouts[0].trajectory
    attempt = trajectory.attempts[0]
    first = dataclasses.replace(
        attempt.turns[0], observation="<tool_response>\n9\n</tool_response>"
    )
    attempt = dataclasses.replace(attempt, turns=(first, *attempt.turns[1:]))
    changed = dataclasses.replace(trajectory, attempts=(attempt,))
    found = valued([changed, trajectory], addition_env, EveryOther, continuations=2)
    assert [one.trajectory.task.id for one in found] == [trajectory.task.id]


def test_a_policy_that_fails_has_no_outcome_and_one_that_overflows_has_0(
    rollouts: list[ValuedRollout],
) -> None:
    class Failing(EveryOther):
        error: type[Exception] = ToolBackendError

        def act(self, observation: str, info: Mapping[str, Any]) -> str:
            raise self.error("no more")

    class Overflowing(Failing):
        error = ContextOverflow

    asked = [Continuation(rollouts[0].trajectory, 1)]
    assert math.isnan(outcomes(asked, addition_env, Failing)[0])
    assert outcomes(asked, addition_env, Overflowing) == [0.0]


def test_a_second_attempt_after_a_critique_is_played_too() -> None:
    class Obedient(EveryOther):
        """Answers at once; right where it was told to add again."""

        def act(self, observation: str, info: Mapping[str, Any]) -> str:
            return rf"\boxed{{{self.a + self.b + ('add again' not in observation)}}}"

    env = addition_env(tasks=addition_tasks(1))
    env.reset(seed=0)
    env.step(r"\boxed{5}")
    first = env.trajectory
    told = [Continuation(first, 1, critique=text) for text in ("Do add again.", "Try harder.")]
    assert outcomes(told, addition_env, Obedient) == [1.0, 0.0]
    unfinished = dataclasses.replace(told[0], turns=0)
    assert math.isnan(outcomes([unfinished], addition_env, Obedient)[0])


def test_the_largest_fall_has_to_be_a_clear_one() -> None:
    assert largest_fall((0.5, 0.6, 0.1, 0.0)) == 1
    assert largest_fall((0.5, 0.3, 0.1, 0.0)) is None
    assert largest_fall((0.5,)) is None


def test_values_are_kept_for_further_judges(rollouts: list[ValuedRollout], tmp_path: Path) -> None:
    path = tmp_path / "prefix_values.jsonl"
    write_valued(path, rollouts)
    assert list(read_valued(path)) == rollouts
    path.write_text('{"values": [1.0]}\n')
    with pytest.raises(ValueError, match="line 1: no rollout with values"):
        list(read_valued(path))


def test_the_command_plays_and_takes_its_values_again(tmp_path: Path) -> None:
    planted = ["judge-eval", "--judge", "noise", "--env", "reagent/SearchQA-v0", "--episodes", "2"]
    planted += ["--injections", "0"]
    played = ["--agent", "random", "--rollouts", "3", "--continuations", "2"]
    first = CliRunner().invoke(app, [*planted, *played, "--out", str(tmp_path)])
    assert first.exit_code == 0, first.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["natural"]["rollouts"] == 3
    assert "## The natural test" in (tmp_path / "report.md").read_text()
    kept = tmp_path / "prefix_values.jsonl"
    again = CliRunner().invoke(app, [*planted, "--values", str(kept), "--out", str(tmp_path / "b")])
    assert again.exit_code == 0, again.output
    second = json.loads((tmp_path / "b" / "report.json").read_text())
    assert second["natural"]["prefixes"] == report["natural"]["prefixes"]
    for wrong, words in (
        ([*played, "--values", str(kept)], "give one"),
        (["--agent", "expert"], "always right"),
        (["--agent", "tinny"], "Did you mean 'tiny'"),
    ):
        refused = CliRunner().invoke(app, [*planted, *wrong])
        assert refused.exit_code == 2, refused.output
        assert words in " ".join(refused.output.replace("│", " ").split())
