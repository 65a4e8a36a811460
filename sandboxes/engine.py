"""The connection to a Docker engine: found, probed and bounded in time.

Not here: containers (``docker.py``) and images (``image.py``). The Docker SDK is imported only when
a connection is asked for.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reagent_env.sandboxes.errors import SandboxUnavailable

API_TIMEOUT_S = 15.0
"""Seconds after which any one request to the engine is given up: a stalled engine must not hang us."""

PROBE_TIMEOUT_S = 3.0
"""Seconds a probe waits: long for an engine that works, short for a user who waits."""

_lock = threading.Lock()
_clients: dict[tuple[int, str, float], Any] = {}


def connect(timeout_s: float = API_TIMEOUT_S) -> Any:
    """Return this process's client of the engine (``docker.APIClient``).

    Raises:
        SandboxUnavailable: No engine answers; the message names the command that mends it.
    """
    host = engine_host()
    key = (os.getpid(), host, timeout_s)  # a connection must not be shared across a fork
    with _lock:
        if key in _clients:
            return _clients[key]
    try:
        import docker
        from docker.constants import DEFAULT_DOCKER_API_VERSION
        from docker.utils import kwargs_from_env
    except ImportError as error:
        raise SandboxUnavailable(
            f"The Docker SDK for Python cannot be imported ({error}). Run: pip install 'docker>=7.1'"
        ) from error
    settings = kwargs_from_env()
    settings["base_url"] = host
    with engine_errors("connecting"):
        _knock(host)
        client = docker.APIClient(
            version=DEFAULT_DOCKER_API_VERSION,
            timeout=timeout_s,
            max_pool_size=32,
            **settings,
        )
        try:
            # What version="auto" does; but that leaves its connection open when it fails.
            client._version = client.version(api_version=False)["ApiVersion"]
        except BaseException:
            client.close()
            raise
    with _lock:
        return _clients.setdefault(key, client)


def _knock(host: str) -> None:
    """Fail as the operating system does where nothing listens: the SDK's own error hides which."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(PROBE_TIMEOUT_S)
            probe.connect(host.removeprefix("unix://"))


def _close_clients() -> None:
    for (pid, _, _), client in _clients.items():
        if pid == os.getpid():
            client.close()


atexit.register(_close_clients)


def engine_host() -> str:
    """Return the engine's address: ``DOCKER_HOST``, else the socket of the current Docker context."""
    configured = os.environ.get("DOCKER_HOST")
    if configured:
        return configured
    default = "/var/run/docker.sock"
    if Path(default).exists():
        return f"unix://{default}"
    # Docker Desktop, OrbStack, colima and a rootless engine listen elsewhere and say so in a context.
    with contextlib.suppress(Exception):
        from docker.context import ContextAPI

        context = ContextAPI.get_current_context()
        if context is not None and context.Host:
            return str(context.Host)
    for candidate in (
        Path.home() / ".docker/run/docker.sock",
        Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")) / "docker.sock",
    ):
        if candidate.exists():
            return f"unix://{candidate}"
    return f"unix://{default}"


@contextlib.contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn whatever the SDK raises while ``doing`` something into :class:`SandboxUnavailable`."""
    import requests
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, requests.RequestException, OSError) as error:
        raise SandboxUnavailable(f"{_cause(error)} (while {doing}). {_remedy(error)}") from error


def docker_problem() -> str | None:
    """Return why no Docker engine can be used and what mends it, or None when one answers."""
    try:
        client = connect(PROBE_TIMEOUT_S)
        with engine_errors("asking the engine whether it answers"):
            client.ping()
            kind = str(client.version().get("Os", ""))
    except SandboxUnavailable as error:
        return str(error)
    if kind and kind != "linux":
        return f"The Docker engine runs {kind} containers; switch it to Linux containers."
    return None


def _cause(error: BaseException) -> str:
    text = str(error)
    if "Permission denied" in text:
        return f"Not allowed to use the Docker engine at {engine_host()}"
    if "timed out" in text.lower():
        return f"The Docker engine at {engine_host()} did not answer in time"
    if any(sign in text for sign in ("FileNotFound", "No such file", "Connection refused")):
        return f"No Docker engine answers at {engine_host()}"
    return f"The Docker engine refused: {text[:300]}"


def _remedy(error: BaseException) -> str:
    text = str(error)
    if "Permission denied" in text:
        return "Run: sudo usermod -aG docker $USER   (then log in again)"
    if "timed out" in text.lower():
        return "Restart it: sudo systemctl restart docker"
    if sys.platform == "darwin":
        return "Start Docker Desktop, OrbStack or `colima start`."
    return "Run: scripts/ensure-docker   (or: sudo systemctl start docker); see `reagent doctor`."
