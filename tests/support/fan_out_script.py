"""A SubscribeToShard that answers to order: behaviours for a scripted HTTP server, and answers without any server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from typing import TYPE_CHECKING, Any

from invocation.aws_json import AwsJson
from invocation.signing import LocalSigner
from invocation.transport import Transport
from pollers.sources.kinesis_events import CONTENT_TYPE
from pollers.sources.kinesis_subscription import Subscriber
from tests.support.kinesis_local import REGION
from tests.support.kinesis_script import ARN
from tests.support.scripted_http import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from invocation.classify import Answer, Failure
    from tests.support.scripted_http import Behaviour, Exchange

    Said = bytes | Failure | float

CONSUMER = f"{ARN}/consumer/fast:1545084650"
HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: application/vnd.amazon.eventstream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)  # fmt: skip


def piece(data: bytes) -> bytes:
    """Encode one piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


END = b"0\r\n\r\n"


def subscription(*events: bytes, then_hang: bool = False, then_reset: bool = False, head: bytes = HEAD) -> Behaviour:
    """Send events, each in a piece of its own; then end the subscription in order, or not at all, or by a reset."""

    async def behave(exchange: Exchange) -> None:
        await exchange.read()
        await exchange.write(head)
        for event in events:
            await exchange.write(piece(event))
        if then_hang:
            await exchange.server.stopping.wait()
        elif then_reset:
            exchange.reset()
        else:
            await exchange.write(END)

    return behave


@contextlib.asynccontextmanager
async def scripted_consumer(default: Behaviour | None = None) -> AsyncIterator[tuple[Subscriber, ScriptedServer]]:
    """Subscribe at a scripted server."""
    async with ScriptedServer(default) as server, Transport() as transport:
        caller = AwsJson(transport, LocalSigner("kinesis", server.url, region=REGION))
        yield Subscriber(CONSUMER, caller), server


class ScriptedAnswer:
    """An answer that is read as it comes: bytes, a failure, or seconds that pass; at last its end, or silence."""

    def __init__(self, *said: Said, then_silence: bool = False, kind: str = CONTENT_TYPE) -> None:
        self.said = deque(said)
        self.reads = 0
        self.closed = False
        self.reading = asyncio.Event()
        self._then_silence = then_silence
        self._kind = kind

    @property
    def headers(self) -> Mapping[str, str]:
        """Be what it was told to be."""
        return {"Content-Type": self._kind}

    async def read(self) -> bytes | Failure:
        """Give what is next."""
        assert not self.closed
        self.reads += 1
        self.reading.set()
        while self.said:
            said = self.said[0]
            if isinstance(said, (int, float)):
                await asyncio.sleep(said)
            self.said.popleft()
            if not isinstance(said, (int, float)):
                return said
        if self._then_silence:
            await asyncio.Event().wait()
        return b""

    def close(self) -> None:
        """Note it."""
        self.closed = True


class ScriptedOpener:
    """Answers the calls by script, and remembers them with their event-loop times."""

    def __init__(self, *script: ScriptedAnswer | Answer | Failure) -> None:
        self.script = deque(script)
        self.starts: list[dict[str, Any]] = []
        self.called_at: list[float] = []
        self.called = asyncio.Event()
        self.blocked: asyncio.Event | None = None

    async def open(
        self, region: str, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int
    ) -> ScriptedAnswer | Answer | Failure:
        """Answer; beyond the script with a subscription that says nothing."""
        self.called_at.append(asyncio.get_running_loop().time())
        self.starts.append(json.loads(body)["StartingPosition"])
        self.called.set()
        if self.blocked is not None:
            await self.blocked.wait()
        return self.script.popleft() if self.script else ScriptedAnswer(then_silence=True)
