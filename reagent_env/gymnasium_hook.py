"""Registers our ids when gymnasium is imported, so that ``gym.make`` needs no import of ours.

Runs at every start of Python (``build_backend/backend.py`` says why and how), so it imports
nothing and does nothing else; registering is ``registration.py``'s.
"""

import sys

_AWAITED = "gymnasium.envs"


class _Finder:
    """Finds ``gymnasium.envs`` once, as everybody else would, and adds a step after its loading."""

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        """Meta-path protocol: None for every module but the awaited one."""
        if name != _AWAITED:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[no-untyped-call]
        return spec


class _Loader:
    """The module's own loader, then registration."""

    def __init__(self, own):  # type: ignore[no-untyped-def]
        self._own = own

    def __getattr__(self, name):  # type: ignore[no-untyped-def]
        return getattr(self._own, name)

    def create_module(self, spec):  # type: ignore[no-untyped-def]
        """Loader protocol."""
        return self._own.create_module(spec)

    def exec_module(self, module):  # type: ignore[no-untyped-def]
        """Loader protocol: load, then register."""
        self._own.exec_module(module)
        _register()


def _register() -> None:
    from reagent_env.registration import register_environments

    register_environments()


if _AWAITED in sys.modules:
    _register()
elif not any(
    type(finder).__name__ == "_Finder" and type(finder).__module__ == __name__
    for finder in sys.meta_path
):
    sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]
