"""What the servers that a node starts for itself have in common: how they find our code, and how they are ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping

STOP_S = 3.0
"""How long a child may take to end before it is killed."""

LONGEST_LINE = 64 * 1024
"""Of a child's answers, unless it is known to say more at once: bytes."""


def environment() -> dict[str, str]:
    """Return an environment in which a child imports these packages from where they were imported here."""
    here = str(Path(__file__).resolve().parent.parent)
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


async def start(module: str, *, env: Mapping[str, str] | None = None, limit: int = LONGEST_LINE) -> Process:
    """Start a module of ours as a program, with pipes to its standard input and from its output.

    `limit` is the longest line that is read from it. It is told our process id, so that it can end with us.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # never import from the working directory
        "-m",
        module,
        f"--parent={os.getpid()}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C is for the parent, which may still have to drain
        env=environment() if env is None else env,
        limit=limit,
    )


async def end(process: Process) -> None:
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
