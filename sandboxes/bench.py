"""What a step, a reset and a start cost, against plain Docker, in one interleaved run.

Each round does every operation once, so that a busy machine slows all alike and the ratios hold.
Baselines are what a straightforward use of the Docker SDK does: a container per episode
(run, exec, remove) and an exec per step.

Example::

    measured = run_bench(samples=40, progress=print)
    print(render_bench(measured))
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from reagent_env.sandboxes.contract import Limits, Status
from reagent_env.sandboxes.docker import DockerSandbox
from reagent_env.sandboxes.engine import connect
from reagent_env.sandboxes.errors import SandboxUnavailable
from reagent_env.sandboxes.image import ensure_image
from reagent_env.sandboxes.owner import owner_labels

Progress = Callable[[str], None]

_AT_ONCE: Final = 4
_PAUSE_S: Final = 0.05
"""Long enough for the engine to be done with what it has answered."""
_DIRT: Final = """
import os, subprocess, multiprocessing.shared_memory as shm, pathlib
ballast = bytearray(32 << 20)
for i in range(20):
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
for i in range(8):
    segment = shm.SharedMemory(create=True, size=65536)
for top in ("/work", "/tmp"):
    for i in range(10):
        folder = pathlib.Path(top, f"d{i}", "deeper")
        folder.mkdir(parents=True)
        for j in range(10):
            (folder / f"f{j}").write_text("left over")
"""
_LEFT: Final = """
import os
files = sum(len(f) + len(d) for t in ("/work", "/tmp", "/dev/shm") for _, d, f in os.walk(t))
processes = sum(n.isdigit() for n in os.listdir("/proc"))
(files, processes, "ballast" in globals())
"""
_CLEAN: Final = "(0, 2, False)"  # the first process and the session


def run_bench(samples: int = 40, progress: Progress | None = None) -> dict[str, Any]:
    """Measure and return medians, quartiles, ratios, and for each bar whether it is met.

    Args:
        samples: Rounds; 40 or more for figures to quote.
        progress: Called with a line of text per stage.

    Raises:
        SandboxUnavailable: No Docker engine answers, or no image can be had.
    """
    tell = progress or (lambda line: None)
    tag = ensure_image(tell)
    times: dict[str, list[float]] = {}

    def timed(name: str, operation: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        outcome = operation()
        times.setdefault(name, []).append(time.perf_counter() - began)
        return outcome

    left_clean = 0
    with DockerSandbox() as sandbox, _container(tag) as standing:
        for _ in range(3):  # warm
            sandbox.reset()
            sandbox.python("1")
            _exec(standing)
        for round_number in range(samples):
            if round_number % 10 == 0:
                tell(f"round {round_number + 1} of {samples}")
            # The engine goes on clearing away for some ms after it has answered an exec or a removal,
            # which would be charged to whatever comes next: a pause, then ours, then the engine's.
            time.sleep(_PAUSE_S)
            timed("first step", lambda: sandbox.python("1"))
            for _ in range(5):
                timed("step", lambda: sandbox.python("1"))
            timed("reset", sandbox.reset)
            timed("exec", lambda: _exec(standing))
            time.sleep(_PAUSE_S)
            _make_mess(sandbox)
            timed("dirty reset", sandbox.reset)
            left_clean += sandbox.python(_LEFT).value == _CLEAN
            sandbox.reset()
            timed("import numpy", _import_numpy)
            container = timed("container run", lambda: _run(tag))
            timed("first exec", functools.partial(_exec, container))
            timed("container rm", functools.partial(_remove, container))
            _settled(timed("sandbox start", _start_sandbox))
        tell("resets that leave nothing")
        messes = max(samples, 100)
        for _ in range(samples, messes):
            _make_mess(sandbox)
            sandbox.reset()
            left_clean += sandbox.python(_LEFT).value == _CLEAN
    tell(f"throughput, {_AT_ONCE} at once")
    resets, starts = _throughput(tag)
    tell("idle memory")
    idle = {"bare": _idle_mib(()), "with numpy": _idle_mib(("numpy",))}
    return _report(samples, times, left_clean / messes, resets, starts, idle)


def render_bench(measured: dict[str, Any]) -> str:
    """Return the measurements as text: a table of operations, then the bars."""
    lines = [
        f"{measured['machine']}; Docker {measured['engine']}; {measured['samples']} rounds",
        "",
        f"{'operation':<16}{'q1':>10}{'median':>10}{'q3':>10}  ms",
    ]
    lines += [
        f"{name:<16}{row['q1_ms']:>10.2f}{row['median_ms']:>10.2f}{row['q3_ms']:>10.2f}"
        for name, row in measured["operations"].items()
    ]
    lines += ["", f"{'':<6}{'measured':>10}   {'bar':<10}"]
    for bar in measured["bars"]:
        sign = "≥" if bar["at_least"] else "≤"
        verdict = "met " if bar["met"] else "MISSED"
        lines.append(f"{verdict:<6}{bar['value']:>10.2f}   {sign} {bar['limit']:<8} {bar['what']}")
    return "\n".join(lines)


def _report(
    samples: int,
    times: dict[str, list[float]],
    left_clean: float,
    resets: float,
    starts: float,
    idle: dict[str, float],
) -> dict[str, Any]:
    median = {name: statistics.median(values) for name, values in times.items()}
    cold = median["container run"] + median["first exec"] + median["container rm"]
    bars = [
        _bar("1", "(container cold to first step + rm) / reset", cold / median["reset"], 40),
        _bar("2", "exec by the Docker SDK / step", median["exec"] / median["step"], 60),
        _bar("3", "reset / fresh import numpy", median["reset"] / median["import numpy"], -0.2),
        _bar("3", "dirty reset / clean reset", median["dirty reset"] / median["reset"], -6),
        _bar("3", "dirty resets that left nothing, of all", left_clean, 1.0),
        _bar("4", f"resets/s over container starts/s, {_AT_ONCE} at once", resets / starts, 20),
        _bar("9", "MiB of an idle sandbox", idle["bare"], -16),
        _bar("9", "MiB of an idle sandbox with numpy", idle["with numpy"], -32),
    ]
    return {
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs, "
        f"load {os.getloadavg()[0]:.1f}",
        "engine": connect().version().get("Version", "?"),
        "samples": samples,
        "operations": {
            name: {
                "median_ms": median[name] * 1e3,
                "q1_ms": _quartiles(values)[0] * 1e3,
                "q3_ms": _quartiles(values)[1] * 1e3,
                "n": len(values),
            }
            for name, values in times.items()
        },
        "resets_per_s": resets,
        "container_starts_per_s": starts,
        "idle_mib": idle,
        "bars": bars,
        "met": all(bar["met"] for bar in bars),
    }


def _bar(number: str, what: str, value: float, limit: float) -> dict[str, Any]:
    """A bar to reach; a negative limit is one not to exceed."""
    at_least = limit > 0
    return {
        "bar": number,
        "what": what,
        "value": value,
        "limit": abs(limit),
        "at_least": at_least,
        "met": value >= limit if at_least else value <= -limit,
    }


def _quartiles(values: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(values, n=4, method="inclusive")
    return cuts[0], cuts[2]


# --- plain Docker -----------------------------------------------------------------------------------


def _run(tag: str) -> str:
    """What ``docker run -d`` does, with the two flags without which it would cost even more."""
    client = connect()
    made = client.create_container(
        tag,
        command=["sleep", "1000"],
        labels=owner_labels(),
        host_config=client.create_host_config(
            network_mode="none", mem_limit="256m", log_config={"Type": "none"}, init=False
        ),
    )
    client.start(made["Id"])
    return str(made["Id"])


def _exec(container: str) -> None:
    client = connect()
    made = client.exec_create(container, ["python3", "-c", "1"])
    client.exec_start(made["Id"])


def _remove(container: str) -> None:
    connect().remove_container(container, force=True)


@contextlib.contextmanager
def _container(tag: str) -> Iterator[str]:
    container = _run(tag)
    try:
        yield container
    finally:
        _remove(container)


def _import_numpy() -> None:
    subprocess.run([sys.executable, "-I", "-c", "import numpy"], check=True, timeout=60)


# --- ours -------------------------------------------------------------------------------------------


def _start_sandbox() -> DockerSandbox:
    """From nothing to the answer of the first step."""
    sandbox = DockerSandbox()
    sandbox.python("1")
    return sandbox


def _make_mess(sandbox: DockerSandbox) -> None:
    if sandbox.python(_DIRT).status is not Status.OK:
        raise SandboxUnavailable("The bench could not leave a mess to clean up.")


def _settled(sandbox: DockerSandbox) -> None:
    """Close a sandbox and wait until the engine is done with it."""
    sandbox.close()
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline and connect().containers(
        all=True, filters={"id": sandbox.container_id}
    ):
        time.sleep(0.02)


def _throughput(tag: str) -> tuple[float, float]:
    """Return (resets per second, container starts per second), each by four threads at once."""
    reset_rates, start_rates = [], []
    with contextlib.ExitStack() as stack:
        sandboxes = [stack.enter_context(DockerSandbox()) for _ in range(_AT_ONCE)]
        for _ in range(4):  # alternating, for the same reason as above
            reset_rates.append(_rate([sandbox.reset for sandbox in sandboxes], 25))
            start_rates.append(_rate([lambda: _remove(_run(tag))] * _AT_ONCE, 3))
    return statistics.median(reset_rates), statistics.median(start_rates)


def _rate(operations: list[Callable[[], Any]], times: int) -> float:
    failures: list[BaseException] = []

    def repeat(operation: Callable[[], Any]) -> None:
        try:
            for _ in range(times):
                operation()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=repeat, args=(each,)) for each in operations]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return len(operations) * times / (time.perf_counter() - began)


def _idle_mib(preload: tuple[str, ...]) -> float:
    """Median memory of an idle sandbox as ``docker stats`` counts it: without idle file cache."""
    client = connect()
    found: list[float] = []
    with contextlib.ExitStack() as stack:
        for _ in range(_AT_ONCE):
            sandbox = stack.enter_context(DockerSandbox(Limits(), preload=preload))
            sandbox.reset()
            memory = client.stats(sandbox.container_id, stream=False, one_shot=True)["memory_stats"]
            details = memory.get("stats", {})
            unused = details.get("total_inactive_file", details.get("inactive_file", 0))
            found.append(float(memory["usage"] - unused) / (1 << 20))
    return statistics.median(found)
