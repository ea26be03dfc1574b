"""Makes the demo's Kinesis stream and produces clicks to it, and holds back while too much is undelivered.

The embedded services keep 10,000 records per shard and drop what is older, read or not: a backlog must stay below.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from invocation.aws_json import AwsJson, aws_error
from invocation.classify import Answer
from invocation.signing import LocalSigner
from invocation.transport import Transport
from model.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from node.demo.clicks import Clicks

MOST_BEHIND = 2000  # records of all shards
_EVERY_S = 0.1
_MOST_PER_CALL = 250
_CALL_S = 15.0  # the first one waits until the services are loaded
_ANSWER_BYTES = 1024 * 1024
_OK = 200


class ClickStream:
    """Sends clicks to a stream until told to stop. One call at a time: what comes of more is not told by moto."""

    def __init__(self, clicks: Clicks, stream_arn: str, *, rate: int) -> None:
        self._clicks = clicks
        self._arn = stream_arn
        self._region = stream_arn.split(":")[3]
        self._rate = rate
        self._stopping = asyncio.Event()
        self.produced = 0

    def stop(self) -> None:
        """Produce no more."""
        self._stopping.set()

    async def create(self, endpoint_url: str, *, shards: int) -> None:
        """Make the stream. Raises `UnavailableError`."""
        name = self._arn.rpartition("/")[2]
        async with Transport() as transport:
            await self._call(self._calls(transport, endpoint_url), "CreateStream", StreamName=name, ShardCount=shards)

    async def run(self, endpoint_url: str, *, behind: Callable[[], int]) -> None:
        """Produce until stopped; all is in the stream then. Raises `UnavailableError`."""
        loop = asyncio.get_running_loop()
        async with Transport() as transport:
            calls = self._calls(transport, endpoint_url)
            produced_to = loop.time()
            while not self._stopping.is_set():
                now = loop.time()
                due = min(int((now - produced_to) * self._rate), _MOST_PER_CALL)
                # A pause of the loop must not make all that it cost come at once.
                produced_to = max(produced_to + due / self._rate, now - 1 / self._rate - _EVERY_S)
                if due and behind() < MOST_BEHIND:
                    click_time = datetime.now(UTC).isoformat(timespec="milliseconds")
                    events = [self._clicks.event(click_time) for _ in range(due)]
                    records = [{"PartitionKey": event.key, "Data": b64encode(event.data).decode()} for event in events]
                    await self._call(calls, "PutRecords", StreamARN=self._arn, Records=records)
                    self.produced += due
                try:
                    async with asyncio.timeout(_EVERY_S):
                        await self._stopping.wait()
                except TimeoutError:
                    continue

    def _calls(self, transport: Transport, endpoint_url: str) -> AwsJson:
        return AwsJson(transport, LocalSigner("kinesis", endpoint_url, region=self._region))

    async def _call(self, calls: AwsJson, operation: str, **request: Any) -> None:
        came = await calls.call(
            self._region,
            f"Kinesis_20131202.{operation}",
            msgspec.json.encode(request),
            timeout_s=_CALL_S,
            max_answer_bytes=_ANSWER_BYTES,
        )
        if not isinstance(came, Answer):
            raise UnavailableError(f"the embedded Kinesis: {operation}: {came.kind.name.lower()}")
        if came.status != _OK:
            error = aws_error(came)
            raise UnavailableError(f"the embedded Kinesis: {operation}: {error.code}: {error.message}")
