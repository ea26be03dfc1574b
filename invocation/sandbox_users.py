"""Users of their own for the sandboxes of a node that runs as root, and what a user gets at.

Processes of one user can signal and trace each other, and count against one limit; so no two sandboxes of a machine
share one. A number is held through a lock on a file, which ends with the node however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from pathlib import Path
from random import Random

from model.errors import UnavailableError

FIRST_USER, LAST_USER = 60578, 61183
"""Numbers that no distribution gives to anybody (systemd's table of users and groups)."""

_LOCKS = Path("/run/esmd-users")  # where nobody but root can have made it before
_EVERYBODY_ENTERS = stat.S_IXOTH
_EVERYBODY_READS = stat.S_IROTH | stat.S_IXOTH


class SandboxUsers:
    """Hands out user numbers. `folder` holds the locks and is shared by all nodes of the machine."""

    def __init__(self, folder: Path | None = None, *, random: Random | None = None) -> None:
        self._folder = folder or _LOCKS
        self._random = random or Random()  # noqa: S311 - which is free first, no secret
        self._locks: dict[int, int] = {}  # file descriptors by user

    def take(self) -> int | None:
        """Return the number of a user that nobody else has; None when this process may not change users.

        Raises `UnavailableError` when there is none left.
        """
        if os.geteuid() != 0:
            return None
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if (found := self._folder.lstat()).st_uid != 0 or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
            raise UnavailableError(f"{self._folder} is not root's own folder")
        numbers = [number for number in range(FIRST_USER, LAST_USER + 1) if number not in self._locks]
        self._random.shuffle(numbers)
        for number in numbers:
            lock = os.open(self._folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self._locks[number] = lock
            return number
        raise UnavailableError("every user number for sandboxes is taken")

    def give_back(self, user: int | None) -> None:
        """Let others have a number, once no process of that user is left."""
        if user is not None and (lock := self._locks.pop(user, None)) is not None:
            os.close(lock)


def reachable(path: str) -> bool:
    """Tell whether a user with no rights but everybody's can read a path."""
    real = Path(os.path.realpath(path))
    with contextlib.suppress(OSError):
        inside = all(parent.stat().st_mode & _EVERYBODY_ENTERS for parent in real.parents)
        return inside and real.stat().st_mode & _EVERYBODY_READS == _EVERYBODY_READS
    return False


def processes_of(user: int) -> int:
    """Count the processes and threads of a user, as RLIMIT_NPROC does."""
    count = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == user:
                count += sum(1 for _ in (entry / "task").iterdir())
    return count


def user_of_connection(theirs: tuple[str, int] | None, ours: tuple[str, int] | None) -> int | None:
    """Return who opened a connection over 127.0.0.1 to this process; None if it cannot be told.

    A sandbox with a network of its own is not in this table, and needs no such look.
    """
    if theirs is None or ours is None:
        return None
    # With both ends: a connection that is over may have had the same port, to somewhere else.
    wanted = f" {_table_address(theirs)} {_table_address(ours)} "
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/tcp").read_text("ascii").splitlines():
            if wanted in line:
                return int(line.split()[7])
    return None


def _table_address(address: tuple[str, int]) -> str:
    host, port = address[:2]
    return f"{socket.inet_aton(host)[::-1].hex().upper()}:{port:04X}"
