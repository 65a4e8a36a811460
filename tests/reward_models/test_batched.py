"""Merging the calls of many callers: who waits for whom, what errors do, and that nobody hangs."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import gymnasium
import pytest

from reagent_env import Task, ToolUseEnv
from reagent_env.judgement import Judgement
from reagent_env.reward_models import BatchedJudge, JudgeUnavailable, RewardModel
from reagent_env.reward_models.base import Unscored, kind_of
from reagent_env.reward_models.batched import BatchCounts
from reagent_env.reward_models.noise import NoiseJudge
from reagent_env.testing import example_trajectory
from reagent_env.testing.reward_model_contract import RewardModelContract
from reagent_env.trajectory import Trajectory
from reagent_env.vector import ToolUseVectorEnv
from reagent_env.wrappers import ProcessReward


class Slow:
    """Scores by the number of turns; notes the batches; does what ``then`` says, if anything."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[int] = []
        self.at_once = 0
        self.most_at_once = 0
        self.begun = threading.Semaphore(0)
        self.may_go = threading.Event()
        self.may_go.set()
        self.error: BaseException | None = None

    def judge(self, trajectories: Sequence[Trajectory]) -> list[Judgement]:
        self.batches.append(len(trajectories))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.begun.release()
        assert self.may_go.wait(5)
        time.sleep(self.seconds)
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        return [Judgement(score=len(each.turns) / 100) for each in trajectories]


class TestABatchedJudgeKeepsTheContract(RewardModelContract):
    def make_reward_model(self) -> RewardModel:
        return BatchedJudge(NoiseJudge(seed=3), window_s=0.001)


def ask(judge: BatchedJudge, turns: int) -> float | None:
    return judge.judge([example_trajectory(turns)])[0].score


def test_sixty_callers_share_a_few_batches_and_each_gets_its_own_judgement() -> None:
    inner = Slow(seconds=0.02)
    judge = BatchedJudge(inner, window_s=0.05, max_batch=32)
    with ThreadPoolExecutor(60) as threads:
        scores = list(threads.map(lambda turns: ask(judge, turns), range(1, 61)))
    assert scores == [turns / 100 for turns in range(1, 61)]
    assert sum(inner.batches) == 60
    assert len(inner.batches) <= 6  # 60 without batching
    assert max(inner.batches) <= 32
    assert judge.counts() == BatchCounts(60, 60, len(inner.batches))


def test_a_lone_caller_waits_for_the_window_only() -> None:
    began = time.monotonic()
    assert ask(BatchedJudge(Slow(), window_s=0.05), 3) == 0.03
    assert 0.04 <= time.monotonic() - began < 1.0


def test_a_full_batch_does_not_wait_for_the_window() -> None:
    judge = BatchedJudge(Slow(), window_s=30, max_batch=2)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda turns: ask(judge, turns), [4, 5])) == [0.04, 0.05]


def test_what_comes_while_the_judge_is_busy_is_the_next_batch() -> None:
    inner = Slow()
    inner.may_go.clear()
    judge = BatchedJudge(inner, window_s=0)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(ask, judge, 1)
        assert inner.begun.acquire(timeout=5)
        later = [threads.submit(ask, judge, turns) for turns in range(2, 8)]
        while len(judge._waiting) < 6:
            time.sleep(0.001)
        inner.may_go.set()
        assert [each.result(5) for each in [first, *later]] == [n / 100 for n in range(1, 8)]
    assert inner.batches == [1, 6]
    assert inner.most_at_once == 1


def test_the_oldest_are_next_and_a_large_request_is_not_overtaken() -> None:
    inner = Slow()
    inner.may_go.clear()
    judge = BatchedJudge(inner, window_s=0, max_batch=4)
    order: list[str] = []

    def ask_many(name: str, count: int) -> None:
        judge.judge([example_trajectory(1)] * count)
        order.append(name)

    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(ask_many, "first", 1)]
        assert inner.begun.acquire(timeout=5)
        for place, (name, count) in enumerate([("three", 3), ("nine", 9), ("one", 1)]):
            futures.append(threads.submit(ask_many, name, count))
            while len(judge._waiting) <= place:
                time.sleep(0.001)
        inner.may_go.set()
        for each in futures:
            each.result(5)
    assert inner.batches == [1, 3, 9, 1]
    assert order == ["first", "three", "nine", "one"]


def test_a_caller_serves_others_for_one_batch_only() -> None:
    inner = Slow(seconds=0.005)
    judge = BatchedJudge(inner, window_s=0, max_batch=1)
    stop = time.monotonic() + 0.5
    asked = [0] * 6

    def keep_asking(place: int) -> None:
        while time.monotonic() < stop:
            ask(judge, place + 1)
            asked[place] += 1

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(keep_asking, range(6)))
    assert min(asked) >= 1
    assert max(asked) <= 2 * min(asked) + 2  # nobody asks while others wait for ever


def test_an_error_reaches_every_caller_and_the_next_batch_is_judged() -> None:
    inner = Slow()
    inner.error = ConnectionError("the judge is gone")
    judge = BatchedJudge(inner, window_s=0.1, max_batch=5)

    def caught(turns: int) -> str:
        with pytest.raises(ConnectionError) as error:
            ask(judge, turns)
        return str(error.value)

    with ThreadPoolExecutor(5) as threads:
        assert list(threads.map(caught, range(1, 6))) == ["the judge is gone"] * 5
    inner.error = None
    assert ask(judge, 7) == 0.07


def test_breaking_off_the_leader_does_not_leave_the_others_waiting() -> None:
    inner = Slow()
    inner.error = KeyboardInterrupt()
    judge = BatchedJudge(inner, window_s=0.2, max_batch=3)

    def outcome(turns: int) -> str:
        try:
            ask(judge, turns)
        except BaseException as error:
            return type(error).__name__
        return "judged"

    with ThreadPoolExecutor(3) as threads:
        seen = sorted(threads.map(outcome, range(1, 4)))
    assert seen == [JudgeUnavailable.__name__] * 2 + ["KeyboardInterrupt"]
    inner.error = None
    assert ask(judge, 7) == 0.07


def test_too_few_judgements_are_refused() -> None:
    class Careless:
        def judge(self, trajectories: Sequence[Trajectory]) -> list[Judgement]:
            return [Judgement(score=0.5)]

    with pytest.raises(ValueError, match="1 judgements of 2 trajectories"):
        BatchedJudge(Careless(), window_s=0).judge([example_trajectory()] * 2)


def test_patience_ends_in_no_score_and_not_in_a_hang() -> None:
    inner = Slow()
    inner.may_go.clear()
    judge = BatchedJudge(inner, window_s=0, patience_s=0.1)
    with ThreadPoolExecutor(2) as threads:
        hanging = threads.submit(ask, judge, 1)
        assert inner.begun.acquire(timeout=5)
        (judgement,) = judge.judge([example_trajectory(2)])
        assert kind_of(judgement) is Unscored.TRANSPORT
        assert "0.1 s" in str(judgement.unscored)
        inner.may_go.set()
        assert hanging.result(5) == 0.01
    assert ask(judge, 3) == 0.03
    assert inner.batches == [1, 1]  # what was given up is not asked


def test_a_judge_in_this_process_is_waited_for_however_long_it_takes() -> None:
    class Unhurried(Slow):
        patience_s = math.inf

    inner = Unhurried()
    inner.may_go.clear()
    judge = BatchedJudge(inner, window_s=0)
    assert (judge.patience_s, BatchedJudge(Slow()).patience_s) == (math.inf, 600.0)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, judge, 1)
        assert inner.begun.acquire(timeout=5)
        second = threads.submit(ask, judge, 2)
        inner.may_go.set()
        assert (first.result(5), second.result(5)) == (0.01, 0.02)


def test_a_server_can_be_asked_about_several_batches_at_once() -> None:
    inner = Slow(seconds=0.05)
    judge = BatchedJudge(inner, window_s=0, max_batch=1, at_once=3)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda turns: ask(judge, turns), range(1, 7)))
    assert 2 <= inner.most_at_once <= 3


def test_an_earlier_attempt_is_cut_out_for_any_judge() -> None:
    first = example_trajectory(2)
    both = replace(first, attempts=(*first.attempts, example_trajectory(5).attempts[0]))
    judge = BatchedJudge(Slow(), window_s=0)
    assert judge.judge([both], attempt=0)[0].score == 0.02
    with pytest.raises(IndexError, match="2 attempts"):
        judge.judge([both], attempt=2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"window_s": -1}, "window_s"), ({"max_batch": 0}, "max_batch"), ({"at_once": 0}, "at_once")],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BatchedJudge(NoiseJudge(), **settings)  # type: ignore[arg-type]


def test_the_finished_episodes_of_a_vector_env_are_judged_together() -> None:
    inner = Slow()
    judge = BatchedJudge(inner, window_s=0.5, max_batch=4)

    def make() -> gymnasium.Env[str, str]:
        env = ToolUseEnv(tasks=[Task("What is 1 + 1?", "2", grader="number")], tools=[])
        return ProcessReward(env, judge, weight=0.5)

    envs = ToolUseVectorEnv(4, make_env=make)
    try:
        envs.reset(seed=0)
        _, rewards, terminated, _, _ = envs.step([r"\boxed{2}"] * 4)
    finally:
        envs.close()
    assert terminated.all()
    assert rewards.tolist() == pytest.approx([1.005] * 4)
    assert inner.batches == [4]
