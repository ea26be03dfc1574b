"""Tell when the code of a function has changed."""

from __future__ import annotations

import contextlib
import os
from hashlib import blake2b

_MOST_FILES = 20_000
"""Beyond that a change may go unnoticed until the node is told to reload."""

SKIPPED = frozenset({"__pycache__", ".git"})
"""Folders that are no code of a function."""


def code_version(folder: str) -> str:
    """Return a text that differs when a file was added, removed or written. Reads names, sizes and times only.

    Takes a few milliseconds for a thousand files: not for the event loop.
    """
    digest = blake2b(digest_size=16)
    seen = 0
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        for name in sorted(files):
            seen += 1
            if seen > _MOST_FILES:
                return digest.hexdigest()
            with contextlib.suppress(OSError):  # deleted meanwhile: the next look sees it
                file = os.stat(os.path.join(path, name))  # noqa: PTH116, PTH118 Path is three times as slow
                digest.update(f"{path}/{name}\0{file.st_mtime_ns}\0{file.st_size}\0{file.st_mode}\n".encode())
    return digest.hexdigest()
