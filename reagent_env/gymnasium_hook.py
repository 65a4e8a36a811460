"""Registers our ids when gymnasium is imported, so that ``gym.make`` needs no import of ours.

Runs at every start of Python (``build_backend/backend.py`` says why and how), so it imports
nothing and does nothing else; registering is ``registration.py``'s.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without importing typing at every start of Python
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_AWAITED = "gymnasium.envs"


class _Finder:
    """Finds ``gymnasium.envs`` once, as everybody else would, and adds a step after its loading."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Meta-path protocol: None for every module but the awaited one."""
        if name != _AWAITED:
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            wrapped: Any = _Loader(spec.loader)
            spec.loader = wrapped
        return spec


class _Loader:
    """The module's own loader, then registration."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Loader protocol."""
        module: ModuleType | None = self._own.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Loader protocol: load, then register."""
        self._own.exec_module(module)
        _register()


def _register() -> None:
    from reagent_env.registration import register_environments

    register_environments()


if _AWAITED in sys.modules:
    _register()
elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())
