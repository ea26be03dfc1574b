"""Targets over TLS, on both event loops."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import aiohttp

from invocation.classify import FailureKind
from invocation.client import Targets
from invocation.settings import UrlFunction
from invocation.transport import _failure
from model.outcome import Delivered, FunctionFailed, NotReached
from tests.integration.test_targets import LARGE, LateReader, Secrets, invocation
from tests.support.certificates import self_signed, server_context
from tests.support.loops import on_both_loops
from tests.support.scripted_http import ScriptedServer, answer, close_silently

if TYPE_CHECKING:
    from pathlib import Path


@on_both_loops
async def test_an_unknown_certificate_is_not_reached(tmp_path: Path) -> None:
    """Certificates are verified; a server that cannot prove who it is gets no event."""
    async with ScriptedServer(tls=server_context(self_signed(tmp_path))) as server, Targets(Secrets()) as targets:
        outcome = await targets.make(UrlFunction("f", server.url)).invoke(invocation())
        assert outcome == NotReached("TLS failed: self-signed certificate")
        assert server.requests == []


@on_both_loops
async def test_events_over_tls(tmp_path: Path) -> None:
    """Small and large events arrive over one kept connection; one that breaks is told apart as without TLS."""
    certificate = self_signed(tmp_path)
    trusting = ssl.create_default_context(cafile=certificate)
    async with (
        ScriptedServer(tls=server_context(certificate)) as server,
        Targets(Secrets(), ssl_context=trusting) as targets,
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
    certificate = self_signed(tmp_path)
    trusting = ssl.create_default_context(cafile=certificate)
    late = LateReader()
    async with (
        ScriptedServer(tls=server_context(certificate)) as server,
        Targets(Secrets(), ssl_context=trusting) as targets,
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
    certificate = self_signed(tmp_path)
    trusting = ssl.create_default_context(cafile=certificate)
    demanding = server_context(certificate, client_certificates=True)
    demanding.maximum_version = ssl.TLSVersion.TLSv1_2  # later versions say so after the handshake
    async with ScriptedServer(tls=demanding) as server, Targets(Secrets(), ssl_context=trusting) as targets:
        outcome = await targets.make(UrlFunction("f", server.url)).invoke(invocation())
        assert isinstance(outcome, NotReached)
        assert outcome.error.startswith(("TLS failed", "connection refused"))
        assert server.requests == []


def test_an_alert_after_the_handshake_is_no_function_error() -> None:
    """TLS 1.3 servers refuse a client when its first bytes are already on the way; no function saw them."""
    lost = aiohttp.ClientOSError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]")
    lost.__cause__ = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required")
    assert _failure(lost, sent=True, answering=False).kind is FailureKind.TLS
    assert _failure(lost, sent=True, answering=True).kind is FailureKind.CUT_SHORT
