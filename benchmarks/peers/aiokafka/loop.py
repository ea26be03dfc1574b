"""A loop of getmany, POST and commit as aiokafka users write it.

    python -m benchmarks.peers.aiokafka.loop --servers HOST:PORT --topic TOPIC --url URL --batch 100 [--keep click]

One batch in flight; its offsets are committed when the function has answered. A failed POST ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import uuid

import aiohttp
from aiokafka import AIOKafkaConsumer

from benchmarks.peers.aiokafka.event import event

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
                if not found:
                    continue
                records = [record for several in found.values() for record in several]
                if keep is not None:
                    records = [record for record in records if json.loads(record.value)["type"] == keep]
                if records:
                    async with session.post(arguments.url, data=event(arguments.servers, records)) as response:
                        await response.read()
                await consumer.commit()
    finally:
        await consumer.stop()


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Delivers a topic's records as a simple program does.")
    parser.add_argument("--servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--keep", help="deliver only records of this type")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
