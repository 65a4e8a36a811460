"""A real vLLM server judges real trajectories: the wire and the parse, not the quality.

SmolLM2 is no judge. Held to the form it still writes judgements, whose numbers are its own; left to
itself it writes none, and is unscored. Run by ``make test-vllm``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from reagent_env.agents.evaluate import evaluate
from reagent_env.agents.expert import ExpertAgent, solver_of
from reagent_env.agents.serve import VLLMServer
from reagent_env.reward_models import Unscored, make_reward_model
from reagent_env.reward_models.base import kind_of
from reagent_env.reward_models.served import ServedJudge
from reagent_env.trajectory import Trajectory

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

ENV = "reagent/MiniMix-v0"
PATIENT = {"deadline_s": 900.0, "request_timeout_s": 900.0}
CLOSES_TAGS = {"logit_bias": {"9617": 100}}
"""SmolLM2's token ``</``: as soon as the form allows the end of a text, it comes."""


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory: pytest.TempPathFactory) -> list[Trajectory]:
    """The expert's, of four real episodes."""
    return evaluate(
        lambda: gymnasium.make(ENV, disable_env_checker=True, split="test", sandbox="embedded"),
        lambda: ExpertAgent(solver_of(ENV), "compact"),
        4,
        out=tmp_path_factory.mktemp("run"),
        concurrency=2,
    )


@pytest.fixture
def judging(smollm2_server: VLLMServer) -> Iterator[Any]:
    """Make judges of that server; they are closed with the test."""
    made: list[Any] = []

    def make(model: str = "smollm2", **options: Any) -> ServedJudge:
        judge: Any = make_reward_model(
            f"{smollm2_server.base_url}#{model}", **{**PATIENT, "max_tokens": 400, **options}
        )
        made.append(judge)
        return judge

    yield make
    for judge in made:
        judge.close()


def test_held_to_the_form_it_judges_every_turn(
    judging: Any, trajectories: list[Trajectory], tmp_path: Path
) -> None:
    judge = judging(structured="auto", extra_body=CLOSES_TAGS, cache=tmp_path)
    judgements = judge.judge(trajectories)
    for trajectory, judgement in zip(trajectories, judgements, strict=True):
        assert judgement.unscored is None, judgement.reasoning
        assert 0.0 <= judgement.score <= 1.0
        assert len(judgement.turn_scores) == len(trajectory.turns) > 1
        assert judgement.turn_scores[-1] == judgement.score
        assert judgement.tokens > 20
        assert judgement.latency_s > 0
    metrics = judge.metrics()
    assert metrics.scored == 4
    assert metrics.prompt_tokens > 4 * 1_000, "it read the whole trajectory"
    again = judge.judge(trajectories)
    assert [one.score for one in again] == [one.score for one in judgements]
    assert judge.metrics().from_cache == 4


def test_left_to_itself_it_is_unscored_and_its_text_is_kept(
    judging: Any, trajectories: list[Trajectory]
) -> None:
    for judgement in judging(max_tokens=24).judge(trajectories[:2]):
        assert (judgement.score, judgement.turn_scores) == (None, None)
        assert kind_of(judgement) is Unscored.UNPARSED
        assert judgement.reasoning
        assert judgement.tokens == 24


def test_what_does_not_fit_its_context_is_told_apart(
    judging: Any, trajectories: list[Trajectory]
) -> None:
    first = trajectories[0]
    attempt = first.attempts[0]
    long = dataclasses.replace(attempt.turns[0], completion="many words " * 2_000)
    attempt = dataclasses.replace(attempt, turns=(long,) * 3)
    (judgement,) = judging().judge([dataclasses.replace(first, attempts=(attempt,))])
    assert kind_of(judgement) is Unscored.CONTEXT_OVERFLOW


def test_a_model_it_does_not_serve_is_refused(judging: Any, trajectories: list[Trajectory]) -> None:
    (judgement,) = judging("smollm3").judge(trajectories[:1])
    assert kind_of(judgement) is Unscored.REFUSED
    assert "smollm3" in judgement.unscored
