"""What the helpers that start real servers share: saying that one cannot be had, the cache, free ports, names."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_FETCH_S = 280.0  # a first run downloads 50 MB
_SHOWN = 40  # lines of what a package manager said: the first ones name the cause, or the last


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


def cached(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """Return the cache directory of `name` as made from this recipe, letting `make` fill it if there is none.

    Several processes may ask at once: one makes it next to its place, under a file lock, then renames it. So a cache
    directory is complete or absent, and is never changed: servers run from it.
    """
    cache = _cache()
    home = cache / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
    if home.exists():
        return home
    with (cache / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix=f"{home.name}.") as working:
                made = Path(working) / "made"
                made.mkdir()
                make(made)
                made.rename(home)
    return home


def _cache() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "esmd"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def fetch(
    command: Sequence[str],
    what: str,
    *,
    env: Mapping[str, str] | None = None,
    folder: str | Path | None = None,
    limit_s: float = _FETCH_S,
) -> None:
    """Run a package manager, one at a time: Maven's own repository is not for two. Raises `ServerUnavailableError`.

    `env` are variables of its own, `folder` is where it runs.
    """
    try:
        with (_cache() / f"{Path(command[0]).name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=limit_s,
                cwd=folder,
                env={**os.environ, **(env or {})},
            )
    except subprocess.TimeoutExpired as exc:
        raise ServerUnavailableError(f"{command[0]} did not fetch {what} within {limit_s:g} s") from exc
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).splitlines()
        said = "\n".join(lines if len(lines) <= _SHOWN else [*lines[: _SHOWN // 2], "…", *lines[-_SHOWN // 2 :]])
        raise ServerUnavailableError(f"{command[0]} cannot fetch {what}:\n{said}")


def unique_name(prefix: str) -> str:
    """Make a name no other test uses, for a topic or a group."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def last_lines(log: Path, count: int = 25) -> str:
    """Read the end of a server's log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def responds(port: int, path: str) -> bool:
    """Ask a server on this machine for a page; whether it answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
