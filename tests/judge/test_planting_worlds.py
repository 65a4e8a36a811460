"""Flaws in worlds and in SQL: really played, really wrong, and evened out like the others."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import gymnasium
import pytest
from planted_pairs import flawed_turn, of_kind, pairs

from reagent_env.agents.judge_data import PlantedRecord, plant
from reagent_env.agents.judge_data.cli import ALL
from reagent_env.agents.judge_data.flaws import flaw_kinds
from reagent_env.env import ToolUseEnv
from reagent_env.trajectory import Turn

CRAFTING, GRID, SQL = "reagent/TextCraft-v0", "reagent/BabyAI-v0", "reagent/SQL-v0"
WORLDS = (CRAFTING, GRID)
IN_A_WORLD = {
    "repeated_call",
    "needless_call",
    "purposeless_lookup",
    "wrong_tool",
    "malformed_call",
    "hallucinated_argument",
    "fabricated_result",
    "ignored_result",
    "skipped_hop",
    "premature_answer",
}


@pytest.fixture(scope="module")
def planted() -> dict[str, list[PlantedRecord]]:
    made = {env_id: plant(env_id, 6, flaws_per_task=10) for env_id in WORLDS}
    made[SQL] = plant(SQL, 3, flaws_per_task=14, twins_per_task=1, sandbox="process")
    return made


def command_of(turn: Turn) -> str:
    return str(turn.calls[0].arguments.get("command", "")) if turn.calls else ""


def refused(turn: Turn) -> bool:
    return any(one.error or one.content.startswith("Could not") for one in turn.results)


@pytest.mark.parametrize("env_id", WORLDS)
def test_every_kind_that_makes_sense_in_a_world_is_planted_under_its_own_name(
    env_id: str, planted: dict[str, list[PlantedRecord]]
) -> None:
    kinds = {record.kind for record in planted[env_id] if record.flawed}
    assert kinds == IN_A_WORLD
    known = flaw_kinds()
    assert {r.target for r in planted[env_id] if r.flawed} == {known[k].target for k in kinds}


def test_sql_has_all_kinds_but_two(planted: dict[str, list[PlantedRecord]]) -> None:
    kinds = {record.kind for record in planted[SQL] if record.flawed}
    assert kinds == set(flaw_kinds()) - {"stale_value", "distractor"}


@pytest.mark.parametrize("env_id", [*WORLDS, SQL])
def test_every_result_is_what_the_environment_answers(
    env_id: str, planted: dict[str, list[PlantedRecord]]
) -> None:
    options = {"sandbox": "process"} if env_id == SQL else {}
    made = gymnasium.make(env_id, disable_env_checker=True, **options)
    env = made.unwrapped
    assert isinstance(env, ToolUseEnv)
    for record in planted[env_id][:: 12 if env_id == SQL else 3]:
        env.reset(options={"task": record.trajectory.task})
        assert env.trajectory.prompt == record.trajectory.prompt
        for turn in record.trajectory.turns:
            observation, reward, *_ = env.step(turn.completion)
            assert (observation, reward) == (turn.observation, turn.reward)
        assert env.trajectory.stop_reason == record.trajectory.stop_reason
    made.close()


@pytest.mark.parametrize("env_id", WORLDS)
def test_a_clean_partner_reaches_the_goal_and_no_command_of_it_is_refused(
    env_id: str, planted: dict[str, list[PlantedRecord]]
) -> None:
    for record, clean in pairs(planted[env_id]):
        for sound in (clean, *([record] if record.benign else [])):
            assert sound.trajectory.stop_reason == "finished"
            assert (sound.trajectory.outcome or 0.0) > 0.0
            assert not any(map(refused, sound.trajectory.turns))


@pytest.mark.parametrize("env_id", WORLDS)
def test_what_a_world_pays_is_left_as_it_is(
    env_id: str, planted: dict[str, list[PlantedRecord]]
) -> None:
    for record in planted[env_id]:
        assert record.label == "as_is"
        stopped = record.trajectory.stop_reason == "answered"
        assert (record.trajectory.outcome == 0.0) == stopped


@pytest.mark.parametrize("env_id", WORLDS)
def test_the_prefix_is_the_partners_until_they_part(
    env_id: str, planted: dict[str, list[PlantedRecord]]
) -> None:
    for record, clean in pairs(planted[env_id]):
        assert record.diverges is not None
        shared = slice(0, record.diverges)
        assert record.trajectory.turns[shared] == clean.trajectory.turns[shared]
        if record.turn is not None:
            assert record.diverges <= record.turn


@pytest.mark.parametrize("env_id", WORLDS)
def test_turns_do_not_give_flaws_away(env_id: str, planted: dict[str, list[PlantedRecord]]) -> None:
    differences = Counter(
        len(f.trajectory.turns) - len(c.trajectory.turns)
        for f, c in pairs(planted[env_id])
        if f.flawed
    )
    assert set(differences) <= {-2, -1, 0, 1, 2}
    assert min(differences[-1], differences[0], differences[1]) > sum(differences.values()) // 8
    assert differences[2] + differences[-2] < sum(differences.values()) // 4


@pytest.mark.parametrize("env_id", WORLDS)
def test_what_comes_too_early_or_is_made_up_is_refused(
    env_id: str, planted: dict[str, list[PlantedRecord]]
) -> None:
    for kind in ("skipped_hop", "malformed_call", "wrong_tool"):
        assert all(refused(flawed_turn(record)) for record in of_kind(planted[env_id], kind))
    for record in of_kind(planted[env_id], "ignored_result"):
        assert record.turn is not None
        assert refused(record.trajectory.turns[record.turn - 1])
    for record in of_kind(planted[env_id], "fabricated_result"):
        assert refused(flawed_turn(record)) or not flawed_turn(record).calls


def test_a_hallucinated_thing_was_named_nowhere_before(
    planted: dict[str, list[PlantedRecord]],
) -> None:
    for env_id in WORLDS:
        for record in of_kind(planted[env_id], "hallucinated_argument"):
            words = command_of(flawed_turn(record)).split()
            thing = " ".join(word for word in words[1:] if word.isalpha() and word != "to")
            before = record.trajectory.turns[: record.turn]
            known = record.trajectory.prompt + "\n".join(turn.observation for turn in before)
            assert thing not in known


def test_what_is_fetched_for_nothing_is_never_used(
    planted: dict[str, list[PlantedRecord]],
) -> None:
    for record in of_kind(planted[CRAFTING], "purposeless_lookup"):
        item = command_of(flawed_turn(record)).split(" ", 2)[2]
        commands = [command_of(turn) for turn in record.trajectory.turns]
        assert not any(item in command.partition(" using ")[2] for command in commands)


def test_in_a_grid_a_look_changes_nothing_and_a_twin_arrives(
    planted: dict[str, list[PlantedRecord]],
) -> None:
    for record in of_kind(planted[GRID], "second_look"):
        looks = [t for t in record.trajectory.turns if command_of(t) == "check available actions"]
        assert len(looks) == 1


@pytest.mark.parametrize("env_id", [*WORLDS, SQL])
def test_targets_fall_at_the_flawed_turn_and_critiques_hold_no_command(
    env_id: str, planted: dict[str, list[PlantedRecord]]
) -> None:
    for record in planted[env_id]:
        targets = record.turn_targets
        falls = [i for i in range(1, len(targets)) if targets[i] < targets[i - 1]]
        assert falls == ([record.turn] if record.turn else [])
        for turn in record.trajectory.turns:
            assert not command_of(turn) or command_of(turn) not in record.critique


def test_a_query_that_drops_a_condition_is_the_partners_without_it(
    planted: dict[str, list[PlantedRecord]],
) -> None:
    for record, clean in pairs(planted[SQL]):
        if record.kind == "dropped_condition":
            dropped = str(flawed_turn(record).calls[0].arguments["query"])
            whole = str(clean.trajectory.turns[1].calls[0].arguments["query"])
            assert len(dropped) < len(whole)
            assert whole.startswith(dropped.split(" GROUP BY")[0])


def test_a_made_up_table_is_not_there(planted: dict[str, list[PlantedRecord]]) -> None:
    for record in of_kind(planted[SQL], "hallucinated_argument"):
        assert "no such" in flawed_turn(record).results[0].content


def test_a_world_nobody_has_described_is_refused_by_name() -> None:
    from reagent_env.agents.judge_data.flaws_world import world_of

    with pytest.raises(
        ValueError, match=r"SciWorld-v0; they are for reagent/TextCraft-v0, reagent/B"
    ):
        world_of("reagent/SciWorld-v0")


def test_kinds_that_no_world_has_are_refused_with_those_that_it_has() -> None:
    with pytest.raises(ValueError, match=r"unit_slip fits reagent/TextCraft-v0; there fit: repeat"):
        plant(CRAFTING, 1, kinds=["unit_slip"])


def test_all_stands_for_the_five_sets_of_tools() -> None:
    names = [env_id.removeprefix("reagent/").removesuffix("-v0") for env_id in ALL]
    assert names == ["PythonMath", "FileQA", "SearchQA", "ToolMix", "MiniMix"]


def test_the_same_seed_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys; from reagent_env.agents.judge_data import plant, write_records\n"
        f"records = [r for env in {WORLDS!r} for r in plant(env, 2, seed=5)]\n"
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
    assert len(written[0].splitlines()) > 30


SEARCHED = "5c13c19be0c32f34921b7e0e0a9f7e1d69e743a2a95e09d85e1e7bd629cdb387"
"""SHA-256 of what two tasks of SearchQA gave before worlds were planted in."""


def test_the_records_of_a_set_of_questions_are_what_they_were() -> None:
    records = plant("reagent/SearchQA-v0", 2, seed=1)
    lines = "".join(json.dumps(r.to_json(), sort_keys=True) + "\n" for r in records)
    assert hashlib.sha256(lines.encode()).hexdigest() == SEARCHED
