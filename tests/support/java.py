"""The Java that runs servers, and their jars, resolved once by Maven into a cache that test runs share.

A cache directory is complete or absent: Maven writes next to it, under a file lock, and the result is renamed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from tests.support.servers import ServerUnavailableError, cache_dir, program

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAVEN_S = 280  # a first run downloads 50 MB
_INSTALL = "install a Java 17 runtime and Maven (apt-get install openjdk-17-jre-headless maven)"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A Maven artifact whose dependencies, but for the excluded ones (`group:name`), come along."""

    group: str
    name: str
    version: str
    without: Sequence[str] = ()

    def xml(self) -> str:
        """Render the artifact as a dependency of a POM."""
        exclusions = "".join(
            f"<exclusion><groupId>{escape(group)}</groupId><artifactId>{escape(name)}</artifactId></exclusion>"
            for group, _, name in (one.partition(":") for one in self.without)
        )
        return (
            f"<dependency><groupId>{escape(self.group)}</groupId><artifactId>{escape(self.name)}</artifactId>"
            f"<version>{escape(self.version)}</version><exclusions>{exclusions}</exclusions></dependency>"
        )


def java(at_least: int) -> str:
    """Find a Java of the given version. Raises `ServerUnavailableError`."""
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else program("java", _INSTALL)
    try:
        printed = subprocess.run([found, "-version"], capture_output=True, text=True, check=True, timeout=30).stderr
    except (OSError, subprocess.SubprocessError) as exc:
        raise ServerUnavailableError(f"{found} does not run ({exc}): {_INSTALL}") from exc
    version = re.search(r'version "(?:1\.)?(\d+)', printed)
    if version is None or int(version[1]) < at_least:
        raise ServerUnavailableError(f"{found} is too old, Java {at_least} is needed: {_INSTALL}")
    return found


def classpath(name: str, artifacts: Sequence[Artifact]) -> str:
    """Resolve the jars of a server, or find them in the cache under `name`. Raises `ServerUnavailableError`."""
    pom = (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>esmd.tests</groupId><artifactId>server</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{''.join(one.xml() for one in artifacts)}</dependencies></project>\n"
    )
    home = cache_dir() / name
    if not _holds(home, pom):
        home.parent.mkdir(parents=True, exist_ok=True)
        with (home.parent / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _holds(home, pom):
                _resolve(home, pom)
    return f"{home}/*"


def _holds(home: Path, pom: str) -> bool:
    resolved = home / "pom.xml"
    return resolved.is_file() and resolved.read_text() == pom


def _resolve(home: Path, pom: str) -> None:
    maven = program("mvn", _INSTALL)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=f"{home.name}.") as working:
        made = Path(working) / "made"
        made.mkdir()
        (made / "pom.xml").write_text(pom)
        command = [maven, "-B", "-q", "-f", str(made / "pom.xml"), "dependency:copy-dependencies"]
        options = ["-DincludeScope=runtime", f"-DoutputDirectory={made}"]
        try:
            done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=_MAVEN_S)
        except subprocess.TimeoutExpired as exc:
            raise ServerUnavailableError(f"Maven did not resolve {home.name} within {_MAVEN_S} s") from exc
        if done.returncode != 0:
            said = "\n".join((done.stdout + done.stderr).splitlines()[:20])
            raise ServerUnavailableError(f"Maven cannot resolve {home.name}:\n{said}")
        shutil.rmtree(home, ignore_errors=True)
        made.rename(home)
