"""Zip archives for tests: ordinary ones, and what somebody would send who means harm."""

from __future__ import annotations

import io
import stat
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def archive(files: Mapping[str, str | bytes], *, mode: int = stat.S_IFREG | 0o644) -> bytes:
    """Return an archive of files by name, all of one mode."""
    return archive_of(*((entry(name, mode), content) for name, content in files.items()))


def archive_of(*entries: tuple[zipfile.ZipInfo, str | bytes]) -> bytes:
    """Return an archive of entries, whatever they are."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        for info, content in entries:
            opened.writestr(info, content)
    return packed.getvalue()


def entry(name: str, mode: int = stat.S_IFREG | 0o644, *, method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    """Return an entry with a name and mode as given."""
    info = zipfile.ZipInfo("placeholder")
    info.filename = info.orig_filename = name
    info.external_attr = mode << 16
    info.compress_type = method
    return info


def handler(result: object) -> bytes:
    """Return the code of a function with a fixed result, and what it was given."""
    text = f"import os\ndef handler(event, context):\n    return [{result!r}, event, os.environ.get('COLOUR')]\n"
    return archive({"app.py": text})
