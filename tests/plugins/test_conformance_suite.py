"""The suite itself: its scripts reach every way an episode can go, and it notices what differs."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest

from reagent_env.plugins.building import build_env
from reagent_env.plugins.conformance import (
    ConformanceSuite,
    Driver,
    Script,
    Seen,
    differences,
    play_bare,
    scripts,
)
from reagent_env.plugins.conformance_env import LEDGER, ScriptedJudge
from reagent_env.testing.fakes import addition_env


def test_two_hundred_scripts_reach_every_way_an_episode_can_go() -> None:
    every = list(scripts(200))
    seen = [play_bare(script) for script in every]
    stops = Counter(stop for one in seen for stop in one.stop_reasons or ())
    assert stops["answered"] > 100
    assert stops["max_turns"] > 10
    assert stops["infrastructure_failure"] > 10
    assert sum(one.left_out or False for one in seen) == stops["infrastructure_failure"]
    assert {len(one.attempt_starts or ()) for one in seen} == {1, 2, 3}
    scores = [score for one in seen for score in one.process_scores or ()]
    assert any(score is None for score in scores)
    assert any(score is not None for score in scores)
    assert 100 < sum(script.one_call_a_turn for script in every) < 200
    assert sum(one.episode_return == 1.0 for one in seen) > 5


def test_a_script_is_the_same_episode_twice() -> None:
    for script in scripts(12):
        assert not differences(play_bare(script), play_bare(script))


CHANGES = [
    {"prompt": "another task"},
    {"observations": ("something else",)},
    {"rewards": (0.0, 0.0, 0.25)},
    {"episode_return": 0.25},
    {"turn_shares": (0.0,)},
    {"process_scores": (0.123,)},
    {"stop_reasons": ("max_turns",)},
    {"attempt_starts": (0, 1)},
    {"trained": ("half a completion",)},
    {"left_out": True},
    {"rewards": None},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_every_field_that_differs_is_named(change: dict[str, object]) -> None:
    bare = next(seen for seen in map(play_bare, scripts(20)) if not seen.left_out)
    found = differences(bare, dataclasses.replace(bare, **change))  # type: ignore[arg-type]
    assert [line.partition(":")[0] for line in found] == list(change)


def test_an_unseen_field_is_not_compared_and_must_exist() -> None:
    bare = play_bare(next(scripts(1)))
    blind = dataclasses.replace(bare, turn_shares=None)
    assert not differences(bare, blind, frozenset({"turn_shares"}))
    with pytest.raises(ValueError, match="Unknown fields"):
        differences(bare, blind, frozenset({"turn_share"}))


def test_a_lost_episode_is_not_a_reward_of_zero() -> None:
    lost = next(seen for seen in map(play_bare, scripts(200)) if seen.left_out)
    assert math.isnan((lost.rewards or ())[-1])
    zeroed = dataclasses.replace(lost, rewards=(*(lost.rewards or ())[:-1], 0.0))
    assert differences(lost, zeroed)[0].startswith("rewards")


class _Wrong:
    name = "wrong"
    unseen: frozenset[str] = frozenset()

    def can_play(self, script: Script) -> bool:
        return script.number < 20

    def play(self, script: Script) -> Seen:
        seen = play_bare(script)
        return dataclasses.replace(seen, rewards=tuple(2 * r for r in seen.rewards or ()))


class _WrongSuite(ConformanceSuite):
    def driver(self) -> Driver:
        return _Wrong()


def test_the_suite_fails_a_plug_in_that_doubles_rewards() -> None:
    with pytest.raises(AssertionError, match="rewards: bare"):
        _WrongSuite().test_the_episodes_look_the_same_through_the_library()


def test_an_environment_is_built_from_an_id_a_function_or_itself() -> None:
    for source in (LEDGER, addition_env, addition_env()):
        env = build_env(source, judge=ScriptedJudge(), attempts=2)
        _, info = env.reset(seed=0)
        assert info["turn"] == 0
        *_, terminated, _, info = env.step(r"\boxed{1}")
        assert info["attempt_ended"]
        assert not terminated
        env.close()


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a judge"):
        build_env(LEDGER, attempts=2)
    with pytest.raises(ValueError, match="made already"):
        build_env(addition_env(), max_turns=3)
    with pytest.raises(TypeError, match="Expected an id"):
        build_env(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"made no gymnasium\.Env"):
        build_env(lambda: 3)  # type: ignore[arg-type, return-value]
