"""Groups of rollouts in flight: complete as they finish, nothing lost, nothing trained twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

pytest.importorskip("torch")

from reagent_env.env import ToolUseEnv
from reagent_env.errors import ToolBackendError
from reagent_env.testing import addition_tasks
from reagent_env.trainers.collector import Collector, Source, assignment
from reagent_env.trainers.engines.base import Sampling

TASKS = addition_tasks(6)
SECONDS = 20.0


class Watched(ToolUseEnv):
    """Sums; ``on_answer(env, action)`` may wait or raise before an answer counts."""

    def __init__(self, on_answer: Callable[[Any, str], None] = lambda env, action: None) -> None:
        super().__init__(TASKS, tool_format="compact", max_turns=5)
        self.on_answer = on_answer
        self.limits: list[int] = []

    def _answer(self, episode: Any, action: str, text: str) -> Any:
        self.limits.append(self.max_turns)
        self.on_answer(self, action)
        return super()._answer(episode, action, text)


@pytest.fixture
def collector(renderer: Any, scripted: Any) -> Callable[..., Collector]:
    def make(on_answer: Any = lambda env, action: None, **options: Any) -> Collector:
        engine = scripted(lambda number, turn: r"\boxed{5}")
        made = options.pop("made", [])

        def make_env() -> Any:
            made.append(Watched(on_answer))
            return made[-1]

        settings: dict[str, Any] = {"seed": 7, "groups": 2, "group_size": 2, "concurrency": 4}
        return Collector(
            [Source("a", make_env, TASKS)],
            [1.0],
            engine,
            renderer,
            Sampling(max_tokens=32),
            **(settings | options),
        )

    return make


def indices(groups: Any) -> list[int]:
    return [group.index for group in groups]


def test_an_update_has_its_groups_whole_and_in_order(collector: Any) -> None:
    with closing(collector(spare_groups=0)) as one:
        groups = [*one.collect(0), *one.collect(1)]
        assert indices(groups) == [0, 1, 2, 3]
        for group in groups:
            assert [rollout.member for rollout in group.rollouts] == [0, 1]
            assert {rollout.trajectory.task.id for rollout in group.rollouts} == {
                TASKS[assignment(7, group.index, [(1.0, 6)]).task].id
            }
        assert (one.next_group, one.unfinished) == (4, [])


def test_the_task_of_a_group_is_a_pure_function_without_repeats_in_a_pass() -> None:
    def tasks(seed: int, sources: Any, groups: range) -> list[Any]:
        return [assignment(seed, group, sources) for group in groups]

    first, second = tasks(3, [(1.0, 50)], range(50)), tasks(3, [(1.0, 50)], range(50, 100))
    assert sorted(one.task for one in first) == list(range(50))
    assert sorted(one.task for one in second) == list(range(50))
    assert first != second
    assert first == tasks(3, [(1.0, 50)], range(50))
    assert first != tasks(4, [(1.0, 50)], range(50))
    mixed = tasks(3, [(3.0, 40), (1.0, 7)], range(2000))
    assert 0.72 < sum(one.source == 0 for one in mixed) / 2000 < 0.78
    assert {one.task for one in mixed if one.source == 1} == set(range(7))


def test_a_slow_member_holds_up_nobody_and_counts_in_a_later_update(collector: Any) -> None:
    free, slow = threading.Event(), TASKS[assignment(7, 0, [(1.0, 6)]).task].id

    def wait(env: Any, action: str) -> None:
        if env.trajectory.task.id == slow:
            free.wait(SECONDS)

    with closing(collector(wait, spare_groups=2, concurrency=8, max_staleness=1)) as one:
        began = time.monotonic()
        assert indices(one.collect(0)) in ([1, 2], [1, 3], [2, 3])
        assert time.monotonic() - began < SECONDS / 2
        assert 0 in one.unfinished
        free.set()
        deadline = time.monotonic() + SECONDS
        while not all(future.done() for future in one._running) and time.monotonic() < deadline:
            time.sleep(0.01)
        later = one.collect(1)
        assert 0 in [*indices(later), *one.unfinished]
        assert one.counts.stale == 0


def test_groups_of_too_old_weights_run_again(collector: Any) -> None:
    with closing(collector(spare_groups=1, max_staleness=0, concurrency=1)) as one:
        assert len(one.collect(0)) == 2
        while not all(future.done() for future in one._running):
            time.sleep(0.01)
        later = one.collect(5)
        assert one.counts.stale == 1
        assert one.counts.wasted_tokens > 0
        assert len({*indices(later), *one.unfinished}) == 3  # the stale one among them


def test_what_infrastructure_spoils_is_tried_again_and_then_masked(collector: Any) -> None:
    failures = {"left": 2}
    lock = threading.Lock()

    def fail(env: Any, action: str) -> None:
        with lock:
            failures["left"] -= 1
            if failures["left"] >= 0:
                raise ToolBackendError("down")

    settings = {"spare_groups": 0, "concurrency": 1, "groups": 1, "group_size": 1}
    with closing(collector(fail, retries=2, **settings)) as one:
        [group] = one.collect(0)
        assert not group.rollouts[0].masked
        assert (one.counts.retried, one.counts.masked) == (2, 0)
    failures["left"] = 2
    with closing(collector(fail, retries=1, **settings)) as one:
        [group] = one.collect(0)
        assert group.rollouts[0].masked
        assert (one.counts.retried, one.counts.masked) == (1, 1)
        assert group.kept == ()


def test_a_run_that_goes_on_loses_no_group_and_trains_none_twice(collector: Any) -> None:
    trained: list[int] = []
    with closing(collector(spare_groups=3)) as one:
        trained += indices(one.collect(0))
        next_group, unfinished = one.next_group, one.unfinished
    assert sorted([*trained, *unfinished]) == list(range(next_group))
    with closing(collector(spare_groups=3, unfinished=unfinished, next_group=next_group)) as one:
        for update in range(1, 4):
            trained += indices(one.collect(update))
        trained += one.unfinished
        assert sorted(trained) == list(range(one.next_group))


def test_the_turn_limit_is_that_of_the_update_at_which_a_group_begins(collector: Any) -> None:
    made: list[Any] = []
    with closing(collector(spare_groups=0, turns_at=lambda update: 3 + update, made=made)) as one:
        one.collect(0)
        one.collect(4)
    assert sorted(limit for env in made for limit in env.limits) == [3] * 4 + [7] * 4


def test_a_bug_in_a_worker_comes_out_as_it_is(collector: Any) -> None:
    def stumble(env: Any, action: str) -> None:
        raise KeyError("a bug")

    with closing(collector(stumble)) as one, pytest.raises(KeyError, match="a bug"):
        one.collect(0)


def test_closing_waits_for_no_episode(collector: Any) -> None:
    free = threading.Event()
    one = collector(lambda env, action: free.wait(SECONDS) and None, spare_groups=0)
    one._begin(0)
    began = time.monotonic()
    one.close()
    one.close()
    assert time.monotonic() - began < 3.0
    free.set()


def test_more_groups_can_be_asked_for_in_place_of_some(collector: Any) -> None:
    with closing(collector(spare_groups=0)) as one:
        assert indices(one.collect(0)) == [0, 1]
        assert indices(one.collect(0, count=1)) == [2]


def test_every_rollout_is_reported_as_it_ends(collector: Any) -> None:
    seen: list[Any] = []
    with closing(collector(spare_groups=0)) as one:
        one.collect(0, seen.append)
    assert sorted((rollout.group, rollout.member) for rollout in seen) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
