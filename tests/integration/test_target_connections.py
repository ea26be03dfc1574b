"""How far a request got, and so whether the function may have run: broken, slow, kept and cancelled connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from invocation.client import Targets, UrlTarget
from invocation.settings import UrlFunction
from invocation.transport import Transport
from model.outcome import Delivered, FunctionFailed, NotReached, Throttled
from tests.support.loops import on_both_loops
from tests.support.scripted_http import (
    Behaviour,
    ScriptedServer,
    answer,
    answer_when,
    close_silently,
    hang,
    reset,
    say,
)
from tests.support.targets import CHUNKED, LARGE, LateReader, Secrets, call, invocation

if TYPE_CHECKING:
    from model.outcome import Outcome


@on_both_loops
async def test_a_refused_connection_is_not_reached(closed_address: str) -> None:
    """Nobody listens: no retry is used up."""
    async with Targets(Secrets()) as targets:
        outcome = await targets.make(UrlFunction("f", f"http://{closed_address}")).invoke(invocation())
    assert outcome == NotReached("connection refused")


@pytest.mark.parametrize("event", [b"{}", LARGE], ids=["small", "large"])
@on_both_loops
async def test_time_out_after_the_event_was_read_is_a_function_error(event: bytes) -> None:
    """A function that hangs has failed, whatever the size of its event."""
    async with ScriptedServer() as server:
        outcome = await call(server, hang(), event=event, timeout_s=0.5)
        assert outcome == FunctionFailed("no answer in time after the event was sent")
        assert [request.body for request in server.complete] == [event]


@on_both_loops
async def test_time_out_before_the_event_was_sent_is_not_reached() -> None:
    """An event that did not fit through in time runs nothing: neither then nor when the server wakes up later."""
    late = LateReader()
    async with ScriptedServer() as server:
        outcome = await call(server, late, event=LARGE, timeout_s=0.3)
        assert outcome == NotReached("time-out before the event was sent")
        late.go.set()
        await late.ended.wait()
        assert server.complete == []


@on_both_loops
async def test_a_cancelled_invocation_sends_nothing_more() -> None:
    """When a lease is lost in the middle of an upload, the function never sees the whole event."""
    late = LateReader()
    async with ScriptedServer() as server, Targets(Secrets()) as targets:
        server.then(late)
        target = targets.make(UrlFunction("f", server.url))
        async with asyncio.TaskGroup() as tasks:
            calling = tasks.create_task(target.invoke(invocation(LARGE)))
            await late.begun.wait()
            calling.cancel()
        assert calling.cancelled()
        late.go.set()
        await late.ended.wait()
        assert server.complete == []
        assert await target.invoke(invocation()) == Delivered(b"null")


BROKEN = [
    (reset(after=1000), LARGE, NotReached("connection lost before the event was sent")),
    (reset(), b"{}", FunctionFailed("connection lost after the event was sent")),
    (reset(), LARGE, FunctionFailed("connection lost after the event was sent")),
    (close_silently(), b"{}", FunctionFailed("connection lost after the event was sent")),
    (say(b"220 mail.example ESMTP\r\n"), b"{}", FunctionFailed("answer is not HTTP")),
    (say(b"\x15\x03\x01\x00\x02\x02\x46" * 9), b"{}", FunctionFailed("answer is not HTTP")),
    (say(b"HTTP/1.1 200 OK\r\nContent-Le"), b"{}", FunctionFailed("connection lost after the event was sent")),
    (say(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf"), b"{}", FunctionFailed("answer cut short")),
    (say(CHUNKED + b"4\r\nnull\r\n"), b"{}", FunctionFailed("answer cut short")),
    (say(CHUNKED + b"zz\r\nnull"), b"{}", FunctionFailed("answer is not HTTP")),
    (
        say(b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 99\r\n\r\nhalf"),
        b"{}",
        NotReached("HTTP 503 Service Unavailable", 2.0, 503),
    ),
]


@pytest.mark.parametrize(("behaviour", "event", "expected"), BROKEN)
@on_both_loops
async def test_broken_connections(behaviour: Behaviour, event: bytes, expected: Outcome) -> None:
    """Resets, closings, garbage and half answers count as errors exactly when the function may have run."""
    async with ScriptedServer() as server:
        assert await call(server, behaviour, event=event) == expected
        assert len(server.requests) == 1


@on_both_loops
async def test_time_out_in_the_middle_of_an_answer_is_a_function_error() -> None:
    """A function that starts to answer and stops has run; one whose status says no has been judged already."""
    async with ScriptedServer() as server:
        half = b"Content-Length: 99\r\n\r\nhalf"
        outcome = await call(server, say(b"HTTP/1.1 200 OK\r\n" + half, then_hang=True), timeout_s=0.3)
        assert outcome == FunctionFailed("no answer in time after the event was sent")
        outcome = await call(server, say(b"HTTP/1.1 429 No\r\n" + half, then_hang=True), timeout_s=0.3)
        assert outcome == Throttled("HTTP 429 Too Many Requests")


@on_both_loops
async def test_a_kept_connection_that_was_closed_is_not_used() -> None:
    """A connection the server closed while it was idle costs nothing, not even a second look by the function."""
    async with ScriptedServer() as server, Targets(Secrets()) as targets:
        target = targets.make(UrlFunction("f", server.url))
        for _ in range(20):
            assert await target.invoke(invocation()) == Delivered(b"null")
            server.shut_sending()  # arrives in the kernel; the event loop has not seen it when the next call begins
        assert len(server.requests) == 20
        server.then(*[answer(close=True)] * 20)
        for _ in range(20):
            assert await target.invoke(invocation()) == Delivered(b"null")
        assert len(server.complete) == 40


@on_both_loops
async def test_a_kept_connection_that_breaks_at_once_is_replaced_once() -> None:
    """A request that crossed the closing of its connection is repeated on a new one; what happens there counts."""
    async with ScriptedServer() as server, Targets(Secrets()) as targets:
        target = targets.make(UrlFunction("f", server.url))
        server.then(answer(), close_silently(), answer(200, b"2"))
        assert await target.invoke(invocation()) == Delivered(b"null")
        assert await target.invoke(invocation()) == Delivered(b"2")
        assert [request.connection for request in server.requests] == [1, 1, 2]
        server.then(answer(), reset(), close_silently())
        assert await target.invoke(invocation()) == Delivered(b"null")
        assert await target.invoke(invocation()) == FunctionFailed("connection lost after the event was sent")
        assert len(server.requests) == 6


@on_both_loops
async def test_a_kept_connection_that_breaks_late_is_a_function_error() -> None:
    """A server that had the request for a while before it broke had taken it; the function is not called again."""
    async with ScriptedServer() as server, Transport(stale_s=0.0) as transport:
        target = UrlTarget(UrlFunction("f", server.url), transport, Secrets())
        server.then(answer(), close_silently())
        assert await target.invoke(invocation()) == Delivered(b"null")
        assert await target.invoke(invocation()) == FunctionFailed("connection lost after the event was sent")
        assert len(server.requests) == 2


@on_both_loops
async def test_hundreds_of_invocations_in_flight() -> None:
    """Nothing in the client limits how many invocations run at once."""
    go = asyncio.Event()
    async with ScriptedServer(answer_when(go)) as server, Targets(Secrets()) as targets:
        target = targets.make(UrlFunction("f", server.url))
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(target.invoke(invocation())) for _ in range(300)]
            await server.received(300)
            go.set()
        assert {call.result() for call in calls} == {Delivered(b"null")}
