"""A cap around a sandbox whose own cap a test lifts, and the means to lift what has no name.

A twin must succeed without harming the machine: the sandbox's control groups are made below a group
of the test's own, with limits that the attack fits in and nothing more does.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import secrets
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reagent_env.sandboxes import channel, control_group, docker, embedded

ROOT = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def outer_cap(patch: pytest.MonkeyPatch, kind: str, *, memory_mb: int, pids: int) -> Iterator[None]:
    """Make every sandbox of ``kind`` live below a group of these limits.

    Skips the test where no such group can be made: a guard is never lifted without a cap around.
    """
    name = f"reagent-outer-{os.getpid()}-{secrets.token_hex(3)}"
    folders = _make(name, memory_mb << 20, pids)
    try:
        if kind == "docker":
            edit_container(patch, lambda body: body["HostConfig"].update(CgroupParent=f"/{name}"))
        else:
            patch.setattr(control_group, "PARENT", name)
        yield
    finally:
        for folder in folders:
            _remove(folder)


def _make(name: str, memory: int, pids: int) -> list[Path]:
    unified = (ROOT / "cgroup.controllers").exists()
    files = (
        [(ROOT / name, "memory.max", memory), (ROOT / name, "pids.max", pids)]
        if unified
        else [
            (ROOT / "memory" / name, "memory.limit_in_bytes", memory),
            (ROOT / "pids" / name, "pids.max", pids),
        ]
    )
    try:
        for folder, file, limit in files:
            folder.mkdir(exist_ok=True)
            (folder / file).write_text(str(limit))
            assert (folder / file).read_text().strip() == str(limit)
        if unified:
            (ROOT / name / "cgroup.subtree_control").write_text("+memory +pids +cpu")
    except OSError as error:
        pytest.skip(f"no control group can be made here to lift a guard in: {error}")
    # Docker and the sandbox make groups of the same name below the other controllers.
    return [path / name for path in ROOT.iterdir()] if not unified else [ROOT / name]


def _remove(folder: Path) -> None:
    if not folder.is_dir():
        return
    limit = time.monotonic() + 5
    while folder.exists() and time.monotonic() < limit:
        for group in [*folder.rglob("cgroup.procs")]:
            with contextlib.suppress(OSError, ProcessLookupError):
                for pid in group.read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
        for inner in sorted(folder.rglob("*/"), key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):
                inner.rmdir()
        with contextlib.suppress(OSError):
            folder.rmdir()
        time.sleep(0.01)
    assert not folder.exists()


def edit_container(patch: pytest.MonkeyPatch, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change the settings of every container made from now on."""
    original = docker.container_settings

    def edited(*args: Any, **kwargs: Any) -> dict[str, Any]:
        body = original(*args, **kwargs)
        edit(body)
        return body

    patch.setattr(docker, "container_settings", edited)


def edit_bubblewrap(patch: pytest.MonkeyPatch, edit: Callable[[list[str]], list[str]]) -> None:
    """Change bubblewrap's arguments of every sandbox made from now on."""
    original = embedded._Layout.bubblewrap

    def edited(self: Any, *args: Any, **kwargs: Any) -> list[str]:
        return edit(original(self, *args, **kwargs))

    patch.setattr(embedded._Layout, "bubblewrap", edited)


def edit_zygote(patch: pytest.MonkeyPatch, module: str, *changes: tuple[str, str]) -> None:
    """Change lines of what runs inside; each old text must be there exactly once."""
    original = importlib.resources.files("reagent_env.sandboxes")
    sources = []
    for name in channel.SHIPPED:
        source = (original / f"{name}.py").read_text(encoding="utf-8")
        if name == module:
            for old, new in changes:
                assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in {name}"
                source = source.replace(old, new)
        sources.append((name, source))
    body = channel._LOADER.format(sources=sources).encode()
    patch.setattr(channel, "zygote_source", lambda: struct.pack(">I", len(body)) + body)
