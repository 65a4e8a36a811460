"""Process reward and critique, by the definitions, with numbers to see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit

from reagent_env import Judgement, Task, ToolUseEnv, Trajectory, tool
from reagent_env.errors import ToolBackendError
from reagent_env.simulator import Simulator
from reagent_env.testing import add, addition_tasks
from reagent_env.wrappers import CritiqueObservation, CritiqueRefine, ProcessReward
from reagent_env.wrappers.critique_refine import NEUTRAL, gives_answer_away

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 1}}</tool_call>'
BROKEN = '<tool_call>{"name": "broken", "arguments": {}}</tool_call>'


class ScriptedJudge:
    """Says what it was given, in order; counts how often it was asked and keeps what it saw."""

    def __init__(self, *said: Judgement) -> None:
        self.said = list(said)
        self.saw: list[Trajectory] = []

    def judge(self, trajectories: Sequence[Trajectory]) -> list[Judgement]:
        self.saw += trajectories
        return [self.said.pop(0) if len(self.said) > 1 else self.said[0] for _ in trajectories]


def scored(score: float, *turn_scores: float | None, critique: str = "Use the tool.") -> Judgement:
    return Judgement("because", critique, score, tuple(turn_scores) or None)


UNSCORED = Judgement(unscored="unparsed: no verdict")


@tool
def broken() -> str:
    """Fail."""
    raise ToolBackendError("down")


def base(**kwargs: Any) -> ToolUseEnv:
    task = Task(question="What is 3 + 4?", answer="7", grader="number")
    return ToolUseEnv([task], [add, broken], **kwargs)


def play(
    env: gym.Env[str, str], *completions: str
) -> list[tuple[float, bool, bool, dict[str, Any]]]:
    env.reset(seed=0)
    return [env.step(completion)[1:] for completion in completions]


# --- ProcessReward


def test_the_return_is_outcome_plus_lambda_times_score() -> None:
    env = ProcessReward(base(), ScriptedJudge(scored(0.5)), weight=0.3)
    first, last = play(env, CALL, r"\boxed{7}")
    assert first[0] == 0.0
    assert math.isclose(last[0], 1.15)
    assert last[3]["reward/outcome"] == 1.0
    assert math.isclose(last[3]["reward/process"], 0.15)
    assert last[3]["reward/turns"] == pytest.approx([0.0, 1.15])
    assert last[3]["judgement"]["score"] == 0.5


def test_turn_credit_spreads_lambda_phi_over_the_turns() -> None:
    judge = ScriptedJudge(scored(0.8, 0.2, 0.6, 0.8))
    env = ProcessReward(base(), judge, weight=0.5, credit="turn")
    last = play(env, CALL, CALL, r"\boxed{8}")[-1]
    assert last[3]["reward/turns"] == pytest.approx([0.1, 0.2, 0.1])
    assert last[0] == pytest.approx(0.4)
    assert sum(last[3]["reward/turns"]) == pytest.approx(last[0])


def test_a_turn_without_a_score_keeps_the_one_before_and_the_last_is_the_score() -> None:
    judge = ScriptedJudge(scored(0.8, 0.4, None, 0.1))
    env = ProcessReward(base(), judge, weight=1.0, credit="turn")
    last = play(env, CALL, CALL, r"\boxed{7}")[-1]
    assert last[3]["reward/turns"] == pytest.approx([0.4, 0.0, 0.4 + 1.0])


def test_turn_scores_missing_altogether_put_all_credit_on_the_last_turn() -> None:
    env = ProcessReward(base(), ScriptedJudge(scored(0.6)), weight=1.0, credit="turn")
    assert play(env, CALL, r"\boxed{7}")[-1][3]["reward/turns"] == pytest.approx([0.0, 1.6])


@pytest.mark.parametrize("credit", ["trajectory", "turn"])
@pytest.mark.parametrize("when", ["end", "step"])
def test_unscored_leaves_the_outcome_alone(credit: str, when: str) -> None:
    judge = ScriptedJudge(scored(0.5), UNSCORED) if when == "step" else ScriptedJudge(UNSCORED)
    env = ProcessReward(base(), judge, weight=0.3, credit=credit, when=when)
    rewards = play(env, CALL, r"\boxed{7}")
    assert sum(reward for reward, *_ in rewards) == pytest.approx(1.0)
    assert rewards[-1][3]["reward/process"] is None
    assert rewards[-1][3]["judgement"]["unscored"] == "unparsed: no verdict"
    assert sum(rewards[-1][3]["reward/turns"]) == pytest.approx(1.0)


def test_paying_by_the_step_telescopes_to_the_same_return() -> None:
    judge = ScriptedJudge(scored(0.2), UNSCORED, scored(0.5), scored(0.9))
    env = ProcessReward(base(), judge, weight=0.5, credit="turn", when="step")
    rewards = play(env, CALL, CALL, CALL, r"\boxed{7}")
    assert [reward for reward, *_ in rewards] == pytest.approx([0.1, 0.0, 0.15, 1.0 + 0.2])
    assert [len(seen.turns) for seen in judge.saw] == [1, 2, 3, 4]
    assert rewards[-1][3]["reward/turns"] == pytest.approx([0.1, 0.0, 0.15, 1.2])


def test_infrastructure_failures_stay_nan_and_are_not_judged() -> None:
    judge = ScriptedJudge(scored(0.9))
    last = play(ProcessReward(base(), judge), BROKEN)[-1]
    assert math.isnan(last[0])
    assert last[3]["stop_reason"] == "infrastructure_failure"
    assert judge.saw == []


def test_truncation_is_judged_too_by_limits_inside_and_around() -> None:
    for env in (base(max_turns=2), TimeLimit(base(), max_episode_steps=2)):
        last = play(ProcessReward(env, ScriptedJudge(scored(0.5))), CALL, CALL)[-1]
        assert last[0] == pytest.approx(0.15)
        assert last[2] is True
        assert last[3]["reward/outcome"] == 0.0


def test_the_judge_sees_the_record_as_it_stands() -> None:
    judge = ScriptedJudge(scored(0.5))
    play(ProcessReward(base(), judge), CALL, r"\boxed{7}")
    (seen,) = judge.saw
    assert [turn.completion for turn in seen.turns] == [CALL, r"\boxed{7}"]


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"weight": -1}, "not negative"),
        ({"weight": float("nan")}, "finite"),
        ({"credit": "turns"}, "Unknown credit"),
        ({"when": "never"}, "Unknown when"),
    ],
)
def test_a_wrong_argument_is_refused(kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ProcessReward(base(), ScriptedJudge(scored(0.5)), **kwargs)


def test_gymnasiums_checker_passes_on_the_whole_stack() -> None:
    judge = ScriptedJudge(scored(0.5))
    env = CritiqueRefine(ProcessReward(CritiqueObservation(base(), judge), judge), judge)
    env.reset(seed=0)
    check_env(ProcessReward(base(), judge).unwrapped, skip_render_check=True)
    assert env.observation_space.contains("x")


# --- CritiqueRefine


def test_every_first_attempt_is_refined_right_or_wrong_and_neither_is_told() -> None:
    for answer in ("7", "8"):
        judge = ScriptedJudge(scored(0.5, critique="Check the sum."))
        env = CritiqueRefine(base(), judge)
        env.reset(seed=0)
        observation, reward, terminated, truncated, info = env.step(rf"\boxed{{{answer}}}")
        assert reward == (1.0 if answer == "7" else 0.0)
        assert (terminated, truncated) == (False, False)
        assert info["attempt_ended"] is True
        assert "Check the sum." in observation
        assert not any(word in observation.lower() for word in ("correct", "wrong", "reward"))


def test_the_second_attempt_closes_its_own_return_and_ends_the_episode() -> None:
    env = CritiqueRefine(base(), ScriptedJudge(scored(0.5)))
    steps = play(env, CALL, r"\boxed{8}", CALL, r"\boxed{7}")
    assert [reward for reward, *_ in steps] == [0.0, 0.0, 0.0, 1.0]
    assert [info["attempt"] for *_, info in steps] == [1, 1, 2, 2]
    assert [info["turn"] for *_, info in steps] == [1, 2, 1, 2]
    assert [info["attempt_ended"] for *_, info in steps] == [False, True, False, True]
    assert steps[-1][1] is True
    assert [attempt["reward"] for attempt in steps[-1][3]["attempts"]] == [0.0, 1.0]
    with pytest.raises(ResetNeeded):
        env.step("x")
    record = env.inner.trajectory
    assert [attempt.outcome for attempt in record.attempts] == [0.0, 1.0]
    assert record.attempts[1].feedback is not None
    assert record.attempts[0].judgement is not None


def test_failing_the_first_attempt_on_purpose_gains_nothing() -> None:
    judge = ScriptedJudge(scored(0.5))

    def returns(first: str) -> tuple[float, ...]:
        env = CritiqueRefine(ProcessReward(base(), judge), judge)
        return tuple(reward for reward, *_ in play(env, first, r"\boxed{7}"))

    honest, sandbagged = returns(r"\boxed{7}"), returns(r"\boxed{0}")
    assert honest[1] == sandbagged[1]  # the second attempt pays the same either way
    assert honest[0] > sandbagged[0]  # and the first pays for itself


def test_the_stack_judges_each_attempt_once() -> None:
    judge = ScriptedJudge(scored(0.5), scored(0.9))
    env = CritiqueRefine(ProcessReward(base(), judge, weight=0.3), judge)
    steps = play(env, r"\boxed{8}", r"\boxed{7}")
    assert [reward for reward, *_ in steps] == pytest.approx([0.15, 1.27])
    assert len(judge.saw) == 2
    assert [a["reward/process"] for a in steps[-1][3]["attempts"]] == pytest.approx([0.15, 0.27])


def test_a_critique_that_gives_the_answer_away_is_replaced_unmarked_and_counted() -> None:
    leaking = ScriptedJudge(scored(0.5, critique="The sum is 7, not 8."))
    env = CritiqueRefine(base(), leaking)
    env.reset(seed=0)
    observation, *_, info = env.step(r"\boxed{8}")
    assert info["critique_replaced"] is True
    assert NEUTRAL in observation
    assert "not 8" not in observation
    retry = CritiqueRefine(base(), leaking, feedback="retry")
    retry.reset(seed=0)
    assert retry.step(r"\boxed{8}")[0] == observation  # nothing marks the replacement


@pytest.mark.parametrize(
    ("answer", "critique", "leaks"),
    [
        ("46147", "It is 46,147.", True),
        ("46147", "It is 46147.0, not more.", True),
        ("46147", r"It is 46{,}147.", True),
        ("46147", "It is 46 147.", True),
        ("46147", "It is not 46148.", False),
        ("River Plekond", "Look up Plekond.", True),
        ("River Plekond", "Read about the river.", False),
        (["Boor", "Republic of Boor"], "boor it is", True),
    ],
)
def test_an_answer_is_recognised_however_it_is_written(
    answer: Any, critique: str, leaks: bool
) -> None:
    task = Task(question="Which river?", answer=answer)
    assert gives_answer_away(critique, Trajectory(task, "p")) is leaks


def test_a_wrapped_environment_can_be_made_again_from_its_spec() -> None:
    judge = ScriptedJudge(scored(0.5))
    made = gym.make("reagent/SearchQA-v0")
    env = CritiqueRefine(ProcessReward(made, judge, weight=0.5), judge, attempts=3)
    assert env.spec is not None
    again = gym.make(env.spec)
    assert isinstance(again, CritiqueRefine)
    assert again.attempts == 3
    assert again.env.weight == 0.5  # type: ignore[attr-defined]
    assert again.judge is judge


def test_an_answer_the_policy_has_seen_may_be_named() -> None:
    judge = ScriptedJudge(scored(0.5, critique="You wrote 7 without calling add."))
    env = CritiqueRefine(base(), judge)
    env.reset(seed=0)
    observation, *_, info = env.step(r"\boxed{7}")
    assert info["critique_replaced"] is False
    assert "You wrote 7" in observation


class Shelf(Simulator):
    """A world whose task has an answer as well: two jars, named in its opening alone."""

    opening = "On the shelf stand a jar of saffron and a jar of 46 nails."
    over = False
    score = 0.0


@pytest.mark.parametrize(
    ("answer", "critique", "leaks"),
    [
        ("saffron", "You never looked at the saffron.", False),
        (46, "Of the 46 nails you say nothing.", False),
        ("paprika", "It was paprika, not saffron.", True),
        (47, "There are 47, not 46.", True),
        ("functions", "Call functions.", True),  # in the instructions on calls: nothing of the task
    ],
)
def test_what_the_opening_of_a_world_says_may_be_named(
    answer: Any, critique: str, leaks: bool
) -> None:
    task = Task(question="Which jar?", answer=answer, grader="simulator")
    env = CritiqueRefine(
        ToolUseEnv([task], [add], simulator=lambda _: Shelf()),
        ScriptedJudge(scored(0.5, critique=critique)),
    )
    prompt, _ = env.reset(seed=0)
    assert Shelf.opening in prompt
    assert "functions" in prompt
    observation, *_, info = env.step("I am done.")
    assert info["critique_replaced"] is leaks
    assert (critique in observation) is not leaks


def test_part_of_a_longer_number_or_word_gives_nothing_away() -> None:
    judge = ScriptedJudge(scored(0.5, critique="17 calls, 7.5 seconds, x7."))
    env = CritiqueRefine(base(), judge)
    env.reset(seed=0)
    assert env.step(r"\boxed{8}")[4]["critique_replaced"] is False


def test_an_independent_attempt_starts_from_the_prompt_in_a_fresh_sandbox() -> None:
    judge = ScriptedJudge(scored(0.5))
    env = CritiqueRefine(
        ToolUseEnv(addition_tasks(), ["python"], "embedded"), judge, feedback="independent"
    )
    prompt, reset_info = env.reset(seed=0)
    code = '<tool_call>{{"name": "python", "arguments": {{"code": "{}"}}}}</tool_call>'
    env.step(code.format("x = 1"))
    observation, _, terminated, _, info = env.step("I do not know.")
    assert observation == prompt
    assert info["messages"] == reset_info["messages"]
    assert not terminated
    assert "NameError" in env.step(code.format("x"))[0]
    assert judge.saw == []
    env.close()


def test_the_critique_may_come_from_a_function_of_the_record() -> None:
    env = CritiqueRefine(
        base(),
        ScriptedJudge(scored(0.5)),
        feedback=lambda trajectory, judgement: f"{len(trajectory.turns)} turns, {judgement.score}",
    )
    env.reset(seed=0)
    env.step(CALL)
    assert "2 turns, 0.5" in env.step(r"\boxed{8}")[0]


def test_an_unscored_judgement_still_gives_a_second_attempt() -> None:
    env = CritiqueRefine(base(), ScriptedJudge(UNSCORED))
    env.reset(seed=0)
    observation, _, terminated, *_ = env.step(r"\boxed{8}")
    assert NEUTRAL in observation
    assert not terminated


def test_infrastructure_failure_ends_the_episode_at_once() -> None:
    env = CritiqueRefine(base(), ScriptedJudge(scored(0.5)))
    reward, terminated, truncated, info = play(env, BROKEN)[-1]
    assert math.isnan(reward)
    assert (terminated, truncated) == (False, True)
    assert info["stop_reason"] == "infrastructure_failure"


def test_a_limit_around_the_episode_ends_it_whatever_the_attempts() -> None:
    env = CritiqueRefine(TimeLimit(base(), max_episode_steps=2), ScriptedJudge(scored(0.5)))
    assert play(env, CALL, CALL)[-1][1:3] == (False, True)


def test_a_truncated_first_attempt_is_refined_after_its_last_results() -> None:
    env = CritiqueRefine(base(max_turns=1), ScriptedJudge(scored(0.5)))
    env.reset(seed=0)
    observation, _, terminated, truncated, _ = env.step(CALL)
    assert observation.startswith("<tool_response>\n2.0")
    assert "Use the tool." in observation
    assert not terminated
    assert not truncated


def test_senseless_orders_are_refused_with_the_reason() -> None:
    judge = ScriptedJudge(scored(0.5))
    for stack, said in (
        (lambda: ProcessReward(CritiqueRefine(base(), judge), judge), "own process reward"),
        (lambda: ProcessReward(ProcessReward(base(), judge), judge), "pay twice"),
        (lambda: CritiqueRefine(CritiqueRefine(base(), judge), judge), "attempts=3"),
        (lambda: CritiqueObservation(CritiqueRefine(base(), judge), judge), "outside"),
    ):
        with pytest.raises(ValueError, match=said):
            stack()
    with pytest.raises(TypeError, match="tool-use environment"):
        ProcessReward(gym.make("CartPole-v1"), judge)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="make_reward_model"):
        ProcessReward(base(), "rubric")  # type: ignore[arg-type]


def test_the_sandbox_keeps_its_state_over_the_attempts() -> None:
    env = CritiqueRefine(
        ToolUseEnv(addition_tasks(), ["python"], "embedded"), ScriptedJudge(scored(0.5))
    )
    env.reset(seed=0)
    code = '<tool_call>{{"name": "python", "arguments": {{"code": "{}"}}}}</tool_call>'
    env.step(code.format("x = 41"))
    env.step("I do not know.")
    assert "42" in env.step(code.format("x + 1"))[0]
    env.step("I do not know.")
    env.reset(seed=0)
    assert "NameError" in env.step(code.format("x"))[0]
    env.close()


# --- CritiqueObservation


def test_advice_joins_the_observation_every_so_many_turns() -> None:
    judge = ScriptedJudge(scored(0.5, critique="Slow down."))
    env = CritiqueObservation(base(), judge, every=2)
    env.reset(seed=0)
    shown = [env.step(CALL)[0] for _ in range(4)]
    assert ["Slow down." in text for text in shown] == [False, True, False, True]
    assert [len(seen.turns) for seen in judge.saw] == [2, 4]
    assert env.step(r"\boxed{7}")[0] == ""


def test_advice_that_gives_the_answer_away_is_left_out() -> None:
    env = CritiqueObservation(base(), ScriptedJudge(scored(0.5, critique="It is 7.")))
    env.reset(seed=0)
    observation, *_, info = env.step(CALL)
    assert "It is 7." not in observation
    assert info["critique_replaced"] is True
