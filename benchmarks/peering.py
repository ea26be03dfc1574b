"""What a peer needs to run: its packages, in an environment of its own that is made when first asked for.

A peer is a folder below `benchmarks/peers`. With a `requirements.txt` it is the Python module `loop` there, run in a
virtual environment that holds just these versions; without one, in this project's environment, whose versions are those
of `requirements.lock`. With a `pom.xml` it is a Java program. Environments are kept in the cache of the tests' servers
and made anew when a version changes.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.java import java, java_command
from tests.support.servers import ServerUnavailableError, cached, fetch, program

if TYPE_CHECKING:
    from collections.abc import Sequence

_HOME = Path(__file__).parent / "peers"
_JAVA = 17
_HEAP_MB = 1024
_QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
_MAVEN = "install a Java 17 development kit and Maven (apt-get install openjdk-17-jdk-headless maven)"


@dataclass(frozen=True, slots=True)
class Peer:
    """One of the folders."""

    folder: str
    title: str  # for the table, before its version
    package: str  # whose version that is
    arguments: Sequence[str] = ()  # of its own
    needs: Sequence[str] = ()  # servers besides the source: "redis", "dynamodb"
    warm_s: float = 0.0  # before measuring, besides a share of the backlog
    within_s: float = 60.0  # until the first records

    @property
    def module(self) -> str:
        """Its Python module, or its name."""
        return f"benchmarks.peers.{self.folder}.loop"

    @property
    def downloads(self) -> bool:
        """Whether it needs packages that this project's environment does not have."""
        return self._requirements.exists() or self._pom.exists()

    @property
    def shown(self) -> str:
        """Title and version, for the table."""
        return f"{self.title} {self.version}"

    @property
    def version(self) -> str:
        """The pinned version of its package."""
        if self._pom.exists():
            return _found(rf"<artifactId>{self.package}</artifactId>\s*<version>([^<]+)", self._pom)
        if self._requirements.exists():
            return _found(rf"(?m)^{re.escape(self.package)}==(\S+)", self._requirements)
        return importlib.metadata.version(self.package)

    def command(self) -> list[str]:
        """Return the start of its command line. Raises `ServerUnavailableError`: it cannot be had here, and why."""
        if self._pom.exists():
            built = _build(_HOME / self.folder)
            jars = f"{built / 'target' / 'classes'}:{built / 'jars'}/*"
            return [*java_command(_JAVA, _HEAP_MB, jars, _QUIET), "esmd.bench.Peer"]
        return [str(self._python()), "-P", "-m", self.module]

    @property
    def _requirements(self) -> Path:
        return _HOME / self.folder / "requirements.txt"

    @property
    def _pom(self) -> Path:
        return _HOME / self.folder / "pom.xml"

    def _python(self) -> Path:
        if not self._requirements.exists():
            return Path(sys.executable)
        wanted = self._requirements.read_text()

        def install(home: Path) -> None:
            fetch([sys.executable, "-m", "venv", str(home)], f"an environment for {self.title}")
            pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            fetch([*pip, "-r", str(self._requirements)], self.title)

        return cached("peer", f"{sys.base_prefix}\n{sys.version}\n{wanted}", install) / "bin" / "python"


def _build(folder: Path) -> Path:
    """Compile a folder's Java program and fetch its jars, or find both in the cache."""
    java(_JAVA)
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".xml", ".java"})

    def build(home: Path) -> None:
        maven = program("mvn", _MAVEN)
        program("javac", _MAVEN)
        shutil.copytree(folder, home, dirs_exist_ok=True)
        goals = ["compile", "dependency:copy-dependencies", "-DincludeScope=runtime"]
        fetch([maven, "-B", "-q", "-f", str(home / "pom.xml"), *goals, f"-DoutputDirectory={home / 'jars'}"], "jars")

    return cached(f"peer-{folder.name}", "".join(path.read_text() for path in files), build)


def _found(pattern: str, path: Path) -> str:
    match = re.search(pattern, path.read_text())
    if match is None:
        raise ServerUnavailableError(f"{path.name} pins no such version")
    return match[1]
