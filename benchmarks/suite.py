"""Run every benchmark and write one table and one picture. This is ``make bench``.

    .venv/bin/python benchmarks/suite.py                     # all; again, to go on where it stopped
    .venv/bin/python benchmarks/suite.py --only slow_tools rollout_rate
    .venv/bin/python benchmarks/suite.py --again             # all anew
    .venv/bin/python benchmarks/suite.py --table             # nothing is run: the table as it stands
    .venv/bin/python benchmarks/suite.py --quick             # few rounds, into build/benchmarks/quick

Each benchmark runs by itself, one after another, both of its sides in that one run, and leaves its
rows in build/benchmarks/NAME.json (NAME.log has what it printed). One that fails is said to have
failed, in the table too, and the others go on. One whose rows are there is not run again. What needs
a library with pins of its own runs in that plug-in's virtual environment; where it is missing, the
table says so and which command makes it.

The table and the picture go to docs/evidence/benchmarks/. A benchmark that this machine has not run
keeps the rows that are there, with their own date and machine. Times mean something on an idle
machine only; every benchmark says how busy its own was.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from outcomes import Outcome, read_outcomes, render_table, write_json
from rows import report_from

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "benchmarks"
EVIDENCE = ROOT / "docs" / "evidence" / "benchmarks"


@dataclass(frozen=True)
class Benchmark:
    """One script: ``Benchmark("ray_rollouts", "Ray's workers", 4, venv=".venv-plugin-ray")``."""

    name: str
    """The script's, without ``.py``."""
    title: str
    """Of its part of the table."""
    minutes: float
    """On two idle cores, about; a run is stopped after twenty times as long."""
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ("--quick",)
    """In place of ``arguments``, for ``--quick``."""
    venv: str = ".venv"
    """Whose Python runs it."""
    remedy: str = "make test"
    """Makes that virtual environment."""


BENCHMARKS = (
    Benchmark("sandbox", "The sandbox", 3),
    Benchmark(
        "tool_step", "A tool step that does nothing", 0.1, venv=".venv-bench", remedy="make bench"
    ),
    Benchmark("vector_env", "64 members with a 100 ms tool", 0.3),
    Benchmark("engine", "The engine beside transformers' generate", 1),
    Benchmark("rollout_rate", "Rollouts beside the engine alone", 4),
    Benchmark("slow_tools", "Rollouts with heavy-tailed tools", 6),
    Benchmark("training_waste", "Training with heavy-tailed tools", 5),
    Benchmark("trainer_overhead", "What the trainer itself costs", 6),
    Benchmark("trl_iteration", "One GRPO iteration beside TRL's", 20),
    Benchmark("served_judge", "A served judge", 0.3),
    Benchmark("local_judge", "The judge in the trainer's process", 0.5),
    Benchmark(
        "plugins", "What a plug-in adds to a step", 0.3, venv=".venv-bench", remedy="make bench"
    ),
    Benchmark(
        "openenv_server",
        "OpenEnv's server",
        2,
        venv=".venv-plugin-openenv",
        remedy="make plugins PLUGINS=openenv",
    ),
    Benchmark(
        "ray_rollouts",
        "Ray's workers",
        4,
        venv=".venv-plugin-ray",
        remedy="make plugins PLUGINS=ray",
    ),
    Benchmark("families", "Families beside their bare libraries", 3),
    Benchmark("web_pages", "Eight web pages at once", 2),
)


def run_one(benchmark: Benchmark, build: Path, *, quick: bool, root: Path = ROOT) -> Outcome:
    """Run a benchmark in a process of its own; what came of it, whatever that is.

    Args:
        benchmark: Which.
        build: Where its rows and what it prints go.
        quick: Few rounds.
        root: Where the virtual environments are.
    """
    python = root / benchmark.venv / "bin" / "python"
    if not python.exists():
        return Outcome(benchmark.name, benchmark.title, missing=benchmark.remedy)
    build.mkdir(parents=True, exist_ok=True)
    rows, log = build / f"{benchmark.name}.json", build / f"{benchmark.name}.log"
    rows.unlink(missing_ok=True)
    words = benchmark.quick if quick else benchmark.arguments
    command = [str(python), str(HERE / f"{benchmark.name}.py"), *words, "--json", str(rows)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    limit = max(600.0, 20 * 60 * benchmark.minutes)
    with log.open("w", encoding="utf-8") as out:
        code = _run(command, out.fileno(), environment, limit)
    if code is None:
        return _failed(benchmark, f"stopped after {limit / 60:.0f} minutes", log)
    if not rows.exists():
        return _failed(benchmark, f"exit code {code}: {_last_line(log)}", log)
    return from_rows(benchmark, rows)


def from_rows(benchmark: Benchmark, rows: Path) -> Outcome:
    """What a run left, this time or an earlier one."""
    try:
        report = report_from(json.loads(rows.read_text(encoding="utf-8")))
    except ValueError as error:
        return Outcome(benchmark.name, benchmark.title, failure=f"{rows.name}: {error}")
    return Outcome(benchmark.name, benchmark.title, report=report)


def gathered(
    benchmarks: Sequence[Benchmark], ran: dict[str, Outcome], build: Path, kept: dict[str, Outcome]
) -> list[Outcome]:
    """For each benchmark: what was run now, else what an earlier run left, else what the table has."""
    found = []
    for one in benchmarks:
        rows = build / f"{one.name}.json"
        if one.name in ran and not (ran[one.name].missing and one.name in kept):
            found.append(ran[one.name])
        elif rows.exists():
            found.append(from_rows(one, rows))
        else:
            found.append(kept.get(one.name, Outcome(one.name, one.title)))
    return found


def main(words: Sequence[str] | None = None) -> int:
    names = [one.name for one in BENCHMARKS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--again", action="store_true", help="also those whose rows are there")
    parser.add_argument(
        "--quick", action="store_true", help="few rounds: to see that all of it runs"
    )
    parser.add_argument("--table", action="store_true", help="run nothing, write table and picture")
    parser.add_argument("--out", type=Path, help="folder of the table (docs/evidence/benchmarks)")
    given = parser.parse_args(words)
    build = BUILD / "quick" if given.quick else BUILD
    out = given.out or (build if given.quick else EVIDENCE)
    chosen = [one for one in BENCHMARKS if given.only is None or one.name in given.only]
    due = [] if given.table else chosen
    if not given.again:
        there = [one.name for one in due if (build / f"{one.name}.json").exists()]
        due = [one for one in due if one.name not in there]
        if there:
            print(f"there already (--again runs them anew): {', '.join(there)}")
    ran: dict[str, Outcome] = {}
    for number, one in enumerate(due, start=1):
        about = "" if given.quick else f", about {one.minutes:g} min on two idle cores"
        print(f"[{number}/{len(due)}] {one.name}{about} … ", end="", flush=True)
        began = time.monotonic()
        ran[one.name] = run_one(one, build, quick=given.quick)
        print(f"{ran[one.name]} ({time.monotonic() - began:.0f} s)", flush=True)
        write(out, gathered(BENCHMARKS, ran, build, read_outcomes(out / "table.json")))
    if not due:
        write(out, gathered(BENCHMARKS, ran, build, read_outcomes(out / "table.json")))
    print(f"\n{out / 'table.md'}, table.json, bars.png")
    broken = [one.name for one in ran.values() if one.failure]
    if broken:
        print(f"failed: {', '.join(broken)}; see {build}/NAME.log", file=sys.stderr)
    return int(bool(broken))


def write(out: Path, outcomes: Sequence[Outcome]) -> None:
    """Table and pictures, after each benchmark: whoever stops the suite has what there is."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "table.json", outcomes)
    (out / "table.md").write_text(render_table(outcomes), encoding="utf-8")
    from bars import draw_bars

    draw_bars(outcomes, out / "bars.png")
    for one in outcomes:
        if one.name == "trl_iteration" and one.report is not None:
            from trl_bars import draw_parts

            draw_parts(one.report, out / "trl_iteration.png")


def _run(command: list[str], out: int, environment: dict[str, str], limit: float) -> int | None:
    """The exit code; None where it took too long. Whatever it started ends with it."""
    with subprocess.Popen(
        command, stdout=out, stderr=out, env=environment, cwd=ROOT, start_new_session=True
    ) as process:
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)


def _failed(benchmark: Benchmark, why: str, log: Path) -> Outcome:
    shown = log.relative_to(ROOT) if log.is_relative_to(ROOT) else log
    return Outcome(benchmark.name, benchmark.title, failure=f"{why} ({shown})")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "nothing printed"


if __name__ == "__main__":
    raise SystemExit(main())
