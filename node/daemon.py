"""From the command line to a running node: settings, event loop, signals, and how it all ends.

What a node consists of is decided in `node.wiring`; this module only gives it a loop and a way to be stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING, Protocol, cast

import structlog

from model.problem import InvalidConfigurationError, Problem
from node.exits import ExitStatus, ending_for
from node.options import REDIS_VARIABLE, Overrides, RunOptions
from node.signals import ABORT_GRACE_S, Shutdown, StoppedWhileStartingError, handled
from node.supervise import child_command, supervise

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from pathlib import Path

    from config.settings import Settings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class RunNode(Protocol):
    """A whole node: `node.wiring.run_node`."""

    async def __call__(self, options: RunOptions, shutdown: Shutdown) -> None:
        """Run until `shutdown.drain` is set and the drain is over. May be cancelled at any time."""


def run_daemon(
    files: Sequence[Path],
    overrides: Overrides,
    *,
    processes: int,
    process_index: int | None,
    process_count: int = 1,
    log_format: str,
    debug: bool,
) -> ExitStatus:
    """Run a node, or the parent of several, to its end. Raises what `node.exits` knows to explain.

    `process_index` is None but for the children of such a parent, of which there are `process_count`.
    """
    options = RunOptions(tuple(files), overrides, _load(files, overrides), process_index or 0, process_count)
    shutdown = Shutdown()
    if processes == 1:
        run_node, child = _wiring(), process_index is not None
        return run_until_stopped(lambda: run_watched(run_node, options, shutdown, child=child), shutdown)
    _check_shareable(options)
    paths = [str(file.absolute()) for file in files]
    shared = ["--process-count", str(processes), "--log-format", log_format]
    arguments = ["run", *shared, *overrides.arguments(), "--", *paths]
    commands = [child_command(arguments, index) for index in range(processes)]
    env = child_environment(overrides, debug=debug)
    return run_until_stopped(lambda: supervise(commands, shutdown, env=env), shutdown, grace_s=2 * ABORT_GRACE_S)


def run_until_stopped(
    main: Callable[[], Coroutine[object, object, ExitStatus]], shutdown: Shutdown, *, grace_s: float = ABORT_GRACE_S
) -> ExitStatus:
    """Run `main` on a new event loop with signals going to `shutdown`; an abort cancels it."""
    runner = asyncio.Runner(loop_factory=_loop_factory())
    try:
        # The handlers stay until the loop is closed, so that also a closing that hangs can be cut short.
        with handled(shutdown, runner.get_loop(), grace_s=grace_s), runner:
            return runner.run(_unless_aborted(main, shutdown))
    except Exception as error:
        if not ending_for(error).expected:
            log.exception("node.crashed")
        raise


async def run_watched(run_node: RunNode, options: RunOptions, shutdown: Shutdown, *, child: bool) -> ExitStatus:
    """Run a node; as a child of `--processes` drain when the parent is gone. Being stopped early is a clean stop."""
    with _parent_watched(shutdown) if child else contextlib.nullcontext():
        try:
            await run_node(options, shutdown)
        except* StoppedWhileStartingError:
            log.info("node.stopped", phase="starting")
    return ExitStatus.DONE


def child_environment(overrides: Overrides, *, debug: bool) -> dict[str, str]:
    """Return the environment of children: where they find what does not belong on a command line."""
    added = {REDIS_VARIABLE: overrides.redis} if overrides.redis is not None else {}
    return {**os.environ, **added, **({"ESMD_DEBUG": "1"} if debug else {})}


async def _unless_aborted(main: Callable[[], Coroutine[object, object, ExitStatus]], shutdown: Shutdown) -> ExitStatus:
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(main(), name="main")
        aborted = tasks.create_task(shutdown.abort.wait(), name="abort")
        await asyncio.wait((work, aborted), return_when=asyncio.FIRST_COMPLETED)
        aborted.cancel()
        if not work.done():
            log.warning("node.aborted")
            work.cancel()
    return ExitStatus.FAILED if work.cancelled() else work.result()


def _check_shareable(options: RunOptions) -> None:
    """Refuse servers that each process would start for itself. Raises `InvalidConfigurationError`."""
    embedded = options.settings.embedded
    problems = []
    if options.settings.redis_url is None:
        rule = "several processes need a Redis to share: give --redis URL, or redis.url in the configuration"
        problems.append(Problem("--processes", rule))
    if embedded.kafka is not None or embedded.aws is not None:
        rule = "several processes cannot each start the servers of `embedded`: run those in a node of their own"
        problems.append(Problem("--processes", rule))
    if problems:
        raise InvalidConfigurationError(problems)


@contextlib.contextmanager
def _parent_watched(shutdown: Shutdown) -> Iterator[None]:
    """Drain when the other end of standard input closes: the parent that held it is gone."""
    loop = asyncio.get_running_loop()
    stdin = 0

    def readable() -> None:
        if not os.read(stdin, 4096):
            loop.remove_reader(stdin)
            if not shutdown.drain.is_set():
                log.warning("process.orphaned")
                shutdown.request()

    loop.add_reader(stdin, readable)
    try:
        yield
    finally:
        loop.remove_reader(stdin)


def _load(files: Sequence[Path], overrides: Overrides) -> Settings:
    load = importlib.import_module("config.load").load
    return cast("Settings", load(list(files), overrides=overrides.sections()))


def _wiring() -> RunNode:
    return cast("RunNode", importlib.import_module("node.wiring").run_node)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not there on every platform

    return uvloop.new_event_loop
