r"""A loop of getmany, POST and commit as aiokafka users write it.

    python -m benchmarks.peers.aiokafka.loop --servers HOST:PORT --topic TOPIC --url URL --batch 100 \
        [--keep click]

One batch in flight; its offsets are committed when the function has answered. A failed POST ends it.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import aiohttp
from aiokafka import AIOKafkaConsumer

from benchmarks.command_line import KAFKA, reader
from benchmarks.peers.aiokafka.event import event
from benchmarks.peers.by_hand import kept

if TYPE_CHECKING:
    import argparse

_HEADERS = {"Content-Type": "application/json"}


async def run(arguments: argparse.Namespace) -> None:
    """Read, make, post, commit; for ever."""
    keep = arguments.keep
    consumer = AIOKafkaConsumer(
        arguments.topic,
        bootstrap_servers=arguments.servers,
        group_id=f"peer-{uuid.uuid4().hex}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        async with aiohttp.ClientSession(headers=_HEADERS, raise_for_status=True) as session:
            while True:
                found = await consumer.getmany(timeout_ms=500, max_records=arguments.batch)
                records = [record for several in found.values() for record in several]
                if keep is not None:
                    records = [record for record in records if kept(record.value, keep)]
                if not records:
                    continue
                async with session.post(arguments.url, data=event(arguments.servers, records)) as response:
                    await response.read()
                await consumer.commit()
    finally:
        await consumer.stop()


def main() -> None:
    """Run as a program."""
    asyncio.run(run(reader("Delivers a topic's records as a simple program does.", KAFKA, filters=True).parse_args()))


if __name__ == "__main__":
    main()
