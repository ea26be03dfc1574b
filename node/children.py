"""What the servers that a node starts for itself have in common: how they find our code, and how they are ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

STOP_S = 3.0
"""How long a child may take to end before it is killed."""


def environment() -> dict[str, str]:
    """Return an environment in which a child imports these packages from where they were imported here."""
    here = str(Path(__file__).resolve().parent.parent)
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


async def end(process: asyncio.subprocess.Process) -> None:
    """Close a child's standard input, which asks it to end, and wait until it is gone."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except BaseException as exc:  # in time or not, cancelled or not: no process stays behind
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if not isinstance(exc, TimeoutError):
            raise
