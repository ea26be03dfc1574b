"""What Debian's package manager installs for tests: in continuous integration only, and only for root."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.servers import ServerUnavailableError, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def installed(look: Callable[[], str | None], packages: Sequence[str], *, what: str, hint: str) -> str:
    """Return what `look` finds; in continuous integration, as root of a Debian, after installing these packages.

    Raises `ServerUnavailableError`, which says what is missing and the hint.
    """
    if (found := look()) is not None:
        return found
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0 or os.environ.get("CI") != "true":
        raise ServerUnavailableError(f"{what}: {hint}")
    wait = ["-q", "-o", "DPkg::Lock::Timeout=120"]
    with tempfile.TemporaryDirectory() as temporary:
        # apt checks signatures as a user of its own, who must be able to write there; not every /tmp lets him.
        Path(temporary).chmod(0o1777)
        env = {"TMPDIR": temporary, "DEBIAN_FRONTEND": "noninteractive"}
        fetch([apt, "update", *wait], "the list of packages", env=env)
        fetch([apt, "install", "-y", *wait, "--no-install-recommends", *packages], " ".join(packages), env=env)
    if (found := look()) is None:
        raise ServerUnavailableError(f"apt-get installed {' '.join(packages)}, and still: {what}: {hint}")
    return found
