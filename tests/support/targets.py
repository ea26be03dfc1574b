"""What tests of targets share: secrets, invocations, one call of a scripted server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from invocation.client import Targets
from invocation.settings import UrlFunction
from model.ids import MappingId, ShardId, ShardKey
from model.invocation import Invocation
from model.record import MAX_EVENT_BYTES

if TYPE_CHECKING:
    from model.outcome import Outcome
    from model.secret import SecretText
    from tests.support.scripted_http import Behaviour, Exchange, ScriptedServer

LARGE = b"x" * MAX_EVENT_BYTES
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Secrets:
    """A resolver whose answers a test changes."""

    def __init__(self) -> None:
        self.values: dict[str, str | Exception] = {}
        self.asked = 0

    async def resolve(self, text: SecretText) -> str:
        """Look the first reference up and replace it."""
        self.asked += 1
        ((scheme, name), *_) = text.references()
        value = self.values[name]
        if isinstance(value, Exception):
            raise value
        return text.template.replace(f"${{{scheme}:{name}}}", value)


def invocation(event: bytes = b'{"Records": []}', *, mapping: str = "orders", attempt: int = 1) -> Invocation:
    """Make an invocation."""
    return Invocation(event, mapping, ShardKey(MappingId("0b1c"), ShardId("orders-3")), 4711, "b-1", attempt)


async def call(server: ScriptedServer, *behaviours: Behaviour, event: bytes = b"{}", timeout_s: float = 30) -> Outcome:
    """Invoke a `url` target once on a fresh connection."""
    server.then(*behaviours)
    async with Targets(Secrets()) as targets:
        return await targets.make(UrlFunction("f", server.url, timeout_s)).invoke(invocation(event))


class LateReader:
    """A behaviour that takes the body after a signal, and tells when there is nothing more to read."""

    def __init__(self) -> None:
        self.begun, self.go, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        """Read the request in two steps."""
        await exchange.read_head()
        self.begun.set()
        await self.go.wait()
        try:
            await exchange.read_body()
        finally:
            self.ended.set()
