"""A Kinesis with enhanced fan-out as AWS has it, in front of a server that has none or half of it.

SubscribeToShard is answered here, out of what the server gives by polling; every other call is passed on. kinesis-local
has SubscribeToShard too, but never tells the end of a closed shard, and nobody takes a subscription over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from yarl import URL

from invocation.aws_json import AwsJson
from invocation.classify import Answer
from invocation.signing import LocalSigner
from invocation.transport import Transport
from model.errors import SourceUnavailableError
from model.ids import Position, ShardId
from model.shard import BEGINNING
from pollers.sources.kinesis_api import KinesisApi
from tests.support.event_stream import exception, initial_response, shard_event
from tests.support.fan_out_script import END, HEAD, piece
from tests.support.kinesis_local import REGION
from tests.support.kinesis_script import asked
from tests.support.scripted_http import ScriptedServer, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.scripted_http import Exchange

_TURN_S = 5.0
_CALL_S = 1.0
_QUIET_S = 5.0
_POLL_S = 0.2


class FanOutFront:
    """The front of one server, in the test's event loop. `lives_s`: how long a subscription lasts."""

    def __init__(self, transport: Transport, endpoint_url: str, *, lives_s: float) -> None:
        self.server = ScriptedServer(self._answer)
        self.subscriptions = 0
        self.refused: list[str] = []  # codes
        self._transport = transport
        self._endpoint_url = endpoint_url
        self._caller = AwsJson(transport, LocalSigner("kinesis", endpoint_url, region=REGION))
        self._lives_s = lives_s
        self._called_at: dict[str, float] = {}
        self._current: dict[str, tuple[float, asyncio.Event]] = {}  # began at, and whether another took it over

    async def _answer(self, exchange: Exchange) -> None:
        await exchange.read()
        if not exchange.request.headers["x-amz-target"].endswith("SubscribeToShard"):
            await self._pass_on(exchange)
            return
        _, request = asked(exchange.request)
        place = f"{request['ConsumerARN']} {request['ShardId']}"
        now = asyncio.get_running_loop().time()
        hasty = now - self._called_at.get(place, -_CALL_S) < _CALL_S
        self._called_at[place] = now
        began_at, taken = self._current.get(place, (-_TURN_S, asyncio.Event()))
        if hasty or now - began_at < _TURN_S:
            code = "LimitExceededException" if hasty else "ResourceInUseException"
            self.refused.append(code)
            await exchange.write(response(400, json.dumps({"__type": code, "message": "not now"}).encode()))
            return
        taken.set()
        self._current[place] = (now, mine := asyncio.Event())
        self.subscriptions += 1
        await exchange.write(HEAD + piece(initial_response()))
        api = KinesisApi(request["ConsumerARN"].rpartition("/consumer/")[0], self._caller)
        async for event in self._events(api, request, mine):
            if exchange.writer.is_closing():  # nobody listens any more
                return
            if event:
                await exchange.write(piece(event))
        await exchange.write(END)

    async def _pass_on(self, exchange: Exchange) -> None:
        wanted = ("x-amz-", "authorization", "content-type")
        headers = {name: value for name, value in exchange.request.headers.items() if name.startswith(wanted)}
        came = await self._transport.post(
            URL(f"{self._endpoint_url}/"), exchange.request.body, headers, timeout_s=30, max_answer_bytes=2**26
        )
        assert isinstance(came, Answer), came
        kept = {name: value for name, value in came.headers.items() if name.lower() in ("content-type", "date")}
        await exchange.write(response(came.status, bytes(came.body), kept))

    async def _events(self, api: KinesisApi, request: dict[str, Any], taken: asyncio.Event) -> AsyncIterator[bytes]:
        """Give events as they come, and nothing now and then."""
        loop = asyncio.get_running_loop()
        shard, start = ShardId(request["ShardId"]), request["StartingPosition"]
        after = Position(start["SequenceNumber"]) if "SequenceNumber" in start else None
        assert start["Type"] in ("AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON")
        until, said_at, iterator = loop.time() + self._lives_s, loop.time(), None
        while loop.time() < until:
            if taken.is_set():
                yield exception("ResourceInUseException")
                return
            with contextlib.suppress(SourceUnavailableError):
                iterator = iterator or await api.iterator(shard, after, BEGINNING)
                page = await api.get_records(iterator, limit=1000)
                iterator = page.NextShardIterator
                rows = [
                    {
                        "SequenceNumber": record.SequenceNumber,
                        "Data": bytes(record.Data).decode()[1:-1],
                        "PartitionKey": record.PartitionKey,
                        "ApproximateArrivalTimestamp": record.ApproximateArrivalTimestamp,
                    }
                    for record in page.Records
                ]
                after = Position(page.Records[-1].SequenceNumber) if rows else after
                if iterator is None:
                    yield shard_event(rows, children=await _children(api, shard))
                    return
                if rows or loop.time() - said_at >= _QUIET_S:
                    said_at = loop.time()
                    yield shard_event(rows, go_on=after or "0", behind_ms=page.MillisBehindLatest or 0)
            yield b""
            await asyncio.sleep(_POLL_S)


async def _children(api: KinesisApi, shard: ShardId) -> list[str]:
    while True:
        listed = await api.list_shards({"Type": "FROM_TRIM_HORIZON"})
        if found := [one.ShardId for one in listed if shard in (one.ParentShardId, one.AdjacentParentShardId)]:
            return found
        await asyncio.sleep(_POLL_S)


@contextlib.asynccontextmanager
async def fan_out_front(endpoint_url: str, *, lives_s: float = 300.0) -> AsyncIterator[FanOutFront]:
    """Put a front before a server for the length of the block."""
    async with Transport() as transport:
        front = FanOutFront(transport, endpoint_url, lives_s=lives_s)
        async with front.server:
            yield front
