"""Targets over TLS, on both event loops."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from invocation.classify import FailureKind
from invocation.client import Targets
from invocation.connection import Connection
from invocation.forwarding import Destination, Refused, encode_came, forward
from invocation.invoking import InvocationResult, Request
from invocation.settings import HandlerFunction, UrlFunction
from invocation.transport import Transport
from model.outcome import Delivered, FunctionFailed, NotReached
from model.placement import Capacity, Offer
from tests.support.certificates import CertificateAuthority
from tests.support.loops import on_both_loops
from tests.support.scripted_http import ScriptedServer, answer, close_silently
from tests.support.targets import LARGE, LateReader, Secrets, invocation

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY = CertificateAuthority()


def serving(tmp_path: Path) -> ssl.SSLContext:
    """Serve with a certificate of the authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=AUTHORITY.certificate_pem)
    context.load_cert_chain(AUTHORITY.issue("server").write(tmp_path / "server.pem"))
    return context


def trusting() -> ssl.SSLContext:
    """Trust the authority and nobody else."""
    return ssl.create_default_context(cadata=AUTHORITY.certificate_pem)


@on_both_loops
async def test_an_unknown_certificate_is_not_reached(tmp_path: Path) -> None:
    """Certificates are verified; a server that cannot prove who it is gets no event."""
    async with ScriptedServer(tls=serving(tmp_path)) as server, Targets(Secrets()) as targets:
        outcome = await targets.make(UrlFunction("f", server.url)).invoke(invocation())
        assert outcome == NotReached("TLS failed: self-signed certificate in certificate chain")
        assert server.requests == []


@on_both_loops
async def test_events_over_tls(tmp_path: Path) -> None:
    """Small and large events arrive over one kept connection; one that breaks is told apart as without TLS."""
    async with (
        ScriptedServer(tls=serving(tmp_path)) as server,
        Targets(Secrets(), ssl_context=trusting()) as targets,
    ):
        target = targets.make(UrlFunction("f", server.url))
        for event in (b"{}", LARGE, b"{}"):
            assert await target.invoke(invocation(event)) == Delivered(b"null")
        assert [len(request.body) for request in server.complete] == [2, len(LARGE), 2]
        assert {request.connection for request in server.requests} == {1}
        server.then(close_silently(), close_silently(), answer(200, b"2"))
        assert await target.invoke(invocation()) == FunctionFailed("connection lost after the event was sent")
        assert await target.invoke(invocation()) == Delivered(b"2")


@on_both_loops
async def test_an_event_stuck_in_tls_is_not_sent_later(tmp_path: Path) -> None:
    """A time-out in the middle of an upload over TLS runs nothing, neither then nor later."""
    late = LateReader()
    async with (
        ScriptedServer(tls=serving(tmp_path)) as server,
        Targets(Secrets(), ssl_context=trusting()) as targets,
    ):
        server.then(late)
        outcome = await targets.make(UrlFunction("f", server.url, timeout_s=0.5)).invoke(invocation(LARGE))
        assert outcome == NotReached("time-out before the event was sent")
        late.go.set()
        await late.ended.wait()
        assert server.complete == []


@on_both_loops
async def test_a_required_client_certificate_is_not_reached(tmp_path: Path) -> None:
    """A server that turns us away in the handshake, for want of a certificate, is not reached."""
    demanding = serving(tmp_path)
    demanding.verify_mode = ssl.CERT_REQUIRED
    demanding.maximum_version = ssl.TLSVersion.TLSv1_2  # later versions say so after the handshake
    async with ScriptedServer(tls=demanding) as server, Targets(Secrets(), ssl_context=trusting()) as targets:
        outcome = await targets.make(UrlFunction("f", server.url)).invoke(invocation())
        assert isinstance(outcome, NotReached)
        assert outcome.error.startswith(("TLS failed", "connection refused"))
        assert server.requests == []


async def test_an_alert_after_the_handshake_is_no_function_error() -> None:
    """TLS 1.3 servers refuse a client when its first bytes are already on the way; no function saw them."""
    alert = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required")
    connection = Connection(lambda _: None, memoryview(bytearray(10)))
    connection.sent_at = 0.0
    connection.connection_lost(alert)
    assert connection.failure().kind is FailureKind.TLS
    connection.answering = True
    assert connection.failure().kind is FailureKind.LOST_AFTER_SENT


async def test_another_node_proves_who_it_is(tmp_path: Path) -> None:
    """Invocations are forwarded over TLS to a node whose certificate is right, and to no other."""
    function = HandlerFunction("f", "app.handler", "code")
    nothing = Capacity(0, 0)
    body = encode_came(InvocationResult(b"1", None, b"", 0.1))
    async with ScriptedServer(answer(200, body), tls=serving(tmp_path)) as server:
        offer = Offer(server.url[8:], "", True, False, 0, nothing, nothing, {}, {})
        for context, reached in ((trusting(), True), (None, False)):
            async with Transport(ssl_context=context) as transport:
                came = await forward(transport, Destination(offer, "me"), function, "mark", Request(b"{}", "id"))
                assert isinstance(came, InvocationResult if reached else Refused), came
        assert [request.path for request in server.complete] == ["/esmd/v1/environments/f/invocations"]
