"""What the answer of another node means, and its silence: whether the function may have run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from invocation.forwarding import Destination, Lost, Refused, forward
from invocation.invoking import Request
from invocation.settings import HandlerFunction
from invocation.transport import Transport
from model.placement import Capacity, Offer
from tests.support.scripted_http import ScriptedServer, answer, close_silently, reset, response, say

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.scripted_http import Exchange

OK = Request(b"{}", "id", '{"a": "\u00e4"}', "Root=1")


def offer(address: str, *, tls: bool = False) -> Destination:
    """Return somewhere to forward to."""
    nothing = Capacity(0, 0)
    return Destination(Offer(address, "", tls, False, 0, nothing, nothing, {}, {}), "me")


async def sent_to(to: Destination) -> object:
    """Forward one invocation."""
    async with Transport(stale_s=0.0) as transport:
        return await forward(transport, to, HandlerFunction("work", "a.b", "c"), "mark", OK)


@pytest.mark.parametrize("status", [401, 403, 404, 408, 409, 413, 429, 503])
async def test_refusals_have_not_run_it(status: int) -> None:
    """Others may be asked."""
    async with ScriptedServer(answer(status)) as server:
        came = await sent_to(offer(server.url[7:]))
    away, stranger = status in {401, 403, 404, 503}, status in {401, 403}
    assert came == Refused(f"HTTP {status}", away=away, stranger=stranger)


@pytest.mark.parametrize(
    "behaviour",
    [answer(500), answer(200, b"{}"), answer(200, b"\x90"), close_silently(), reset(), say(b"x")],
    ids=["500", "no answer", "an empty one", "closed", "reset", "no HTTP"],
)
async def test_without_an_answer_it_may_have_run(behaviour: Any) -> None:
    """It is a function error, and the request was made once."""
    async with ScriptedServer(behaviour) as server:
        came = await sent_to(offer(server.url[7:]))
        assert isinstance(came, Lost), came
        assert came.result.function_error == "Unhandled"
        assert b"the node that ran the function was lost" in came.result.payload
        assert len(server.requests) == 1


async def test_a_kept_connection_that_breaks_is_no_reason_to_repeat(tmp_path: Path) -> None:
    """A node that died just after it was sent an invocation may have run it."""
    async with ScriptedServer(answer(429)) as server, Transport(stale_s=0.0) as transport:
        work = HandlerFunction("work", "a.b", str(tmp_path))
        assert isinstance(await forward(transport, offer(server.url[7:]), work, "mark", OK), Refused)
        server.then(close_silently())
        assert isinstance(await forward(transport, offer(server.url[7:]), work, "mark", OK), Lost)
        assert [request.connection for request in server.requests] == [1, 1]


async def plain_http(exchange: Exchange) -> None:
    """Answer a greeting of TLS as servers of plain HTTP do, and requests."""
    if exchange.first == b"\x16":
        await exchange.write(response(400))
        await exchange.close()
    else:
        await answer()(exchange)


async def test_what_is_not_there_was_not_reached(closed_address: str) -> None:
    """Neither a closed port nor a server without TLS where there should be some."""
    assert await sent_to(offer(closed_address)) == Refused("connection refused", away=True)
    async with ScriptedServer(plain_http) as server:
        came = await sent_to(offer(server.url[7:], tls=True))
        assert came == Refused("TLS failed: WRONG_VERSION_NUMBER", away=True)
        assert server.complete == []
