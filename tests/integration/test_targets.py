"""Targets against a server that misbehaves to order, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket

import pytest

from invocation import dialing
from invocation.client import Targets
from invocation.settings import HandlerFunction, LambdaFunction, RieFunction, UrlFunction
from model.errors import RefusedError, UnavailableError
from model.outcome import Delivered, FunctionFailed, NotReached, Throttled
from model.secret import SecretText
from tests.support.closed_ports import closed_port
from tests.support.loops import on_both_loops
from tests.support.scripted_http import (
    Exchange,
    ScriptedServer,
    answer,
    answer_early,
    answer_when,
    piecemeal,
    response,
    say,
)
from tests.support.targets import CHUNKED, LARGE, Secrets, call, invocation


@on_both_loops
async def test_request_carries_event_and_headers() -> None:
    """A function gets the event unchanged and knows mapping, shard, token, batch and attempt; no cookies, no proxy."""
    async with ScriptedServer(answer(headers={"Set-Cookie": "a=b"})) as server, Targets(Secrets()) as targets:
        target = targets.make(UrlFunction("f", server.url + "/in?x=1", headers={"X-Own": SecretText("yes")}))
        assert await target.invoke(invocation()) == Delivered(b"null")
        assert await target.invoke(invocation(attempt=2)) == Delivered(b"null")
    first, second = server.requests
    assert (first.method, first.path, first.body) == ("POST", "/in?x=1", b'{"Records": []}')
    for name, value in {
        "content-type": "application/json",
        "content-length": "15",
        "x-esmd-mapping": "orders",
        "x-esmd-shard": "0b1c/orders-3",
        "x-esmd-fencing-token": "4711",
        "x-esmd-batch-id": "b-1",
        "x-esmd-attempt": "1",
        "x-own": "yes",
    }.items():
        assert first.headers[name] == value
    assert second.headers["x-esmd-attempt"] == "2"
    assert "cookie" not in second.headers
    one, two = (re.fullmatch("00-([0-9a-f]{32})-([0-9a-f]{16})-01", r.headers["traceparent"]) for r in server.requests)
    assert one is not None
    assert two is not None
    assert one[1] == two[1]  # one trace per batch
    assert one[2] != two[2]  # a span per attempt
    assert {request.connection for request in server.requests} == {1}


@on_both_loops
async def test_odd_names_are_safe_in_headers() -> None:
    """A mapping's name cannot break or forge a header, and can be decoded again."""
    async with ScriptedServer() as server, Targets(Secrets()) as targets:
        await targets.make(UrlFunction("f", server.url)).invoke(invocation(mapping="käse 100%\r\nX-Evil: 1"))
    assert server.requests[0].headers["x-esmd-mapping"] == "k%C3%A4se%20100%25%0D%0AX-Evil:%201"
    assert "x-evil" not in server.requests[0].headers


@on_both_loops
async def test_answers_of_a_server_in_order() -> None:
    """Throttles, errors and successes are told apart, over one connection."""
    async with ScriptedServer() as server, Targets(Secrets()) as targets:
        target = targets.make(UrlFunction("f", server.url))
        server.then(
            answer(429, headers={"Retry-After": "3"}),
            answer(500, b'{"errorType": "KeyError", "errorMessage": "no"}'),
            answer(200, b"", headers={"X-Amz-Function-Error": "Unhandled"}),
            answer(302, headers={"Location": "/elsewhere"}),
            answer(204, b""),
            piecemeal(response(200, b"[1, 2, 3]"), 20),
            piecemeal(CHUNKED + b"5\r\n[1, 2\r\n4\r\n, 3]\r\n0\r\n\r\n", 20),
        )
        assert await target.invoke(invocation()) == Throttled("HTTP 429 Too Many Requests", 3.0)
        failed = FunctionFailed("HTTP 500: KeyError: no", status=500)
        assert await target.invoke(invocation()) == failed
        assert await target.invoke(invocation()) == FunctionFailed("HTTP 200 OK")
        assert await target.invoke(invocation()) == NotReached("HTTP 302 Found", None, 302)
        assert await target.invoke(invocation()) == Delivered(b"", 204)
        assert await target.invoke(invocation()) == Delivered(b"[1, 2, 3]")
        assert await target.invoke(invocation()) == Delivered(b"[1, 2, 3]")
    assert {request.connection for request in server.requests} == {1}


@on_both_loops
async def test_an_answer_before_the_event_was_read_counts() -> None:
    """A server may refuse a large event after its head; what it says is believed."""
    async with ScriptedServer() as server:
        outcome = await call(server, answer_early(503), event=LARGE)
        assert outcome == NotReached("HTTP 503 Service Unavailable", None, 503)
        assert server.complete == []


TOO_LARGE = FunctionFailed("Function.ResponseSizeTooLarge: answer exceeds 6291556 bytes")


@on_both_loops
async def test_size_of_answers() -> None:
    """An answer may be as large as an event, and one byte more is a function error however it is framed."""
    async with ScriptedServer() as server:
        assert await call(server, answer(200, LARGE), event=LARGE) == Delivered(LARGE)
        assert await call(server, answer(200, LARGE + b"x")) == TOO_LARGE
        assert await call(server, say(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000_000)) == TOO_LARGE
        endless = CHUNKED + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 200
        assert await call(server, say(endless)) == TOO_LARGE
        outcome = await call(server, answer(500, b"x" * 10_000_000))
        assert outcome == FunctionFailed("HTTP 500 Internal Server Error", status=500)


@on_both_loops
async def test_secrets_are_resolved_for_each_call() -> None:
    """A rotated secret is sent with the next call, and its value without the newline of its file."""
    secrets = Secrets()
    async with ScriptedServer() as server, Targets(secrets) as targets:
        bearer = {"Authorization": SecretText("Bearer ${file:/t}"), "X-Team": SecretText("a")}
        target = targets.make(UrlFunction("f", server.url, headers=bearer))
        for value in ("first\n", "second"):
            secrets.values["/t"] = value
            assert await target.invoke(invocation()) == Delivered(b"null")
    assert [r.headers["authorization"] for r in server.requests] == ["Bearer first", "Bearer second"]
    assert {r.headers["x-team"] for r in server.requests} == {"a"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (RefusedError("no such file: /t"), "request could not be made: no such file: /t"),
        (UnavailableError("keeper is away"), "request could not be made: keeper is away"),
        (
            "planted\r\nX-Evil: 1",
            "request could not be made: header Authorization: the value has control characters",
        ),
    ],
)
@on_both_loops
async def test_without_its_secret_nothing_is_sent(value: str | Exception, text: str) -> None:
    """A secret that cannot be had, or cannot be sent, is told without its value, and no retry is used up."""
    secrets = Secrets()
    secrets.values["/t"] = value
    async with ScriptedServer() as server, Targets(secrets) as targets:
        settings = UrlFunction("f", server.url, headers={"Authorization": SecretText("${file:/t}")})
        assert await targets.make(settings).invoke(invocation()) == NotReached(text)
        assert server.requests == []


@on_both_loops
async def test_a_target_cannot_make_us_tell_its_secrets() -> None:
    """A function that repeats its request headers in an error does not get them into our texts."""
    secrets = Secrets()
    secrets.values["T"] = "planted-1"
    async with ScriptedServer() as server, Targets(secrets) as targets:
        url = server.url.replace("http://", "http://me:planted-2@")
        settings = UrlFunction(
            "f", url, headers={"X-Key": SecretText("Bearer ${env:T}"), "X-L": SecretText("planted-3")}
        )
        server.then(
            answer(500, b'{"errorMessage": "denied planted-1, Bearer planted-1, planted-3, Basic bWU6cGxhbnRlZC0y"}')
        )
        outcome = await targets.make(settings).invoke(invocation())
        assert isinstance(outcome, FunctionFailed)
        assert outcome.error == "HTTP 500: denied ***, ***, ***, ***"
        assert server.requests[0].headers["authorization"] == "Basic bWU6cGxhbnRlZC0y"


@on_both_loops
async def test_lambda_compatible_endpoint() -> None:
    """A function's name, qualifier or ARN is one segment of the path; errors are read as AWS writes them."""
    arn = "arn:aws:lambda:us-east-1:123456789012:function:f:live"
    async with ScriptedServer() as server, Targets(Secrets()) as targets:
        server.then(
            answer(200, b'"ok"', headers={"X-Amz-Executed-Version": "7"}),
            answer(200, b'{"errorType":"E","errorMessage":"m"}', headers={"X-Amz-Function-Error": "Unhandled"}),
            answer(404, b'{"Message":"gone"}', headers={"x-amzn-ErrorType": "ResourceNotFoundException"}),
            answer(413, b'{"message":"large"}', headers={"x-amzn-ErrorType": "RequestTooLargeException"}),
        )
        target = targets.make(LambdaFunction("f", arn, server.url + "/"))
        assert await target.invoke(invocation()) == Delivered(b'"ok"', 200, "7")
        assert await target.invoke(invocation()) == FunctionFailed("E: m")
        gone = NotReached("HTTP 404 Not Found: ResourceNotFoundException: gone", None, 404)
        assert await target.invoke(invocation()) == gone
        large = await target.invoke(invocation())
        assert isinstance(large, NotReached)
        assert large.batch_refused
    path = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Af%3Alive/invocations"
    assert {request.path for request in server.requests} == {path}
    assert server.requests[0].headers["x-amz-invocation-type"] == "RequestResponse"
    assert server.requests[0].headers["x-esmd-fencing-token"] == "4711"
    assert "authorization" not in server.requests[0].headers


@on_both_loops
async def test_containers_take_one_invocation_each() -> None:
    """As many invocations run as there are containers; the others wait their turn and none is lost."""
    go = asyncio.Event()
    async with (
        ScriptedServer(answer_when(go)) as one,
        ScriptedServer(answer_when(go)) as two,
        Targets(Secrets()) as targets,
    ):
        target = targets.make(RieFunction("f", (one.url, two.url)))
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(target.invoke(invocation())) for _ in range(6)]
            await one.received(1)
            await two.received(1)
            assert len(one.requests) + len(two.requests) == 2
            go.set()
        assert [call.result() for call in calls] == [Delivered(b"null")] * 6
        assert {r.path for r in one.requests} == {"/2015-03-31/functions/function/invocations"}
        assert len(one.requests) + len(two.requests) == 6


@on_both_loops
async def test_answers_of_an_emulator_in_order() -> None:
    """The emulator hides errors in answers with 200 and 502; busy, reset or broken it has not taken the batch."""
    exited = b'{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 1 Error: exit status 1"}'
    async with ScriptedServer() as server, Targets(Secrets()) as targets:
        target = targets.make(RieFunction("f", (server.url,)))
        server.then(
            answer(200, b'{"errorMessage":"no","errorType":"KeyError","stackTrace":[]}'),
            answer(200, b"Task timed out after 3.00 seconds"),
            answer(502, exited),
            answer(400, b""),
            answer(504, b""),
            answer(500, b""),
            answer(200, b'{"batchItemFailures":[]}'),
        )
        assert await target.invoke(invocation()) == FunctionFailed("KeyError: no")
        timed_out = FunctionFailed("Sandbox.Timedout: Task timed out after 3.00 seconds")
        assert await target.invoke(invocation()) == timed_out
        exit_error = FunctionFailed("Runtime.ExitError: RequestId: 1 Error: exit status 1", status=502)
        assert await target.invoke(invocation()) == exit_error
        assert await target.invoke(invocation()) == NotReached("HTTP 400 Bad Request", None, 400)
        assert await target.invoke(invocation()) == NotReached("HTTP 504 Gateway Timeout", None, 504)
        assert await target.invoke(invocation()) == NotReached("HTTP 500 Internal Server Error", None, 500)
        assert await target.invoke(invocation()) == Delivered(b'{"batchItemFailures":[]}')


class Emulator:
    """A container that answers 400 when it is called while busy, as the emulator does."""

    def __init__(self) -> None:
        self.busy = False
        self.taken = 0

    async def __call__(self, exchange: Exchange) -> None:
        """Take a call for a moment."""
        await exchange.read()
        if self.busy:
            await exchange.write(response(400, b""))
            return
        self.busy = True
        self.taken += 1
        await asyncio.sleep(0.002)
        self.busy = False
        await exchange.write(response(200, b'"ok"'))


@on_both_loops
async def test_no_container_is_called_while_it_is_busy() -> None:
    """However many invocations come at once, also after some were cancelled, none meets another in a container."""
    emulators = [Emulator() for _ in range(3)]
    async with contextlib.AsyncExitStack() as running, Targets(Secrets()) as targets:
        servers = [await running.enter_async_context(ScriptedServer(emulator)) for emulator in emulators]
        target = targets.make(RieFunction("f", tuple(server.url for server in servers)))
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(target.invoke(invocation())) for _ in range(60)]
            await asyncio.sleep(0)
            for waiting in calls[3::7]:
                waiting.cancel()
        outcomes = {call.result() for call in calls if not call.cancelled()}
    assert outcomes == {Delivered(b'"ok"')}
    assert sum(emulator.taken for emulator in emulators) == len([call for call in calls if not call.cancelled()])
    assert all(emulator.taken > 5 for emulator in emulators)


@on_both_loops
async def test_dead_containers_are_passed_over() -> None:
    """While one container lives, every invocation reaches it; when none does, the batch was not reached."""
    with closed_port() as one, closed_port() as other:
        dead = (f"http://{one}", f"http://{other}")
        async with ScriptedServer() as server, Targets(Secrets()) as targets:
            target = targets.make(RieFunction("f", (*dead, server.url)))
            server.then(answer(200, b"Task timed out after 3.00 seconds"))
            assert await target.invoke(invocation()) == FunctionFailed(
                "Sandbox.Timedout: Task timed out after 3.00 seconds"
            )
            for _ in range(5):
                assert await target.invoke(invocation()) == Delivered(b"null")
            nobody = targets.make(RieFunction("g", dead))
            for _ in range(2):
                assert await nobody.invoke(invocation()) == NotReached("connection refused")


async def test_an_unknown_host_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve uses up no retry."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    async with Targets(Secrets()) as targets:
        outcome = await targets.make(UrlFunction("f", "http://billing.invalid/")).invoke(invocation())
    assert outcome == NotReached("host name not found")


async def test_whatever_the_loop_calls_a_failed_connection_is_not_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Uvloop has RuntimeErrors for some; no pump may end by one."""

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(dialing, "start_connection", fail)
    async with Targets(Secrets()) as targets:
        outcome = await targets.make(UrlFunction("f", "http://127.0.0.1:1/")).invoke(invocation())
    assert outcome == NotReached("connection refused")


async def test_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch, closed_address: str) -> None:
    """A proxy in the environment of the node does not get in the way of its functions."""
    monkeypatch.setenv("HTTP_PROXY", f"http://{closed_address}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with ScriptedServer() as server:
        assert await call(server) == Delivered(b"null")


async def test_closed_targets_reach_nothing() -> None:
    """After the node has closed its connections a call is not reached instead of raising; closing twice is safe."""
    async with ScriptedServer() as server, Targets(Secrets()) as targets:
        target = targets.make(UrlFunction("f", server.url))
        await targets.aclose()
        assert await target.invoke(invocation()) == NotReached("request could not be made: connections are closed")


REFUSED = [
    (HandlerFunction("f", "app.handler", "code"), "functions with `handler` run in sandboxes"),
    (UrlFunction("f", "ftp://planted/"), "function f: not an http or https URL"),
    (UrlFunction("f", "http://"), "function f: not an http or https URL"),
    (UrlFunction("f", "http://planted:99999/"), "function f: not an http or https URL"),
    (UrlFunction("f", "http://[planted/"), "function f: not an http or https URL"),
    (UrlFunction("f", "http://h/", headers={"Content-Length": SecretText("1")}), "header 'Content-Length' cannot be"),
    (UrlFunction("f", "http://h/", headers={"X-Esmd-Shard": SecretText("1")}), "header 'X-Esmd-Shard' cannot be set"),
    (UrlFunction("f", "http://h/", headers={"a b": SecretText("1")}), "header 'a b' cannot be set"),
    (UrlFunction("f", "http://h/", headers={"A": SecretText("planted\x00")}), "header A: the value has control"),
    (LambdaFunction("f", "f", "127.0.0.1:9000"), "function f: endpoint: not an http or https URL"),
    (LambdaFunction("f", "f", "http://127.0.0.1:9000/?planted"), "scheme, host, port and path only"),
    (RieFunction("f", ()), "rie needs at least one endpoint"),
    (RieFunction("f", ("http://me:planted@h/",)), "scheme, host, port and path only"),
]


@pytest.mark.parametrize(("settings", "text"), REFUSED)
async def test_settings_that_cannot_work_are_refused(
    settings: UrlFunction | LambdaFunction | RieFunction | HandlerFunction, text: str
) -> None:
    """What can be seen to be wrong is refused when the target is made, in words that repeat no secret."""
    async with Targets(Secrets()) as targets:
        with pytest.raises(RefusedError) as caught:
            targets.make(settings)
    assert text in str(caught.value)
    assert "planted" not in str(caught.value)
