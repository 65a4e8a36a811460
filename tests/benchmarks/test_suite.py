"""The rows of benchmarks and the table of their suite, on made-up figures."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"


def module(name: str) -> Any:
    """A module of the folder of scripts, which is no package."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


rows, machine, outcomes, suite, bars, trl_bars = map(
    module, ("rows", "machine", "outcomes", "suite", "bars", "trl_bars")
)

IDLE = machine.Machine(
    processors=2, python="3.11.2", platform="Linux", seconds=60.0, busy=0.5, others=0.0, load=1.0
)


def a_row(**changes: Any) -> Any:
    return rows.Row(
        **{"name": "a rate", "compares": "a / b", "measured": 0.94, "bar": 0.9, **changes}
    )


def a_report(*given: Any) -> Any:
    return rows.Report(benchmark="made_up", rows=given, machine=IDLE, command="python x.py")


def an_outcome(*given: Any, **changes: Any) -> Any:
    return outcomes.Outcome("made_up", "Made up", a_report(*given) if given else None, **changes)


def test_a_bar_to_reach_is_met_from_it_on() -> None:
    assert [a_row(measured=one).met for one in (0.89, 0.9, 0.91)] == [False, True, True]


def test_a_bar_not_to_exceed_is_met_up_to_it() -> None:
    met = [a_row(measured=one, bar=1.3, most=True).met for one in (1.2, 1.3, 1.31)]
    assert met == [True, True, False]


def test_a_figure_without_a_bar_is_neither_met_nor_missed() -> None:
    assert (a_row(bar=None).met, a_row(bar=None).verdict) == (None, "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"measured": float("nan")}, "finite"), ({"quartiles": (2.0, 1.0)}, "wrong way")],
)
def test_a_row_of_nonsense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        a_row(**changes)


def test_margins_say_how_many_times_as_good_as_the_bar_either_way() -> None:
    assert a_row(bar=0.5).margin(1.0) == 2.0
    assert a_row(bar=4.0, most=True).margin(2.0) == 2.0
    assert a_row(bar=0.2, most=True).margin(-0.001) == float("inf")


def test_a_report_reads_back_as_it_was_written() -> None:
    report = a_report(a_row(quartiles=(0.9, 0.95)), a_row(name="b", bar=None, ours=3.0, unit="ms"))
    assert rows.report_from(json.loads(json.dumps(report.to_json()))) == report


def test_whether_a_bar_is_met_is_not_believed_but_reckoned() -> None:
    record = a_row(measured=0.5).to_json() | {"met": True}
    assert rows.row_from(record).met is False


def test_a_benchmark_delivers_its_rows_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/made_up.py", "--rounds", "3", "--json", "here.json"])
    rows.deliver(tmp_path / "new" / "here.json", "made_up", [a_row(measured=0.5)], IDLE)
    report = rows.report_from(json.loads((tmp_path / "new" / "here.json").read_text()))
    assert report.command == "python benchmarks/made_up.py --rounds 3"
    assert "a rate: 0.500 ×, bar ≥ 0.9: MISSED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.00421, "0.00421"), (0.94, "0.940"), (12.34, "12.3"), (4950.4, "4,950")],
)
def test_numbers_have_three_digits_that_count(value: float, shown: str) -> None:
    assert rows.number(value) == shown


def test_the_machine_tells_its_own_work_from_others() -> None:
    watch = machine.Watch()
    began = time.process_time()
    while time.process_time() - began < 0.3:
        pass
    seen = watch.machine()
    assert seen.seconds >= 0.3
    if seen.busy is not None:
        assert 0 <= seen.others < seen.busy <= 1


def test_the_table_shows_a_missed_bar_as_missed() -> None:
    table = outcomes.render_table([an_outcome(a_row(measured=0.5, quartiles=(0.4, 0.6)), a_row())])
    assert "**Bars: 1 met, 1 missed**: a rate." in table
    assert "| a rate | a / b | 0.500 × (0.400 – 0.600) | ≥ 0.9 | **MISSED** |" in table
    assert "50% of the machine busy, 0% by other programs" in table


def test_the_table_says_where_other_programs_disturbed_a_benchmark() -> None:
    busy = dataclasses.replace(a_report(a_row()), machine=dataclasses.replace(IDLE, others=0.21))
    disturbed = outcomes.Outcome("shaken", "Shaken", busy)
    table = outcomes.render_table([an_outcome(a_row()), disturbed])
    assert "more than 20% of the machine** during shaken:" in table


def test_the_table_keeps_a_failed_benchmark_and_one_that_was_not_run() -> None:
    table = outcomes.render_table(
        [an_outcome(failure="exit code 1: boom"), an_outcome(missing="make plugins")]
    )
    assert "**FAILED: exit code 1: boom**" in table
    assert "not run: make plugins" in table


def test_the_table_reads_back_from_its_json(tmp_path: Path) -> None:
    told = [an_outcome(a_row()), outcomes.Outcome("other", "Other", failure="exit code 1")]
    outcomes.write_json(tmp_path / "table.json", told)
    assert outcomes.read_outcomes(tmp_path / "table.json") == {"made_up": told[0], "other": told[1]}


def test_the_picture_has_missed_bars_and_figures_beyond_its_axis(tmp_path: Path) -> None:
    drawn = [
        a_row(measured=0.5, quartiles=(0.3, 0.8)),
        a_row(measured=5000.0),
        a_row(measured=-0.1, most=True),
        a_row(bar=None),
    ]
    bars.draw_bars([an_outcome(*drawn), an_outcome(failure="boom")], tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> list[Any]:
    """A suite of made-up scripts, in a folder of their own with a virtual environment's Python."""
    monkeypatch.setattr(suite, "HERE", tmp_path)
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    monkeypatch.setattr(suite, "BUILD", tmp_path / "build")
    monkeypatch.setattr(suite, "EVIDENCE", tmp_path / "evidence")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    for name, program in programs.items():
        (tmp_path / f"{name}.py").write_text(program)
    made = [suite.Benchmark(name, name.title(), 0.1) for name in programs]
    monkeypatch.setattr(suite, "BENCHMARKS", made)
    return made


WORKS = f"""
import json, sys
from pathlib import Path
count = Path(sys.argv[0]).with_suffix(".runs")
count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
Path(sys.argv[-1]).write_text({json.dumps(json.dumps(a_report(a_row()).to_json()))})
"""
BREAKS = "raise SystemExit('the tools are gone')"


def test_the_suite_goes_on_when_a_benchmark_fails_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts(tmp_path, monkeypatch, broken=BREAKS, works=WORKS)
    assert suite.main([]) == 1
    table = (tmp_path / "evidence" / "table.md").read_text()
    assert "FAILED: exit code 1: the tools are gone (build/broken.log)" in table
    assert "**Bars: 1 met, 0 missed**" in table
    assert "failed: broken" in capsys.readouterr().err


def test_the_suite_does_not_run_again_what_is_there_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts(tmp_path, monkeypatch, works=WORKS)
    runs = tmp_path / "works.runs"
    assert (suite.main([]), runs.read_text()) == (0, "1")
    assert (suite.main([]), runs.read_text()) == (0, "1")
    assert (suite.main(["--again"]), runs.read_text()) == (0, "2")


def test_one_benchmark_alone_leaves_the_others_rows_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts(tmp_path, monkeypatch, works=WORKS, other=WORKS)
    suite.main([])
    for file in (tmp_path / "build").iterdir():
        file.unlink()  # as on another machine, which has the committed table alone
    suite.main(["--only", "works"])
    assert outcomes.read_outcomes(tmp_path / "evidence" / "table.json")["other"].report is not None


def test_a_missing_virtual_environment_is_told_with_what_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts(tmp_path, monkeypatch, works=WORKS)
    away = suite.Benchmark("works", "Works", 0.1, venv=".venv-away", remedy="make plugins")
    monkeypatch.setattr(suite, "BENCHMARKS", [away])
    assert suite.main([]) == 0
    assert "not run: make plugins" in (tmp_path / "evidence" / "table.md").read_text()
    assert not (tmp_path / "works.runs").exists()


def test_a_quick_look_does_not_touch_the_table_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts(tmp_path, monkeypatch, works=WORKS)
    suite.main(["--quick"])
    assert not (tmp_path / "evidence").exists()
    assert (tmp_path / "build" / "quick" / "table.md").exists()


def test_a_benchmark_that_hangs_is_stopped(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        began = time.monotonic()
        assert suite._run(command, log.fileno(), {}, 0.5) is None
    assert time.monotonic() - began < 10


def test_every_benchmark_of_the_suite_is_a_script_that_writes_rows() -> None:
    for one in suite.BENCHMARKS:
        text = (FOLDER / f"{one.name}.py").read_text()
        assert f'deliver(given.json, "{one.name}"' in text
        assert "arguments(__doc__, quick=" in text


def test_every_benchmark_takes_quick_and_a_file_for_its_rows() -> None:
    given = rows.arguments("Measures.", quick="two rounds").parse_args(["--quick", "--json", "a"])
    assert (given.quick, given.json) == (True, Path("a"))
    shown = rows.arguments("Measures.", quick="two rounds").format_help()
    assert "two rounds: to see that it runs" in shown


def test_help_teaches() -> None:
    shown = subprocess.run(
        [sys.executable, str(FOLDER / "suite.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for taught in ("--only", "--again", "--quick", "docs/evidence/benchmarks", "slow_tools"):
        assert taught in shown


def test_the_parts_of_an_iteration_are_drawn_with_the_table(tmp_path: Path) -> None:
    side = {"generation": 1.0, "tools": 0.1, "update": 2.0, "iteration": 3.2}
    report = dataclasses.replace(
        a_report(a_row()), details={"tiny": {"medians": {"ours": side, "trl": side}}}
    )
    drawn = outcomes.Outcome("trl_iteration", "One iteration", report)
    suite.write(tmp_path, [drawn, an_outcome(a_row())])
    assert (tmp_path / "trl_iteration.png").read_bytes().startswith(b"\x89PNG")
