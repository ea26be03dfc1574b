"""What tests of the Kinesis source share: streams made and changed by hand, signed calls, a mapping, a source."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials

from invocation.aws_json import AwsJson
from invocation.signing import AwsSigner
from invocation.transport import Transport
from model.ids import MappingId
from model.mapping import EventSourceMapping, KinesisSource, StartingPosition
from pollers.sources import kinesis
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from datetime import datetime

    from pollers.ports import ShardReader

REGION = "us-east-1"
HASHES = 2**128


class FixedCredentials:
    """Credentials that never expire. In place of `invocation.signing.AwsCredentials`."""

    async def frozen(self) -> Any:
        """Return them."""
        return Credentials("test", "test")


@contextlib.asynccontextmanager
async def aws_json(endpoint_url: str) -> AsyncIterator[AwsJson]:
    """Make signed calls of the Kinesis at an address."""
    credentials: Any = FixedCredentials()
    async with Transport() as transport:
        yield AwsJson(transport, AwsSigner("kinesis", credentials, endpoint_url=endpoint_url))


class Stream:
    """A stream of a server, changed by AWS's own client. Its methods block: call them in a thread or before a loop."""

    def __init__(self, endpoint_url: str, *, shards: int = 1) -> None:
        self.name = unique_name("stream")
        self.client: Any = botocore.session.get_session().create_client(
            "kinesis",
            region_name=REGION,
            endpoint_url=endpoint_url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            # A repeated PutRecords writes its records twice: better to fail than to judge the order of such a stream.
            config=Config(retries={"total_max_attempts": 1}),
        )
        self.client.create_stream(StreamName=self.name, ShardCount=shards)
        self.settle()
        self.arn: str = self._summary()["StreamARN"]

    def _summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = self.client.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]
        return summary

    def settle(self, *, within_s: float = 30.0) -> None:
        """Wait until the stream is made or changed."""
        until = time.monotonic() + within_s
        while self._summary()["StreamStatus"] != "ACTIVE":
            assert time.monotonic() < until, "the stream does not become active"
            time.sleep(0.02)

    def make_anew(self) -> None:
        """Delete the stream and make another one of its name."""
        self.client.delete_stream(StreamName=self.name)
        self.client.get_waiter("stream_not_exists").wait(
            StreamName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
        )
        self.client.create_stream(StreamName=self.name, ShardCount=1)
        self.settle()

    def put(self, records: Iterable[tuple[str, bytes]]) -> list[tuple[str, str]]:
        """Write records of (partition key, data), in order per key; returns (shard, sequence number) of each."""
        placed: list[tuple[str, str]] = []
        batch = list(records)
        for first in range(0, len(batch), 500):
            entries = [{"PartitionKey": key, "Data": data} for key, data in batch[first : first + 500]]
            answer = self.client.put_records(StreamName=self.name, Records=entries)
            assert not answer["FailedRecordCount"], answer
            placed += [(one["ShardId"], one["SequenceNumber"]) for one in answer["Records"]]
        return placed

    def shards(self) -> list[dict[str, Any]]:
        """List all shards."""
        # Not by botocore's paginator: it repeats the stream's name beside the token, which Kinesis refuses.
        page = self.client.list_shards(StreamName=self.name)
        listed: list[dict[str, Any]] = page["Shards"]
        while page.get("NextToken"):
            page = self.client.list_shards(NextToken=page["NextToken"])
            listed += page["Shards"]
        return listed

    def open_shards(self) -> list[dict[str, Any]]:
        """List the open ones, by hash key."""
        found = [shard for shard in self.shards() if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
        return sorted(found, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))

    def split(self, shard: dict[str, Any]) -> None:
        """Split a shard in its middle."""
        low, high = (int(shard["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
        self.client.split_shard(
            StreamName=self.name, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((low + high) // 2 + 1)
        )
        self.settle()

    def merge(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        """Merge two neighbours."""
        self.client.merge_shards(
            StreamName=self.name, ShardToMerge=one["ShardId"], AdjacentShardToMerge=other["ShardId"]
        )
        self.settle()


def kinesis_mapping(
    arn: str, *, position: StartingPosition = StartingPosition.TRIM_HORIZON, time: datetime | None = None, **more: Any
) -> EventSourceMapping:
    """Make a mapping of a stream."""
    return EventSourceMapping(
        id=MappingId("00000000-0000-4000-8000-00000000000c"),
        name="clicks",
        function_name="f",
        source=KinesisSource(arn),
        starting_position=position,
        starting_time=time,
        **more,
    )


@contextlib.asynccontextmanager
async def kinesis_source(
    endpoint_url: str, mapping: EventSourceMapping, **options: Any
) -> AsyncIterator[kinesis.KinesisSource]:
    """Open a source for the length of the block."""
    async with aws_json(endpoint_url) as caller:
        source = kinesis.KinesisSource(mapping, caller, **options)
        try:
            yield source
        finally:
            await source.close()


async def read_records(reader: ShardReader, count: int, *, within_s: float = 30.0) -> list[Any]:
    """Read that many records, checking that positions and records agree."""
    raws: list[Any] = []
    async with asyncio.timeout(within_s):
        while len(raws) < count:
            chunk = await reader.read(500)
            assert chunk is not None
            assert chunk.positions == [int(raw.SequenceNumber) for raw in chunk.raws]
            raws += chunk.raws
    return raws


async def read_out(reader: ShardReader, *, within_s: float = 30.0) -> list[Any]:
    """Read a closed shard to its end."""
    raws: list[Any] = []
    async with asyncio.timeout(within_s):
        while (chunk := await reader.read(500)) is not None:
            raws += chunk.raws
    return raws


def datas(raws: Sequence[Any]) -> list[bytes]:
    """Return what the producer wrote."""
    from pollers.sources.kinesis_envelope import KinesisRecordView  # noqa: PLC0415 - most tests need no view

    view = KinesisRecordView()
    return [view.data(raw) or b"" for raw in raws]
