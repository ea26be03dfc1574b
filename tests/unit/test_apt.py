"""What is installed for tests, and where: with a stand-in for `apt-get`, no network."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.apt import Apt, installed
from tests.support.servers import ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

APT = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/runs"
case "$1" in install) touch "$(dirname "$0")/tool";; download) touch tool_1.0_all.deb;; esac
"""


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str | None]:
    """Look for a program that is not there before it is installed, on a machine in continuous integration."""
    apt, tool = tmp_path / "apt-get", tmp_path / "tool"
    apt.write_text(APT)
    apt.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(apt) if name == "apt-get" else None)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda: str(tool) if tool.exists() else None


def runs(tmp_path: Path) -> list[str]:
    """Return what `apt-get` was told."""
    told = tmp_path / "runs"
    return told.read_text().splitlines() if told.exists() else []


def test_what_is_missing_is_installed_once(look: Callable[[], str | None], tmp_path: Path) -> None:
    """After the list of packages was fetched; what is there is taken as it is."""
    for _ in range(2):
        assert installed(look, ["tool", "more"], what="no tool", hint="get one") == str(tmp_path / "tool")
    update, install = runs(tmp_path)
    assert update.startswith("update ")
    assert install.endswith(" tool more")


@pytest.mark.parametrize(("name", "value"), [("CI", ""), ("euid", "1000"), ("apt", "")])
def test_a_laptop_is_left_alone(
    look: Callable[[], str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Outside of continuous integration, without being root or without `apt-get` the way to get it is told."""
    if name == "CI":
        monkeypatch.setenv("CI", value)
    elif name == "euid":
        monkeypatch.setattr("os.geteuid", lambda: int(value))
    else:
        monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(ServerUnavailableError, match="no tool: get one"):
        installed(look, ["tool"], what="no tool", hint="get one")
    assert runs(tmp_path) == []


def test_a_program_is_taken_out_of_its_package(
    look: Callable[[], str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without root too; nothing is installed for it, and nothing of the package stays."""
    del look
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(subprocess, "run", stand_in(subprocess.run))
    with Apt.here(what="no tool", hint="get one") as apt:
        unpacked = apt.unpacked("tool")
        assert (unpacked / "usr/bin/tool").read_text() == "a tool"
    assert not unpacked.exists()
    (download,) = runs(tmp_path)
    assert download.startswith("download ")


def stand_in(run: Any) -> Any:
    """Return what unpacks any package to the same file, and otherwise runs what it is told."""

    def running(command: list[Any], **options: Any) -> Any:
        if command[0] != "dpkg-deb":
            return run(command, **options)
        program = command[3] / "usr/bin/tool"
        program.parent.mkdir(parents=True)
        program.write_text("a tool")
        return None

    return running


def test_packages_without_the_program_are_told(look: Callable[[], str | None]) -> None:
    """Rather than taken for it."""
    with pytest.raises(ServerUnavailableError, match="installed tool, and still: no tool"):
        installed(lambda: None, ["tool"], what="no tool", hint="get one")
