"""Functions of a real node, invoked by AWS's own client for Python."""

from __future__ import annotations

import asyncio
import json
import signal
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

import aiohttp
import pytest
import redis
from botocore.exceptions import ClientError

from node.embedded_redis import EmbeddedRedis
from tests.support.folder_fixtures import folder_for_all
from tests.support.invoke_rig import invoke_rig
from tests.support.node_process import eventually
from tests.support.scripted_http import ScriptedServer, answer, answer_when

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.invoke_rig import InvokeRig

ARN = "arn:aws:lambda:us-east-1:000000000000:function:local"
RESULTS = ("ok", "accepted", "error", "throttled", "refused", "failed")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
NOT_FOUND = {"x-amzn-ErrorType": "ResourceNotFoundException"}
RESERVED = "esmd:{default}:reserved_concurrency"
LARGEST = 6 * 1024 * 1024


async def refusal(rig: InvokeRig, function: str, event: object = None, **more: str) -> ClientError:
    """Return the error that an invocation ends with."""
    with pytest.raises(ClientError) as caught:
        await rig.invoke(function, event, **more)
    return caught.value


def code_of(error: ClientError) -> tuple[str, int]:
    """Return type and status of an error."""
    return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a folder that functions may write to, whoever they run as."""
    with folder_for_all() as made:
        yield made


@pytest.fixture(scope="module")
def rig(folder: Path) -> Iterator[InvokeRig]:
    """Run one node, on a Redis that nobody else empties or fills, for all tests of the function in a sandbox."""
    with EmbeddedRedis(port=0) as redis, asyncio.Runner() as runner:
        running = invoke_rig(folder, redis.url, {})
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))


async def test_a_result_with_its_log(rig: InvokeRig) -> None:
    """The function sees event, client context, request id and trace; the caller gets the log's end if he asks."""
    context = b64encode(json.dumps({"custom": {"käse": 'a\n"b"'}}, indent=1).encode()).decode()
    came = await rig.invoke("local", {"a": 1}, LogType="Tail", ClientContext=context)
    told = json.loads(came["Payload"])
    assert (told["event"], told["custom"]) == ({"a": 1}, {"käse": 'a\n"b"'})
    assert told["id"] == came["ResponseMetadata"]["RequestId"]
    assert told["trace"].startswith("Root=1-")
    assert (came["StatusCode"], came["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in came
    log = b64decode(came["LogResult"]).decode()
    assert log.startswith(f"START RequestId: {told['id']}")
    assert "a line of the function" in log


async def test_a_function_error(rig: InvokeRig) -> None:
    """It is a success of status 200 with a mark and the function's own document."""
    failed = await rig.invoke("local", "raise")
    assert (failed["StatusCode"], failed["FunctionError"]) == (200, "Unhandled")
    document = json.loads(failed["Payload"])
    assert (document["errorType"], document["errorMessage"]) == ("ValueError", "no good")
    assert "LogResult" not in failed


@pytest.mark.parametrize("name", [ARN, f"{ARN}:live", "000000000000:function:local", "local:$LATEST"])
async def test_every_form_of_a_name(rig: InvokeRig, name: str) -> None:
    """A function is found by its name and ARN, with a qualifier and without; no payload is an empty event."""
    assert json.loads((await rig.invoke(name, b""))["Payload"])["event"] == {}


async def test_a_dry_run(rig: InvokeRig) -> None:
    """The function is not run."""
    dry = await rig.invoke("local", "raise", InvocationType="DryRun", Qualifier="$LATEST")
    assert (dry["StatusCode"], dry["Payload"]) == (204, b"")


async def test_unknown_functions(rig: InvokeRig) -> None:
    """Their ARN is told as AWS tells it; another Region's function of that name is another one."""
    unknown = await refusal(rig, "missing")
    assert code_of(unknown) == ("ResourceNotFoundException", 404)
    assert unknown.response["Error"]["Message"] == f"Function not found: {ARN[:-5]}missing:$LATEST"
    assert code_of(await refusal(rig, ARN.replace("us-east-1", "eu-west-1"))) == ("ResourceNotFoundException", 404)


async def test_requests_that_are_refused(rig: InvokeRig) -> None:
    """What is no JSON."""
    assert code_of(await refusal(rig, "local", b"{,}")) == ("InvalidRequestContentException", 400)
    assert code_of(await refusal(rig, "local", b"{,}", InvocationType="Event")) == (
        "InvalidRequestContentException",
        400,
    )


async def test_limits_of_size(rig: InvokeRig) -> None:
    """An event may have 6 MB and no byte more, whether or not its length is told; nor may a result."""
    largest = b'"' + b"x" * (LARGEST - 2) + b'"'
    assert (await rig.invoke("local", largest, InvocationType="DryRun"))["StatusCode"] == 204
    assert code_of(await refusal(rig, "local", largest + b" ")) == ("RequestTooLargeException", 413)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(7):
            yield b" " * 1024 * 1024

    path = f"{rig.url}/2015-03-31/functions/local/invocations"
    async with aiohttp.ClientSession() as client, client.post(path, data=pieces()) as came:
        assert (came.status, came.headers["x-amzn-ErrorType"]) == (413, "RequestTooLargeException")
    response = await rig.invoke("local", {"size": LARGEST + 101})
    assert json.loads(response["Payload"])["errorType"] == "Function.ResponseSizeTooLarge"


async def test_a_caller_who_goes_away(rig: InvokeRig, folder: Path) -> None:
    """The function goes on to its end, as in AWS; meanwhile others are throttled, afterwards nothing is left of it."""
    mark, go, done = folder / "mark", folder / "go", folder / "mark-done"
    event = json.dumps({"wait_for": str(go), "mark": str(mark)}).encode()
    host, port = rig.node.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /2015-03-31/functions/local/invocations HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(event)}"
    writer.write(f"{head}\r\n\r\n".encode() + event)
    await eventually(mark.exists, lambda: f"the function runs:\n{rig.node.tail()}")
    writer.close()
    await writer.wait_closed()
    throttled = await refusal(rig, "local", 1)
    assert code_of(throttled) == ("TooManyRequestsException", 429)
    assert throttled.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    ok = 'esm_frontend_invocations_total{function="local",result="ok"}'
    before = (await rig.node.metrics())[ok]
    go.touch()

    async def counted() -> bool:
        return (await rig.node.metrics())[ok] == before + 1

    await eventually(counted, "its end is counted")
    assert done.exists()
    assert (await rig.node.metrics())['esm_environments{function="local",state="idle"}'] == 1
    assert (await rig.invoke("local", 2))["StatusCode"] == 200


async def test_every_answer_is_counted(rig: InvokeRig) -> None:
    """By function and by what it came to; those that reached the function with their duration."""
    name = 'esm_frontend_invocations_total{{function="local",result="{}"}}'
    before = await rig.node.metrics()
    await rig.invoke("local", 1)
    await rig.invoke("local", "raise")
    await refusal(rig, "local", b"{")
    after = await rig.node.metrics()
    grown = {result: after[name.format(result)] - before.get(name.format(result), 0) for result in RESULTS}
    assert grown == {"ok": 1, "error": 1, "throttled": 0, "refused": 1, "failed": 0, "accepted": 0}
    durations = 'esm_frontend_duration_seconds_count{function="local"}'
    assert after[durations] - before.get(durations, 0) == 2


async def test_functions_follow_the_files(rig: InvokeRig) -> None:
    """One that SIGHUP adds can be invoked, one that it changes is invoked as it is now."""
    document = json.loads(rig.node.config.read_text())
    local = document["functions"]["local"]
    document["functions"] = {"local": {**local, "handler": "app.other"}, "added": local}
    rig.node.write(document)
    rig.node.signal(signal.SIGHUP)
    await rig.node.logged("reload.done")
    assert json.loads((await rig.invoke("added", 1))["Payload"])["event"] == 1
    assert json.loads((await rig.invoke("local", 1))["Payload"])["errorType"] == "Runtime.HandlerNotFound"


async def test_functions_elsewhere_as_boto3_invokes_them(redis_url: str, tmp_path: Path, closed_address: str) -> None:
    """A URL, an emulator's container and a function in AWS answer alike, each by its own target."""
    async with asyncio.timeout(90), ScriptedServer() as url, ScriptedServer() as rie, ScriptedServer() as aws:
        functions = {
            "url": {"url": url.url, "headers": {"X-Own": "yes", "x-amzn-trace-id": "mine"}},
            "rie": {"rie": [rie.url]},
            "cloud": {"arn": "arn:aws:lambda:us-east-1:000000000000:function:there:live"},
            "away": {"url": f"http://{closed_address}"},
        }
        settings = {"region": "us-east-1", "endpoint_url": aws.url}
        async with invoke_rig(tmp_path, redis_url, functions, env=CREDENTIALS, aws=settings) as rig:
            url.then(
                answer(200, b'{"ok":true}'),
                answer(200, b""),
                answer(500, b"<html>"),
                answer(400, b'{"errorType":"Own","errorMessage":"m"}'),
                answer(429, headers={"Retry-After": "7"}),
            )
            came = await rig.invoke("url", {"a": 1})
            assert (came["Payload"], came["StatusCode"], came["ExecutedVersion"]) == (b'{"ok":true}', 200, "$LATEST")
            request = url.requests[0]
            assert (request.body, request.headers["x-own"]) == (b'{"a": 1}', "yes")
            assert request.headers["x-amzn-trace-id"] == "mine"
            assert request.headers["x-amzn-requestid"] == came["ResponseMetadata"]["RequestId"]
            assert (await rig.invoke("url", 1))["Payload"] == b"null"
            failed = await rig.invoke("url", 1)
            assert failed["FunctionError"] == "Unhandled"
            document = json.loads(failed["Payload"])
            assert document["errorType"] == "Function.Unknown"
            assert document["errorMessage"].endswith("HTTP 500 Internal Server Error")
            assert json.loads((await rig.invoke("url", 1))["Payload"]) == {"errorType": "Own", "errorMessage": "m"}
            throttled = await refusal(rig, "url", 1)
            assert code_of(throttled) == ("TooManyRequestsException", 429)
            assert throttled.response["retryAfterSeconds"] == "7"
            away = await refusal(rig, "away", 1)
            assert code_of(away) == ("ResourceNotReadyException", 502)
            assert "connection refused" in away.response["Error"]["Message"]

            rie.then(answer(200, b"Task timed out after 3.00 seconds"))
            emulated = await rig.invoke("rie", 1)
            assert emulated["FunctionError"] == "Unhandled"
            assert json.loads(emulated["Payload"])["errorType"] == "Sandbox.Timedout"

            logs = {"X-Amz-Log-Result": "bG9n", "X-Amz-Executed-Version": "3", "x-amzn-RequestId": "theirs"}
            aws.then(answer(200, b"[1]", headers=logs), answer(404, b'{"Message":"no"}', headers=NOT_FOUND))
            cloud = await rig.invoke("cloud", 1, LogType="Tail")
            assert (cloud["Payload"], cloud["ExecutedVersion"], cloud["LogResult"]) == (b"[1]", "3", "bG9n")
            assert cloud["ResponseMetadata"]["RequestId"] == "theirs"
            assert aws.requests[0].headers["x-amz-log-type"] == "Tail"
            assert aws.requests[0].headers["authorization"].startswith("AWS4-HMAC-SHA256")
            assert code_of(await refusal(rig, "cloud", 1)) == ("ResourceNotFoundException", 404)


async def test_a_node_that_stops_answers_what_it_has_taken_on(redis_url: str, tmp_path: Path) -> None:
    """New invocations are sent away meanwhile; then it ends, and in good order."""
    go = asyncio.Event()
    async with ScriptedServer() as url, invoke_rig(tmp_path, redis_url, {"url": {"url": url.url}}) as rig:
        url.then(answer_when(go, 200, b"[1]"))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(rig.invoke("url", 1))
            await eventually(lambda: url.requests, "the function is called")
            rig.node.signal(signal.SIGTERM)

            async def sent_away() -> bool:
                try:
                    return not await rig.invoke("url", 1)
                except ClientError as error:
                    return code_of(error) == ("ServiceException", 500)

            await eventually(sent_away, "the node drains")
            assert not running.done()
            go.set()
        assert running.result()["Payload"] == b"[1]"
        assert await rig.node.ended() == 0


async def test_a_node_without_the_role(redis_url: str, tmp_path: Path) -> None:
    """It invokes nothing for others."""
    async with invoke_rig(tmp_path, redis_url, {}, arguments=["--role", "pollers,statemgr"]) as rig:
        assert code_of(await refusal(rig, "local", 1)) == ("404", 404)


async def test_concurrency_is_that_of_the_fleet(redis_url: str, tmp_path: Path) -> None:
    """Two nodes share a function's reserved concurrency; what the API of either says of it outlasts a lost Redis."""
    go = asyncio.Event()
    (tmp_path / "other").mkdir()
    async with ScriptedServer() as url:
        functions = {"url": {"url": url.url, "concurrency": 1}}
        leasing = {"ttl": 3}  # by which a Redis that forgot everything is noticed
        async with (
            invoke_rig(tmp_path, redis_url, functions, leasing=leasing) as ann,
            invoke_rig(tmp_path / "other", redis_url, functions, leasing=leasing) as bob,
            asyncio.TaskGroup() as tasks,
        ):
            url.then(answer_when(go, 200, b"[1]"))
            running = tasks.create_task(ann.invoke("url", 1))
            await eventually(lambda: url.requests, "the function is called")
            throttled = await refusal(bob, "url", 1)
            assert throttled.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
            go.set()
            assert (await running)["Payload"] == b"[1]"
            assert (await bob.invoke("url", 1))["StatusCode"] == 200

            change = bob.client.put_function_concurrency
            await asyncio.to_thread(change, FunctionName="url", ReservedConcurrentExecutions=0)

            async def stopped() -> bool:
                try:
                    return not await ann.invoke("url", 1)
                except ClientError as error:
                    return code_of(error) == ("TooManyRequestsException", 429)

            await eventually(stopped, "the other node is held to it")
            reason = throttled.response["Reason"]
            refused = f'esm_concurrency_throttles_total{{function="url",reason="{reason}"}}'
            metrics = await ann.node.metrics()
            assert metrics[refused] >= 1
            assert metrics['esm_function_concurrency{function="url"}'] == 0
            assert metrics["esm_concurrency_fallback"] == 0

            async def heard() -> bool:
                series = 'esm_function_reserved_concurrency{function="url"}'
                return {(await rig.node.metrics())[series] for rig in (ann, bob)} == {0}

            await eventually(heard, "both nodes know it by themselves")
            store = redis.Redis.from_url(redis_url)
            store.flushall()
            await eventually(lambda: store.hgetall(RESERVED) == {b"local": b"1", b"url": b"0"}, "Redis is told again")
            store.close()
            assert await stopped()
