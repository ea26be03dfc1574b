"""What tests of the Kinesis source share: streams made and changed by hand, signed calls, a mapping, a source."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from botocore.credentials import Credentials

from invocation.aws_json import AwsJson
from invocation.signing import AwsCredentials, AwsSigner
from invocation.transport import Transport
from model.ids import MappingId
from model.mapping import EventSourceMapping, KinesisSource, StartingPosition
from pollers.sources import kinesis
from pollers.sources.kinesis_user_records import PLACE_BITS
from tests.support.aws_servers import Lab, aws_client, fresh_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from datetime import datetime

    from pollers.ports import ShardReader


class FixedCredentials:
    """Credentials that never expire. In place of `invocation.signing.AwsCredentials`."""

    async def frozen(self) -> Any:
        """Return them."""
        return Credentials("test", "test")


@contextlib.asynccontextmanager
async def aws_json(endpoint_url: str | None) -> AsyncIterator[AwsJson]:
    """Make signed calls of the Kinesis at an address, or of AWS's."""
    credentials: Any = AwsCredentials() if endpoint_url is None else FixedCredentials()
    async with Transport() as transport:
        yield AwsJson(transport, AwsSigner("kinesis", credentials, endpoint_url=endpoint_url))


class Stream:
    """A stream of a server, changed by AWS's own client. Its methods block: call them in a thread or before a loop."""

    def __init__(self, endpoint_url: str | None, *, shards: int = 1) -> None:
        self.name = fresh_name("stream")
        # AWS allows few looks a second, and five reads of a shard.
        self._look_s, self._read_s = (1.0, 0.3) if endpoint_url is None else (0.02, 0.0)
        self.client = aws_client("kinesis", endpoint_url)
        # A repeated PutRecords writes its records twice: better to fail than to judge the order of such a stream.
        self._writer = aws_client("kinesis", endpoint_url, attempts=1)
        self.client.create_stream(StreamName=self.name, ShardCount=shards)
        try:
            self.settle()
            self.arn: str = self._summary()["StreamARN"]
        except BaseException:
            self.delete()
            raise

    def _summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = self.client.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]
        return summary

    def settle(self, *, within_s: float = 180.0) -> None:
        """Wait until the stream is made or changed."""
        until = time.monotonic() + within_s
        while self._summary()["StreamStatus"] != "ACTIVE":
            assert time.monotonic() < until, "the stream does not become active"
            time.sleep(self._look_s)

    def delete(self) -> None:
        """Delete the stream, without waiting until it is gone."""
        with contextlib.suppress(self.client.exceptions.ResourceNotFoundException):
            self.settle()  # while it changes it cannot be deleted
            self.client.delete_stream(StreamName=self.name, EnforceConsumerDeletion=True)

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
            answer = self._writer.put_records(StreamName=self.name, Records=entries)
            assert not answer["FailedRecordCount"], answer
            placed += [(one["ShardId"], one["SequenceNumber"]) for one in answer["Records"]]
        return placed

    def read(self, shard: str) -> list[tuple[float, bytes]]:
        """Return what a shard holds: (arrival in epoch seconds, data) of each record."""
        place = {"StreamName": self.name, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
        iterator: str | None = self.client.get_shard_iterator(**place)["ShardIterator"]
        held: list[tuple[float, bytes]] = []
        while iterator:
            page = self.client.get_records(ShardIterator=iterator)
            held += [(row["ApproximateArrivalTimestamp"].timestamp(), row["Data"]) for row in page["Records"]]
            if not page["Records"] and not page["MillisBehindLatest"]:
                break
            iterator = page.get("NextShardIterator")
            time.sleep(self._read_s)
        return held

    def register_consumer(self, *, within_s: float = 60.0) -> str:
        """Register a consumer and wait until it may read; returns its ARN."""
        answer = self.client.register_stream_consumer(StreamARN=self.arn, ConsumerName="fast")
        arn: str = answer["Consumer"]["ConsumerARN"]
        until = time.monotonic() + within_s
        while (
            self.client.describe_stream_consumer(ConsumerARN=arn)["ConsumerDescription"]["ConsumerStatus"] != "ACTIVE"
        ):
            assert time.monotonic() < until, "the consumer does not become active"
            time.sleep(self._look_s)
        return arn

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


Streams = Lab[Stream]


def kinesis_mapping(
    arn: str,
    *,
    position: StartingPosition = StartingPosition.TRIM_HORIZON,
    time: datetime | None = None,
    consumer: str | None = None,
    **more: Any,
) -> EventSourceMapping:
    """Make a mapping of a stream, or of a consumer of it."""
    return EventSourceMapping(
        id=MappingId("00000000-0000-4000-8000-00000000000c"),
        name="clicks",
        function_name="f",
        source=KinesisSource(arn, consumer_arn=consumer),
        starting_position=position,
        starting_time=time,
        **more,
    )


@contextlib.asynccontextmanager
async def kinesis_source(
    endpoint_url: str | None, mapping: EventSourceMapping, **options: Any
) -> AsyncIterator[kinesis.KinesisSource]:
    """Open a source for the length of the block."""
    async with aws_json(endpoint_url) as caller:
        source = kinesis.KinesisSource(mapping, caller, **options)
        try:
            yield source
        finally:
            await source.close()


async def read_records(reader: ShardReader, count: int, *, places: bool = False, within_s: float = 30.0) -> list[Any]:
    """Read that many records, checking that positions and records agree; `places`: as a consumer has them."""
    raws: list[Any] = []
    async with asyncio.timeout(within_s):
        while len(raws) < count:
            chunk = await reader.read(500)
            assert chunk is not None
            bits = PLACE_BITS if places else 0
            assert list(chunk.positions) == [int(raw.SequenceNumber) << bits for raw in chunk.raws]
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

    return list(KinesisRecordView().payloads(raws))
