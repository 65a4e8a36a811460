"""Planted flaws are where and what they say, and what follows them really happened."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from planted_pairs import flawed_turn, of_kind, pairs

from reagent_env.agents.judge_data import PlantedRecord, plant, read_records, write_records
from reagent_env.agents.judge_data.benign import TWINS
from reagent_env.agents.judge_data.flaws import flaw_kinds
from reagent_env.agents.judge_data.playing import hits, stands_in
from reagent_env.agents.judge_data.records import CLEAN
from reagent_env.env import ToolUseEnv
from reagent_env.graders import grade


def read_before(record: PlantedRecord) -> str:
    """The question and all results before the flawed turn."""
    turns = record.trajectory.turns[: record.turn]
    return record.trajectory.task.question + "\n" + "\n".join(t.observation for t in turns)


def test_there_are_twelve_kinds_and_more_and_each_is_planted(planted: list[PlantedRecord]) -> None:
    assert len(flaw_kinds()) >= 12
    made = {record.kind for record in planted}
    assert made == {CLEAN, *flaw_kinds(), *TWINS}


def test_the_prefix_is_the_partners_until_they_part(planted: list[PlantedRecord]) -> None:
    for record, clean in pairs(planted):
        assert record.diverges is not None
        shared = slice(0, record.diverges)
        assert record.trajectory.turns[shared] == clean.trajectory.turns[shared]
        if record.flawed:
            assert record.turn is not None
            assert record.diverges <= record.turn
            parted = [t.trajectory.turns[record.diverges].completion for t in (record, clean)]
            assert parted[0] != parted[1]


def test_a_flawed_trajectory_never_equals_its_partner(planted: list[PlantedRecord]) -> None:
    for record, clean in pairs(planted):
        mine = [turn.completion for turn in record.trajectory.turns]
        assert mine != [turn.completion for turn in clean.trajectory.turns], record.kind


@pytest.mark.parametrize("env_id", ["reagent/SearchQA-v0", "reagent/PythonMath-v0"])
def test_every_result_is_what_the_environment_answers(
    env_id: str, searching: list[PlantedRecord], computing: list[PlantedRecord]
) -> None:
    records = searching if "Search" in env_id else computing
    with_sandbox = {} if "Search" in env_id else {"sandbox": "embedded"}
    made = gymnasium.make(env_id, disable_env_checker=True, **with_sandbox)
    env = made.unwrapped
    assert isinstance(env, ToolUseEnv)
    flawed = [record for record in records if record.flawed]
    for record in flawed[:: 1 if "Search" in env_id else 4]:
        env.reset(options={"task": record.trajectory.task})
        for turn in record.trajectory.turns:
            observation, reward, *_ = env.step(turn.completion)
            assert observation == turn.observation
            assert reward == turn.reward
    made.close()


def test_targets_fall_at_the_flawed_turn_and_nowhere_else(planted: list[PlantedRecord]) -> None:
    for record in planted:
        assert record.turn_targets[-1] == record.target
        falls = [
            i
            for i in range(1, len(record.turn_targets))
            if record.turn_targets[i] < record.turn_targets[i - 1]
        ]
        assert falls == ([record.turn] if record.turn else [])
        assert (record.target < 0.9) == record.flawed


def test_no_critique_holds_the_answer(planted: list[PlantedRecord]) -> None:
    for record in planted:
        for answer in (record.trajectory.task.answer, record.trajectory.attempts[-1].final_answer):
            if isinstance(answer, str) and answer:
                assert not stands_in(answer, record.critique)


def test_outcomes_are_the_graders(planted: list[PlantedRecord]) -> None:
    for record in planted:
        attempt = record.trajectory.attempts[-1]
        assert attempt.outcome == grade(record.trajectory.task, attempt.final_answer)


def test_a_repeated_call_was_made_before(planted: list[PlantedRecord]) -> None:
    for record in of_kind(planted, "repeated_call"):
        calls = flawed_turn(record).calls
        earlier = [turn.calls for turn in record.trajectory.turns[: record.turn]]
        assert calls in earlier


def test_a_malformed_call_is_answered_as_one(planted: list[PlantedRecord]) -> None:
    for record in of_kind(planted, "malformed_call"):
        assert all(outcome.error for outcome in flawed_turn(record).results)


def test_a_hallucinated_argument_stands_nowhere_before(searching: list[PlantedRecord]) -> None:
    for record in of_kind(searching, "hallucinated_argument"):
        (call,) = flawed_turn(record).calls
        value = call.arguments.get("url") or call.arguments["queries"][0]
        name = value.removeprefix("wiki://").replace("_", " ")
        assert not stands_in(name, read_before(record))


def test_an_invented_number_replaces_one_of_the_question(computing: list[PlantedRecord]) -> None:
    for record in of_kind(computing, "hallucinated_argument"):
        code = flawed_turn(record).calls[0].arguments["code"].split("\n")[0]
        given = re.findall(r"\d+", record.trajectory.task.question)
        assert any(number not in given for number in re.findall(r"\d{2,}", code))


@pytest.mark.parametrize("kind", ["lucky_guess", "premature_answer", "answer_not_in_evidence"])
def test_an_answer_out_of_the_blue_stands_in_no_result(
    planted: list[PlantedRecord], kind: str
) -> None:
    for record in of_kind(planted, kind):
        answer = record.trajectory.attempts[-1].final_answer or ""
        assert not stands_in(answer, "\n".join(t.observation for t in record.trajectory.turns))
        assert record.turn == len(record.trajectory.turns) - 1


def test_a_lucky_guess_is_the_experts_answer(planted: list[PlantedRecord]) -> None:
    guessed = {r.pair_id: r for r in of_kind(planted, "lucky_guess")}
    for record, clean in pairs(planted):
        if record.pair_id in guessed:
            assert (
                record.trajectory.attempts[-1].final_answer
                == clean.trajectory.attempts[-1].final_answer
            )


def test_an_ignored_result_did_say_otherwise(planted: list[PlantedRecord]) -> None:
    for record, clean in pairs(planted):
        if record.kind == "ignored_result":
            right = clean.trajectory.attempts[-1].final_answer or ""
            assert stands_in(right, read_before(record))
            assert record.trajectory.attempts[-1].final_answer != right


def test_a_fabricated_result_was_never_returned(planted: list[PlantedRecord]) -> None:
    """The clean partner made a call at that place; the flawed one never did."""
    for record, clean in pairs(planted):
        if record.kind == "fabricated_result":
            assert record.diverges is not None
            skipped = clean.trajectory.turns[record.diverges].calls
            mine = [turn.calls for turn in record.trajectory.turns[: (record.turn or 0) + 1]]
            assert skipped
            assert skipped not in mine


def test_a_distractor_is_a_fact_about_the_second_hit(searching: list[PlantedRecord]) -> None:
    for record in of_kind(searching, "distractor"):
        assert record.diverges is not None
        found = [
            hit for turn in record.trajectory.turns[: record.turn] for hit in hits(turn.observation)
        ]
        said = flawed_turn(record).completion.split("</think>")[-1]
        words = {w for title, _, snippet in found for w in re.findall(r"[\w,]{3,}", snippet)}
        assert any(stands_in(word, said) for word in words)


def test_a_skipped_hop_answers_what_was_found_on_the_way(searching: list[PlantedRecord]) -> None:
    for record in of_kind(searching, "skipped_hop"):
        answer = record.trajectory.attempts[-1].final_answer or ""
        assert stands_in(answer, read_before(record))
        assert not stands_in(answer, record.trajectory.task.question)


def test_a_unit_slip_scales_a_number(mixing: list[PlantedRecord]) -> None:
    for record in of_kind(mixing, "unit_slip"):
        assert re.search(r"\d+ \* 10+\b", flawed_turn(record).calls[0].arguments["code"])


def test_what_follows_a_wrong_program_rests_on_what_it_printed(
    mixing: list[PlantedRecord],
) -> None:
    for kind in ("unit_slip", "stale_value", "dropped_condition"):
        for record in of_kind(mixing, kind):
            answer = record.trajectory.attempts[-1].final_answer or ""
            assert stands_in(answer, flawed_turn(record).observation)


def test_a_dropped_condition_leaves_the_filter_out(filing: list[PlantedRecord]) -> None:
    for record in of_kind(filing, "dropped_condition"):
        assert "\nconditions = " not in "\n" + flawed_turn(record).calls[0].arguments["code"]
        assert "is" in record.trajectory.task.question


def test_a_stale_value_is_another_years_table(filing: list[PlantedRecord]) -> None:
    for record in of_kind(filing, "stale_value"):
        table = re.search(r"table = '(\w+)'", flawed_turn(record).calls[0].arguments["code"])
        assert table is not None
        assert table[1] not in record.trajectory.task.question.split("\n")[0]
        assert table[1] in read_before(record)


def test_benign_twins_come_to_the_same_answer(planted: list[PlantedRecord]) -> None:
    for record, clean in pairs(planted):
        if record.benign:
            attempt = record.trajectory.attempts[-1]
            assert attempt.final_answer == clean.trajectory.attempts[-1].final_answer
            assert (record.turn, record.target, attempt.outcome) == (None, clean.target, 1.0)


def test_equivalent_code_prints_the_same(filing: list[PlantedRecord]) -> None:
    for record in of_kind(filing, "equivalent_code"):
        clean = next(r for r in filing if r.pair_id == record.pair_id and r.kind == CLEAN)
        assert record.trajectory.turns[1].observation == clean.trajectory.turns[1].observation
        assert record.trajectory.turns[1].calls != clean.trajectory.turns[1].calls


def test_neither_outcome_nor_length_gives_flaws_away(searching: list[PlantedRecord]) -> None:
    flawed = [r for r in searching if r.flawed]
    clean = [c for f, c in pairs(searching) if f.flawed]
    assert any(r.trajectory.outcome == 1.0 for r in flawed)
    assert any(r.trajectory.outcome == 0.0 for r in clean)
    shorter = sum(len(f.trajectory.turns) < len(c.trajectory.turns) for f, c in pairs(searching))
    longer = sum(len(f.trajectory.turns) > len(c.trajectory.turns) for f, c in pairs(searching))
    assert min(shorter, longer) > len(flawed) // 6


def test_mislabelled_pairs_say_so(planted: list[PlantedRecord]) -> None:
    for record, clean in pairs(planted):
        outcomes = (record.trajectory.outcome, clean.trajectory.outcome)
        if record.label == "lucky":
            assert outcomes == (1.0, 0.0)
        elif record.label == "unlucky":
            assert outcomes == (0.0, 0.0)
        else:
            assert outcomes[1] == 1.0


def test_splits_share_no_task() -> None:
    drawn = {
        split: {r.group for r in plant("reagent/SearchQA-v0", 3, split=split, twins_per_task=0)}
        for split in ("train", "test")
    }
    assert not drawn["train"] & drawn["test"]


def test_records_read_back_as_written(searching: list[PlantedRecord], tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    assert write_records(path, searching[:20]) == 20
    assert list(read_records(path)) == searching[:20]


def test_a_line_that_is_no_record_is_named(searching: list[PlantedRecord], tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    write_records(path, searching[:1])
    path.write_text(path.read_text() + '{"kind": "clean"}\n')
    with pytest.raises(ValueError, match="line 2: not a record"):
        list(read_records(path))


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"unit_slop; known flaws: .*unit_slip"):
        plant("reagent/SearchQA-v0", 1, kinds=["unit_slop"])


def test_the_same_seed_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys; from reagent_env.agents.judge_data import plant, write_records\n"
        "records = plant('reagent/ToolMix-v0', 3, seed=5, flaws_per_task=8, sandbox='embedded')\n"
        "write_records(sys.argv[1], records)"
    )
    written = []
    for hash_seed in ("1", "2"):
        path = tmp_path / f"{hash_seed}.jsonl"
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
        )
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert len(written[0].splitlines()) > 20
    assert json.loads(written[0].splitlines()[0])["trajectory"]["timings"] == {}
