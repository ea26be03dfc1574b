"""Zip archives of functions' code, as strangers send them: what is taken, and unpacking it. Not for the event loop.

Sizes are those of AWS, and counted while unpacking: what an archive says of itself is not believed. Links, devices and
whatever else is no file or folder are refused, and so is every name that could lead out of the folder.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

from model.definition_rules import MAX_ARCHIVE_BYTES, MAX_CODE_BYTES
from model.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_FILES = 20_000
_MAX_NAME, _MAX_PART, _MAX_DEPTH = 1024, 255, 64
_ENTRY = b"PK\x01\x02"
_MAX_ENTRIES = 5 * MAX_FILES  # in all that looks like an entry, archives within archives included
_ENCRYPTED = 0x1
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_STEP = 1024 * 1024
_NOT_UNZIPPED = "Could not unzip uploaded file. Please check your file, then try to upload again."
_TOO_LARGE = f"Unzipped size must be smaller than {MAX_CODE_BYTES} bytes"


_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, RuntimeError, ValueError)
"""What `zipfile` raises of an archive that is none, or says of itself what cannot be."""


class ArchiveError(RefusedError):
    """The archive is not taken; the message says why."""


def check_entries(entries: Iterable[zipfile.ZipInfo]) -> None:
    """Raise `ArchiveError` for the first entry that is not taken. Pure."""
    files: set[str] = set()
    folders: set[str] = set()
    size = 0
    for number, entry in enumerate(entries):
        if number == MAX_FILES:
            raise ArchiveError(f"The archive holds more than {MAX_FILES} files")
        if (why := _refusal(entry)) is not None:
            raise ArchiveError(f"The archive's entry {entry.orig_filename[:100]!r} {why}")
        parts = entry.orig_filename.rstrip("/").split("/")
        above = {"/".join(parts[:end]) for end in range(1, len(parts))}
        path = "/".join(parts)
        if entry.is_dir():
            above.add(path)
        elif path in files:
            raise ArchiveError(f"The archive's entry {path[:100]!r} is there twice")
        else:
            files.add(path)
        folders |= above
        size += entry.file_size
        if size > MAX_CODE_BYTES:
            raise ArchiveError(_TOO_LARGE)
    if both := files & folders:
        raise ArchiveError(f"The archive's entry {min(both)[:100]!r} is a file and a folder")
    if not files:
        raise ArchiveError("The archive holds no file")


def _refusal(entry: zipfile.ZipInfo) -> str | None:
    """Return why an entry is not taken; None: it is."""
    # As it is written: `filename` is cut at a NUL, and has slashes for what another system's separators are.
    name = entry.orig_filename
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or ".." in parts:
        return "leads out of the folder"
    too_long = len(parts) > _MAX_DEPTH or _bytes(name) > _MAX_NAME or any(_bytes(part) > _MAX_PART for part in parts)
    if too_long or not {"", "."}.isdisjoint(parts) or not {"\0", "\\"}.isdisjoint(name):
        return "has a name that is not taken"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if entry.compress_type not in _METHODS:
        return "is compressed by another method than deflate"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
        return "is neither a file nor a folder"
    return None


def _bytes(name: str) -> int:
    return len(name.encode(errors="replace"))


def unpack(archive: bytes, folder: Path) -> None:
    """Unpack an archive into a new folder. Raises `ArchiveError`, and OSError where the disk does not take it.

    Then some of it may be there: the folder is the caller's to remove. Files can be read by everybody, and run where
    the archive says that anybody may run them; other permissions are dropped.
    """
    if len(archive) > MAX_ARCHIVE_BYTES:
        raise ArchiveError(f"Zipped size must be smaller than {MAX_ARCHIVE_BYTES} bytes")
    if archive.count(_ENTRY) > _MAX_ENTRIES:  # before anything is made of each of them
        raise ArchiveError(f"The archive holds more than {MAX_FILES} files")
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            entries = opened.infolist()
            check_entries(entries)
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)
            left = MAX_CODE_BYTES
            for entry in entries:
                left = _unpack_entry(opened, entry, folder, left)
    except _UNREADABLE as exc:
        raise ArchiveError(_NOT_UNZIPPED) from exc


def _unpack_entry(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, left: int) -> int:
    """Unpack one entry; return how many bytes may still come."""
    path = folder.joinpath(*entry.orig_filename.rstrip("/").split("/"))
    if entry.is_dir():
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        return left
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with opened.open(entry) as packed, path.open("xb") as file:
        while piece := packed.read(_STEP):
            left -= len(piece)
            if left < 0:
                raise ArchiveError(_TOO_LARGE)
            file.write(piece)
    path.chmod(0o755 if entry.external_attr >> 16 & 0o111 else 0o644)
    return left
