"""An engine that is restarted under a pool in use: losses are told, nothing hangs, it serves again.

An engine of the test's own, with folders of its own; the machine's engine is left alone.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reagent_env.sandboxes.docker import DockerSandbox
from reagent_env.sandboxes.engine import engine_host
from reagent_env.sandboxes.errors import SandboxLost, SandboxUnavailable
from reagent_env.sandboxes.image import ensure_image
from reagent_env.sandboxes.pool import SandboxPool

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="starting an engine needs root"),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="no dockerd to start"),
    # The SDK leaves its socket to the collector when nobody answers at the far end.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


class Engine:
    """A dockerd with everything of its own below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/engine.sock"
        self.image = ensure_image()
        self.process: subprocess.Popen[bytes] | None = None
        self.log = (folder / "log").open("wb")

    def start(self) -> None:
        place = self.folder
        self.process = subprocess.Popen(
            [
                *("dockerd", "--host", self.host, "--iptables=false", "--bridge=none"),
                *("--data-root", f"{place}/data", "--exec-root", f"{place}/exec"),
                *("--pidfile", f"{place}/pid"),
            ],
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 40
        while subprocess.run(["docker", "-H", self.host, "version"], capture_output=True,
                             check=False).returncode:  # fmt: skip
            assert self.process.poll() is None, (place / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the engine does not answer"
            time.sleep(0.1)

    def stop(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(40)

    def end(self) -> None:
        """Stop it, and whatever a killed one left: its containerd, shims and mounts."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop(signal.SIGTERM)
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):
                if str(self.folder).encode() in (folder / "cmdline").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in sorted((m for m in mounts if m.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "-l", place], check=False, capture_output=True)
        self.log.close()


@pytest.fixture(scope="module")
def engine(docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    # A short path: the name of a socket holds 108 bytes.
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True,
                                 check=True).stdout.strip())  # fmt: skip
    made = Engine(folder)
    try:
        made.start()
        with subprocess.Popen(
            ["docker", "-H", engine_host(), "save", made.image], stdout=subprocess.PIPE
        ) as saving:
            subprocess.run(["docker", "-H", made.host, "load"], stdin=saving.stdout, check=True,
                           capture_output=True, timeout=120)  # fmt: skip
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.attacks)]
)
def test_a_pool_survives_its_engine(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    with SandboxPool(lambda: DockerSandbox(preload=(), image=engine.image), max_size=2) as pool:
        with pool.acquire(30) as lease:
            assert lease.python("6 * 7").value == "42"
        with pool.acquire(30) as lease:
            lease.python("x = 1")
            engine.stop(number)
            # Either the sandbox went with its engine, or it still answers; it does not hang.
            began = time.monotonic()
            with contextlib.suppress(SandboxLost):
                lease.python("import time; time.sleep(0.2)", 1.0)
            assert time.monotonic() - began <= 1.0 + 1.5 + 0.5
        began = time.monotonic()
        # None of those it had: they are gone. A new one cannot be made.
        with pytest.raises(SandboxUnavailable):
            pool.acquire(3.0)
        assert time.monotonic() - began <= 3.0 + 2 * 2.5
        engine.start()
        with pool.acquire(60) as lease:
            assert lease.python("6 * 7").value == "42"
        assert pool.counters.lost >= 1
    listed = ["docker", "-H", engine.host, "ps", "-aq"]
    deadline = time.monotonic() + 5
    while (left := subprocess.run(listed, capture_output=True, text=True, check=True).stdout) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.1)
    assert left == ""
    gc.collect()  # here, where its warnings are expected
