"""Emptying a folder whatever a session left in it: deep trees, locked folders, odd names.

Runs inside the sandbox (Python ≥ 3.9, standard library only; shipped with ``zygote.py``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

from reagent_env.sandboxes.frames import Broken

_SET_FLAGS = (1 << 30) | (struct.calcsize("l") << 16) | (ord("f") << 8) | 2  # FS_IOC_SETFLAGS


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
        if owner is None:
            _forget(top)
        for _ in range(1 << 20):
            entries = _entries(top, owner)
            if not entries:
                return removed
            before = removed
            for name, is_folder in entries:
                if _remove(name, top, is_folder):
                    removed += 1
                    continue
                os.chmod(name, 0o700, dir_fd=top)
                inner = os.open(name, flags, dir_fd=top)
                try:
                    for child, is_inner_folder in _entries(inner, None):
                        if not _remove(child, inner, is_inner_folder):
                            os.chmod(child, 0o700, dir_fd=inner)
                            count += 1
                            fresh = f"{prefix}-{count}".encode()
                            os.rename(child, fresh, src_dir_fd=inner, dst_dir_fd=top)
                        removed += 1
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
                removed += 1
            if removed == before:
                raise Broken(f"{folder} cannot be emptied: {entries[:3]!r} stay")
        raise Broken(f"{folder} cannot be emptied")
    finally:
        os.close(top)


def _forget(folder: int) -> None:
    """Drop what a session can write on the folder itself: attributes, lists, times, flags."""
    with contextlib.suppress(OSError):  # not its owner, so neither was the session
        for attribute in os.listxattr(folder):
            os.removexattr(folder, attribute)
        os.utime(folder)
    with contextlib.suppress(OSError):  # a disk without flags
        fcntl.ioctl(folder, _SET_FLAGS, struct.pack("l", 0))


def _remove(name: bytes, parent: int, is_folder: bool) -> bool:
    """Remove a file or an empty folder; False for a folder with something in it."""
    try:
        if is_folder:
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError:
        if not is_folder:
            raise
        return False
    return True


def _entries(folder: int, owner: int | None) -> list[tuple[bytes, bool]]:
    """Names in a folder and which are folders; of one owner's entries alone, if given."""
    with os.scandir(folder) as listing:
        return [
            (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False))
            for entry in listing
            if owner is None or entry.stat(follow_symlinks=False).st_uid == owner
        ]
