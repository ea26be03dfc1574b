"""Clients that are slow, that send too much, or no HTTP: what a node gives them, route by route."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from model.record import MAX_EVENT_BYTES
from node.openapi.document import operations
from node.options import ListenAddress
from node.serve import serving
from tests.support.whole_surface import whole_surface

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

TAKING = sorted({one.key for one in operations() if one.request is not None})
"""Methods and paths of what takes a body."""

LIMIT_S = 20.0  # reached by a defect only


@asynccontextmanager
async def port(*, head_limit_s: float = LIMIT_S, **more: Any) -> AsyncIterator[int]:
    """Serve every route on a free port."""
    async with serving(whole_surface(**more), ListenAddress("127.0.0.1", 0), head_limit_s=head_limit_s) as address:
        yield address.port


async def sent(at: int, *parts: bytes, then_close: bool = False) -> tuple[int, bytes]:
    """Send parts over a connection, and return the status and all of what comes back until it is closed; 0: nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", at)
    try:
        async with asyncio.timeout(LIMIT_S):
            for part in parts:
                writer.write(part)
                await writer.drain()
            if then_close:
                writer.write_eof()
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as nothing:
                return 0, nothing.partial
            found = re.search(rb"(?i)content-length: (\d+)", head)
            body = await reader.readexactly(int(found[1]) if found else 0)
            return int(head.split(b" ", 2)[1]), head + body
    except ConnectionError:
        return 0, b""
    finally:
        writer.transport.abort()


def head(method: str, path: str, *more: str) -> bytes:
    """Return the head of a request to a route."""
    where = re.sub(r"\{\w+\}", "x", path)
    lines = [f"{method} {where} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def each(answer: Callable[[int, str, str], Coroutine[None, None, object]], **more: Any) -> dict[str, object]:
    """Return what comes of asking every route that takes a body, all at once."""
    async with port(**more) as at, asyncio.TaskGroup() as tasks:
        asked = {key: tasks.create_task(answer(at, *key)) for key in TAKING}
    return {" ".join(key): task.result() for key, task in asked.items()}


def same(came: object) -> dict[str, object]:
    """Return what is expected of every route."""
    return {" ".join(key): came for key in TAKING}


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every route gives up, says so, and lets the connection go."""
    monkeypatch.setattr("node.admission.BODY_LIMIT_S", 0.2)
    monkeypatch.setattr("node.environments_api.BODY_LIMIT_S", 0.2)

    async def stalled(at: int, method: str, path: str) -> object:
        status, came = await sent(at, head(method, path, "Content-Length: 1000"), b"{")
        return status, b"essage" in came

    assert await each(stalled, body_limit_s=0.2) == same((408, True))


async def test_a_body_that_is_announced_as_too_large_is_not_read_to_its_end() -> None:
    """No route takes more than an event may have, and the answer comes before the rest."""

    async def announced(at: int, method: str, path: str) -> object:
        start = b" " * (MAX_EVENT_BYTES + 70_000)
        return (await sent(at, head(method, path, f"Content-Length: {2 * MAX_EVENT_BYTES}"), start))[0]

    assert await each(announced) == same(413)


async def test_a_body_that_grows_too_large_is_not_read_to_its_end() -> None:
    """The same where nobody has said how large it will be."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"

    async def streamed(at: int, method: str, path: str) -> object:
        many = chunk * (MAX_EVENT_BYTES // 0x10000 + 20)
        return (await sent(at, head(method, path, "Transfer-Encoding: chunked"), many))[0]

    assert await each(streamed) == same(413)


async def test_a_body_that_is_not_what_it_says_is_the_callers_mistake(caplog: pytest.LogCaptureFixture) -> None:
    """Compressed data that is none, or a chunk without its size: no route takes that for a defect of its own."""

    async def packed(at: int, method: str, path: str) -> object:
        garbage = head(method, path, "Content-Encoding: gzip", "Content-Length: 8")
        return (await sent(at, garbage, b"no zip!!"))[0] in (400, 413)

    async def broken(at: int, method: str, path: str) -> object:
        return (await sent(at, head(method, path, "Transfer-Encoding: chunked"), b"zz\r\n{}\r\n0\r\n\r\n"))[0] == 400

    with capture_logs() as logs:
        assert await each(packed) == same(came=True)
        assert await each(broken) == same(came=True)
    assert [line for line in logs if line["log_level"] == "error"] == []
    assert caplog.record_tuples == []


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow:"])
async def test_a_head_that_does_not_come_is_not_waited_for(begun: bytes) -> None:
    """A connection without a whole request is closed, and those that work are left alone."""
    async with port(head_limit_s=0.3) as at:
        good_reader, good = await asyncio.open_connection("127.0.0.1", at)
        whole = head("GET", "/healthz")
        good.write(whole)
        assert b"200" in await good_reader.readuntil(b"\r\n")
        assert await sent(at, begun) == (0, b"")
        good.write(whole)  # long after its connection was made
        async with asyncio.timeout(LIMIT_S):
            assert (await good_reader.read(65536)).count(b"ok") == 1
            while b"200 OK" not in await good_reader.read(65536):
                pass
        good.transport.abort()


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\x00b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-A: b\r\n" * 5000 + b"\r\n",
    ],
    ids=["TLS", "NUL", "two lengths", "long path", "long header", "many headers"],
)
async def test_what_is_no_request_is_answered_like_everything(noise: bytes) -> None:
    """With JSON, without anybody's version, and without a word in the log that anybody had to read."""
    with capture_logs() as logs:
        async with port() as at:
            status, came = await sent(at, noise)
    assert status == 400
    assert b"aiohttp" not in came
    assert b"Python" not in came
    assert b"X-Content-Type-Options" in came
    assert json.loads(came.partition(b"\r\n\r\n")[2])["message"]
    assert {line["log_level"] for line in logs} <= {"debug", "info"}
