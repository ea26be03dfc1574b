"""The plain way: a `get_records` loop as aioboto3 users write it.

    python -m benchmarks.peers.aioboto3_kinesis.loop --endpoint URL --stream ARN --url URL --batch 100 [--keep click]

A loop per shard with AWS's client model, the event as dicts through the standard library's `json`, a POST with aiohttp;
one batch in flight per shard, five calls a second as AWS allows. Nothing that a node promises, and nothing made fast.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import aioboto3
import aiohttp

from benchmarks.command_line import KINESIS, reader
from benchmarks.peers.by_hand import kept

if TYPE_CHECKING:
    import argparse

_PAUSE_S = 0.2
_LIMIT = 1_000  # the eight shards' five calls give more than it can take; larger pages only make it jerk
_HEADERS = {"Content-Type": "application/json"}


def event(arn: str, shard: str, records: list[dict[str, Any]]) -> bytes:
    """Make the event of one batch."""
    _, _, _, region, account, _ = arn.split(":", 5)
    shown = [
        {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": record["PartitionKey"],
                "sequenceNumber": record["SequenceNumber"],
                "data": base64.b64encode(record["Data"]).decode(),
                "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"{shard}:{record['SequenceNumber']}",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": f"arn:aws:iam::{account}:role/plain",
            "awsRegion": region,
            "eventSourceARN": arn,
        }
        for record in records
    ]
    return json.dumps({"Records": shown}).encode()


async def read(kinesis: Any, shard: str, session: aiohttp.ClientSession, arguments: argparse.Namespace) -> None:
    """Read a shard, make, post; for ever."""
    loop, size, keep = asyncio.get_running_loop(), arguments.batch, arguments.keep
    answer = await kinesis.get_shard_iterator(
        StreamARN=arguments.stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )
    iterator = answer["ShardIterator"]
    while iterator:
        due_at = loop.time() + _PAUSE_S
        page = await kinesis.get_records(StreamARN=arguments.stream, ShardIterator=iterator, Limit=_LIMIT)
        iterator, records = page.get("NextShardIterator"), page["Records"]
        if keep is not None:
            records = [record for record in records if kept(record["Data"], keep)]
        for at in range(0, len(records), size):
            body = event(arguments.stream, shard, records[at : at + size])
            async with session.post(arguments.url, data=body, headers=_HEADERS) as response:
                await response.read()
        await asyncio.sleep(max(0.0, due_at - loop.time()))


async def run(arguments: argparse.Namespace) -> None:
    """Read every shard."""
    async with (
        aiohttp.ClientSession() as session,
        aioboto3.Session().client("kinesis", endpoint_url=arguments.endpoint) as kinesis,
    ):
        shards = (await kinesis.list_shards(StreamARN=arguments.stream))["Shards"]
        print("ready", flush=True)
        async with asyncio.TaskGroup() as tasks:
            for shard in shards:
                tasks.create_task(read(kinesis, shard["ShardId"], session, arguments))


def main() -> None:
    """Run as a program."""
    asyncio.run(
        run(reader("Delivers a stream's records as a simple program does.", KINESIS, filters=True).parse_args())
    )


if __name__ == "__main__":
    main()
