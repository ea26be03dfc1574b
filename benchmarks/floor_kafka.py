"""The floor: what the same deliveries cost without any semantics.

    python -m benchmarks.floor_kafka --servers HOST:PORT --topic TOPIC --url URL --batch 100 [--keep click]

aiokafka's `getmany` over all partitions, the event of Kafka mappings made with msgspec, a POST with aiohttp on uvloop,
one batch in flight per partition; with `--keep` orjson and a comparison. No leases, checkpoints, retries, fencing,
back-pressure or metrics. It is the shortest script we know to be fast; what a node uses beyond it is the price of what
a node promises.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer

from benchmarks.command_line import KAFKA, reader

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from aiokafka import TopicPartition

_TIMESTAMP_TYPES = {0: "CREATE_TIME", 1: "LOG_APPEND_TIME"}
_HEADERS = {"Content-Type": "application/json"}


class KafkaRecord(msgspec.Struct, gc=False, omit_defaults=True):
    """One record as the event shows it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestampType: str  # noqa: N815  # AWS's name
    headers: list[dict[str, list[int]]]
    key: bytes | None = None
    value: bytes | None = None


def event(encode: Any, servers: str, partition: TopicPartition, records: Sequence[Any]) -> bytes:
    """Make the event of one batch."""
    shown = [
        KafkaRecord(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            _TIMESTAMP_TYPES[record.timestamp_type],
            [{name: list(memoryview(value).cast("b"))} for name, value in record.headers],
            record.key,
            record.value,
        )
        for record in records
    ]
    made: bytes = encode(
        {
            "eventSource": "SelfManagedKafka",
            "bootstrapServers": servers,
            "records": {f"{partition.topic}-{partition.partition}": shown},
        }
    )
    return made


async def run(arguments: argparse.Namespace) -> None:
    """Read, make, post; for ever."""
    encode, decode, keep = msgspec.json.Encoder().encode, orjson.loads, arguments.keep
    size = arguments.batch
    consumer = AIOKafkaConsumer(  # without a group it reads every partition
        arguments.topic, bootstrap_servers=arguments.servers, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers=_HEADERS, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:

            async def deliver(partition: TopicPartition, records: Sequence[Any]) -> None:
                if keep is not None:
                    records = [record for record in records if decode(record.value)["type"] == keep]
                for at in range(0, len(records), size):
                    body = event(encode, arguments.servers, partition, records[at : at + size])
                    async with session.post(arguments.url, data=body) as response:
                        await response.read()

            print("ready", flush=True)
            while True:
                found = await consumer.getmany(timeout_ms=500)
                async with asyncio.TaskGroup() as tasks:
                    for partition, records in found.items():
                        tasks.create_task(deliver(partition, records))
    finally:
        await consumer.stop()


def main() -> None:
    """Run as a program."""
    uvloop.run(run(reader("Delivers a topic's records without any semantics.", KAFKA, filters=True).parse_args()))


if __name__ == "__main__":
    main()
