"""What Debian's package manager gets for tests: in continuous integration only."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.servers import ServerUnavailableError, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_WAIT = ("-q", "-o", "DPkg::Lock::Timeout=120")


class Apt:
    """`apt-get`, in a folder of its own that ends with it."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder

    @classmethod
    @contextmanager
    def here(cls, *, what: str, hint: str) -> Iterator[Apt]:
        """Find it, and bring its lists up to date if we are root. Raises `ServerUnavailableError` on a laptop."""
        program = shutil.which("apt-get")
        if program is None or os.environ.get("CI") != "true":
            raise ServerUnavailableError(f"{what}: {hint}")
        with tempfile.TemporaryDirectory() as temporary:
            # apt checks signatures as a user of its own, who must be able to write there; not every /tmp lets him.
            Path(temporary).chmod(0o1777)
            apt = cls(program, Path(temporary))
            if os.geteuid() == 0:
                apt._run("update", [])
            yield apt

    def install(self, packages: Sequence[str]) -> None:
        """Install packages: for root."""
        self._run("install", ["-y", "--no-install-recommends", *packages])

    def unpacked(self, package: str) -> Path:
        """Return a package's files, not installed; they last as long as this does."""
        self._run("download", [package])
        (archive,) = self._folder.glob(f"{package}_*.deb")
        unpacked = self._folder / package
        subprocess.run(["dpkg-deb", "-x", archive, unpacked], check=True, timeout=120)
        return unpacked

    def _run(self, command: str, arguments: Sequence[str]) -> None:
        what = " ".join(arguments) or "the list of packages"
        env = {"TMPDIR": str(self._folder), "DEBIAN_FRONTEND": "noninteractive"}
        fetch([self._program, command, *_WAIT, *arguments], what, env=env, folder=self._folder)


def installed(look: Callable[[], str | None], packages: Sequence[str], *, what: str, hint: str) -> str:
    """Return what `look` finds; in continuous integration, as root of a Debian, after installing these packages.

    Raises `ServerUnavailableError`, which says what is missing and the hint.
    """
    if (found := look()) is not None:
        return found
    if os.geteuid() != 0:
        raise ServerUnavailableError(f"{what}: {hint}")
    with Apt.here(what=what, hint=hint) as apt:
        apt.install(packages)
    if (found := look()) is None:
        raise ServerUnavailableError(f"apt-get installed {' '.join(packages)}, and still: {what}: {hint}")
    return found
