"""Answers with large bodies, which are received where they stay: whole, in order, and none longer than it said."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from yarl import URL

from invocation.classify import Answer, Failure, FailureKind
from invocation.connection import RECEIVED_BYTES
from invocation.transport import Transport
from tests.support.certificates import CertificateAuthority
from tests.support.loops import on_both_loops
from tests.support.scripted_http import ScriptedServer, answer, piecemeal, response, say

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.scripted_http import Behaviour

MAX_BYTES = 8 * 1024 * 1024
BODY = os.urandom(3_000_000)
AUTHORITY = CertificateAuthority()


async def post(transport: Transport, server: ScriptedServer, *, timeout_s: float = 20) -> Answer | Failure:
    """Ask for an answer."""
    return await transport.post(URL(server.url), b"{}", {}, timeout_s=timeout_s, max_answer_bytes=MAX_BYTES)


def tls(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what makes a server and a client speak TLS."""
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(AUTHORITY.issue("server").write(tmp_path / "server.pem"))
    return {"tls": serving}, {"ssl_context": ssl.create_default_context(cadata=AUTHORITY.certificate_pem)}


SIZES = [RECEIVED_BYTES - 1, RECEIVED_BYTES, RECEIVED_BYTES + 1, 2 * RECEIVED_BYTES, len(BODY)]


@pytest.mark.parametrize("secure", [False, True])
@on_both_loops
async def test_large_and_small_answers_take_turns_on_one_connection(tmp_path: Path, *, secure: bool) -> None:
    """Whatever their sizes."""
    served, asked = tls(tmp_path) if secure else ({}, {})
    async with ScriptedServer(**served) as server, Transport(**asked) as transport:
        for size in SIZES:
            server.then(answer(200, BODY[:size]), answer(200, b"small"))
            large, small = await post(transport, server), await post(transport, server)
            assert isinstance(large, Answer)
            assert isinstance(small, Answer)
            assert large.body == BODY[:size]
            assert small.body == b"small"
        assert {request.connection for request in server.requests} == {1}


@on_both_loops
async def test_an_idle_connection_does_not_hold_on_to_a_large_body() -> None:
    """Whoever got it has it alone: a bytearray that somebody else looks into cannot be cleared."""
    async with ScriptedServer() as server, Transport() as transport:
        server.then(answer(200, BODY))
        came = await post(transport, server)
        assert isinstance(came, Answer)
        assert isinstance(came.body, bytearray)
        came.body.clear()


@pytest.mark.parametrize("pieces", [2, 7, 1000])
@on_both_loops
async def test_a_large_answer_may_come_in_pieces(pieces: int) -> None:
    """Its head and the beginning of its body together, or apart."""
    async with ScriptedServer() as server, Transport() as transport:
        server.then(piecemeal(response(200, BODY[:200_000]), pieces), answer())
        came = await post(transport, server)
        assert isinstance(came, Answer)
        assert came.body == BODY[:200_000]
        assert isinstance(await post(transport, server), Answer)
        assert {request.connection for request in server.requests} == {1}


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
UNTOLD = b"HTTP/1.1 200 OK\r\n\r\n" + BODY
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + response(200, BODY)


@pytest.mark.parametrize("said", [CHUNKED, UNTOLD, INTERIM], ids=["chunked", "untold", "interim"])
@on_both_loops
async def test_a_large_answer_is_whole_however_its_length_is_told(said: bytes) -> None:
    """By chunks, by the end of the connection, after an interim answer."""
    async with ScriptedServer() as server, Transport() as transport:
        server.then(say(said))
        came = await post(transport, server)
        assert isinstance(came, Answer)
        assert came.body == BODY


FAILING = [
    (say(response(200, BODY)[:-1]), FailureKind.CUT_SHORT),
    (say(response(200, BODY)[:100_000], then_hang=True), FailureKind.TIMEOUT_AFTER_SENT),
    (
        say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (MAX_BYTES + 1, bytes(MAX_BYTES + 1))),
        FailureKind.TOO_LARGE,
    ),
    (say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BYTES - 1)), FailureKind.CUT_SHORT),
    (say(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\nTransfer-Encoding: chunked\r\n\r\n"), FailureKind.GARBAGE),
    (say(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"), FailureKind.GARBAGE),
]


@pytest.mark.parametrize(("behaviour", "kind"), FAILING)
@on_both_loops
async def test_a_large_answer_that_does_not_come_whole_is_a_failure(behaviour: Behaviour, kind: FailureKind) -> None:
    """And its connection is not used again."""
    async with ScriptedServer() as server, Transport() as transport:
        server.then(behaviour, answer())
        came = await post(transport, server, timeout_s=1.0 if kind is FailureKind.TIMEOUT_AFTER_SENT else 20)
        assert isinstance(came, Failure)
        assert came.kind is kind
        assert isinstance(await post(transport, server), Answer)
        assert {request.connection for request in server.requests} == {1, 2}


@pytest.mark.parametrize(
    "said",
    [response(200, BODY) + b"more", response(200, BODY) + response(), response(200, BODY, {"Connection": "close"})],
)
@on_both_loops
async def test_a_connection_is_not_kept_when_more_comes_or_the_server_says_so(said: bytes) -> None:
    """Bytes that nobody asked for could be taken for the next answer."""
    async with ScriptedServer() as server, Transport() as transport:
        server.then(say(said, then_hang=True), answer())
        came = await post(transport, server)
        assert isinstance(came, Answer)
        assert came.body == BODY
        assert await post(transport, server) == Answer(200, {"Content-Length": "4"}, b"null")
        assert {request.connection for request in server.requests} == {1, 2}


@on_both_loops
async def test_an_answer_without_a_body_may_tell_the_length_of_one() -> None:
    """204 and 304 have none, whatever they say (RFC 9110 section 6.4.1)."""
    async with ScriptedServer() as server, Transport() as transport:
        server.then(say(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3000000\r\n\r\n", then_hang=True))
        came = await post(transport, server)
        assert isinstance(came, Answer)
        assert (came.status, came.body) == (304, b"")
