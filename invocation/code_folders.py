"""Where the code of functions lies that the API made: `FOLDER/NAME/SHA256`, its archive beside it.

Not for the event loop. Several processes may share the folder. A version appears in one step, complete. It is removed
when no process has said for a while that it uses it: longer than any invocation can take that began before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from invocation.code_archive import unpack
from invocation.settings import LONGEST_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Collection

UNUSED_S = LONGEST_TIMEOUT_S + 600.0
"""How long a version stays that nobody says he uses. Say so a few times in it."""

_TEMPORARY = ".new-"
_ARCHIVE = ".zip"


class CodeFolders:
    """The versions of all functions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str, digest: str) -> Path:
        """Return where a version is, or would be."""
        return self._folder.absolute() / name / digest

    def put(self, name: str, archive: bytes) -> str:
        """Unpack an archive, unless it is there; return its SHA-256. Raises `ArchiveError`, OSError."""
        digest = hashlib.sha256(archive).hexdigest()
        path = self.path(name, digest)
        if self.use(name, digest) and path.with_suffix(_ARCHIVE).exists():
            return digest
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=path.parent))
        try:
            new.chmod(0o755)
            unpack(archive, new / "code")
            (new / "archive").write_bytes(archive)
            (new / "archive").rename(path.with_suffix(_ARCHIVE))
            try:
                (new / "code").rename(path)
            except OSError:
                if not path.is_dir():  # else another process was faster
                    raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return digest

    def use(self, name: str, digest: str) -> bool:
        """Say that a version is in use; whether it is there."""
        path = self.path(name, digest)
        with contextlib.suppress(FileNotFoundError):
            os.utime(path.with_suffix(_ARCHIVE))
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def archive(self, name: str, digest: str) -> bytes | None:
        """Return a version's archive, None if it is not there, or not what it was."""
        try:
            archive = self.path(name, digest).with_suffix(_ARCHIVE).read_bytes()
        except FileNotFoundError:
            return None
        return archive if hashlib.sha256(archive).hexdigest() == digest else None

    def sweep(self, used: Collection[tuple[str, str]], *, unused_s: float = UNUSED_S) -> list[str]:
        """Remove what is not among the versions in use, and has not been for so long; return what is removed."""
        before = time.time() - unused_s
        removed = []
        for function in _inside(self._folder):
            for version in _inside(function):
                if (function.name, version.name.removesuffix(_ARCHIVE)) in used:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if version.stat().st_mtime >= before:
                        continue
                    if version.is_dir():
                        # Out of the way in one step: what is half removed must not be taken for a version.
                        gone = version.rename(version.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}"))
                        shutil.rmtree(gone, ignore_errors=True)
                    else:
                        version.unlink()
                    removed.append(f"{function.name}/{version.name}")
            with contextlib.suppress(OSError):
                function.rmdir()  # unless something is in it
        return removed


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
