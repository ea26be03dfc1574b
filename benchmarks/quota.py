"""A quota of CPU time for a process, by a control group of its own: of the second version of them or the first.

Only where the system has them and this process may write them, which mostly means root.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 20_000  # short, so that a process that used its share does not stand still for long


class NoQuotaError(Exception):
    """No control group can be made here; the message says why."""


@contextlib.contextmanager
def groups(names: list[str], share: float) -> Iterator[list[Path]]:
    """Make groups that get this share of a CPU each, and remove them in the end. Raises `NoQuotaError`.

    Whoever is in a group must have ended by then.
    """
    made: list[Path] = []
    try:
        home, limit = _hierarchy(share)
        for name in names:
            group = home / name
            group.mkdir()
            made.append(group)
            for file, value in limit.items():
                (group / file).write_text(value)
    except OSError as exc:
        _remove(made)
        raise NoQuotaError(f"control groups cannot be written: {exc}") from exc
    try:
        yield made
    finally:
        _remove(made)


def put(pid: int, group: Path) -> None:
    """Put a process with all its threads into a group; what it starts later is in it too."""
    (group / "cgroup.procs").write_text(str(pid))


def _hierarchy(share: float) -> tuple[Path, dict[str, str]]:
    """Return where groups can be made, and what to write into one."""
    quota_us = int(share * _PERIOD_US)
    if (_ROOT / "cgroup.controllers").exists():
        with contextlib.suppress(OSError):  # it may be on already, and the groups below will tell
            (_ROOT / "cgroup.subtree_control").write_text("+cpu")
        return _ROOT, {"cpu.max": f"{quota_us} {_PERIOD_US}"}
    for home in (_ROOT / "cpu", _ROOT / "cpu,cpuacct"):
        if (home / "cpu.cfs_quota_us").exists() or (home / "cpu.shares").exists():
            return home, {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(quota_us)}
    raise NoQuotaError("this system has no control groups for CPU time")


def _remove(made: list[Path]) -> None:
    for group in made:
        with contextlib.suppress(OSError):
            group.rmdir()
