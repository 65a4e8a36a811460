"""What an environment needs beyond this package: modules and programs, and the command for each.

Not here: which environment needs what (``registration.py``), and sandboxes (``reagent doctor``).
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """One thing that may be missing, e.g. ``Need("module", ("minigrid",), "pip install minigrid")``."""

    kind: str
    """``module`` (of Python) or ``program`` (on the PATH)."""
    names: tuple[str, ...]
    """Any one of these will do."""
    command: str
    """What installs it."""

    @property
    def met(self) -> bool:
        """Whether it is on this machine; nothing is imported or run."""
        if self.kind == "program":
            return any(shutil.which(name) for name in self.names)
        return any(importlib.util.find_spec(name) for name in self.names)

    def __str__(self) -> str:
        return f"the {self.kind} {' or '.join(self.names)}: {self.command}"


class NeedMissing(ImportError):
    """An environment was made on a machine that lacks what it needs; the message has the command."""


def extra(name: str, module: str) -> Need:
    """The need of a module that an extra of this package brings."""
    return Need("module", (module,), f"python -m pip install 'reagent-env[{name}]'")


def require(who: str, *needs: Need) -> None:
    """Refuse to go on without ``needs``.

    Raises:
        NeedMissing: names everything missing at once, each with its command.
    """
    missing = [need for need in needs if not need.met]
    if missing:
        raise NeedMissing(f"{who} needs {'; and '.join(map(str, missing))}")
