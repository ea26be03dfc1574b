"""What the helpers that start real servers have in common: how they say that one cannot be had, and free ports."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from pathlib import Path


class ServerUnavailableError(Exception):
    """This machine lacks what the server needs; the message says what, and how to get it."""


class ServerFailedError(Exception):
    """The server was started and did not come up; the message ends with its last words."""


def free_ports(count: int) -> list[int]:
    """Find free loopback ports. Another process may still take one before the server does."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def program(name: str, hint: str) -> str:
    """Find a program on PATH. Raises `ServerUnavailableError`."""
    found = shutil.which(name)
    if found is None:
        raise ServerUnavailableError(f"`{name}` is not on PATH: {hint}")
    return found


def cache_dir() -> Path:
    """Where downloaded servers are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "esmd"


def unique_name(prefix: str) -> str:
    """Make a name no other test uses, for a topic or a group."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def last_lines(log: Path, count: int = 25) -> str:
    """Read the end of a server's log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
