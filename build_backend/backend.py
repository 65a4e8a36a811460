"""setuptools, and one file more in each wheel: the start-up line that makes our ids known.

Gymnasium 1.0 dropped its entry point for environments, so a package's ids are known only once the
package is imported. ``reagent_env.pth`` in site-packages has Python put a hook in place at start-up
that registers our ids when, and only when, a program imports gymnasium
(``reagent_env/gymnasium_hook.py``). setuptools has no setting for such a file in wheels and
editable installs alike, hence this wrapper over its public hooks.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (  # re-exported: the frontend calls them on this module
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

STARTUP_FILE = "reagent_env.pth"
STARTUP_LINE = b"import reagent_env.gymnasium_hook\n"


def build_wheel(
    wheel_directory: str,
    config_settings: Any = None,
    metadata_directory: str | None = None,
) -> str:
    """PEP 517: build a wheel, the start-up line in it."""
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    _add_startup_line(Path(wheel_directory, name))
    return name


def build_editable(
    wheel_directory: str,
    config_settings: Any = None,
    metadata_directory: str | None = None,
) -> str:
    """PEP 660: build an editable wheel, the start-up line in it."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    _add_startup_line(Path(wheel_directory, name))
    return name


def _add_startup_line(wheel: Path) -> None:
    """Write the wheel anew with the file and its RECORD entry; RECORD stays last."""
    rewritten = wheel.with_suffix(".rewritten")
    with (
        zipfile.ZipFile(wheel) as old,
        zipfile.ZipFile(rewritten, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        record = next(n for n in old.namelist() if n.endswith(".dist-info/RECORD"))
        for entry in old.infolist():
            if entry.filename != record:
                new.writestr(entry, old.read(entry))
        new.writestr(zipfile.ZipInfo(STARTUP_FILE, (2020, 1, 1, 0, 0, 0)), STARTUP_LINE)
        digest = base64.urlsafe_b64encode(hashlib.sha256(STARTUP_LINE).digest()).rstrip(b"=")
        line = f"{STARTUP_FILE},sha256={digest.decode()},{len(STARTUP_LINE)}\n"
        new.writestr(record, old.read(record).decode() + line)
    shutil.move(rewritten, wheel)
