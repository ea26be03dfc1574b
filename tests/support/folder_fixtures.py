"""Folders that functions in sandboxes get to, whoever they run as; pytest's own are for their maker alone."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """Make a folder that everybody may write to; no other folder of the machine is touched."""
    with TemporaryDirectory(prefix="esmd-test-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that everybody may write to."""
    with folder_for_all() as folder:
        yield folder
