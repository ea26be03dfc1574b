"""`esmd run --processes N`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from node import supervise as module
from node.exits import ExitStatus
from node.signals import Shutdown
from node.supervise import child_command, supervise

if TYPE_CHECKING:
    from pathlib import Path

CHILD = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def note(name):
    with open(folder / name, "a") as file:
        file.write(".")
signal.signal(signal.SIGTERM, lambda *_: (note("terminated"), {on_term}))
signal.signal(signal.SIGHUP, lambda *_: note("reloaded"))
note("started")
{then}
while True:
    time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(module, "KILL_AFTER_S", 0.3)


def child(folder: Path, then: str = "", on_term: str = "sys.exit(0)") -> list[str]:
    """Return the command of a child that notes in `folder` what happens to it."""
    return [sys.executable, "-c", CHILD.format(then=then, on_term=on_term), str(folder)]


async def noted(folder: Path, name: str, times: int) -> None:
    """Wait until something was noted that often."""
    async with asyncio.timeout(30):
        while count(folder, name) < times:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)


def count(folder: Path, name: str) -> int:
    """Return how often something was noted."""
    path = folder / name
    return len(path.read_text()) if path.exists() else 0


async def test_a_drain_reaches_every_child(tmp_path: Path) -> None:
    """Each child is told to stop once, and the parent ends well when all did."""
    shutdown = Shutdown()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(supervise([child(tmp_path)] * 2, shutdown))
        await noted(tmp_path, "started", 2)
        shutdown.request()
    assert running.result() is ExitStatus.DONE
    assert count(tmp_path, "terminated") == 2


async def test_a_child_that_crashes_is_started_again(tmp_path: Path) -> None:
    """Crash after crash, until a stop is asked for, with a line in the log each time."""
    shutdown = Shutdown()
    with capture_logs() as lines:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(supervise([child(tmp_path, then="sys.exit(1)")], shutdown))
            await noted(tmp_path, "started", 3)
            shutdown.request()
    assert running.done()
    ended = [line for line in lines if line["event"] == "process.ended"]
    assert len(ended) >= 2
    assert ended[1]["restarts_in_s"] > ended[0]["restarts_in_s"]


@pytest.mark.parametrize("status", [2, 3])
async def test_what_no_child_can_start_with_ends_everything(tmp_path: Path, status: int) -> None:
    """Bad configuration or a missing server found by one child stops the others and is the parent's status."""
    commands = [child(tmp_path), child(tmp_path, then=f"sys.exit({status})")]
    async with asyncio.timeout(30):
        assert await supervise(commands, Shutdown()) == status
    assert count(tmp_path, "terminated") <= 1


async def test_reloads_are_passed_on(tmp_path: Path) -> None:
    """Each SIGHUP of the parent is one of the child."""
    shutdown = Shutdown()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervise([child(tmp_path)], shutdown))
        await noted(tmp_path, "started", 1)
        for times in (1, 2):
            shutdown.request_reload()
            await noted(tmp_path, "reloaded", times)
        shutdown.request()


async def test_an_abort_leaves_no_child_behind(tmp_path: Path) -> None:
    """A child that ignores signals is killed when the parent is cancelled."""
    with capture_logs() as lines:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(supervise([child(tmp_path, on_term="None")], Shutdown()))
            await noted(tmp_path, "started", 1)
            running.cancel()
    assert count(tmp_path, "terminated") == 1
    with pytest.raises(ProcessLookupError):
        os.kill(lines[0]["pid"], 0)


def test_children_are_told_which_they_are() -> None:
    """The command runs our module from nowhere but where it is installed."""
    command = child_command(["run", "--log-format", "json", "--", "x.yaml"], 2)
    assert command[1:] == ["-P", "-m", "node", "run", "--process-index", "2", "--log-format", "json", "--", "x.yaml"]


ORPHAN = """
import asyncio, sys
from node.daemon import run_until_stopped, run_watched
from node.signals import Shutdown
shutdown = Shutdown()
async def node(options, shutdown):
    print("running", flush=True)
    await shutdown.drain.wait()
    print("drained", flush=True)
sys.exit(run_until_stopped(lambda: run_watched(node, None, shutdown, child=True), shutdown))
"""


def test_a_child_whose_parent_died_drains() -> None:
    """No node outlives the parent that would pass on signals: the end of its standard input tells it."""
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout is not None
        assert orphan.stdin is not None
        assert orphan.stdout.readline() == b"running\n"
        orphan.stdin.close()
        assert b"drained\n" in orphan.stdout.read()
    assert orphan.returncode == 0
