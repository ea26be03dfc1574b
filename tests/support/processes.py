"""Waiting for processes and files to be gone, in tests that kill."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

_GONE_S = 15.0


def wait_gone(what: psutil.Process | Path) -> None:
    """Wait until a process has ended (a zombie nobody collects has ended too) or a path has vanished."""
    deadline = time.monotonic() + _GONE_S
    while _is_there(what):
        assert time.monotonic() < deadline, f"{what} is still there"
        time.sleep(0.05)


def _is_there(what: psutil.Process | Path) -> bool:
    if isinstance(what, Path):
        return what.exists()
    try:
        return what.is_running() and what.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
