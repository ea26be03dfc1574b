"""`promtool`, Prometheus's own judge of rules and metrics, as Debian packages it."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from tests.support.apt import Apt
from tests.support.servers import cached

if TYPE_CHECKING:
    from pathlib import Path

_INSTALL = "install promtool (Debian: the package prometheus)"
_LIMIT_S = 60


def promtool() -> str:
    """Find promtool; in continuous integration, on a Debian, get it. Raises `ServerUnavailableError`."""
    found = shutil.which("promtool")
    if found is not None:
        return found

    def unpack(home: Path) -> None:
        """Take it out of its package: the server itself, and what serves its pages, are not wanted."""
        with Apt.here(what="no promtool is on PATH", hint=_INSTALL) as apt:
            shutil.copy2(apt.unpacked("prometheus") / "usr/bin/promtool", home / "promtool")

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
