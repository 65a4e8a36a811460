"""Removing containers whose owner is gone, and never anyone else's.

Rarely anything to do: a sandbox ends with its owner, since its first process exits at the end of
its standard input and the engine removes it. Left over are containers whose owner was killed in
the middle of making them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass, field
from typing import Any

from reagent_env.sandboxes.engine import connect, engine_errors
from reagent_env.sandboxes.errors import SandboxUnavailable
from reagent_env.sandboxes.owner import MARK, is_abandoned

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep did, e.g. ``SweepReport(removed=("1f0c…",), kept=3)``."""

    removed: tuple[str, ...] = ()
    """Ids of the containers removed."""
    kept: int = 0
    """Containers of ours whose owner lives, or may live."""
    failed: dict[str, str] = field(default_factory=dict)
    """Container id → why it could not be removed."""

    def __len__(self) -> int:
        """Return the number removed."""
        return len(self.removed)


def sweep(client: Any = None) -> SweepReport:
    """Remove every container of ours whose owner is dead; return what was removed and kept.

    Raises:
        SandboxUnavailable: No engine answers.
    """
    client = client or connect()
    removed: list[str] = []
    failed: dict[str, str] = {}
    kept = 0
    with engine_errors("listing left-over sandboxes"):
        found = client.containers(all=True, filters={"label": MARK})
    for container in found:
        running = container.get("State") in ("running", "paused")
        if not is_abandoned(container.get("Labels") or {}, running=running):
            kept += 1
            continue
        try:
            _remove(client, container["Id"])
        except SandboxUnavailable as error:
            failed[container["Id"]] = str(error)
        else:
            removed.append(container["Id"])
    if removed:
        logger.info("removed %d sandbox containers of owners that are gone", len(removed))
    return SweepReport(tuple(removed), kept, failed)


def _remove(client: Any, container: str) -> None:
    import docker.errors

    with engine_errors(f"removing {container[:12]}"):
        try:
            client.remove_container(container, force=True, v=True)
        except docker.errors.NotFound:
            pass  # it went by itself
        except docker.errors.APIError as error:
            if error.status_code != 409:  # "removal is already in progress"
                raise


_swept = threading.Event()


def sweep_in_background() -> None:
    """Sweep once in this process, without making anybody wait for it."""
    if _swept.is_set():
        return
    _swept.set()

    def run() -> None:
        with contextlib.suppress(SandboxUnavailable):
            sweep()

    threading.Thread(target=run, name="sandbox-sweep", daemon=True).start()
