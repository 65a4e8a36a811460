"""The suite: pass@k, the paper's table beside one's own, and benchmarks that cannot run here."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from typer.testing import CliRunner

from reagent_env.agents.pass_at_k import pass_at_k, pass_rate
from reagent_env.agents.suite import markdown, run_suite, suite_row
from reagent_env.agents.suite_paper import PAPER, SUITES, paper_row
from reagent_env.cli import app
from reagent_env.task_sets.published import published
from reagent_env.task_sets.published_table import BENCHMARKS
from reagent_env.testing import ChatReply, ChatRequest, ScriptedChatServer, example_trajectory
from reagent_env.testing.published_miniatures import write_miniatures

VERDICT = "<verdict>{}</verdict>"


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniatures(tmp_path_factory.mktemp("copies"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "wiki.jsonl"
    path.write_text('{"title": "Keth", "text": "The Keth is a river of 212 km."}\n')
    return path


@pytest.mark.parametrize(
    ("n", "c", "k", "estimate"),
    [
        (4, 1, 2, 0.5),
        (4, 0, 2, 0.0),
        (4, 4, 1, 1.0),
        (5, 2, 1, 0.4),
        (3, 1, 3, 1.0),
        (10, 1, 9, 0.9),
    ],
)
def test_pass_at_k_is_the_share_of_k_subsets_with_a_right_sample(
    n: int, c: int, k: int, estimate: float
) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(estimate)
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert estimate == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_refuses_fewer_samples_than_k() -> None:
    with pytest.raises(ValueError, match="n=2, c=1, k=3"):
        pass_at_k(2, 1, 3)


def test_intervals_are_wilsons_over_tasks_not_samples() -> None:
    once = pass_rate({str(i): [i < 5] for i in range(10)}, 1)
    often = pass_rate({str(i): [i < 5] * 8 for i in range(10)}, 1)
    assert (once.mean, once.n) == (often.mean, often.n) == (0.5, 10)
    assert once.interval == often.interval == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_a_task_with_masked_samples_counts_only_where_enough_are_left() -> None:
    rate = pass_rate({"a": [True, False], "b": [True]}, 2)
    assert (rate.mean, rate.n) == (1.0, 1)
    assert pass_rate({}, 1).n == 0


def test_partial_credit_is_no_pass_and_masked_samples_are_in_no_mean() -> None:
    right = example_trajectory()
    attempts = right.attempts
    import dataclasses

    def with_outcome(outcome: float | None) -> Any:
        last = dataclasses.replace(attempts[-1], outcome=outcome)
        return dataclasses.replace(right, attempts=(*attempts[:-1], last))

    row = suite_row("reagent/GSM8K-v0", [with_outcome(x) for x in (1.0, 0.9, None)], 2)
    assert (row.pass_1.mean, row.pass_k.mean, row.masked) == (0.5, 1.0, 1)
    assert [rate.n for rate in row.by_level.values()] == [1] * len(row.by_level)


def test_the_suite_is_the_papers_twelve_benchmarks() -> None:
    assert set(SUITES["reagent-12"]) == set(BENCHMARKS) == set(PAPER)
    assert PAPER["reagent/GAIA-v0"].u == 43.7
    assert all(0 < figure < 100 for row in PAPER.values() for figure in row.figures if figure)


def test_figures_of_one_subset_do_not_stand_beside_anothers() -> None:
    full = paper_row("reagent/GAIA-v0", "full")
    assert full is not None
    assert (full.title, full.u, full.c) == ("GAIA (full)", 38.8, None)
    assert paper_row("reagent/HLE-v0", "full") is None
    assert paper_row("reagent/AIME24-v0", "full") == PAPER["reagent/AIME24-v0"]  # has no subsets
    row = suite_row("reagent/GAIA-v0", [], 1, subset="full")
    assert "| GAIA (full) | – | – | 0 | 20.0 | – | – | – | 38.8 |" in markdown([row], "nobody")


def answers(copies: Path) -> dict[str, str]:
    """Question → its answer, of every benchmark's miniature."""
    tasks = [t for row in BENCHMARKS.values() for t in published(row.name, "test", data=copies)]
    forms = {t.question: t.answer[0] if isinstance(t.answer, list) else t.answer for t in tasks}
    return {question: str(answer) for question, answer in forms.items()}


def model_and_judge(right: dict[str, str], wrong_on: str) -> Any:
    """One server: the policy knows every answer but of questions with ``wrong_on``; a strict judge."""

    def reply(request: ChatRequest) -> ChatReply:
        if "model" not in request.body:
            return ChatReply("lists no models", status=404)
        if request.body["model"] == "judge":
            return ChatReply(VERDICT.format("incorrect"))
        asked = request.body["messages"][1]["content"]
        return ChatReply("\\boxed{no}" if wrong_on in asked else f"\\boxed{{{right[asked]}}}")

    return reply


def test_the_command_runs_all_twelve_and_prints_the_papers_table(
    copies: Path, corpus: Path, tmp_path: Path
) -> None:
    with ScriptedChatServer(model_and_judge(answers(copies), "Bel Bridge")) as server:
        command = ["eval", "--suite", "reagent-12", "--agent", f"{server.base_url}#policy"]
        command += ["--data", str(copies), "--corpus", str(corpus), "--sandbox", "process"]
        command += ["--correctness-judge", f"{server.base_url}#judge"]
        ran = CliRunner().invoke(app, [*command, "--out", str(tmp_path), "--concurrency", "2"])
    assert ran.exit_code == 0, ran.output
    summary = json.loads((tmp_path / "summary.json").read_text())
    figures = {row["env"]: row for row in summary["benchmarks"]}
    assert len(figures) == 12
    assert {row["left_out"] for row in figures.values()} == {None}
    for name in ("GSM8K", "AIME25", "MATH500", "GAIA"):
        assert figures[f"reagent/{name}-v0"]["pass@1"] == 1.0
    for name in ("HotpotQA", "XBench", "Bamboogle"):
        assert figures[f"reagent/{name}-v0"]["pass@1"] == pytest.approx(2 / 3)
        assert figures[f"reagent/{name}-v0"]["n"] == 3
    page = (tmp_path / "report.md").read_text()
    assert (
        "| GAIA (text) | 2 | 100.0 [34.2, 100.0] | 0 | 21.4 | 34.0 | 25.2 | 36.9 | 43.7 |" in page
    )
    assert "43.7" in ran.output


def test_samples_are_kept_and_what_is_kept_is_not_asked_for_again(
    copies: Path, tmp_path: Path
) -> None:
    lucky = iter([False, True] * 100)

    def reply(request: ChatRequest) -> ChatReply:
        if "model" not in request.body:
            return ChatReply("lists no models", status=404)
        return ChatReply("\\boxed{225}" if next(lucky) else "\\boxed{0}")

    with ScriptedChatServer(reply) as server:
        command = ["eval", "--suite", "reagent-12", "--only", "AIME24", "--samples", "2"]
        command += [
            "--agent",
            f"{server.base_url}#policy",
            "--data",
            str(copies),
            "--episodes",
            "1",
        ]
        command += ["--sandbox", "process", "--out", str(tmp_path), "--concurrency", "1"]
        assert CliRunner().invoke(app, command).exit_code == 0
        asked = len(server.requests)
        assert CliRunner().invoke(app, command).exit_code == 0
        assert not any(request.body for request in server.requests[asked:])
    (row,) = json.loads((tmp_path / "summary.json").read_text())["benchmarks"]
    right = row["pass@1"]
    assert (row["n"], row["k"], right) in ((1, 2, 0.5), (1, 2, 0.0))  # which task the seed draws
    assert row["pass@k"] == 2 * right
    folders = sorted(path.name for path in (tmp_path / "AIME24-v0").iterdir())
    assert folders == ["sample-1", "sample-2"]


def test_a_benchmark_that_cannot_be_made_is_left_out_with_its_reason(
    copies: Path, tmp_path: Path
) -> None:
    command = ["eval", "--suite", "reagent-12", "--only", "WebWalkerQA,AIME24", "--agent", "random"]
    command += ["--data", str(copies), "--sandbox", "process", "--max-turns", "2"]
    command += ["--out", str(tmp_path), "--episodes", "1"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    assert (
        "reagent/WebWalkerQA-v0 did not run: WebWalkerQA's answers are compared by a model"
        in ran.output
    )
    rows = json.loads((tmp_path / "summary.json").read_text())["benchmarks"]
    assert [(row["env"], row["n"]) for row in rows] == [
        ("reagent/WebWalkerQA-v0", 0),
        ("reagent/AIME24-v0", 1),
    ]
    assert rows[0]["pass@1"] is None


def test_a_suite_without_any_figure_fails(tmp_path: Path) -> None:
    command = ["eval", "--suite", "reagent-12", "--only", "GSM8K", "--agent", "random"]
    ran = CliRunner().invoke(app, [*command, "--data", str(tmp_path), "--out", str(tmp_path / "o")])
    assert ran.exit_code == 1
    assert "No benchmark has a figure" in ran.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "reagent-13"], "reagent-12"),
        (["--suite", "reagent-12", "--only", "GSM8"], "gsm8k"),
        (["--suite", "reagent-12", "--agent", "expert"], "no expert"),
        (["--suite", "reagent-12", "reagent/GSM8K-v0"], "neither ENV"),
        ([], "--suite"),
        (["reagent/PythonMath-v0", "--data", "x"], "no benchmark"),
    ],
)
def test_wrong_requests_are_named(arguments: list[str], message: str, tmp_path: Path) -> None:
    ran = CliRunner().invoke(
        app, ["eval", *arguments, "--out", str(tmp_path)], env={"COLUMNS": "200"}
    )
    assert ran.exit_code == 2
    assert message in ran.output


def test_another_suites_folder_is_refused(copies: Path, tmp_path: Path) -> None:
    command = [
        "eval",
        "--suite",
        "reagent-12",
        "--only",
        "AIME24",
        "--agent",
        "random",
        "--episodes",
        "1",
    ]
    command += [
        "--data",
        str(copies),
        "--sandbox",
        "process",
        "--max-turns",
        "2",
        "--out",
        str(tmp_path),
    ]
    assert CliRunner().invoke(app, command).exit_code == 0
    ran = CliRunner().invoke(app, [*command, "--seed", "1"])
    assert ran.exit_code == 2
    assert "other settings" in ran.output


def test_every_environment_fails_alone(tmp_path: Path) -> None:
    def make_env(env_id: str) -> Any:
        raise gymnasium.error.Error("no such thing")

    rows = run_suite(["a", "b"], make_env, lambda *given: lambda: None, out=tmp_path)  # type: ignore[arg-type, return-value]
    assert [row.left_out for row in rows] == ["no such thing"] * 2
    assert math.isnan(rows[0].pass_1.mean)
    assert "- a did not run: no such thing" in markdown(rows, "nobody")
