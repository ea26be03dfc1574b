"""The Java that runs servers, and their jars, resolved once by Maven into a cache that test runs share."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from tests.support.servers import ServerUnavailableError, cached, fetch, program

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def java_command(at_least: int, heap_mb: int, jars: str, *options: str) -> list[str]:
    """Make the start of a command line, up to the class path; a main class follows."""
    return [java(at_least), f"-Xmx{heap_mb}m", "-XX:+UseSerialGC", "-Djava.awt.headless=true", *options, "-cp", jars]


def classpath(name: str, artifacts: Sequence[Artifact]) -> str:
    """Resolve the jars of a server, or find them in the cache under `name`. Raises `ServerUnavailableError`."""
    pom = (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>esmd.tests</groupId><artifactId>server</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{''.join(one.xml() for one in artifacts)}</dependencies></project>\n"
    )

    def resolve(home: Path) -> None:
        maven = program("mvn", _INSTALL)
        (home / "pom.xml").write_text(pom)
        options = ["-DincludeScope=runtime", f"-DoutputDirectory={home}"]
        fetch([maven, "-B", "-q", "-f", str(home / "pom.xml"), "dependency:copy-dependencies", *options], name)

    return f"{cached(name, pom, resolve)}/*"
