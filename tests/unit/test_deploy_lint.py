"""What other people's tools say of deploy/. `make lint-deploy` brings two of them; the others are there or not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deploy_files import DEPLOY, KUBERNETES, UNIT

OLDEST, NEWEST = "1.30.0", "1.37.0"
"""The Kubernetes versions that the manifests are checked against."""

BROUGHT = {"hadolint", "kubernetes-validate"}


def tool(name: str) -> str:
    """Find a tool; without it skip the test, or fail it where `make lint-deploy` should have brought it."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=places)
    if found is not None:
        return found
    if name in BROUGHT and os.environ.get("ESMD_LINT_DEPLOY") == "1":
        pytest.fail(f"{name} is not installed", pytrace=False)
    pytest.skip(f"no {name} here")


def said(*command: str | Path) -> str:
    """Run a tool that is to find nothing; return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rendered(folder: str) -> str:
    """Return the manifests that Kustomize makes of a folder."""
    return said(tool("kubectl"), "kustomize", KUBERNETES / folder)


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    """Not even matters of style, and nothing is switched off."""
    assert said(tool("hadolint"), "--failure-threshold", "style", DEPLOY / "Dockerfile") == ""
    assert "hadolint ignore" not in (DEPLOY / "Dockerfile").read_text()


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_manifests_are_those_of_kubernetes(version: str, tmp_path: Path) -> None:
    """Each manifest of Kubernetes's own kinds keeps strictly to its schema, in the oldest and in the newest version."""
    validate = tool("kubernetes-validate")
    base = tmp_path / "base.yaml"
    base.write_text(rendered("base"))
    scaler = KUBERNETES / "components/hpa/horizontalpodautoscaler.yaml"
    told = said(validate, "-k", version, "--strict", base, scaler)
    assert told.count(" passed for resource ") == 7


@pytest.mark.parametrize("folder", ["base", "example"])
def test_kustomize_makes_a_fleet_of_it(folder: str) -> None:
    """What is rendered mounts the ConfigMap under the name that it was given by its content."""
    text = rendered(folder)
    [name] = [line.split()[-1] for line in text.splitlines() if line.startswith("  name: esmd-")]
    assert f"          name: {name}\n        name: config\n" in text


@pytest.mark.parametrize("scaler", ["hpa", "keda"])
def test_a_scaler_alone_says_how_many_nodes_there_are(scaler: str, tmp_path: Path) -> None:
    """Else each time that the manifests are applied the fleet would be set back to what the base says."""
    assert "\n  replicas: 2\n" in rendered("base")
    copy = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    overlay = copy / "overlay"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(f"resources: [../base]\ncomponents: [../components/{scaler}]\n")
    text = said(tool("kubectl"), "kustomize", overlay)
    assert "kind: Deployment" in text
    assert "\n  replicas:" not in text


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """No setting is unknown or misplaced; the program itself is put where there is one."""
    copy = tmp_path / "esmd.service"
    copy.write_text(UNIT.read_text().replace("/opt/esmd/bin/esmd", sys.executable))
    assert said(tool("systemd-analyze"), "verify", "--man=no", copy) == ""


def test_systemd_finds_the_unit_well_shielded() -> None:
    """Its exposure, from 0 to 10 in systemd's own judgement, is below 2."""
    said(tool("systemd-analyze"), "security", "--offline=true", "--threshold=20", UNIT)
