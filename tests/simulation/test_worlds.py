"""Simulated fleets under seeded faults keep what docs/architecture.md promises, step by step.

They run in processes of their own: each world with a fixed hash seed, so that its seed alone tells its story, and one
for each core. A failing world prints the command that runs it again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.simulation.plan import ANYWHERE
from tests.simulation.plants import PLANTS

WORLDS = 400
STORMS = 4


def simulate(*arguments: str) -> str:
    """Run `python -m tests.simulation`; return what it prints. Fails with that when it does."""
    # Whatever this process has patched or loaded is not theirs.
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_hundred_worlds_keep_every_promise() -> None:
    """Nothing lost, order, checkpoints, fencing, trust, balance; and calm within two minutes after the last fault."""
    told = simulate("--seeds", f"0-{WORLDS - 1}")
    worlds, records = re.search(r"(\d+) worlds in \d+ s, (\d+) records", told).groups()  # type: ignore[union-attr]  # it ends so
    assert int(worlds) == WORLDS
    assert int(records) > 100 * WORLDS
    befell = dict(re.findall(r"^    ([a-z -]+): (\d+)$", told, re.MULTILINE))
    for kind in ANYWHERE | {"reshard": 1, "topic": 1, "queue": 1}:
        assert int(befell[kind]) >= WORLDS / 20, f"{kind}: the worlds are too quiet"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", ["reshards", "reshards by fan-out"])
def test_ten_minutes_of_reshards_and_deaths_lose_nothing(scenario: str) -> None:
    """Splits and merges every few seconds, with aggregates among the records where they are taken apart."""
    told = simulate("--scenario", scenario, "--seeds", f"0-{STORMS - 1}")
    befell = dict(re.findall(r"^    ([a-z -]+): (\d+)$", told, re.MULTILINE))
    assert int(befell["reshard"]) > 100 * STORMS
    assert int(befell["crash"]) >= STORMS
    assert int(befell["drain"]) >= STORMS


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    """Some of the first three hundred worlds shows each bug of the classic kinds, and is sound without it."""
    told = simulate("--plant", name, "--seeds", "0-299")
    assert "found by seed" in told


def test_a_world_is_a_function_of_its_seed() -> None:
    """Run again, in another process, it goes alike to the last delivery and checkpoint."""
    assert simulate("--seeds", "7") == simulate("--seeds", "7")
    digests = re.findall(r"digest ([0-9a-f]{8})", simulate("--seeds", "7") + simulate("--seeds", "8"))
    assert len(set(digests)) == 2


def test_a_failing_world_says_how_to_run_it_again() -> None:
    """With the one command that does."""
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    program = (
        "import sys; from tests.simulation.plants import PLANTS; from tests.simulation.__main__ import main\n"
        "with PLANTS['checkpoint past a gap'].planted(): sys.exit(main(['--seeds', '0-7', '--jobs', '1']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert re.search(r"^    again: make sim SEEDS=\d$", done.stdout, re.MULTILINE)
