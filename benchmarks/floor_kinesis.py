"""The floor: what the same deliveries cost without any semantics.

    python -m benchmarks.floor_kinesis --endpoint URL --stream ARN --url URL --batch 100 [--keep click]

A loop per shard: GetRecords signed by botocore, sent with aiohttp, its answer parsed by msgspec with the data left as
it came; the event of Kinesis mappings made in one go; a POST; on uvloop, one batch in flight per shard, five calls a
second as AWS allows. No leases, checkpoints, retries, fencing, back-pressure or metrics, and no resharding.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import botocore.session
import msgspec
import orjson
import uvloop
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from benchmarks.command_line import KINESIS, reader

if TYPE_CHECKING:
    import argparse

_PAUSE_S = 0.2
_HEADERS = {"Content-Type": "application/json"}
_decode_data = msgspec.json.Decoder(bytes).decode


class _Shown(msgspec.Struct, gc=False, rename="camel"):
    kinesis_schema_version: str
    partition_key: str
    sequence_number: str
    data: msgspec.Raw
    approximate_arrival_timestamp: float


class _EventRecord(msgspec.Struct, gc=False):
    kinesis: _Shown
    eventSource: str  # noqa: N815  # AWS's names, also below
    eventVersion: str  # noqa: N815
    eventID: str  # noqa: N815
    eventName: str  # noqa: N815
    invokeIdentityArn: str  # noqa: N815
    awsRegion: str  # noqa: N815
    eventSourceARN: str  # noqa: N815


class _Record(msgspec.Struct, gc=False):
    SequenceNumber: str
    Data: msgspec.Raw
    PartitionKey: str
    ApproximateArrivalTimestamp: float


class _Page(msgspec.Struct):
    Records: list[_Record]
    NextShardIterator: str | None = None


class Stream:
    """The stream's calls."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: str, arn: str) -> None:
        self.arn = arn
        self.region = arn.split(":")[3]
        self.role = f"arn:aws:iam::{arn.split(':')[4]}:role/floor"
        self._session = session
        self._endpoint = endpoint
        self._signer = SigV4Auth(botocore.session.get_session().get_credentials(), "kinesis", self.region)
        self._encode = msgspec.json.Encoder().encode

    async def call(self, operation: str, **request: Any) -> bytes:
        """Make a signed call."""
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"Kinesis_20131202.{operation}"}
        body = self._encode({"StreamARN": self.arn, **request})
        made = AWSRequest("POST", f"{self._endpoint}/", headers=headers, data=body)
        self._signer.add_auth(made)
        async with self._session.post(self._endpoint, data=body, headers=dict(made.headers.items())) as response:
            answer = await response.read()
            if response.status != 200:
                raise SystemExit(f"{operation}: {response.status} {answer[:500]!r}")
            return answer

    def event(self, shard: str, records: list[_Record]) -> bytes:
        """Make the event of one batch."""
        region, role, arn = self.region, self.role, self.arn
        shown = [
            _EventRecord(
                _Shown(
                    "1.0",
                    record.PartitionKey,
                    record.SequenceNumber,
                    record.Data,
                    record.ApproximateArrivalTimestamp,
                ),
                "aws:kinesis",
                "1.0",
                f"{shard}:{record.SequenceNumber}",
                "aws:kinesis:record",
                role,
                region,
                arn,
            )
            for record in records
        ]
        return self._encode({"Records": shown})


async def read(stream: Stream, shard: str, session: aiohttp.ClientSession, arguments: argparse.Namespace) -> None:
    """Read a shard, make, post; for ever."""
    loop, size, keep = asyncio.get_running_loop(), arguments.batch, arguments.keep
    decode, decode_page = orjson.loads, msgspec.json.Decoder(_Page).decode
    answer = await stream.call("GetShardIterator", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    iterator = decode(answer)["ShardIterator"]
    while iterator:
        due_at = loop.time() + _PAUSE_S
        page = decode_page(await stream.call("GetRecords", ShardIterator=iterator, Limit=10_000))
        iterator, records = page.NextShardIterator, page.Records
        if keep is not None:
            records = [record for record in records if decode(_decode_data(record.Data))["type"] == keep]
        for at in range(0, len(records), size):
            async with session.post(
                arguments.url, data=stream.event(shard, records[at : at + size]), headers=_HEADERS
            ) as response:
                await response.read()
        await asyncio.sleep(max(0.0, due_at - loop.time()))


async def run(arguments: argparse.Namespace) -> None:
    """Read every shard."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        stream = Stream(session, arguments.endpoint, arguments.stream)
        shards = msgspec.json.decode(await stream.call("ListShards"))["Shards"]
        print("ready", flush=True)
        async with asyncio.TaskGroup() as tasks:
            for shard in shards:
                tasks.create_task(read(stream, shard["ShardId"], session, arguments))


def main() -> None:
    """Run as a program."""
    uvloop.run(run(reader("Delivers a stream's records without any semantics.", KINESIS, filters=True).parse_args()))


if __name__ == "__main__":
    main()
