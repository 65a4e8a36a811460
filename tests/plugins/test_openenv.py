"""Environments behind OpenEnv's server, driven by OpenEnv's own client over real connections."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from openenv import GenericEnvClient

from reagent_env import Task, ToolUseEnv
from reagent_env.plugins.conformance_env import LEDGER, ScriptedJudge
from reagent_env.plugins.openenv import make_app, make_environment_class, running
from reagent_env.plugins.openenv_trl import make_trl_factory
from reagent_env.testing import addition_env

sys.path.insert(0, str(Path(__file__).parent))

from outside_envs import BAZAAR

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # websockets' and FastAPI's

SECONDS = 20.0
BALANCE = '<tool_call>\n{"name": "balance", "arguments": {"owner": "Ada"}}\n</tool_call>'
RIGHT = r"\boxed{165}"  # Ada's 120 and Bo's 45: the first task


def client(url: str) -> Any:
    return GenericEnvClient(base_url=url).sync()


def wait_for(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not found() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found()


def test_an_episode_over_the_wire_is_judged_and_refined() -> None:
    app = make_app(LEDGER, judge=ScriptedJudge(), attempts=2)
    with running(app) as url, client(url) as env:
        begun = env.reset(task=0)
        assert begun.observation["text"].endswith("How much do Ada and Bo hold together?")
        assert [one["role"] for one in begun.observation["messages"]] == ["system", "user"]
        assert begun.observation["tool_format"] == "hermes"
        assert (begun.reward, begun.done) == (None, False)
        seen = env.step({"text": BALANCE})
        assert "Ada has 120" in seen.observation["text"]
        assert (seen.reward, seen.done, seen.observation["attempt_ended"]) == (0.0, False, False)
        first = env.step({"text": RIGHT})
        assert first.done is False
        assert first.observation["attempt_ended"] is True
        assert first.observation["critique"] in first.observation["text"]
        assert first.observation["outcome"] == 1.0
        assert first.reward == pytest.approx(1.0 + 0.3 * first.observation["score"])
        last = env.step({"text": r"\boxed{-1}"})
        assert (last.done, last.observation["outcome"]) == (True, 0.0)
        assert last.observation["stop_reason"] == "answered"
        assert env.state()["step_count"] == 3


def test_what_infrastructure_spoils_has_no_reward_rather_than_zero() -> None:
    closed = '<tool_call>\n{"name": "audit", "arguments": {"year": 1066}}\n</tool_call>'
    with running(make_app(LEDGER)) as url, client(url) as env:
        env.reset(seed=1)
        seen = env.step({"text": closed})
        assert (seen.reward, seen.done) == (None, True)
        assert "archive does not answer" in seen.observation["infrastructure_error"]


def test_sessions_are_apart_and_one_too_many_is_told_so() -> None:
    with running(make_app(LEDGER, max_sessions=2)) as url, client(url) as one, client(url) as two:
        one.reset(task=0)
        two.reset(task=3)
        assert one.state()["task_id"] != two.state()["task_id"]
        assert one.step({"text": RIGHT}).reward == 1.0
        assert two.state()["step_count"] == 0
        with pytest.raises(Exception, match=r"[Cc]apacity|CAPACITY"), client(url) as third:
            third.reset()


def test_a_client_that_goes_gives_its_environment_back() -> None:
    app = make_app(LEDGER)
    with running(app) as url:
        with client(url) as env:
            env.reset(seed=0)
            assert len(app.state.served.live) == 1
        wait_for(lambda: not app.state.served.live)


def test_a_client_that_says_nothing_loses_its_lease() -> None:
    app = make_app(LEDGER, session_timeout=0.3)
    with running(app) as url, client(url) as env:
        env.reset(seed=0)
        wait_for(lambda: not app.state.served.live)
        with pytest.raises(Exception):  # noqa: B017 - which one depends on websockets
            env.step({"text": RIGHT})


def test_without_the_middleware_a_silent_client_keeps_its_lease() -> None:
    app = make_app(LEDGER, session_timeout=0.3)
    app.user_middleware.clear()
    with running(app) as url, client(url) as env:
        env.reset(seed=0)
        time.sleep(1.0)
        assert len(app.state.served.live) == 1


def test_the_servers_end_closes_every_session() -> None:
    closed = []

    class Noted(ToolUseEnv):
        def close(self) -> None:
            closed.append(1)
            super().close()

    def make() -> Any:
        return Noted([Task("2 + 3?", "5", grader="number")])

    app = make_app(make)
    before = len(closed)  # the one that was made to find out whether it can be
    with running(app) as url:
        env = client(url)
        env.connect()
        env.reset(seed=0)
    wait_for(lambda: len(closed) == before + 1)


def test_mistakes_are_answered_and_the_session_goes_on() -> None:
    with running(make_app(LEDGER)) as url, client(url) as env:
        with pytest.raises(Exception, match="call reset"):
            env.step({"text": "x"})
        with pytest.raises(Exception, match="takes seed, episode_id and task"):
            env.reset(difficulty=3)
        assert env.reset(task=0).observation["text"]
        assert env.step({"text": RIGHT}).reward == 1.0


def test_an_environment_already_made_cannot_be_shared() -> None:
    with pytest.raises(TypeError, match="Every session needs an environment of its own"):
        make_environment_class(addition_env())


def test_tasks_are_told_without_their_answers() -> None:
    served = make_environment_class(LEDGER)()
    [split] = served.list_splits()
    assert served.num_tasks(split) == 20
    assert set(served.get_task(split, 0)) == {"id", "index", "question"}
    with pytest.raises(ValueError, match="no split 'dev'"):
        served.num_tasks("dev")
    served.close()


def test_trls_class_has_the_servers_tools_as_methods() -> None:
    with running(make_app(LEDGER)) as url:
        made = make_trl_factory(url)
        assert str(inspect.signature(made.add)) == "(self, *, a: float, b: float) -> str"
        assert "a: The first number." in str(made.add.__doc__)
        assert made.submit_answer.__name__ == "submit_answer"
        for tool in (made.add, made.balance, made.audit, made.submit_answer):
            assert "self" not in tool.__annotations__  # transformers would want a schema of it
        env = made()
        assert env.reset(task=0) == "How much do Ada and Bo hold together?"
        assert "Ada has 120" in env.balance(owner="Ada")
        assert env.submit_answer(answer="165").startswith("The answer was recorded")
        assert env.get_reward() == 1.0
        assert env.balance(owner="Bo").startswith("The task is over")
        env.reset(task=0)
        env.audit(year=1066)
        assert env.get_reward() is None
        with pytest.raises(ValueError, match="neither a `task` nor a `seed`"):
            env.reset()


def test_trls_class_shows_enums_choices_lists_and_optional_arguments_of_a_foreign_tool() -> None:
    with running(make_app(BAZAAR)) as url:
        made = make_trl_factory(url)
        hints = {
            name: getattr(made, name).__annotations__ for name in ("price", "total", "exchange")
        }
        assert hints["price"] == {
            "return": str,
            "goods": str,
            "unit": Literal["florin", "écu"],
            "day": str | None,
        }
        assert hints["total"]["lines"] == list[dict]
        assert hints["total"]["round_to"] == Literal[0, 1, 2]
        assert hints["exchange"]["rates"] == dict[str, float]
        assert made.today.__annotations__ == {"return": str}
        env = made()
        env.reset(task=0)
        assert "3.125 écu" in env.price(goods="saffron", unit="écu", day=None)
        lines = [{"goods": "saffron", "count": 2}, {"goods": "绿茶", "gift": True}]
        assert "12.50 florin" in env.total(lines=lines, coupon={"percent": 50})
        assert "vendredi" in env.today()
        assert env.exchange(rates={"écu": 4.5}, coins={"écu": 2}, exact=True).count("9") == 1
        env.submit_answer(answer="25")
        assert env.get_reward() == 1.0
