"""`promtool`, Prometheus's own judge of rules and metrics, as Debian packages it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.support.servers import ServerUnavailableError, cached, fetch

_INSTALL = "install promtool (Debian: the package prometheus)"
_LIMIT_S = 60


def promtool() -> str:
    """Find promtool; in continuous integration, on a Debian, get it. Raises `ServerUnavailableError`."""
    found = shutil.which("promtool")
    if found is not None:
        return found
    apt = shutil.which("apt-get")
    if apt is None or os.environ.get("CI") != "true":
        raise ServerUnavailableError(f"no promtool is on PATH: {_INSTALL}")

    def unpack(home: Path) -> None:
        """Take it out of its package: the server itself, and what serves its pages, are not wanted."""
        wait = ["-q", "-o", "DPkg::Lock::Timeout=120"]
        with tempfile.TemporaryDirectory() as temporary:
            # apt checks signatures as a user of its own, who must be able to write there.
            Path(temporary).chmod(0o1777)
            env = {"TMPDIR": temporary, "DEBIAN_FRONTEND": "noninteractive"}
            if os.geteuid() == 0:
                fetch([apt, "update", *wait], "the list of packages", env=env)
            fetch([apt, "download", *wait, "prometheus"], "prometheus", env=env, folder=temporary)
            (package,) = Path(temporary).glob("prometheus_*.deb")
            fetch(["dpkg-deb", "-x", str(package), f"{temporary}/unpacked"], "promtool")
            shutil.copy2(f"{temporary}/unpacked/usr/bin/promtool", home / "promtool")

    return str(cached("promtool", "prometheus", unpack) / "promtool")


class Promtool:
    """Runs it. Raises `ServerUnavailableError` when it is made."""

    def __init__(self) -> None:
        self._program = promtool()

    def __call__(self, *arguments: str, given: str = "") -> tuple[int, str]:
        """Return its exit status and all that it says."""
        done = subprocess.run(
            [self._program, *arguments],
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_LIMIT_S,
        )
        return done.returncode, done.stdout

    def test_rules(self, folder: Path, rules: Path, tests: list[dict[str, Any]]) -> str:
        """Run unit tests of rules; return what is wrong, nothing if all is well."""
        file = folder / "tests.json"
        file.write_text(json.dumps({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}))
        status, said = self("test", "rules", str(file))
        return said if status else ""
