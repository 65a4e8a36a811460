"""One episode, token in, token out: what is trained, what an attempt came to, what masks it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

pytest.importorskip("torch")

from reagent_env import Judgement, Task, Trajectory
from reagent_env.agents.workers import Stopped
from reagent_env.env import ToolUseEnv
from reagent_env.errors import ToolBackendError
from reagent_env.sandboxes.errors import SandboxLost
from reagent_env.testing import add, addition_env
from reagent_env.trainers.engines.base import ContextFull, EngineFailed, Sampling
from reagent_env.trainers.rollout import rollout, up_to_token_limit
from reagent_env.trainers.sample import AttemptReturn, Rollout
from reagent_env.wrappers import CritiqueRefine, ProcessReward

TASK = Task(question="What is 2 + 3?", answer="5", grader="number")
CALL = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'
RIGHT, WRONG = r"\boxed{5}", r"\boxed{6}"


class Judge:
    """Gives the scores it is told, one a judgement; None is unscored."""

    def __init__(self, *scores: float | None, turns: Sequence[float | None] | None = None) -> None:
        self.scores = iter(scores)
        self.turns = None if turns is None else tuple(turns)

    def judge(self, trajectories: Sequence[Trajectory], /) -> list[Judgement]:
        return [self._one() for _ in trajectories]

    def _one(self) -> Judgement:
        score = next(self.scores)
        if score is None:
            return Judgement(unscored="unparsed: nonsense")
        return Judgement(critique="Look again.", score=score, turn_scores=self.turns)


@pytest.fixture
def play(renderer: Any) -> Callable[..., Rollout]:
    def play(engine: Any, env: Any = None, **options: Any) -> Rollout:
        env = addition_env(tool_format="compact") if env is None else env
        return rollout(env, engine, renderer, TASK, Sampling(max_tokens=64), seed=3, **options)

    return play


def test_the_sample_is_what_was_read_and_said_to_the_letter(
    play: Any, scripted: Any, renderer: Any
) -> None:
    engine = scripted([CALL, RIGHT])
    done = play(engine)
    [sample] = done.samples
    told, said = engine.read, engine.said
    assert sample.ids == [*told[0], *said[0], *told[1], *said[1]]
    of_turns = [-1] * len(told[0]) + [0] * len(said[0]) + [-1] * len(told[1]) + [1] * len(said[1])
    assert sample.turn_of == of_turns
    assert sample.sampled_logprobs[len(told[0])] == -0.01
    assert sample.sampled_logprobs[-1] == pytest.approx(-0.01 * len(said[1]))
    assert done.attempts == (AttemptReturn(1.0, (None, None)),)
    assert [turn.completion_ids for turn in done.trajectory.turns] == [tuple(i) for i in said]
    assert engine.open_now == 0


def test_ids_are_kept_as_sampled_where_the_text_would_be_encoded_otherwise(
    play: Any, scripted: Any, renderer: Any
) -> None:
    spelt = [renderer.completion_ids(letter)[0] for letter in r"\boxed{5}"]
    assert [*spelt, renderer.stop_ids[0]] != renderer.completion_ids(RIGHT)
    done = play(scripted([[*spelt, renderer.stop_ids[0]]]))
    assert done.samples[0].ids[-len(spelt) - 1 : -1] == spelt
    assert done.attempts[0].outcome == 1.0


def test_no_token_of_a_tool_is_trained_in_literal_integers(
    play: Any, tokenizer: Any, scripted: Any
) -> None:
    [sample] = play(scripted([CALL, RIGHT])).samples
    observed = tokenizer.encode("<tool_response>\n5.0\n</tool_response>", add_special_tokens=False)
    assert observed == [274, 23, 16, 18, 275]
    start = next(n for n in range(len(sample.ids)) if sample.ids[n : n + 5] == observed)
    assert sample.turn_of[start - 1 : start + 6] == [-1, -1, -1, -1, -1, -1, -1]
    assert sample.turn_of.count(1) == 4
    assert sample.ids[-4:] == [276, 23, 95, 2]  # \\boxed{ 5 } and the end of turn
    assert 274 not in [i for i, own in zip(sample.ids, sample.completion_mask, strict=True) if own]


def test_a_completion_cut_by_the_token_limit_is_closed_by_tokens_that_are_not_trained(
    play: Any, scripted: Any, renderer: Any
) -> None:
    cut = renderer.completion_ids(CALL)[:-1]
    engine = scripted([cut, RIGHT])
    done = play(engine)
    assert engine.read[1][0] in renderer.stop_ids
    assert done.samples[0].turn_of.count(0) == len(cut)
    assert done.attempts[0].outcome == 1.0
    assert up_to_token_limit(done, renderer.stop_ids) is done  # the attempt itself was not cut
    cut_answer = play(scripted([renderer.completion_ids(RIGHT)[:-1]]))
    assert cut_answer.attempts[0].outcome == 1.0
    assert up_to_token_limit(cut_answer, renderer.stop_ids).masked


@pytest.mark.parametrize("credit", ["trajectory", "turn"])
def test_the_outcome_is_told_apart_from_what_the_process_paid(
    play: Any, scripted: Any, credit: str
) -> None:
    env = addition_env(tool_format="compact")
    env = ProcessReward(env, Judge(0.7, turns=(0.2, 0.7)), weight=0.3, credit=credit)
    done = play(scripted([CALL, RIGHT]), env)
    assert done.attempts == (AttemptReturn(1.0, (0.2, 0.7)),)  # not 0.9999999999999999


def test_a_judge_asked_at_every_step_scores_prefixes_and_hindsight_is_not_listened_to(
    play: Any, scripted: Any
) -> None:
    script = [CALL, CALL, WRONG]
    env = ProcessReward(addition_env(tool_format="compact"), Judge(0.4, 0.1, 0.6), when="step")
    assert play(scripted(script), env).attempts == (AttemptReturn(0.0, (0.4, 0.1, 0.6)),)
    judge = Judge(None, None, 0.6, turns=(0.9, 0.9, 0.6))
    env = ProcessReward(addition_env(tool_format="compact"), judge, when="step")
    assert play(scripted(script), env).attempts == (AttemptReturn(0.0, (None, None, 0.6)),)


@pytest.mark.parametrize("when", ["end", "step"])
def test_an_unscored_attempt_keeps_its_outcome(play: Any, scripted: Any, when: str) -> None:
    scores = [None] if when == "end" else [0.5, None]
    env = ProcessReward(addition_env(tool_format="compact"), Judge(*scores), when=when)
    done = play(scripted([CALL, RIGHT]), env)
    assert done.attempts[0].outcome == 1.0
    assert done.attempts[0].score is None
    assert not done.masked


def refined(judge: Any, feedback: str = "critique", **options: Any) -> Any:
    env = addition_env(tool_format="compact", **options)
    return CritiqueRefine(ProcessReward(env, judge), judge, feedback=feedback)


@pytest.mark.parametrize("feedback", ["critique", "retry"])
def test_a_second_attempt_goes_on_from_the_first_in_the_same_sample(
    play: Any, scripted: Any, tokenizer: Any, feedback: str
) -> None:
    engine = scripted([CALL, WRONG, RIGHT])
    done = play(engine, refined(Judge(0.2, 0.9), feedback))
    [sample] = done.samples
    assert max(sample.turn_of) == 2
    assert done.attempts == (AttemptReturn(0.0, (None, 0.2)), AttemptReturn(1.0, (0.9,)))
    assert done.attempt_of_turn() == [0, 0, 1]
    assert ("Look again." in tokenizer.decode(engine.read[2])) == (feedback == "critique")
    assert not any(
        own for own, i in zip(sample.completion_mask, sample.ids, strict=True) if i == 1
    )  # the token that opens a message is never the policy's


def test_an_independent_attempt_starts_a_sample_and_a_conversation_of_its_own(
    play: Any, scripted: Any
) -> None:
    engine = scripted(lambda number, turn: (WRONG, RIGHT)[number])
    done = play(engine, refined(Judge(0.2, 0.9), "independent"))
    first, second = done.samples
    assert engine.read[0] == engine.read[1]
    assert [set(one.turn_of) for one in (first, second)] == [{-1, 0}, {-1, 1}]
    assert [attempt.outcome for attempt in done.attempts] == [0.0, 1.0]
    assert len(set(engine.seeds)) == 2
    assert engine.open_now == 0


def test_a_full_context_ends_the_attempt_under_way_with_outcome_0(play: Any, scripted: Any) -> None:
    full = ContextFull("512 tokens")
    done = play(scripted([CALL, full]), refined(Judge(0.9)))
    assert done.attempts == (AttemptReturn(0.0, (None,)),)
    told = done.trajectory.attempts[0]
    assert (told.stop_reason, told.outcome) == ("context_length", 0.0)
    assert done.trajectory.infrastructure_error is None

    done = play(scripted([WRONG, CALL, full]), refined(Judge(0.9)))
    assert done.attempts == (AttemptReturn(0.0, (0.9,)), AttemptReturn(0.0, (None,)))
    assert [one.stop_reason for one in done.trajectory.attempts] == ["answered", "context_length"]

    done = play(scripted([RIGHT, full]), refined(Judge(0.9)))  # the critique alone fills it
    assert done.attempts == (AttemptReturn(1.0, (0.9,)),)
    assert done.trajectory.attempts[1].stop_reason == "context_length"


def lose(a: float, b: float) -> float:
    """Lose the sandbox.

    Args:
        a: One.
        b: Two.
    """
    raise SandboxLost("killed from outside")


class Down:
    """A judge whose own service is gone, against its contract."""

    def judge(self, trajectories: Any, /) -> Any:
        raise ToolBackendError("no judge")


@pytest.mark.parametrize("what", ["sandbox", "judge", "engine", "second attempt", "nan"])
def test_what_infrastructure_spoils_is_masked_and_never_worth_0(
    play: Any, scripted: Any, what: str
) -> None:
    engine, env = scripted([CALL, RIGHT]), addition_env(tool_format="compact")
    if what == "sandbox":
        call = CALL.replace("add", "lose")
        engine = scripted([call, RIGHT])
        env = ToolUseEnv([TASK], [add, lose], tool_format="compact")
    elif what == "judge":
        env = ProcessReward(env, Down())
    elif what == "engine":
        engine = scripted([CALL, EngineFailed("out of memory")])
    elif what == "second attempt":
        engine, env = scripted([RIGHT, EngineFailed("gone")]), refined(Judge(0.5))
    else:
        env.step = lambda action: ("", float("nan"), True, False, {"turn": 1})
    done = play(engine, env)
    assert done.masked
    assert done.attempts == ()
    error = done.trajectory.infrastructure_error
    names = {"sandbox": "SandboxLost", "judge": "ToolBackendError", "nan": "TaskError"}
    assert error is not None
    assert error.startswith(names.get(what, "EngineFailed"))
    assert done.trajectory.outcome is None or what == "nan"
    assert engine.open_now == 0


def test_an_environment_that_cannot_begin_masks_the_episode(play: Any, scripted: Any) -> None:
    env = addition_env()

    def reset(**_: Any) -> Any:
        raise ToolBackendError("no server")

    env.reset = reset  # type: ignore[method-assign]
    done = play(scripted([RIGHT]), env)
    assert done.masked
    assert done.trajectory.task == TASK
    assert done.trajectory.infrastructure_error == "ToolBackendError: no server"


def test_a_bug_is_no_infrastructure(play: Any, scripted: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        play(scripted([ZeroDivisionError()]))


def test_an_episode_that_is_given_up_leaves_no_record(play: Any, scripted: Any) -> None:
    stopping = threading.Event()
    stopping.set()
    engine = scripted([RIGHT])
    with pytest.raises(Stopped):
        play(engine, stopping=stopping)
    assert engine.said == []
