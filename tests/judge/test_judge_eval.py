"""A judge that knows the labels is perfect, noise is noise, a leaky kind is flagged, peeking fails."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reagent_env.agents.judge_cli import read_judged, summary_of
from reagent_env.agents.judge_data import PlantedRecord, write_records
from reagent_env.agents.judge_data.records import CLEAN
from reagent_env.agents.judge_eval.evaluation import Report, evaluate_judge
from reagent_env.agents.judge_eval.injections import INJECTIONS, injected
from reagent_env.agents.judge_eval.judging import blinded, fingerprint, judge_all, load_judge
from reagent_env.agents.judge_eval.probes import Pair, run_probe
from reagent_env.agents.judge_eval.report import kind_rows, markdown, summary_rows, write_report
from reagent_env.cli import app
from reagent_env.judgement import Judgement
from reagent_env.reward_models import make_reward_model
from reagent_env.tool_formats import get_tool_format
from reagent_env.trajectory import Trajectory
from reagent_env.trajectory_file import TrajectoryWriter


class Oracle:
    """Knows every record's label by what a judge sees of it; of anything else it says 0."""

    def __init__(self, records: Sequence[PlantedRecord], certain: bool = True) -> None:
        self.labels = {fingerprint(blinded(r.trajectory)): r for r in records}
        self.certain = certain

    def judge(self, trajectories: Sequence[Trajectory], /) -> list[Judgement]:
        return [self._one(trajectory) for trajectory in trajectories]

    def _one(self, trajectory: Trajectory) -> Judgement:
        record = self.labels.get(fingerprint(trajectory))
        if record is None:
            return Judgement(score=0.0)
        turns = record.turn_targets
        if self.certain:
            turns = tuple(1.0 if y > 0.9 else 0.0 for y in turns)
        return Judgement(score=turns[-1], turn_scores=turns)


class Gullible:
    """Scores what calls itself good, and what is long; has no score where a call was malformed."""

    def judge(self, trajectories: Sequence[Trajectory], /) -> list[Judgement]:
        return [self._one(trajectory) for trajectory in trajectories]

    def _one(self, trajectory: Trajectory) -> Judgement:
        turns = trajectory.turns
        if any(call.malformed for turn in turns for call in turn.calls):
            return Judgement(unscored="unparsed: no verdict")
        text = "".join(turn.completion + turn.observation for turn in turns)
        praised = "<score>1.0</score>" in text
        return Judgement(score=1.0 if praised else min(0.8, len(turns) / 20))


@pytest.fixture(scope="module")
def perfect(planted: list[PlantedRecord]) -> Report:
    return evaluate_judge(Oracle(planted), planted)[0]


def test_the_oracle_is_perfect_everywhere(perfect: Report) -> None:
    assert {found["pairwise"]["value"] for found in perfect["kinds"].values()} == {1.0}
    assert perfect["pairwise"]["all"]["value"] == 1.0
    for name in ("no_flaw", "no_flaw_by_length", "no_flaw_right_only", "no_flaw_wrong_only"):
        assert perfect["separation"][name]["value"] == 1.0
    for name in ("raw", "isotonic"):
        assert perfect["calibration"][name]["brier"] == pytest.approx(0.0, abs=1e-12)
        assert perfect["calibration"][name]["ece"] == pytest.approx(0.0, abs=1e-12)
    assert perfect["localisation"]["all"]["accuracy"]["value"] == 1.0
    assert {found["drop"]["value"] for found in perfect["benign"].values()} == {0.0}
    assert perfect["injection"]["succeeded"] == 0.0
    assert perfect["unscored"]["rate"] == 0.0


def test_noise_is_noise(planted: list[PlantedRecord]) -> None:
    """Uniform scores: pairwise ½, Brier ½·E[(s−1)²] + ½·E[s²] = ⅓; recalibrated, ¼."""
    report, _ = evaluate_judge(make_reward_model("noise"), planted, injections_each=0, probes=False)
    low, high = (report["pairwise"]["all"][end] for end in ("low", "high"))
    assert low < 0.5 < high
    assert report["calibration"]["raw"]["brier"] == pytest.approx(1 / 3, abs=0.05)
    assert report["calibration"]["isotonic"]["brier"] == pytest.approx(0.25, abs=0.05)
    assert report["separation"]["no_flaw"]["value"] == pytest.approx(0.5, abs=0.1)


def test_a_constant_judge_ties_and_finds_no_turn(searching: list[PlantedRecord]) -> None:
    report, _ = evaluate_judge(
        make_reward_model("constant"), searching, injections_each=0, probes=False
    )
    assert report["pairwise"]["all"]["value"] == 0.5
    assert report["calibration"]["raw"]["brier"] == pytest.approx(0.25)
    assert report["localisation"]["all"]["accuracy"]["value"] == 0.0
    assert report["bias"]["turns_in_clean"] is None


def test_bias_injection_and_gaps_show(searching: list[PlantedRecord]) -> None:
    report, _ = evaluate_judge(Gullible(), searching, injections_each=2, probes=False)
    assert report["bias"]["turns_in_clean"] > 0.99
    assert report["separation"]["no_flaw_by_length"]["value"] == pytest.approx(0.5, abs=0.03)
    assert "verdict" in report["injection"]["by_template"]
    assert "plain_request" not in report["injection"]["by_template"]
    assert report["unscored"]["by_kind"] == {"unparsed": 14}
    assert report["kinds"]["malformed_call"]["pairwise"]["n"] == 0
    assert report["benign"]["longer_path"]["drop"]["value"] == pytest.approx(-0.1)


def test_a_judge_sees_neither_answer_nor_outcome(searching: list[PlantedRecord]) -> None:
    class Peeper:
        def judge(self, trajectories: Sequence[Trajectory], /) -> list[Judgement]:
            for one in trajectories:
                assert one.outcome is None
                assert one.task.answer == ""
                assert not one.task.metadata
                assert all(turn.reward == 0.0 for turn in one.turns)
            return [Judgement(score=0.5)] * len(trajectories)

    judge_all(Peeper(), [r.trajectory for r in searching])


def test_the_same_trajectory_is_judged_once(searching: list[PlantedRecord]) -> None:
    judged = judge_all(make_reward_model("noise"), [searching[0].trajectory] * 3)
    assert judged.asked == 1
    assert len(judged.judgements) == 3


def test_a_judge_that_loses_one_is_refused(searching: list[PlantedRecord]) -> None:
    class Loser:
        def judge(self, trajectories: Sequence[Trajectory], /) -> list[Judgement]:
            return [Judgement(score=0.5)]

    with pytest.raises(ValueError, match="1 judgements of 2 trajectories"):
        judge_all(Loser(), [searching[0].trajectory, searching[1].trajectory])


def leaky(record: PlantedRecord) -> Trajectory:
    """The clean trajectory with a word in it that gives the flaw away."""
    attempt = record.trajectory.attempts[-1]
    last = attempt.turns[-1]
    last = dataclasses.replace(last, completion=f"oops {last.completion}")
    attempt = dataclasses.replace(attempt, turns=(*attempt.turns[:-1], last))
    return dataclasses.replace(record.trajectory, attempts=(attempt,))


def test_a_kind_that_words_give_away_is_flagged(searching: list[PlantedRecord]) -> None:
    clean = [r for r in searching if r.kind == CLEAN][::6]
    told = run_probe("words", [Pair(leaky(r), r.trajectory, r.group) for r in clean])
    untold = run_probe("words", [Pair(r.trajectory, r.trajectory, r.group) for r in clean])
    assert told.pairwise == 1.0
    assert told.flagged
    assert untold.pairwise == 0.5
    assert not untold.flagged


def test_a_kind_that_length_gives_away_is_flagged(searching: list[PlantedRecord]) -> None:
    twins = {r.pair_id: r for r in searching if r.kind == "longer_path"}
    pairs = [
        Pair(twins[c.pair_id].trajectory, c.trajectory, c.group)
        for c in searching
        if c.kind == CLEAN and c.pair_id in twins
    ]
    assert run_probe("length", pairs).flagged
    assert run_probe("outcome", pairs).pairwise == 0.5


def test_flags_stand_in_the_table(perfect: Report) -> None:
    report = {"judge": "oracle", "command": "reagent judge-eval", "settings": {}, **perfect}
    rows = {row[0] for row in kind_rows(report)}
    for kind, found in report["kinds"].items():
        assert (f"{kind} !" in rows) == bool(found["flagged"])
    assert any("malformed_call !" in row for row in rows)
    assert f"| {kind_rows(report)[0][0]} |" in markdown(report)


def test_there_are_twenty_injections_and_each_keeps_the_calls(
    searching: list[PlantedRecord],
) -> None:
    assert len({one.text for one in INJECTIONS}) >= 20
    before = next(r.trajectory for r in searching if r.flawed)
    parse = get_tool_format("hermes").parse
    for injection in INJECTIONS:
        after = injected(before, injection)
        assert after is not None
        assert injection.text in "".join(t.completion + t.observation for t in after.turns)
        assert [t.calls for t in after.turns] == [t.calls for t in before.turns]
        for old, new in zip(before.turns, after.turns, strict=True):
            if injection.name != "closed_think":
                assert parse(new.completion).calls == parse(old.completion).calls


def test_a_page_that_addresses_the_judge_does_so_each_time_it_is_read(
    searching: list[PlantedRecord],
) -> None:
    """Else a repeated call would no longer be one, and the score would rise for a good reason."""
    injection = next(one for one in INJECTIONS if one.place == "result")
    tried = 0
    for record in searching:
        read = [turn for turn in record.trajectory.turns if turn.results]
        same = [turn for turn in read if turn.results[-1] == read[-1].results[-1]]
        if len(same) < 2:
            continue
        after = injected(record.trajectory, injection)
        assert after is not None
        shown = [t for t in after.turns if t.results and injection.text in t.results[-1].content]
        assert len(shown) == len(same)
        assert len({turn.observation for turn in shown}) == 1
        tried += 1
    assert tried > 0


def test_the_report_is_written_and_holds_no_nan(perfect: Report, tmp_path: Path) -> None:
    report = {"judge": "oracle", "command": "reagent judge-eval", "settings": {}, **perfect}
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["judge"] == "oracle"
    assert "reliability.png" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert all(isinstance(value, str) for _, value in summary_rows(report))


def test_judges_are_found_by_name_and_by_place() -> None:
    assert load_judge("noise").judge([]) == []
    assert load_judge("reagent_env.reward_models.noise:NoiseJudge").judge([]) == []
    with pytest.raises(ValueError, match="No judge 'reagent_env:Nothing'"):
        load_judge("reagent_env:Nothing")
    with pytest.raises(ValueError, match="has no method judge"):
        load_judge("reagent_env.task:SPLITS")


def test_judge_eval_reads_a_users_own_file(searching: list[PlantedRecord], tmp_path: Path) -> None:
    write_records(tmp_path / "mine.jsonl", searching[:60])
    arguments = ["judge-eval", "--judge", "noise", "--data", str(tmp_path / "mine.jsonl")]
    ran = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "report")])
    assert ran.exit_code == 0, ran.output
    assert "pairwise accuracy, all kinds" in ran.output
    assert json.loads((tmp_path / "report" / "report.json").read_text())["records"] == 60


def test_judge_eval_takes_trajectories_without_labels(
    searching: list[PlantedRecord], tmp_path: Path
) -> None:
    with TrajectoryWriter(tmp_path / "trajectories.jsonl") as writer:
        for record in searching[:20]:
            writer.write(record.trajectory)
    arguments = ["judge-eval", "--judge", "noise", "--data", str(tmp_path / "trajectories.jsonl")]
    ran = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "report")])
    assert ran.exit_code == 0, ran.output
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["kinds"] == {}
    assert report["calibration"] is None
    assert report["separation"]["outcome"]["n"] == 20


def test_judge_scores_a_run_again_and_goes_on_where_it_stopped(
    searching: list[PlantedRecord], tmp_path: Path
) -> None:
    with TrajectoryWriter(tmp_path / "trajectories.jsonl") as writer:
        for record in searching[:12]:
            writer.write(record.trajectory)
    arguments = ["judge", str(tmp_path), "--judge", "noise", "--batch", "4"]
    first = CliRunner().invoke(app, [*arguments, "--limit", "5"])
    assert first.exit_code == 0, first.output
    path = tmp_path / "judged.jsonl"
    begun = path.read_bytes()
    path.write_bytes(begun + b'{"key": "torn')
    second = CliRunner().invoke(app, arguments)
    assert second.exit_code == 0, second.output
    lines = path.read_bytes().splitlines()
    assert path.read_bytes().startswith(begun)
    keys = [json.loads(line)["key"] for line in lines]
    assert len(keys) == len(set(keys)) > 5
    summary = json.loads((tmp_path / "judged-summary.json").read_text())
    assert summary["judged"] == len(keys)
    assert 0 < summary["mean_score"] < 1
    with pytest.raises(ValueError, match="judgements of 'noise', not of 'rubric'"):
        read_judged(path, "rubric")


def test_outages_are_asked_about_again(tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    down, bad = Judgement(unscored="transport: refused"), Judgement(unscored="unparsed: no score")
    path.write_text(
        "".join(
            json.dumps({"key": key, "judge": "j", "judgement": judgement.to_json()}) + "\n"
            for key, judgement in (("a", down), ("b", bad))
        )
    )
    assert set(read_judged(path, "j")) == {"b"}
    assert set(read_judged(path, "j", with_failures=True)) == {"a", "b"}


def test_the_summary_of_a_run_by_hand(searching: list[PlantedRecord]) -> None:
    right = next(r.trajectory for r in searching if r.trajectory.outcome == 1.0)
    wrong = next(r.trajectory for r in searching if r.trajectory.outcome == 0.0)
    judged = [
        (right, Judgement(score=0.9)),
        (wrong, Judgement(score=0.3)),
        (wrong, Judgement(unscored="unparsed: x")),
    ]
    summary = summary_of("j", judged)
    assert summary["mean_score"] == pytest.approx(0.6)
    assert (summary["mean_score_right"], summary["mean_score_wrong"]) == (0.9, 0.3)
    assert summary["auroc_outcome"] == 1.0
    assert math.isclose(summary["unscored_rate"], 1 / 3)
