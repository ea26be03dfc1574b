"""`esmd run --processes N`: one parent that starts N nodes, restarts those that crash and passes signals on.

Each child is a node of the fleet in its own right, so a dead one loses nothing but time. Children are in a session of
their own, so that Ctrl-C reaches them through the parent only, and see a pipe end when the parent dies, which they
take as a wish to drain: none outlives its parent. What the children do is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

import structlog

from node.exits import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from node.signals import Shutdown

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
HEALTHY_S = 60.0
"""A child that ran this long starts again without delay when it crashes."""
KILL_AFTER_S = 3.0
"""What children get for ending by themselves after an abort: a little more than they give themselves."""


class _EndedForGoodError(Exception):
    """A child cannot run at all: starting it again would not help."""

    def __init__(self, status: ExitStatus) -> None:
        super().__init__(status)
        self.status = status


def child_command(arguments: Sequence[str], index: int) -> list[str]:
    """Return the command of one child. -P keeps a folder named like one of our packages out of its way."""
    return [sys.executable, "-P", "-m", "node", *arguments[:1], "--process-index", str(index), *arguments[1:]]


async def supervise(
    commands: Sequence[Sequence[str]], shutdown: Shutdown, *, env: Mapping[str, str] | None = None
) -> ExitStatus:
    """Keep one child per command running until a stop is asked for; return how it went.

    A child that ends with status 2 or 3 in its first run ends everything with that status: all have the same
    configuration and servers. Later on it is restarted like any other, with growing pauses.
    """
    ended: list[ExitStatus] = []
    children: list[asyncio.Task[ExitStatus]] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            children += [tasks.create_task(_keep(command, shutdown, env)) for command in commands]
    except* _EndedForGoodError as group:
        ended += [error.status for error in group.exceptions if isinstance(error, _EndedForGoodError)]
    return ended[0] if ended else max((child.result() for child in children), default=ExitStatus.DONE)


async def _keep(command: Sequence[str], shutdown: Shutdown, env: Mapping[str, str] | None) -> ExitStatus:
    loop = asyncio.get_running_loop()
    backoff_s = FIRST_BACKOFF_S
    first = True
    while True:
        started_at = loop.time()
        code = await _run_once(command, shutdown, env)
        if shutdown.drain.is_set():
            # Killed by the signal itself: it came before the child had anything to drain.
            return ExitStatus.DONE if code in {0, -signal.SIGTERM} else ExitStatus.FAILED
        if first and code in {ExitStatus.USAGE, ExitStatus.UNREACHABLE}:
            raise _EndedForGoodError(ExitStatus(code))
        first = False
        if loop.time() - started_at >= HEALTHY_S:
            backoff_s = FIRST_BACKOFF_S
        log.error("process.ended", status=code, restarts_in_s=backoff_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(backoff_s):
                await shutdown.drain.wait()
                return ExitStatus.FAILED
        backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)


async def _run_once(command: Sequence[str], shutdown: Shutdown, env: Mapping[str, str] | None) -> int:
    """Run one child to its end, passing on what the parent is asked; never leave it behind."""
    child = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, start_new_session=True, env=env
    )
    log.info("process.started", pid=child.pid)
    try:
        async with asyncio.TaskGroup() as tasks:
            passing = [
                tasks.create_task(_pass_on(shutdown.drain, child, signal.SIGTERM)),
                tasks.create_task(_pass_on_reloads(shutdown, child)),
            ]
            code = await child.wait()
            for task in passing:
                task.cancel()
        return code
    finally:
        if child.returncode is None:  # cancelled: an abort, or another child ended everything
            _send(child, signal.SIGTERM)
            # No `asyncio.timeout`: before Python 3.11.3 it does not work in a task that is being cancelled.
            killing = asyncio.get_running_loop().call_later(KILL_AFTER_S, _send, child, signal.SIGKILL)
            await child.wait()
            killing.cancel()


async def _pass_on(event: asyncio.Event, child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    await event.wait()
    _send(child, number)


async def _pass_on_reloads(shutdown: Shutdown, child: asyncio.subprocess.Process) -> None:
    seen = shutdown.reloads
    while True:
        seen = await shutdown.reload_after(seen)
        _send(child, signal.SIGHUP)


def _send(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)
