"""bubblewrap, where the machine has it or gets it from Debian, and allows what it does."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support.apt import installed
from tests.support.missing import skip_or_fail
from tests.support.servers import ServerUnavailableError

_TRIED = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc"]


def need_bubblewrap() -> None:
    """Have bubblewrap, or skip the test; in continuous integration skip only where the kernel forbids namespaces."""
    try:
        bwrap = installed(
            lambda: shutil.which("bwrap"),
            ["bubblewrap"],
            what="bubblewrap is not installed",
            hint="apt-get install bubblewrap",
        )
    except ServerUnavailableError as why:
        skip_or_fail(why)
    tried = subprocess.run([bwrap, *_TRIED, "true"], capture_output=True, text=True, check=False, timeout=30)
    if tried.returncode != 0:
        pytest.skip(f"this machine forbids what bubblewrap does: {tried.stderr.strip()}")
