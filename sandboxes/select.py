"""Choosing a backend: by name, by a factory, or the strongest one that works on this machine.

Not here: the backends themselves, and how a pool lends (``pool.py``). Never "none": without a
backend there is an error that says which command mends it.
"""

from __future__ import annotations

import difflib
import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Hashable
from typing import Final

from reagent_env.sandboxes.contract import Capabilities, Limits, Sandbox
from reagent_env.sandboxes.errors import SandboxUnavailable
from reagent_env.sandboxes.pool import SandboxPool

logger = logging.getLogger(__name__)

KINDS: Final = ("auto", "docker", "embedded", "process")
"""``auto``: the first of Docker and the embedded sandbox that works. ``docker``: a container each.
``embedded``: namespaces without an engine (Linux). ``process``: a process of another user, without
network isolation or a cap on all its memory; never chosen by itself."""

BACKENDS: Final = {"docker": "docker", "embedded": "bubblewrap", "process": "process"}
"""What each kind is made of; the name in a sandbox's capabilities."""

SandboxFactory = Callable[[], Sandbox]

_lock = threading.Lock()
_pools: dict[Hashable, SandboxPool] = {}


def make_sandbox(kind: str | SandboxFactory = "auto", limits: Limits | None = None) -> Sandbox:
    """Return one sandbox of the caller's own; close it after use.

    Example::

        with make_sandbox("auto", Limits(memory_mb=512)) as sandbox:
            sandbox.python("6 * 7").value       # "42"

    Args:
        kind: One of :data:`KINDS`, or a factory without arguments that returns a sandbox.
        limits: What it may use; a factory has limits of its own.

    Raises:
        SandboxUnavailable: None works here; the message names the command that mends it.
        ValueError: No such kind.
    """
    if not isinstance(kind, str):
        return kind()
    return sandbox_factory(resolve_kind(kind), limits or Limits())()


def get_pool(kind: str | SandboxFactory = "auto", limits: Limits | None = None) -> SandboxPool:
    """Return this process's shared pool for ``kind`` and ``limits``, making it at the first call.

    Raises:
        SandboxUnavailable: No backend works here; the message names the command that mends it.
        ValueError: No such kind.
    """
    limits = limits or Limits()
    resolved = resolve_kind(kind) if isinstance(kind, str) else kind
    key = (os.getpid(), resolved, limits)
    with _lock:
        pool = _pools.get(key)
        if pool is None or pool.closed:
            pool = _pools[key] = _make_pool(resolved, limits)
        return pool


def resolve_kind(kind: str) -> str:
    """Return the backend that ``kind`` means here: ``docker``, ``embedded`` or ``process``.

    Raises:
        SandboxUnavailable: ``auto``, and no backend works; the message says why, for each.
        ValueError: No such kind.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"Unknown sandbox {kind!r}; known: {', '.join(KINDS)}, or a factory.{hint}"
        )
    if kind != "auto":
        return kind
    problems: dict[str, str] = {}
    for candidate, problem_of in (("docker", docker_ready_problem), ("embedded", embedded_problem)):
        problem = problem_of()
        if problem is None:
            for other, why in problems.items():
                logger.info("sandbox auto: not %s: %s", other, why)
            logger.info("sandbox auto: %s", candidate)
            return candidate
        problems[candidate] = problem
    raise SandboxUnavailable(
        "No sandbox works on this machine.\n"
        + "\n".join(f"  {name}: {why}" for name, why in problems.items())
        + "\nMend one of these; `reagent doctor` checks again. (sandbox='process' isolates less and "
        "is never chosen by itself.)"
    )


def sandbox_factory(kind: str, limits: Limits) -> SandboxFactory:
    """Return what makes one sandbox of a resolved ``kind``."""
    match kind:
        case "docker":
            from reagent_env.sandboxes.docker import DockerSandbox

            return functools.partial(
                DockerSandbox,
                limits,
                runtime=os.environ.get("REAGENT_SANDBOX_RUNTIME") or None,
                preload=_preloaded(),
            )
        case "embedded":
            _refuse_off_linux(kind)
            from reagent_env.sandboxes.embedded import BubblewrapSandbox

            return functools.partial(BubblewrapSandbox, limits)
        case "process":
            _refuse_off_linux(kind)
            from reagent_env.sandboxes.process import ProcessSandbox

            return functools.partial(ProcessSandbox, limits)
    raise ValueError(f"Not a resolved kind of sandbox: {kind!r}.")


def docker_ready_problem() -> str | None:
    """Return why Docker cannot be used, image included, or None; may build the image first."""
    from reagent_env.sandboxes.engine import docker_problem
    from reagent_env.sandboxes.image import ensure_image

    problem = docker_problem()
    if problem is not None:
        return problem
    try:
        # On standard error, once on a machine: a first use that takes a minute says why.
        ensure_image(progress=lambda line: print(f"sandbox image: {line}", file=sys.stderr))
    except (SandboxUnavailable, OSError) as error:
        return str(error)
    return None


def embedded_problem() -> str | None:
    """Return why the embedded sandbox cannot be used, or None."""
    try:
        _refuse_off_linux("embedded")
    except SandboxUnavailable as error:
        return str(error)
    from reagent_env.sandboxes.embedded import embedded_problem as problem

    return problem()


def _make_pool(kind: str | SandboxFactory, limits: Limits) -> SandboxPool:
    if not isinstance(kind, str):
        return SandboxPool(kind, limits=limits)
    capabilities: Capabilities | None = None
    before_first = None
    if kind == "docker":
        from reagent_env.sandboxes.docker import DOCKER_CAPABILITIES
        from reagent_env.sandboxes.sweep import sweep_in_background

        problem = docker_ready_problem()
        if problem is not None:  # now, not at the deadline of the first who waits
            raise SandboxUnavailable(problem)
        capabilities = DOCKER_CAPABILITIES
        before_first = sweep_in_background
    elif kind == "embedded":
        problem = embedded_problem()
        if problem is not None:
            raise SandboxUnavailable(problem)
    return SandboxPool(
        sandbox_factory(kind, limits),
        limits=limits,
        capabilities=capabilities,
        backend=BACKENDS[kind],
        before_first=before_first,
    )


def _preloaded() -> tuple[str, ...]:
    from reagent_env.sandboxes.docker import PRELOADED

    configured = os.environ.get("REAGENT_SANDBOX_PRELOAD")
    if configured is None:
        return PRELOADED
    return tuple(name.strip() for name in configured.split(",") if name.strip())


def _refuse_off_linux(kind: str) -> None:
    if sys.platform != "linux":
        raise SandboxUnavailable(
            f"The {kind} sandbox needs Linux; on {sys.platform} use Docker: start Docker Desktop, "
            "OrbStack or `colima start`."
        )
