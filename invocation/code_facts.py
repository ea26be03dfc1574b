"""What can be said of a folder of code: its size, its hash, when it was written last."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import NamedTuple

from invocation.code_version import MOST_FILES, code_version, files_of
from model.definition_rules import MAX_CODE_BYTES


class CodeFacts(NamedTuple):
    """A folder's facts. `digest` is the SHA-256 over names and contents of its files, in order, in hexadecimal.

    None: it holds more than a Lambda package may, and is not read for this.
    """

    size: int  # bytes of all files
    digest: str | None
    modified_time: float  # epoch seconds, of the file written last; 0: there is none


class FolderFacts:
    """Reads folders, again only when something in them has changed. Not for the event loop."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, CodeFacts]] = {}

    def of(self, folder: str) -> CodeFacts:
        """Return a folder's facts; of one that is not there, those of an empty one."""
        version = code_version(folder)
        known = self._known.get(folder)
        if known is None or known[0] != version:
            known = self._known[folder] = (version, _read(folder))
        return known[1]


def _read(folder: str) -> CodeFacts:
    files = [os.path.join(*found) for found in files_of(folder, most=MOST_FILES + 1)]  # noqa: PTH118 as `code_version`
    size, modified = 0, 0.0
    regular = []
    for file in files:
        with contextlib.suppress(OSError):  # deleted meanwhile
            found = os.stat(file)  # noqa: PTH116
            if stat.S_ISREG(found.st_mode):
                regular.append(file)
                size, modified = size + found.st_size, max(modified, found.st_mtime)
    if len(files) > MOST_FILES or size > MAX_CODE_BYTES:
        return CodeFacts(size, None, modified)
    digest = hashlib.sha256()
    for file in regular:
        with contextlib.suppress(OSError), open(file, "rb") as opened:  # noqa: PTH123
            inside = hashlib.file_digest(opened, "sha256")
            digest.update(f"{os.path.relpath(file, folder)}\0{inside.hexdigest()}\n".encode(errors="surrogateescape"))
    return CodeFacts(size, digest.hexdigest(), modified)
