"""schemathesis against a node, as a process of its own: everything that the node's own document allows, and forbids."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import leash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.node_process import NodeProcess

ROOT = Path(__file__).parents[2]
EXAMPLES = int(os.environ.get("ESMD_API_EXAMPLES", "0"))
"""Requests to make up for each operation instead of the few of every day."""

_LIMIT_S = 240.0 + EXAMPLES * 20.0
_UNFIT = {
    "positive_data_acceptance": "rules that join members, such as which go with which source, are in no schema",
    "use_after_free": "a deletion answers at once, as in AWS, and the mapping is there until its shards are let go",
}
"""Checks that do not hold of this API, and why."""


@dataclass(frozen=True)
class Fuzzed:
    """What came of it."""

    status: int
    report: str

    @property
    def passed(self) -> bool:
        """Whether everything was as the document says."""
        return self.status == 0


async def fuzz(
    node: NodeProcess,
    folder: Path,
    *,
    token: str | None = None,
    known: Sequence[str] = (),
    phases: str = "examples,coverage,fuzzing,stateful",
    examples: int = 5,
    unfit: Sequence[str] = (),
) -> Fuzzed:
    """Ask a node everything. `known` are names of what is there, as `PARAMETER=VALUE`; `unfit` checks are left out."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--no-color", "run"),
        f"http://{node.address}/esmd/v1/openapi.json",
        *("--phases", phases, "--max-examples", str(EXAMPLES or examples)),
        *(_anew() if EXAMPLES else ("--generation-deterministic",)),
        *("--request-timeout", "30", "--continue-on-failure"),
        *("--exclude-path", "/esmd/v1/events"),  # never ends, as it should
        *("--exclude-checks", ",".join([*_UNFIT, *unfit]), "--warnings", "off"),
        *(("--header", f"Authorization: Bearer {token}") if token else ()),
    ]
    env = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "tests.support.api_hooks",
        "API_HOOKS_KNOWN": " ".join(known),
        "PYTHONPATH": str(ROOT),
    }
    output = folder / "schemathesis.txt"
    process = _started(command, folder, env, output)
    try:
        status = await asyncio.to_thread(process.wait, _LIMIT_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return Fuzzed(status, output.read_text(errors="replace"))


def _anew() -> tuple[str, ...]:
    """Return what makes requests differ from those of the last time; the seed is in the report."""
    return "--seed", str(int.from_bytes(os.urandom(4))), "--generation-database", "none"


def _started(command: list[str], folder: Path, env: dict[str, str], output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as words:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT
        )
    leash.hold(process)
    return process
