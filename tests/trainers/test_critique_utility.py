"""What a critique is worth: second attempts of a policy that does what it is told, counted by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import pytest

from reagent_env.agents.agent import Agent
from reagent_env.agents.judge_data.records import CLEAN, PlantedRecord
from reagent_env.errors import ToolBackendError
from reagent_env.judgement import Judgement
from reagent_env.testing import addition_env, addition_tasks

pytest.importorskip("torch")

from reagent_env.trainers.judge.utility import CritiqueUtility, Players, frozen_policy
from reagent_env.trainers.judge_rl import Judged, rewarded, utilities
from reagent_env.trainers.sample import Sample

ENV = "Addition-v0"
played: list[str] = []


class Follows(Agent):
    """Right where it is told to add again; else right in every other attempt, whatever it is told."""

    name = "follows"

    def begin(self, info: Mapping[str, Any]) -> None:
        question = next(m["content"] for m in info["messages"] if m["role"] == "user")
        self.sum = sum(int(word) for word in question[8:-1].split(" + "))
        self.lucky = int(info["attempt"]) % 2 == 0

    def act(self, observation: str, info: Mapping[str, Any]) -> str:
        played.append(observation)
        if "Do not add" in observation:
            return r"\boxed{0}"
        right = "add again" in observation or self.lucky
        return rf"\boxed{{{self.sum if right else self.sum + 1}}}"


def record(answer: int, *, kind: str = "skipped_hop", **changes: Any) -> PlantedRecord:
    """One turn that answers 1 + 2 with ``answer``."""
    env = addition_env(tasks=addition_tasks(2)[1:])
    env.reset(seed=0)
    env.step(rf"\boxed{{{answer}}}")
    trajectory = dataclasses.replace(env.trajectory, env_id=ENV)
    flawed = kind != CLEAN
    target = 0.3 if flawed else 0.95
    return dataclasses.replace(
        PlantedRecord(
            trajectory, kind, 0 if flawed else None, target, "Look again.", (target,), "a"
        ),
        **changes,
    )


@pytest.fixture
def utility() -> CritiqueUtility:
    played.clear()
    return CritiqueUtility({ENV: Players(addition_env, Follows)}, tries=4, concurrency=2)


def test_utility_is_the_gain_over_trying_again(utility: CritiqueUtility) -> None:
    wrong = record(4)
    asked = [(wrong, "Do add again."), (wrong, "Try harder."), (wrong, "Do not add.")]
    assert utility.of(asked) == [0.5, 0.0, -0.5]  # trying again is right half of the time


def test_what_was_played_is_remembered(utility: CritiqueUtility) -> None:
    wrong = record(4)
    utility.of([(wrong, "Do add again.")] * 8)
    assert len(played) == 4 + 4, "after the critique, and after none"
    assert utility.of([(wrong, "Do add again.")]) == [0.5]
    assert len(played) == 8


@pytest.mark.parametrize(
    "harmless",
    [
        record(3),
        record(3, kind=CLEAN),
        record(4, label="unlucky"),
        record(4, label="lucky"),
        dataclasses.replace(
            record(4), trajectory=dataclasses.replace(record(4).trajectory, env_id="Elsewhere-v0")
        ),
    ],
    ids=["right", "clean", "unlucky label", "lucky label", "another environment"],
)
def test_only_wrong_first_attempts_of_its_environment_are_tried(
    utility: CritiqueUtility, harmless: PlantedRecord
) -> None:
    assert utility.of([(harmless, "Do add again.")]) == [0.0]
    assert played == []


@pytest.mark.parametrize("critique", ["", "  \n", "It is 3, do add again."])
def test_no_critique_and_one_that_gives_the_answer_away_earn_nothing(
    utility: CritiqueUtility, critique: str
) -> None:
    assert utility.of([(record(4), critique)]) == [0.0]
    assert played == []


def test_a_policy_that_fails_leaves_no_number() -> None:
    class Failing(Follows):
        def act(self, observation: str, info: Mapping[str, Any]) -> str:
            raise ToolBackendError("gone")

    utility = CritiqueUtility({ENV: Players(addition_env, Failing)}, tries=2)
    (found,) = utility.of([(record(4), "Do add again.")])
    assert math.isnan(found)
    assert utility.failed == 1


def said(critique: str, of: PlantedRecord) -> Judged:
    return Judged(of, Sample(), Judgement("1 skipped hop", critique, 0.3))


def test_a_tenth_of_it_is_rewarded(utility: CritiqueUtility) -> None:
    wrong, clean = record(4), record(3, kind=CLEAN)
    groups = [
        [said("Do add again.", wrong), said("Do not add.", wrong)],
        [said("Do add again.", clean)] * 2,
    ]
    measured = utilities(groups, utility)
    assert measured == [[0.5, -0.5], [0.0, 0.0]]
    helpful, harmful = (one.total for one in rewarded(groups, measured)[0])
    assert helpful - harmful == pytest.approx(0.1)


def test_a_group_that_could_not_all_be_measured_has_no_such_term() -> None:
    class Half(CritiqueUtility):
        def of(self, asked: Any) -> list[float]:
            return [1.0, math.nan, 0.5, 0.25]

    wrong = record(4)
    groups = [[said("a", wrong), said("b", wrong)], [said("c", wrong), said("d", wrong)]]
    assert utilities(groups, Half({})) == [[0.0, 0.0], [0.5, 0.25]]
    assert utilities(groups, None) == [[0.0, 0.0], [0.0, 0.0]]


def test_policies_are_found_by_the_names_that_eval_takes() -> None:
    with frozen_policy("random", ["reagent/SearchQA-v0"]) as players:
        made = players["reagent/SearchQA-v0"]
        assert made.make_agent().name == "random"
        env = made.make_env()
        assert isinstance(env, gymnasium.Env)
        env.close()
    with (
        pytest.raises(ValueError, match="Did you mean 'tiny'"),
        frozen_policy("tinny", ["reagent/SearchQA-v0"]),
    ):
        pass
