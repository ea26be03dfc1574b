"""The runtimes of real sandboxes: a shell script, Node.js with AWS's client, bubblewrap, and what cannot be started."""

from __future__ import annotations

import asyncio
import os
import shutil
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from invocation.runtimes import runtime_command
from invocation.settings import HandlerFunction, Isolation
from model.errors import RefusedError
from tests.support.bubblewrap import need_bubblewrap
from tests.support.missing import skip_or_fail
from tests.support.node_client import node_client, with_node_client
from tests.support.node_process import ROOT
from tests.support.sandbox_rig import error, sandboxes, value
from tests.support.servers import ServerUnavailableError

EXAMPLES = ROOT / "examples/functions"


async def test_what_cannot_be_started_says_so(tmp_path: Path) -> None:
    """A bootstrap that is no program, and one that names an interpreter that is not there."""
    async with sandboxes(tmp_path) as rig:
        function = rig.function("#!/no/such/shell\n", file="bootstrap", runtime="provided", handler="a.b")
        failed = error(await rig.call(function, request_id="the-id"))
    assert failed["errorType"] == "Runtime.InvalidEntrypoint"
    assert failed["errorMessage"] == "RequestId: the-id Error: No such file or directory"


async def test_a_shell_script_is_a_runtime(tmp_path: Path) -> None:
    """The example's `bootstrap` answers through the Runtime API, without anything of ours."""
    async with sandboxes(tmp_path) as rig:
        function = HandlerFunction("shell", "orders.audit", str(EXAMPLES / "shell"), "provided", 10.0)
        results = [await rig.call(function, {"n": n}) for n in range(2)]
    assert [value(result) for result in results] == [{"handler": "orders.audit"}] * 2
    assert b"event of 8 bytes for orders.audit" in results[1].log_tail
    assert (results[0].init_s is None, results[1].init_s is None) == (False, True)


@pytest.fixture(scope="session")
def node_js_client() -> Path:
    """Have AWS's runtime client for Node.js compiled."""
    try:
        return node_client()
    except ServerUnavailableError as why:
        skip_or_fail(why)


@pytest.mark.timeout(1200)  # compiling takes a minute, and much more on a busy machine
async def test_node_js_functions_run_with_awss_client(node_js_client: Path, open_folder: Path, tmp_path: Path) -> None:
    """The example for Node.js takes the events of every source, warm, with what AWS's client tells it of each."""
    code = with_node_client(EXAMPLES / "nodejs", open_folder / "nodejs")
    function = HandlerFunction("nodejs", "index.handler", str(code), "nodejs", 10.0)
    events: list[object] = [
        {"records": {"t-0": [{}], "t-1": [{}, {}]}},
        {"Records": [{"eventSource": "aws:kinesis"}]},
        {"Records": [{"eventSource": "aws:sqs"}] * 2},
        {"source": "aws.events", "time": "2026-01-02T03:04:05Z"},
    ]
    async with sandboxes(tmp_path) as rig:
        results = [await rig.call(function, event) for event in events]
        cold_starts = rig.workers.counters["nodejs"].cold_starts
    assert [value(result) for result in results] == [{"batchItemFailures": []}] * 4
    logs = [result.log_tail for result in results]
    for log, said in zip(
        logs, ("3 records, ", "1 records, ", "2 records, ", "it is 2026-01-02T03:04:05Z, "), strict=True
    ):
        assert said.encode() in log
    left_ms = [int(log.partition(b" ms left")[0].rpartition(b", ")[2]) for log in logs]
    assert all(5_000 < left <= 10_000 for left in left_ms)
    assert cold_starts == 1


FAILS = """
    export const handler = async (event) => {
      if (event === "exit") process.exit(3);
      throw new TypeError(event);
    };
"""


@pytest.mark.timeout(1200)
async def test_failures_of_node_js_are_those_of_the_specification(
    node_js_client: Path, open_folder: Path, tmp_path: Path
) -> None:
    """What a handler throws, a process that ends, a module that is not there."""
    code = with_node_client(EXAMPLES / "nodejs", open_folder / "nodejs")
    (code / "fails.mjs").write_text(textwrap.dedent(FAILS))
    function = HandlerFunction("fails", "fails.handler", str(code), "nodejs", 10.0)
    async with sandboxes(tmp_path) as rig:
        thrown = error(await rig.call(function, "no"))
        ended = error(await rig.call(function, "exit"))
        missing = error(await rig.call(replace(function, name="gone", handler="gone.handler")))
    assert (thrown["errorType"], thrown["errorMessage"]) == ("TypeError", "no")
    assert ended["errorType"] == "Runtime.ExitError"
    assert "exit status 3" in ended["errorMessage"]
    assert missing["errorType"] == "Runtime.ImportModuleError"


def test_without_awss_client_node_js_is_refused_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, before anything is started."""
    monkeypatch.setattr("invocation.runtimes._NODE_CLIENT", "aws-lambda-ric-of-nobody")  # the machine may have it
    function = HandlerFunction("f", "index.handler", str(tmp_path), "nodejs")
    with pytest.raises(RefusedError, match=r"needs Node\.js on PATH|npm install aws-lambda-ric"):
        runtime_command(function)


STAND_IN = """
    import { get, request } from "node:http";
    import { resolve } from "node:path";
    const [file, name] = process.argv[2].split(".");
    const handler = (await import(resolve(process.env.LAMBDA_TASK_ROOT, file + ".mjs")))[name];
    const api = `http://${process.env.AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation/`;
    const read = async (from) => { let text = ""; for await (const part of from) text += part; return text; };
    while (true) {
      const event = await new Promise((done) => get(api + "next", done));
      const answer = await handler(JSON.parse(await read(event)), { getRemainingTimeInMillis: () => 1 });
      const post = request(`${api}${event.headers["lambda-runtime-aws-request-id"]}/response`, { method: "POST" });
      post.end(JSON.stringify(answer));
      await new Promise((done) => post.on("response", (taken) => read(taken).then(done)));
    }
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
async def test_node_js_works_within_the_limits_of_a_sandbox(tmp_path: Path) -> None:
    """It runs as another user, with little memory; a few lines stand for AWS's client, which must be compiled."""
    async with sandboxes(tmp_path) as rig:
        example = (EXAMPLES / "nodejs/index.mjs").read_text()
        function = rig.function(example, file="index.mjs", handler="index.handler", runtime="nodejs")
        client = Path(function.code) / "node_modules/aws-lambda-ric"
        client.mkdir(parents=True)
        (client / "package.json").write_text('{"bin": "./client.mjs"}')
        (client / "client.mjs").write_text(textwrap.dedent(STAND_IN))
        results = [await rig.call(function, {"records": {"t-0": [{}, {}]}}) for _ in range(2)]
    assert [value(result) for result in results] == [{"batchItemFailures": []}] * 2
    assert b"2 records, 1 ms left" in results[1].log_tail


async def test_bubblewrap_shows_a_function_nothing_of_the_machine(tmp_path: Path) -> None:
    """It has no network, no other processes, no files but its own, and answers all the same."""
    need_bubblewrap()
    code = """
        import os, socket
        def handler(event, context):
            try:
                socket.create_connection(("127.0.0.1", event), 2)
                reached = True
            except OSError:
                reached = False
            open("/tmp/mine", "w").close()
            try:
                open(os.environ["LAMBDA_TASK_ROOT"] + "/mine", "w")
                written = True
            except OSError:
                written = False
            return {"reached": reached, "written": written, "root": sorted(os.listdir("/")), "tmp": os.listdir("/tmp"),
                    "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()], "user": os.getuid()}
    """
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server, sandboxes(tmp_path) as rig:
        port = server.sockets[0].getsockname()[1]
        function = rig.function(code, isolation=Isolation.BUBBLEWRAP)
        seen = value(await rig.call(function, port))
        connected = value(await rig.call(replace(function, network=True), port))
        hog = rig.function(HOG, isolation=Isolation.BUBBLEWRAP)
        assert "signal: killed" in error(await rig.call(hog))["errorMessage"]
    assert (seen["reached"], seen["written"], seen["tmp"]) == (False, False, ["mine"])
    assert connected["reached"]
    assert "home" not in seen["root"]
    assert len(seen["processes"]) <= 3
    assert seen["user"] == (os.getuid() or seen["user"])


HOG = """
import time
def handler(event, context):
    held = []
    while True:
        held.append(bytearray(1 << 20))
        time.sleep(0.0005)
"""


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    """A runtime that is not there, code that is not there, a bootstrap that is not executable."""

    def refusal(function: HandlerFunction) -> str:
        with pytest.raises(RefusedError) as caught:
            runtime_command(function)
        return str(caught.value)

    assert "code: /no/such is no folder" in refusal(HandlerFunction("f", "a.b", "/no/such"))
    assert "this node has python3." in refusal(HandlerFunction("f", "a.b", str(tmp_path), "python3.7"))
    assert "ruby is not run" in refusal(HandlerFunction("f", "a.b", str(tmp_path), "ruby"))
    assert "needs an executable `bootstrap`" in refusal(HandlerFunction("f", "a.b", str(tmp_path), "provided"))
