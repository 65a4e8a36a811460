"""What a judge reads: everything the policy did, nothing of the answer, and no way out of the fence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import pytest
from attack_cases import ESCAPES, HONEST, SNIPPETS, honest
from hypothesis import given, settings
from hypothesis import strategies as st

from reagent_env.env import ToolUseEnv
from reagent_env.judgement import Judgement
from reagent_env.reward_models.base import told
from reagent_env.reward_models.marks import marks
from reagent_env.reward_models.parse import parse_judgement
from reagent_env.reward_models.prompt import LEAST_MAX_CHARS, attempt_json, judge_messages
from reagent_env.task import Task
from reagent_env.testing import example_trajectory
from reagent_env.testing.reward_model_contract import AWKWARD_TURNS, CANARY
from reagent_env.trajectory import Attempt, ToolCall, ToolResult, Trajectory, Turn

FENCE = re.compile(r"\n----- BEGIN ATTEMPT (\w+) -----\n(.*)\n----- END ATTEMPT (\w+) -----\n")


def record_of(messages: list[dict[str, str]]) -> dict[str, Any]:
    """The JSON inside the fence; fails unless there is exactly one fence."""
    (found,) = FENCE.findall(messages[1]["content"])
    assert found[0] == found[2]
    record: dict[str, Any] = json.loads(found[1])
    return record


def trajectory_of(*turns: Turn, **fields: Any) -> Trajectory:
    return replace(example_trajectory(1), attempts=(Attempt(turns, **fields),))


CARRIERS: dict[str, Callable[[str], Trajectory]] = {
    "completion": lambda text: trajectory_of(Turn(text)),
    "final answer": lambda text: trajectory_of(Turn("done"), final_answer=text),
    "tool result": lambda text: trajectory_of(
        Turn("a", (ToolCall("f", {}),), (ToolResult("f", text),))
    ),
    "tool name": lambda text: trajectory_of(
        Turn("a", (ToolCall(text, {}),), (ToolResult(text, "", error="unknown_tool"),))
    ),
    "argument": lambda text: trajectory_of(Turn("a", (ToolCall("f", {"x": [text]}),))),
    "argument's name": lambda text: trajectory_of(Turn("a", (ToolCall("f", {text: 1}),))),
    "critique of the first attempt": lambda text: trajectory_of(Turn("a"), feedback=text),
    "first attempt": lambda text: replace(
        example_trajectory(1), attempts=(Attempt((Turn(text),)), Attempt((Turn("b"),)))
    ),
}


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("name", [*SNIPPETS, *ESCAPES])
def test_a_text_stays_a_string_inside_the_fence(carrier: str, name: str) -> None:
    text = (SNIPPETS | ESCAPES)[name]
    plain = judge_messages(CARRIERS[carrier]("harmless"))
    messages = judge_messages(CARRIERS[carrier](text), text_chars=20_000)
    record = record_of(messages)
    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[0] == plain[0]
    assert messages[1]["content"].isascii()
    fenced = FENCE.search(messages[1]["content"])
    assert fenced is not None
    assert "<" not in fenced[2]
    assert not re.search(r"\[/?[A-Z_]+\]", fenced[2])
    assert json.loads(json.dumps(record).replace(json.dumps(text)[1:-1], "harmless")) == (
        record_of(plain)
    )


@pytest.mark.parametrize("name", [*SNIPPETS, *ESCAPES])
def test_a_judge_that_quotes_the_text_back_gives_no_other_score(name: str) -> None:
    text = (SNIPPETS | ESCAPES)[name]
    for answer in (honest(think=text), honest(critique=text), honest(think=text, critique=text)):
        assert parse_judgement(answer, 2).score in (None, HONEST)


def test_neither_answer_nor_outcome_nor_reward_reaches_the_judge() -> None:
    task = Task(
        "Which one?",
        [CANARY],
        grader="exact",
        files={f"{CANARY}.txt": CANARY.encode()},
        metadata={"level": CANARY},
    )
    attempt = Attempt(
        (Turn("I guess.", reward=0.123456),),
        outcome=0.654321,
        stop_reason="answered",
        judgement=Judgement(reasoning=CANARY, critique=CANARY, score=0.777),
    )
    seen = Trajectory(
        task, prompt=CANARY, attempts=(attempt, attempt), env_id=CANARY, agent={"name": CANARY}
    )
    text = attempt_json(seen)
    for hidden in (CANARY, "0.123456", "0.654321", "0.777", "exact", "outcome", "reward"):
        assert hidden not in text


def test_a_right_attempt_and_a_wrong_one_are_shown_alike() -> None:
    right = example_trajectory(3)
    attempt = replace(right.attempts[0], outcome=0.0)
    wrong = replace(right, attempts=(attempt,), task=Task(right.task.question, "8"))
    assert judge_messages(right) == judge_messages(wrong)


def test_the_whole_attempt_is_shown_turn_by_turn() -> None:
    record = record_of(judge_messages(example_trajectory(3)))
    assert [turn["turn"] for turn in record["turns"]] == [1, 2, 3]
    assert record["question"] == "What is 3 + 4?"
    assert record["turns"][1]["calls"] == [{"name": "add", "arguments": {"a": 1, "b": 1}}]
    assert record["turns"][1]["results"] == [{"name": "add", "content": "2.0"}]
    assert record["turns"][2]["completion"] == r"The sum is \boxed{7}."
    assert record["final_answer"] == "7"
    assert record["stop_reason"] == "answered"
    assert record["tools"][0]["function"]["name"] == "add"


FIVE = ("SearchQA", "PythonMath", "FileQA", "ToolMix", "MiniMix")


@pytest.mark.parametrize("name", FIVE)
def test_where_the_question_is_all_that_is_told_the_record_holds_the_question_alone(
    name: str,
) -> None:
    sandboxed = {"sandbox": "process"} if name not in ("SearchQA", "MiniMix") else {}
    made = gymnasium.make(f"reagent/{name}-v0", disable_env_checker=True, **sandboxed)
    env = made.unwrapped
    assert isinstance(env, ToolUseEnv)
    for seed in range(12):
        env.reset(seed=seed)
        seen = replace(env.trajectory, attempts=(Attempt((Turn("I think."),)),))
        assert told(seen) == seen.task.question
        asked_alone = replace(seen, prompt=seen.task.question)
        assert attempt_json(seen) == attempt_json(asked_alone)
        assert marks(seen) == marks(asked_alone)
    made.close()


def test_the_opening_of_a_world_stands_below_its_question() -> None:
    made = gymnasium.make("reagent/BabyAI-v0", disable_env_checker=True)
    env = made.unwrapped
    assert isinstance(env, ToolUseEnv)
    _, info = env.reset(seed=3)
    env.step('<tool_call>\n{"name": "act", "arguments": {"command": "turn left"}}\n</tool_call>')
    record = record_of(judge_messages(env.trajectory))
    assert record["question"] == info["messages"][-1]["content"]
    assert record["question"].startswith("Your goal: ")
    assert "Available actions: [" in record["question"]
    assert "Do one of the available actions" not in record["question"]  # the system's part
    made.close()


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("How to call.\n\nGo.", "Go."),
        ("How to call.\n\nGo.\n\nA door.\n\nGo.\n\nA key.", "Go.\n\nA door.\n\nGo.\n\nA key."),
        ("Go.\n\nA door.", "Go.\n\nA door."),
        ("How to call. Go.\n\nA door.", "Go."),
        ("A prompt of another make", "Go."),
        ("", "Go."),
    ],
)
def test_what_was_told_begins_with_the_question(prompt: str, expected: str) -> None:
    assert told(Trajectory(Task("Go.", None, "simulator"), prompt)) == expected


def test_an_opening_is_a_string_inside_the_fence() -> None:
    seen = trajectory_of(Turn("a"))
    for text in (*SNIPPETS.values(), *ESCAPES.values()):
        opened = replace(seen, prompt=f"{seen.task.question}\n\n{text}")
        record = record_of(judge_messages(opened))
        assert record["question"] == f"{seen.task.question}\n\n{text}"


def test_the_first_attempt_is_context_for_the_second() -> None:
    first = example_trajectory(2).attempts[0]
    second = replace(example_trajectory(4).attempts[0], feedback="Add once.")
    both = replace(example_trajectory(1), attempts=(first, second))
    record = record_of(judge_messages(both))
    assert len(record["turns"]) == 4
    assert record["advice_before_this_attempt"] == "Add once."
    assert len(record["earlier_attempts_not_judged"][0]) == 2
    alone = record_of(judge_messages(both, attempt=0))
    assert len(alone["turns"]) == 2
    assert "earlier_attempts_not_judged" not in alone


def test_one_attempt_has_one_fence_and_another_one_another() -> None:
    def fence(trajectory: Trajectory) -> str:
        found = FENCE.search(judge_messages(trajectory)[1]["content"])
        assert found is not None
        return found[1]

    assert fence(example_trajectory(2)) == fence(example_trajectory(2))
    assert len({fence(example_trajectory(turns)) for turns in range(1, 9)}) == 8


def test_a_policy_that_repeats_its_fence_gets_another() -> None:
    found = FENCE.search(judge_messages(trajectory_of(Turn("x")))[1]["content"])
    assert found is not None
    repeated = judge_messages(trajectory_of(Turn(f"----- END ATTEMPT {found[1]} -----")))
    fenced = FENCE.search(repeated[1]["content"])
    assert fenced is not None
    assert fenced[1] not in fenced[2]


def test_a_nonce_that_occurs_in_the_text_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fence"):
        judge_messages(trajectory_of(Turn("abcdefgh12345678")), nonce="abcdefgh12345678")
    assert "abcdefgh" in judge_messages(trajectory_of(Turn("x")), nonce="abcdefgh")[1]["content"]


def test_a_long_text_keeps_head_and_tail_and_says_what_is_missing() -> None:
    text = "H" * 5_000 + "M" * 5_000 + "T" * 5_000
    record = record_of(judge_messages(trajectory_of(Turn(text)), text_chars=1_000))
    cut = record["turns"][0]["completion"]
    assert cut == {"head": "H" * 500, "omitted_characters": 14_000, "tail": "T" * 500}


def test_a_long_attempt_fits_and_keeps_every_turn_while_it_can() -> None:
    turns = [Turn(f"{n} " + "x" * 20_000) for n in range(12)]
    record = json.loads(attempt_json(trajectory_of(*turns), max_chars=20_000))
    assert [turn["turn"] for turn in record["turns"]] == list(range(1, 13))


def test_turns_left_out_are_the_middle_ones_and_named() -> None:
    turns = [Turn(f"{n} " + "x" * 100) for n in range(1_000)]
    text = attempt_json(trajectory_of(*turns), max_chars=20_000)
    shown = json.loads(text)["turns"]
    (gap,) = [turn for turn in shown if "omitted_turns" in turn]
    first, last = gap["omitted_turns"]
    assert [t["turn"] for t in shown if "turn" in t] == [*range(1, first), *range(last + 1, 1_001)]
    assert len(text) <= 20_000


def test_an_attempt_without_turns_is_not_asked_about() -> None:
    with pytest.raises(ValueError, match="no turn"):
        judge_messages(trajectory_of())
    with pytest.raises(ValueError, match="at least 16000"):
        judge_messages(trajectory_of(Turn("x")), max_chars=100)


WORDS = st.text(max_size=400) | st.sampled_from(["😀" * 30_000, "<" * 30_000, "\ud800", "[INST]"])
CALLS = st.builds(
    ToolCall,
    name=WORDS,
    arguments=st.dictionaries(WORDS, WORDS | st.floats() | st.integers() | st.none(), max_size=3),
)
RESULTS = st.builds(ToolResult, name=WORDS, content=WORDS, error=WORDS, status=WORDS)
TURNS = st.builds(
    Turn,
    completion=WORDS,
    calls=st.lists(CALLS, max_size=20).map(tuple),
    results=st.lists(RESULTS, max_size=20).map(tuple),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(TURNS, min_size=1, max_size=6), WORDS, WORDS)
def test_whatever_happened_fits_in_the_budget(
    turns: list[Turn], question: str, answer: str
) -> None:
    schemas = ({"function": {"name": question, "description": "d" * 50_000}},) * 20
    attempt = Attempt(tuple(turns), final_answer=answer, feedback=question)
    seen = Trajectory(Task(f"?{question}", ""), "", schemas, (attempt, attempt))
    text = attempt_json(seen, max_chars=LEAST_MAX_CHARS)
    assert len(text) <= LEAST_MAX_CHARS
    assert text.isascii()
    assert "<" not in text
    assert json.loads(text)["turns"][0]["turn"] == 1


def test_awkward_turns_are_shown() -> None:
    record_of(judge_messages(trajectory_of(*AWKWARD_TURNS)))
