"""FastStream on confluent-kafka: a batch subscriber that posts what it is given.

    python -m benchmarks.peers.faststream_confluent.loop --servers HOST:PORT --topic TOPIC --url URL --batch 100

FastStream commits when the subscriber returns, and goes back when it raises. Its log of each message is turned off.
"""

from __future__ import annotations

import argparse
import json
import uuid

import aiohttp
import uvloop
from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker, KafkaMessage

from benchmarks.peers.confluent_kafka.event import event

_HEADERS = {"Content-Type": "application/json"}


async def run(arguments: argparse.Namespace) -> None:
    """Subscribe and serve; for ever."""
    keep = arguments.keep
    broker = KafkaBroker(arguments.servers, logger=None)
    async with aiohttp.ClientSession(headers=_HEADERS, raise_for_status=True) as session:

        @broker.subscriber(  # type: ignore[untyped-decorator]
            arguments.topic,
            group_id=f"peer-{uuid.uuid4().hex}",
            auto_offset_reset="earliest",
            batch=True,
            max_records=arguments.batch,
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )
        async def deliver(message: KafkaMessage) -> None:
            records = message.raw_message
            if keep is not None:
                records = [record for record in records if json.loads(record.value())["type"] == keep]
            if records:
                async with session.post(arguments.url, data=event(arguments.servers, records)) as response:
                    await response.read()

        await FastStream(broker, logger=None).run()


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Delivers a topic's records with FastStream.")
    parser.add_argument("--servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--keep", help="deliver only records of this type")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
