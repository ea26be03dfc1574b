"""Functions that do their worst: each gets its documented error, its neighbour and the node stay well."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from invocation.isolation import Limits
from invocation.roster import State
from invocation.sandbox_users import reachable
from model.secret import SecretText
from tests.support.loops import on_both_loops
from tests.support.node_process import eventually
from tests.support.sandbox_rig import error, sandboxes, value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.sandbox_rig import SandboxRig

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes have users of their own only under root")

NEIGHBOUR = "handler = lambda event, context: event"
_SLOWEST_S = 5.0  # for a neighbour's invocation, on a machine that does other things too


@asynccontextmanager
async def beside_a_neighbour(folder: Path, limits: Limits | None = None) -> AsyncIterator[SandboxRig]:
    """Call a harmless function all the while, and see that it is answered."""
    async with sandboxes(folder, limits=limits) as rig:
        neighbour = rig.function(NEIGHBOUR, name="neighbour")
        answered, slowest_s = 0, 0.0
        await rig.call(neighbour)

        async def calls() -> None:
            nonlocal answered, slowest_s
            while True:
                began = time.monotonic()
                assert value(await rig.call(neighbour, answered)) == answered
                slowest_s = max(slowest_s, time.monotonic() - began)
                answered += 1
                await asyncio.sleep(0.005)

        async with asyncio.TaskGroup() as tasks:
            calling = tasks.create_task(calls())
            yield rig
            calling.cancel()
        assert value(await rig.call(neighbour, "afterwards")) == "afterwards"
        assert answered > 0
        assert rig.workers.counters["neighbour"].kills.total() == 0
        assert slowest_s < _SLOWEST_S


async def test_a_fork_bomb_ends_with_its_time(tmp_path: Path) -> None:
    """It reaches its limit of processes, is killed with all of them, and can be called again."""
    code = """
        import os, time
        def handler(event, context):
            while event:
                try:
                    os.fork()
                except OSError:
                    time.sleep(0.01)
            return "well"
    """
    async with beside_a_neighbour(tmp_path, Limits(processes=40)) as rig:
        bomb = rig.function(code, timeout_s=3.0, memory_mb=2048)
        failed = error(await rig.call(bomb, "bomb"))
        assert failed["errorType"] in ("Sandbox.Timedout", "Runtime.ExitError")
        assert value(await rig.call(bomb)) == "well"


async def test_a_memory_hog_is_killed(tmp_path: Path) -> None:
    """Whether it takes memory bit by bit, in a child, or more than there may be at a stroke."""
    code = """
        import os, time
        def hog():
            held = []
            while True:
                held.append(bytearray(1 << 20))
                time.sleep(0.0005)
        def handler(event, context):
            if event == "stroke":
                return len(bytearray(4 << 30))
            if event == "child":
                if os.fork() == 0:
                    hog()
                time.sleep(60)
            hog()
    """
    async with beside_a_neighbour(tmp_path) as rig:
        function = rig.function(code)
        for event in ("bits", "child"):
            result = await rig.call(function, event, request_id="the-id")
            assert error(result) == {
                "errorType": "Runtime.ExitError",
                "errorMessage": "RequestId: the-id Error: Runtime exited with error: signal: killed",
            }
            assert b"Error Type: Runtime.OutOfMemory" in result.log_tail
        assert error(await rig.call(function, "stroke"))["errorType"] == "MemoryError"
        assert rig.workers.counters[function.name].kills["memory"] == 2


async def test_a_function_that_ignores_signals_and_leaves_children_is_killed_all_the_same(tmp_path: Path) -> None:
    """An endless loop that ignores SIGTERM, with a child in a session of its own: both are gone after the time-out."""
    code = """
        import os, signal
        def handler(event, context):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            if os.fork() == 0:
                os.setsid()
                if os.fork():
                    os._exit(0)
            while True:
                pass
    """
    async with beside_a_neighbour(tmp_path) as rig:  # looks for what is left
        assert error(await rig.call(rig.function(code, timeout_s=0.5)))["errorType"] == "Sandbox.Timedout"


async def test_a_function_that_closes_its_descriptors_is_none_the_worse(tmp_path: Path) -> None:
    """Closing standard output costs it its log; closing everything costs it the connection to the Runtime API."""
    code = """
        import os
        def handler(event, context):
            if event == "output":
                os.close(1)
                os.close(2)
                return "well"
            os.closerange(0, 1000)
            os._exit(5)
    """
    async with beside_a_neighbour(tmp_path) as rig:
        function = rig.function(code)
        assert value(await rig.call(function, "output")) == "well"
        assert "exit status 5" in error(await rig.call(function, "everything"))["errorMessage"]


async def test_a_gigabyte_of_log_is_taken_in_and_not_kept(tmp_path: Path) -> None:
    """The function completes within its time, the caller gets the end, the node's log a fraction."""
    code = """
        import os
        def handler(event, context):
            lines = b"x" * 99 + b"\\n"
            block = memoryview(lines * 10000)
            written = 0
            while written < 1 << 30:
                written += os.write(1, block)
            print("the end")
    """
    async with beside_a_neighbour(tmp_path) as rig:
        function = rig.function(code, timeout_s=60.0)
        result = await rig.call(function)
        budget = rig.workers._budgets[function.name]
    assert result.function_error is None
    assert b"the end\nEND RequestId" in result.log_tail
    assert len(result.log_tail) == 4096
    assert budget.dropped_bytes == 0  # it was told
    assert result.duration_s < 30.0


async def test_another_invocations_id_is_refused(tmp_path: Path) -> None:
    """An answer for a neighbour's invocation, or for one that is over, gets 400, and nobody is fooled."""
    code = """
        import json, os, urllib.error, urllib.request
        def post(path, body=b'"forged"'):
            url = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/{path}"
            try:
                with urllib.request.urlopen(urllib.request.Request(url, body)) as answer:
                    return [answer.status, json.load(answer)]
            except urllib.error.HTTPError as failure:
                return [failure.code, json.load(failure)["errorType"]]
        past = []
        def handler(event, context):
            past.append(context.aws_request_id)
            if len(past) > 1:
                return [post("invocation/of-the-neighbour/response"), post(f"invocation/{past[0]}/response"),
                        post("init/error", b"{}"), post("nonsense")]
    """
    async with beside_a_neighbour(tmp_path) as rig:
        function = rig.function(code)
        await rig.call(function, request_id="first")
        assert value(await rig.call(function)) == [
            [400, "InvalidRequestID"],
            [400, "InvalidRequestID"],
            [403, "InvalidStateTransition"],
            [404, "NotFound"],
        ]


@root_only
@on_both_loops
async def test_a_sandbox_does_not_reach_the_runtime_api_of_another(tmp_path: Path) -> None:
    """Who finds a neighbour's port is not answered: neither with its events nor with its errors."""
    code = """
        import socket
        def handler(event, context):
            received = []
            for _ in range(20):
                try:
                    connection = socket.create_connection(("127.0.0.1", int(event)), 5)
                    connection.send(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
                    received.append(len(connection.recv(100)))
                except ConnectionError:
                    received.append(0)
            return sum(received)
    """
    address = "import os\nhandler = lambda event, context: os.environ['AWS_LAMBDA_RUNTIME_API']"
    async with beside_a_neighbour(tmp_path) as rig:
        port = value(await rig.call(address)).rpartition(":")[2]
        assert value(await rig.call(code, port)) == 0
        assert value(await rig.call(address)).rpartition(":")[2] == port


async def test_a_response_that_is_too_large_is_an_error_of_its_own(tmp_path: Path) -> None:
    """A hundred megabytes are refused; six are a response."""
    async with beside_a_neighbour(tmp_path) as rig:
        function = rig.function("handler = lambda event, context: 'x' * event", memory_mb=1024)
        assert len(value(await rig.call(function, 6291554))) == 6291554
        for size in (6291555, 100_000_000):
            assert error(await rig.call(function, size)) == {
                "errorType": "Function.ResponseSizeTooLarge",
                "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
            }


@root_only
async def test_a_function_gets_at_no_file_of_the_nodes(tmp_path: Path) -> None:
    """Neither what root alone may read, nor the code it runs from, nor another sandbox's folder."""
    secret = tmp_path / "secret"
    secret.write_text("planted")
    secret.chmod(0o600)
    code = """
        import os
        def attempt(action, *arguments):
            try:
                return str(action(*arguments))
            except OSError as failure:
                return type(failure).__name__
        def handler(event, context):
            above = os.path.dirname(os.path.dirname(os.environ["TMPDIR"]))
            return [attempt(open, os.environ["SECRET"]), attempt(open, "app.py", "a"), attempt(os.listdir, above),
                    attempt(os.kill, os.getppid(), 15), attempt(os.setuid, 0)]
    """
    async with beside_a_neighbour(tmp_path) as rig:
        function = rig.function(code, environment={"SECRET": SecretText(str(secret))})
        denied = value(await rig.call(function))
    assert not reachable(str(secret))
    assert denied[1] in ("PermissionError", "OSError")  # not its file, or on a read-only view
    assert {*denied[:1], *denied[2:]} == {"PermissionError"}


async def test_what_a_function_leaves_running_is_held_to_its_memory_too(tmp_path: Path) -> None:
    """A child that goes on after the answer, and takes memory without end, ends its sandbox."""
    code = """
        import os, time
        def handler(event, context):
            if event and os.fork() == 0:
                held = []
                while len(held) < 1000:
                    held.append(bytearray(1 << 20))
                    time.sleep(0.002)
                time.sleep(300)
            return os.getpid()
    """
    async with beside_a_neighbour(tmp_path) as rig:
        function = rig.function(code)
        first = value(await rig.call(function, "leave one"))
        await eventually(lambda: rig.workers.counters[function.name].kills["memory"], "the end of the sandbox")
        assert value(await rig.call(function)) != first


async def test_a_runtime_that_dies_between_events_is_replaced(tmp_path: Path) -> None:
    """Nobody is told: the next event starts it anew."""
    code = """
        import os, threading
        def handler(event, context):
            if event:
                threading.Timer(0.05, os._exit, [9]).start()
            return os.getpid()
    """
    async with beside_a_neighbour(tmp_path) as rig:
        function = rig.function(code)
        dying = value(await rig.call(function, "die"))
        environment = next(seat.environment for seat in rig.workers._roster if seat.function == function.name)
        await eventually(lambda: not environment.warm, "the end of the runtime")
        assert rig.environments(State.IDLE) >= 1
        assert value(await rig.call(function)) != dying
