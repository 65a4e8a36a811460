"""Which installed libraries a sandbox without an image of its own may see, and where they lie."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path


def library_parts(names: Iterable[str]) -> dict[str, Path]:
    """Return the top-level folders and modules of distributions and what they require.

    Args:
        names: Distributions, e.g. ``("numpy", "sympy")``; those not installed are left out.

    Returns:
        Name below ``site-packages`` → path, e.g. ``{"numpy": Path(".../numpy"), ...}``.
    """
    parts: dict[str, Path] = {}
    todo, seen = list(names), set()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        root = Path(str(found.locate_file("")))
        for top in {file.parts[0] for file in found.files or ()}:
            if top in ("..", "__pycache__") or top.endswith((".dist-info", ".egg-info", ".pth")):
                continue
            if (root / top).exists():
                parts[top] = (root / top).resolve()
        for requirement in found.requires or ():
            required = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
            if required and "extra ==" not in requirement:
                todo.append(required.group())
    return parts
