"""How the jars of Java servers are found: with stand-ins for `mvn` and `java`, no network."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.java import Artifact, classpath, java
from tests.support.missing import skip_or_fail
from tests.support.servers import ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVER = [Artifact("org.example", "server", "1.0", without=["org.example:heavy"])]
MAVEN = """#!/bin/sh
echo run >> "$(dirname "$0")/runs"
for argument; do case "$argument" in -DoutputDirectory=*) echo jar > "${argument#*=}/server.jar";; esac; done
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Give the test a PATH and a cache of its own, and a way to put programs there."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr("shutil.which", lambda name: str(programs / name) if (programs / name).exists() else None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    def put(name: str, script: str) -> None:
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)

    return put


def homes(tmp_path: Path) -> list[Path]:
    """List the directories in the cache."""
    return [path for path in (tmp_path / "cache/esmd").iterdir() if path.is_dir()]


def test_runs_at_the_same_time_resolve_once(install: Callable[[str, str], None], tmp_path: Path) -> None:
    """Several test runs that want the same jars wait for one Maven, and the next run needs none."""
    install("mvn", MAVEN)
    with ThreadPoolExecutor(4) as runs:
        paths = set(runs.map(lambda _: classpath("server-1.0", SERVER), range(4)))
    [home] = homes(tmp_path)
    assert paths == {f"{home}/*"}
    assert (home / "server.jar").exists()
    assert (tmp_path / "bin/runs").read_text() == "run\n"
    (tmp_path / "bin/mvn").unlink()
    assert classpath("server-1.0", SERVER) in paths


def test_other_artifacts_under_the_same_name_are_resolved_anew(
    install: Callable[[str, str], None], tmp_path: Path
) -> None:
    """A cache made from another list of artifacts is not used, and stays for those who run from it."""
    install("mvn", MAVEN)
    first = classpath("server", SERVER)
    assert classpath("server", [Artifact("org.example", "server", "2.0")]) != first
    assert (tmp_path / "bin/runs").read_text() == "run\nrun\n"
    assert len(homes(tmp_path)) == 2


def test_a_failing_maven_leaves_no_cache(install: Callable[[str, str], None], tmp_path: Path) -> None:
    """What Maven says is the reason, and nothing half-made is found by the next run."""
    install("mvn", "#!/bin/sh\necho 'no such artifact' >&2\nexit 1\n")
    with pytest.raises(ServerUnavailableError, match=r"mvn cannot fetch server-1.0:\nno such artifact"):
        classpath("server-1.0", SERVER)
    assert not homes(tmp_path)


@pytest.mark.parametrize("wanted", ["java", "mvn"])
def test_a_missing_program_is_named(install: Callable[[str, str], None], wanted: str) -> None:
    """Without Java or Maven the reason names the program and how to get it."""
    with pytest.raises(ServerUnavailableError, match=rf"`{wanted}` is not on PATH: install .*apt-get install"):
        java(17) if wanted == "java" else classpath("server-1.0", SERVER)


@pytest.mark.parametrize(
    ("printed", "fine"), [("1.8.0_392", False), ("11.0.2", False), ("17.0.15", True), ("21", True)]
)
def test_an_old_java_is_refused(install: Callable[[str, str], None], printed: str, *, fine: bool) -> None:
    """Java is taken by its version, in the old numbering and the new."""
    install("java", f"#!/bin/sh\necho 'openjdk version \"{printed}\" 2025-04-15' >&2\n")
    if fine:
        assert java(17).endswith("/java")
    else:
        with pytest.raises(ServerUnavailableError, match="too old, Java 17 is needed"):
            java(17)


@pytest.mark.parametrize(("ci", "outcome"), [("true", "Failed"), ("", "Skipped")])
def test_a_missing_server_skips_on_a_laptop_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: str
) -> None:
    """The same reason is a skip for people and a failure where CI=true."""
    monkeypatch.setenv("CI", ci)
    with pytest.raises(BaseException, match="no Java here") as caught:
        skip_or_fail(ServerUnavailableError("no Java here"))
    assert type(caught.value).__name__ == outcome
