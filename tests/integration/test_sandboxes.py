"""Functions in real sandboxes, run by AWS's own runtime client: what they see, how they fail, when they start anew."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil

from invocation.invoking import Request, throttled
from invocation.roster import State
from model.secret import SecretText
from tests.support.loops import on_both_loops
from tests.support.node_process import ROOT, eventually
from tests.support.sandbox_rig import ARN, error, sandboxes, value

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SHOW = """
import os
open_at_first = sorted(os.listdir("/proc/self/fd"))
def handler(event, context):
    return {
        "event": event, "id": context.aws_request_id, "arn": context.invoked_function_arn,
        "memory": context.memory_limit_in_mb, "left": context.get_remaining_time_in_millis(),
        "custom": context.client_context and context.client_context.custom,
        "trace": os.environ.get("_X_AMZN_TRACE_ID"), "environment": dict(os.environ),
        "user": os.getuid(), "groups": os.getgroups(), "pid": os.getpid(), "folder": os.getcwd(),
        "open": open_at_first,
    }
"""

COUNT = """
import os
calls = 0
def handler(event, context):
    global calls
    calls += 1
    return {"calls": calls, "pid": os.getpid()}
"""


@on_both_loops
async def test_a_function_sees_what_it_would_see_in_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Event, context and environment are those of the specification; nothing of the node's environment is there."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    async with sandboxes(tmp_path) as rig:
        function = rig.function(SHOW, memory_mb=256, environment={"MODE": SecretText("test")})
        request = Request(b'{"a": 1}', "the-id", '{"custom": {"k": "v"}}', "Root=1-0-0;Sampled=1")
        seen = value(await rig.workers.invoke(function, request))  # type: ignore[arg-type]
    environment = seen["environment"]
    assert (seen["event"], seen["id"], seen["arn"]) == ({"a": 1}, "the-id", ARN + function.name)
    assert (seen["memory"], seen["custom"], seen["trace"]) == ("256", {"k": "v"}, "Root=1-0-0;Sampled=1")
    assert 15_000 < seen["left"] <= 20_000
    assert environment["MODE"] == "test"
    assert environment["_HANDLER"] == "app.handler"
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert environment["AWS_LAMBDA_LOG_GROUP_NAME"] == f"/aws/lambda/{function.name}"
    assert environment["LAMBDA_TASK_ROOT"] == seen["folder"]
    assert "planted" not in str(environment)
    assert seen["open"] == ["0", "1", "2", "3"]  # the last is the listing itself
    if os.geteuid() == 0:
        assert seen["user"] >= 60000
        assert seen["groups"] == []


async def test_a_warm_environment_is_used_again(tmp_path: Path) -> None:
    """Invocations one after the other share a process, those at the same time do not."""
    async with sandboxes(tmp_path) as rig:
        function = rig.function(COUNT)
        first, second = value(await rig.call(function)), value(await rig.call(function))
        assert (first["calls"], second["calls"]) == (1, 2)
        assert first["pid"] == second["pid"]
        async with asyncio.TaskGroup() as tasks:
            together = [tasks.create_task(rig.call(function)) for _ in range(2)]
        assert len({value(task.result())["pid"] for task in together}) == 2
        assert rig.environments(State.IDLE) == 2
        assert rig.workers.counters[function.name].cold_starts == 2


ERRORS = {
    "raised": ("def handler(e, c): raise ValueError('no')", "ValueError", "no"),
    "import": ("import nothing_like_it", "Runtime.ImportModuleError", "No module named 'nothing_like_it'"),
    "syntax": ("def handler(:", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app'"),
    "missing": ("other = 1", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
    "result": ("def handler(e, c): return {1, 2}", "Runtime.MarshalError", "Unable to marshal response"),
    "exit": ("import os\ndef handler(e, c): os._exit(0)", "Runtime.ExitError", "Runtime exited without providing"),
    "status": ("import os\ndef handler(e, c): os._exit(7)", "Runtime.ExitError", "exited with error: exit status 7"),
    "signal": ("import os\ndef handler(e, c): os.kill(os.getpid(), 9)", "Runtime.ExitError", "error: signal: killed"),
    "init exit": ("import os\nos._exit(3)", "Runtime.ExitError", "RequestId: the-id Error: Runtime exited with error"),
}


async def test_failures_have_the_documents_of_the_specification(tmp_path: Path) -> None:
    """Whoever fails, handler, module or process: type and message are AWS's, and the function can be called again."""
    async with sandboxes(tmp_path) as rig:

        async def fail(code: str) -> None:
            function = rig.function(code)
            for _ in range(2):
                failures.setdefault(code, []).append(error(await rig.call(function, request_id="the-id")))

        failures: dict[str, list[dict[str, str]]] = {}
        async with asyncio.TaskGroup() as tasks:
            for code, _, _ in ERRORS.values():
                tasks.create_task(fail(code))
    for code, kind, text in ERRORS.values():
        for failure in failures[code]:
            assert failure["errorType"] == kind
            assert text in failure["errorMessage"]


async def test_a_function_that_times_out_is_killed_and_starts_anew(tmp_path: Path) -> None:
    """Its process is gone, its folder is kept, and the log tells of it."""
    code = """
        import os, time
        def handler(event, context):
            file = os.environ["TMPDIR"] + "/kept"
            before = os.path.exists(file)
            open(file, "a").close()
            while event == "hang":
                time.sleep(1)
            return {"before": before, "pid": os.getpid()}
    """
    async with sandboxes(tmp_path) as rig:
        function = rig.function(code, timeout_s=2.0)
        first = value(await rig.call(function))
        hung = await rig.call(function, "hang", request_id="the-id")
        after = value(await rig.call(function))
    assert error(hung) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": "RequestId: the-id Error: Task timed out after 2.00 seconds",
    }
    assert b"Status: timeout" in hung.log_tail
    assert (first["before"], after["before"]) == (False, True)
    assert first["pid"] != after["pid"]
    assert rig.workers.counters[function.name].kills["timeout"] == 1


async def test_an_initialisation_that_takes_too_long_is_repeated_under_the_functions_time(tmp_path: Path) -> None:
    """The first one is cut off after the init limit and the second may take as long as the function."""
    code = """
        import os, time
        file = os.environ["TMPDIR"] + "/tried"
        if not os.path.exists(file):
            open(file, "a").close()
            time.sleep(60)
        handler = lambda event, context: "well"
    """
    async with sandboxes(tmp_path, init_s=0.5) as rig:
        result = await rig.call(code)
        hung = await rig.call(rig.function("import time\ntime.sleep(60)", timeout_s=0.5))
    assert value(result) == "well"
    assert b"INIT_REPORT" in result.log_tail
    assert b"Phase: init\tStatus: timeout" in result.log_tail
    assert error(hung)["errorType"] == "Sandbox.Timedout"
    assert "after 0.50 seconds" in error(hung)["errorMessage"]


async def test_a_caller_gets_the_end_of_the_log(tmp_path: Path) -> None:
    """Four kilobytes at most, with what the function printed between the lines of ours."""
    async with sandboxes(tmp_path) as rig:
        short = await rig.call("def handler(e, c): print('seen')", request_id="the-id")
        long = await rig.call("def handler(e, c):\n    for i in range(1000): print('line', i)")
    lines = short.log_tail.decode().splitlines()
    assert lines[:3] == ["START RequestId: the-id Version: $LATEST", "seen", "END RequestId: the-id"]
    assert lines[3].startswith("REPORT RequestId: the-id\tDuration: ")
    assert "Init Duration" in lines[3]
    assert len(long.log_tail) == 4096
    assert b"line 999\nEND" in long.log_tail


async def test_changed_code_and_settings_get_new_environments(tmp_path: Path) -> None:
    """From the next look on; the old environment ends once nobody uses it."""
    async with sandboxes(tmp_path) as rig:
        function = rig.function("handler = lambda e, c: 'old'", name="f")
        assert value(await rig.call(function)) == "old"
        rig.function("handler = lambda e, c: 'newer'", name="f")

        async def newer() -> bool:
            return bool(value(await rig.call(function)) == "newer")

        await eventually(newer, "the new code")
        await eventually(lambda: rig.environments() == 1, "the end of the old environment")
        changed = replace(function, environment={"A": SecretText("b")})
        assert value(await rig.call(changed)) == "newer"
        assert rig.workers.counters["f"].cold_starts == 3


SLOW = "import time\ndef handler(e, c): time.sleep(e or 0); return 'done'"


async def test_beyond_the_nodes_room_invocations_are_throttled(tmp_path: Path) -> None:
    """With AWS's reason, before anything is started; an idle environment of another function makes room."""
    async with sandboxes(tmp_path, environments=2) as rig:
        idle = rig.function("handler = lambda e, c: 0")
        await rig.call(idle)
        own, other = rig.function(SLOW, name="own"), rig.function(SLOW, name="other")
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(rig.ask(own, 1.0)), tasks.create_task(rig.ask(other, 1.0))]
            await eventually(lambda: rig.environments(State.BUSY) == 2, "both are busy")
            assert await rig.ask(own) == throttled(own_limit=False)
            assert await rig.ask(other) == throttled(own_limit=False)
            assert await rig.ask(idle) == throttled(own_limit=False)
        assert [value(task.result()) for task in running] == ["done", "done"]  # type: ignore[arg-type]
        assert value(await rig.call(idle)) == 0


async def test_an_environment_is_given_up_when_its_lease_or_its_idle_time_is_over(tmp_path: Path) -> None:
    """Nobody needs to call for that."""
    async with sandboxes(tmp_path, lease_s=0.3) as rig:
        await rig.call("handler = lambda e, c: 0")
        await eventually(lambda: rig.environments() == 0, "the lease is over")
    async with sandboxes(tmp_path, idle_s=0.3) as rig:
        await rig.call("handler = lambda e, c: 0")
        await eventually(lambda: rig.environments() == 0, "it was idle for too long")


async def test_arrivals_have_environments_started_ahead(tmp_path: Path) -> None:
    """One more than are busy at a time, as far as chance adds to the average."""
    async with sandboxes(tmp_path) as rig:
        function = rig.function(SLOW)
        # Ten seconds of work within the half minute that is looked at: a third of an environment, and its root.
        await rig.call(function)
        demand = rig.workers._roster.demand(function.name)
        now = asyncio.get_running_loop().time()
        for _ in range(40):
            demand.arrived(now)
            demand.took(1.0)
        await eventually(lambda: rig.environments(State.IDLE) >= 2, "one more is ready")


async def test_a_cancelled_invocation_does_not_go_on(tmp_path: Path, open_folder: Path) -> None:
    """Its caller may have lost its lease: the function is killed with what it has started."""
    code = """
        import os, subprocess, time
        def handler(event, context):
            child = subprocess.Popen(["sleep", "300"], start_new_session=True)
            open(os.environ["MARK"], "w").write(f"{os.getpid()} {child.pid}")
            time.sleep(60)
    """
    mark = open_folder / "mark"
    mark.touch()
    mark.chmod(0o666)
    async with sandboxes(tmp_path) as rig:
        function = rig.function(code, environment={"MARK": SecretText(str(mark))})
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(rig.ask(function))
            await eventually(lambda: len(mark.read_text().split()) == 2, "the function runs")
            asking.cancel()
        assert [int(pid) for pid in mark.read_text().split() if psutil.pid_exists(int(pid))] == []
        assert rig.environments() == 0


NODE = """
import asyncio, sys
from pathlib import Path
from tests.support.sandbox_rig import sandboxes

async def main():
    async with sandboxes(Path(sys.argv[1])) as rig:
        code = "import os, time\\ndef handler(e, c):\\n    os.fork()\\n    time.sleep(300)"
        await rig.call(rig.function(code, timeout_s=300.0))

asyncio.run(main())
"""


async def test_a_killed_node_leaves_no_sandbox_behind(open_folder: Path) -> None:
    """After `kill -9` its keepers kill what runs, forks included, and remove the folders."""
    environment = {**os.environ, "TMPDIR": str(open_folder)}
    command = [sys.executable, "-c", NODE, str(open_folder)]
    node = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment)
    try:
        top = psutil.Process(node.pid)

        def running() -> list[psutil.Process]:
            found = top.children(recursive=True)
            return found if sum("awslambdaric" in " ".join(p.cmdline()) for p in found) == 2 else []

        left = await eventually(running, "the function and its fork run")
    finally:
        node.kill()
        await node.wait()
    await eventually(lambda: not any(process.is_running() for process in left), "everything is gone")
    await eventually(lambda: not list(open_folder.glob("esmd-sandboxes-*")), "the folders are gone")
