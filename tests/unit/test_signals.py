"""Stopping: by request in the loop, by signal in a real process."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import IO

import pytest

from node.signals import Shutdown, StoppedWhileStartingError

CHILD = """
import asyncio, sys, time
from node.daemon import run_until_stopped
from node.exits import ExitStatus
from node.signals import Shutdown
from node import logs
logs.configure("json")
shutdown = Shutdown()

async def node():
    print("running", flush=True)
    await shutdown.drain.wait()
    print("draining", flush=True)
    {after}
    print("drained", flush=True)
    return ExitStatus.DONE

async def hang():
    await asyncio.Event().wait()

def busy():
    while True:
        time.sleep(0.01)

sys.exit(run_until_stopped(node, shutdown))
"""


def start(after: str) -> subprocess.Popen[str]:
    """Start a process whose node does `after` when it has been asked to drain."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD.format(after=after)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def line(stream: IO[str] | None) -> str:
    """Read one line."""
    assert stream is not None
    return stream.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(number: signal.Signals) -> None:
    """A process that drains after SIGTERM or Ctrl-C ends with status 0."""
    with start("pass") as child:
        assert line(child.stdout) == "running"
        child.send_signal(number)
        assert child.communicate(timeout=30) == ("draining\ndrained\n", "")
        assert child.returncode == 0


def test_the_second_signal_stops_at_once() -> None:
    """A drain that takes too long for the user is cut short by a second signal, with status 1."""
    with start("await hang()") as child:
        assert line(child.stdout) == "running"
        child.send_signal(signal.SIGTERM)
        assert line(child.stdout) == "draining"
        child.send_signal(signal.SIGTERM)
        output, errors = child.communicate(timeout=30)
        assert output == ""
        assert "node.aborted" in errors
        assert child.returncode == 1


def test_a_node_that_is_stuck_stops_too() -> None:
    """The second signal also ends a process whose event loop does not run any more."""
    with start("busy()") as child:
        assert line(child.stdout) == "running"
        child.send_signal(signal.SIGTERM)
        assert line(child.stdout) == "draining"
        child.send_signal(signal.SIGTERM)
        assert child.communicate(timeout=30)[0] == ""
        assert child.returncode == 1


async def test_a_drain_cuts_start_up_short() -> None:
    """Start-up that waits for a server is cancelled by the first signal."""
    shutdown = Shutdown()
    cancelled = asyncio.Event()

    async def start_up() -> None:
        async with shutdown.starting():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    asyncio.get_running_loop().call_soon(shutdown.request)
    with pytest.raises(StoppedWhileStartingError):
        await start_up()
    assert cancelled.is_set()
    assert not shutdown.abort.is_set()


async def test_a_start_up_after_the_signal_does_not_begin() -> None:
    """Nothing is started when a stop was asked for before."""
    shutdown = Shutdown()
    shutdown.request()
    with pytest.raises(StoppedWhileStartingError):
        async with shutdown.starting():
            pytest.fail("the body ran")


async def test_a_time_out_of_start_up_itself_stays_one() -> None:
    """Only a drain is turned into `StoppedWhileStartingError`."""
    with pytest.raises(TimeoutError):
        async with Shutdown().starting():
            raise TimeoutError


async def test_drain_once_started_does_not_cancel() -> None:
    """A stop after start-up is over only sets the event; a second sets the other."""
    shutdown = Shutdown()
    async with shutdown.starting():
        await asyncio.sleep(0)
    shutdown.request()
    await asyncio.sleep(0)
    assert (shutdown.drain.is_set(), shutdown.abort.is_set()) == (True, False)
    shutdown.request()
    assert shutdown.abort.is_set()


async def test_reloads_are_not_missed() -> None:
    """A reload that was asked for before anyone waited is found, and each waiter sees it."""
    shutdown = Shutdown()
    shutdown.request_reload()
    assert await shutdown.reload_after(0) == 1
    asyncio.get_running_loop().call_soon(shutdown.request_reload)
    async with asyncio.TaskGroup() as tasks:
        waiters = [tasks.create_task(shutdown.reload_after(1)) for _ in range(2)]
    assert [waiter.result() for waiter in waiters] == [2, 2]
