"""Emptying a folder whatever a session left in it: deep trees, locked folders, odd names.

Runs inside the sandbox (Python ≥ 3.9, standard library only; shipped with ``zygote.py``).
"""

from __future__ import annotations

import contextlib
import os

from reagent_env.sandboxes.frames import Broken


def wipe(folder: str, owner: int | None = None) -> int:
    """Empty a folder (of ``owner``'s entries alone, if given); returns the entries removed.

    Every process of the sandbox is dead by now, so nothing races. Deep trees are flattened by
    renaming inner folders to the top: no recursion, no path too long, few descriptors.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    if owner is None:
        # The session may have locked its own folder; one that is not ours to open is open anyway.
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
    top = os.open(folder, flags)
    removed = count = 0
    prefix = os.urandom(8).hex()
    try:
        for _ in range(1 << 20):
            names = _entries(top, owner)
            if not names:
                return removed
            before = removed
            for name in names:
                try:
                    os.unlink(name, dir_fd=top)
                    removed += 1
                    continue
                except FileNotFoundError:
                    continue
                except OSError:
                    pass
                os.chmod(name, 0o700, dir_fd=top)
                inner = os.open(name, flags, dir_fd=top)
                try:
                    for child in os.listdir(inner):
                        raw = os.fsencode(child)
                        try:
                            os.unlink(raw, dir_fd=inner)
                            removed += 1
                        except OSError:
                            os.chmod(raw, 0o700, dir_fd=inner)
                            count += 1
                            fresh = f"{prefix}-{count}".encode()
                            os.rename(raw, fresh, src_dir_fd=inner, dst_dir_fd=top)
                            removed += 1
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
                removed += 1
            if removed == before:
                raise Broken(f"{folder} cannot be emptied: {names[:3]!r} stay")
        raise Broken(f"{folder} cannot be emptied")
    finally:
        os.close(top)


def _entries(top: int, owner: int | None) -> list[bytes]:
    """Names in a folder, of one owner's entries if given."""
    with os.scandir(top) as listing:
        return [
            os.fsencode(entry.name)
            for entry in listing
            if owner is None or entry.stat(follow_symlinks=False).st_uid == owner
        ]
