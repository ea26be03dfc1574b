"""The files of deploy/, taken apart for tests."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
UNIT = DEPLOY / "systemd/esmd.service"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())


class Instruction(NamedTuple):
    """A line of the Dockerfile: which build stage it is in (0: before the first), its name and the rest."""

    stage: int
    name: str
    value: str


@functools.cache
def dockerfile() -> list[Instruction]:
    """Return the instructions, continued lines joined, comments left out."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    found: list[Instruction] = []
    for line in filter(None, "\n".join(lines).replace("\\\n", " ").splitlines()):
        name, _, value = line.strip().partition(" ")
        stage = (found[-1].stage if found else 0) + (name == "FROM")
        found.append(Instruction(stage, name, " ".join(value.split())))
    return found


@functools.cache
def unit() -> dict[str, list[str]]:
    """Return the settings of the systemd unit, each with all its values."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found
