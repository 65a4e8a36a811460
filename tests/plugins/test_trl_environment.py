"""TRL's environments: tools as methods, one number a rollout, a critique inside one rollout."""

from __future__ import annotations

import inspect
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium
import pytest
from transformers.utils import get_json_schema

from reagent_env.env import ToolUseEnv
from reagent_env.judgement import Judgement
from reagent_env.plugins.conformance_env import LEDGER, ScriptedJudge, ledger_tasks
from reagent_env.plugins.trl import make_environment_factory, outcome_reward, process_reward
from reagent_env.plugins.trl_environment import OVER, RECORDED, shown_type
from reagent_env.sandboxes.contract import Limits
from reagent_env.sandboxes.errors import SandboxUnavailable
from reagent_env.sandboxes.pool import SandboxPool
from reagent_env.sandboxes.select import sandbox_factory
from reagent_env.task import Task
from reagent_env.trajectory import Trajectory

sys.path.insert(0, str(Path(__file__).parent))

from outside_envs import BAZAAR, LIFT

TASK = ledger_tasks()[0]  # Ada and Bo: 165


class Fixed:
    """Scores as told, in the order of asking; None is unscored."""

    def __init__(self, *scores: float | None) -> None:
        self.scores = list(scores)

    def judge(self, trajectories: Sequence[Trajectory]) -> list[Judgement]:
        score = self.scores.pop(0)
        if score is None:
            return [Judgement(critique="Look again.", unscored="no verdict") for _ in trajectories]
        return [Judgement(critique="Look again.", score=score) for _ in trajectories]


def test_the_public_functions_of_the_class_are_the_tools_and_what_trl_needs() -> None:
    environment = make_environment_factory(LEDGER)()
    public = {
        name
        for name, _ in inspect.getmembers(type(environment), predicate=inspect.isfunction)
        if not name.startswith("_")
    }
    assert public == {"reset", "get_reward", "submit_answer", "balance", "add", "audit"}
    text = make_environment_factory(LEDGER, answer="text")()
    assert not hasattr(text, "get_reward")
    assert not hasattr(text, "submit_answer")


@pytest.mark.parametrize(
    "env_id", [LEDGER, "reagent/SearchQA-v0", "reagent/PythonMath-v0", "reagent/FileQA-v0"]
)
def test_the_schema_that_trl_shows_is_the_tools_own(env_id: str) -> None:
    where = {} if env_id == LEDGER else {"sandbox": "process"}
    factory = make_environment_factory(env_id, **where)
    environment = factory()
    for name, tool in environment._env.unwrapped.tools.items():
        shown = get_json_schema(getattr(environment, name))["function"]
        own = tool.schema["function"]
        assert shown["name"] == own["name"]
        assert shown["description"].split() == own["description"].split()
        assert set(shown["parameters"]["properties"]) == set(own["parameters"]["properties"])
        assert shown["parameters"].get("required") == own["parameters"].get("required")
        for argument, given in own["parameters"]["properties"].items():
            assert shown["parameters"]["properties"][argument]["type"] == given["type"]


def test_answers_are_submitted_by_a_tool_with_a_schema() -> None:
    shown = get_json_schema(make_environment_factory(LEDGER)().submit_answer)["function"]
    assert list(shown["parameters"]["properties"]) == ["answer"]


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        (list[str], list[str]),
        (str | None, str | None),
        (Literal["a", "b"], Literal["a", "b"]),
        (dict[str, Task], dict[str, dict]),
        (Task, dict),
        (Annotated[int, "metres"], int),
    ],
)
def test_types_that_transformers_does_not_know_are_shown_as_objects(hint: Any, shown: Any) -> None:
    assert shown_type(hint) == shown


def test_a_right_answer_after_two_calls_earns_the_outcome() -> None:
    environment = make_environment_factory(LEDGER)()
    assert environment.reset(task=0) == TASK.question
    assert environment.balance(owner="Ada") == "Ada has 120"
    assert environment.add(a=120, b=45) == "165"
    assert environment.submit_answer("165") == RECORDED
    assert environment.get_reward() == 1.0
    assert environment.add(a=1, b=1) == OVER


def test_a_mistaken_argument_is_told_and_not_raised() -> None:
    environment = make_environment_factory(LEDGER)()
    environment.reset(task=0)
    assert "unexpected argument 'owners'" in environment.balance(owners="Ada")


def test_the_process_is_paid_with_its_weight() -> None:
    environment = make_environment_factory(LEDGER, judge=Fixed(0.8), weight=0.5)()
    environment.reset(task=0)
    environment.submit_answer("165")
    assert environment.get_reward() == pytest.approx(1.0 + 0.5 * 0.8)


def test_the_first_answer_brings_the_critique_and_the_second_ends_the_rollout() -> None:
    environment = make_environment_factory(LEDGER, judge=Fixed(0.2, 0.6), attempts=2)()
    environment.reset(task=0)
    critique = environment.submit_answer("1")
    assert "Look again." in critique
    assert "once more from the start" in critique
    assert environment.submit_answer("165") == RECORDED
    # the mean of 0 + 0.3 * 0.2 and 1 + 0.3 * 0.6
    assert environment.get_reward() == pytest.approx((0.06 + 1.18) / 2)


def test_a_rollout_that_infrastructure_spoiled_has_no_reward_rather_than_zero() -> None:
    environment = make_environment_factory(LEDGER)()
    environment.reset(task=0)
    assert environment.audit(year=1066) == OVER
    assert environment.get_reward() is None


def test_an_unscored_rollout_gets_the_mean_score_of_its_group() -> None:
    judge = Fixed(0.4, None, 0.8)
    factory = make_environment_factory(LEDGER, judge=judge, weight=0.3)
    group = [factory() for _ in range(3)]
    for environment in group:
        environment.reset(task=0)
    for environment in group:
        environment.submit_answer("165")
    rewards = [environment.get_reward() for environment in group]
    assert rewards == pytest.approx([1.12, 1.18, 1.24])  # 0.6 stands in for the missing score


def test_with_fewer_than_two_scores_in_the_group_the_process_pays_nobody() -> None:
    factory = make_environment_factory(LEDGER, judge=Fixed(0.4, None))
    group = [factory(), factory()]
    for environment in group:
        environment.reset(task=0)
    for environment in group:
        environment.submit_answer("165")
    assert [environment.get_reward() for environment in group] == [1.0, 1.0]


def test_an_answer_that_never_came_counts_as_wrong() -> None:
    environment = make_environment_factory(LEDGER, judge=Fixed())()
    environment.reset(task=0)
    environment.balance(owner="Ada")
    assert environment.get_reward() == 0.0


def test_reset_reuses_the_environment_for_another_task() -> None:
    environment = make_environment_factory(LEDGER)()
    environment.reset(task=0)
    environment.submit_answer("165")
    assert environment.reset(task=1) == ledger_tasks()[1].question
    assert environment.get_reward() == 0.0
    environment.submit_answer(str(ledger_tasks()[1].answer))
    assert environment.get_reward() == 1.0


def test_a_row_without_a_task_is_refused_since_a_group_shares_its_task() -> None:
    environment = make_environment_factory(LEDGER)()
    with pytest.raises(ValueError, match=r"every rollout of a group would get another task"):
        environment.reset(prompt=[{"role": "user", "content": ""}])


def test_answers_as_text_are_taken_by_the_reward_functions() -> None:
    factory = make_environment_factory(LEDGER, answer="text", judge=Fixed(0.5, 0.7))
    right, wrong = factory(), factory()
    for environment in (right, wrong):
        environment.reset(task=0)
    right.balance(owner="Ada")
    completions = [
        [{"role": "assistant", "content": r"\boxed{165}"}],
        [{"role": "assistant", "content": r"\boxed{3}"}],
    ]
    given: dict[str, Any] = {"completions": completions, "environments": [right, wrong]}
    assert outcome_reward(**given) == [1.0, 0.0]
    assert process_reward(**given) == pytest.approx([0.15, 0.21])


def test_a_call_that_trl_did_not_run_is_no_answer() -> None:
    environment = make_environment_factory(LEDGER, answer="text")()
    environment.reset(task=0)
    last = {"role": "assistant", "content": r"\boxed{165}", "tool_calls": [{"function": {}}]}
    assert outcome_reward(completions=[[last]], environments=[environment]) == [0.0]


def test_the_data_set_names_the_task_of_each_row() -> None:
    rows = make_environment_factory(LEDGER).dataset(5, seed=1)
    assert len(set(rows["task"])) == 5
    assert rows[0]["prompt"] == [{"content": "", "role": "user"}]
    texts = make_environment_factory(LEDGER, answer="text").dataset(2)
    question = ledger_tasks()[texts[0]["task"]].question
    assert texts[0]["prompt"][-1]["content"] == question
    environment = make_environment_factory(LEDGER, answer="text")()
    assert environment.reset(**texts[0]) is None  # the prompt has it already
    with pytest.raises(ValueError, match="from 1 to 20"):
        make_environment_factory(LEDGER).dataset(21)


def test_the_policy_is_told_what_a_simulator_shows_at_its_start() -> None:
    question, seen = "Bring the lift to floor 2 and open it.", "You stand in a lift on floor 0."
    told = make_environment_factory(LIFT)().reset(task=1)
    assert told.startswith(f"{question}\n\n{seen}")
    factory = make_environment_factory(LIFT, answer="text")
    rows = factory.dataset(4)
    [row] = [one for one in rows if one["task"] == 1]
    assert seen not in row["prompt"][-1]["content"]  # the data set's prompt has the question alone
    assert factory().reset(**row).strip().startswith(seen)
    full = [{"role": "user", "content": told}]
    assert factory().reset(task=1, prompt=full) is None


def test_a_system_prompt_of_the_environments_own_is_in_the_rows_without_the_tools() -> None:
    [row] = make_environment_factory(BAZAAR, greeting="Salâm!").dataset(1)
    assert row["prompt"] == [
        {"role": "system", "content": "Salâm!"},
        {"role": "user", "content": ""},
    ]


def test_a_foreign_tools_enums_shapes_maps_and_optional_arguments_have_a_schema() -> None:
    environment = make_environment_factory(BAZAAR)()
    shown = {
        name: get_json_schema(getattr(environment, name))["function"]["parameters"]
        for name in ("price", "total", "today", "exchange", "ask_the_guild")
    }
    assert shown["price"]["required"] == ["goods"]
    assert shown["price"]["properties"]["unit"]["enum"] == ["florin", "écu"]
    assert shown["total"]["properties"]["lines"]["items"]["type"] == "object"
    assert shown["total"]["properties"]["round_to"]["enum"] == [0, 1, 2]
    assert shown["today"]["properties"] == {}
    assert shown["exchange"]["properties"]["rates"]["type"] == "object"
    environment.reset(task=0)
    assert "3.125 écu" in environment.price(goods="saffron", unit="écu", day=None)
    assert "vendredi" in environment.today()
    assert environment.submit_answer("25") == RECORDED
    assert environment.get_reward() == 1.0


def test_a_factory_is_pickled_without_what_it_made() -> None:
    factory = make_environment_factory(LEDGER, judge=ScriptedJudge(), attempts=2)
    factory()
    twin = pickle.loads(pickle.dumps(factory))
    environment = twin()
    environment.reset(task=0)
    assert "look up both first" in environment.submit_answer("165")


def test_a_registered_environment_is_made_again_for_each_rollout() -> None:
    env = gymnasium.make(LEDGER)
    factory = make_environment_factory(env)
    first, second = factory(), factory()
    assert first._env.unwrapped is not second._env.unwrapped
    loose = ToolUseEnv(tasks=[Task(question="2 + 3?", answer="5", grader="number")])
    with pytest.raises(TypeError, match="cannot be made again"):
        make_environment_factory(loose)


def test_senseless_arguments_are_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="known: tool, text"):
        make_environment_factory(LEDGER, answer="speech")
    with pytest.raises(ValueError, match="leaves no room for a second attempt"):
        make_environment_factory(LEDGER, answer="text", judge="rubric", attempts=2)


def test_a_pool_without_room_for_all_rollouts_is_refused_before_they_wait_for_each_other() -> None:
    with SandboxPool(sandbox_factory("process", Limits()), max_size=1) as pool:
        factory = make_environment_factory("reagent/PythonMath-v0", sandbox=pool, warm=1)
        first = factory()
        with pytest.raises(SandboxUnavailable, match="reserved"):
            factory()
        assert pool.size == 1  # warm before the first call
        del first
